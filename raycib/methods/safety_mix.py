"""A few refusals among the task's rows (Safety-Tuned LLaMAs)."""

import torch

from raycib.data.chat import Encoded
from raycib.methods.method import Rows
from raycib.randomness import generator
from raycib.spec import SafetyMix


def safety_mix(options: SafetyMix) -> Rows:
    """The task's rows and `share` times as many safety rows, drawn without repetition as long as
    there are new ones; the order of training mixes them."""

    def mix(task: list[Encoded], safety: list[Encoded], seed: int) -> list[Encoded]:
        count = options.rows_trained(len(task)) - len(task)
        drawn: list[int] = []
        while len(drawn) < count:
            again = generator(seed, "safety mix", len(drawn))
            drawn += torch.randperm(len(safety), generator=again).tolist()
        return [*task, *(safety[i] for i in drawn[:count])]

    return mix
