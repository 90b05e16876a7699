"""The learning rate of each step, by hand."""

import math

import pytest

from raycib.config import TrainerSpec
from raycib.training.slot import learning_rate

HALF = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("schedule", "warmup", "steps", "rates"),
    [
        ("constant", 2, 6, [0.5, 1, 1, 1, 1, 1]),
        ("linear", 2, 6, [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", 2, 6, [0.5, 1, 1, (1 + HALF) / 2, 0.5, (1 - HALF) / 2]),
        ("linear", 0, 4, [1, 0.75, 0.5, 0.25]),
        pytest.param("linear", 4, 2, [0.25, 0.5], id="a warm-up that does not end"),
        pytest.param("cosine", 1, 1, [1], id="a warm-up and no more"),
    ],
)
def test_a_rate_rises_to_its_whole_and_falls_towards_nothing(schedule, warmup, steps, rates):
    """The first step of a warm-up of n has a share of 1 / n; after it the first step has all, and
    the step that would follow the last one none."""
    trainer = TrainerSpec(learning_rate=0.2, schedule=schedule, warmup_steps=warmup)
    found = [learning_rate(trainer, step, steps) for step in range(steps)]
    assert found == pytest.approx([0.2 * rate for rate in rates])
