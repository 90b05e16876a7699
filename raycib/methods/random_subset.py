"""Training on a random part of the task ("Random" of the CIB paper).

Deviations from the paper: it says no more than "random sample selection". Of the readings, replay
of old samples and random negatives do not fit its own figures; a subset does.
"""

import torch

from raycib.data.chat import Encoded
from raycib.methods.method import Rows
from raycib.randomness import generator
from raycib.spec import RandomSubset


def random_subset(options: RandomSubset) -> Rows:
    """A subset that is a pure function of the seed and the number of rows, in the task's order."""

    def choose(task: list[Encoded], safety: list[Encoded], seed: int) -> list[Encoded]:
        count = options.rows_trained(len(task))
        drawn = torch.randperm(len(task), generator=generator(seed, "subset"))[:count]
        return [task[i] for i in drawn.sort().values.tolist()]

    return choose
