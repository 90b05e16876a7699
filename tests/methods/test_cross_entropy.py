"""Cross-entropy: the mean over the response tokens of a whole batch, however it is cut."""

import pytest
import tiny
import torch
from torch import Tensor
from torch.nn import functional as F

from raycib.data.chat import Encoded
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.models.group_step import GroupStep
from raycib.models.step import steps_of
from raycib.models.tensors import Totals, collate, together
from raycib.objectives.cross_entropy import CrossEntropy


@pytest.fixture(scope="module")
def adapters(tiny_folder) -> AdapterSlots:
    """One slot of a LoRA that does something, on the tiny model."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder / "model")
    made = AdapterSlots(model.eval(), [LoRAShape(4, 8.0, ("q_proj", "down_proj"))])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters_of(0).values():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made


DATA = [
    Encoded((2, 3, 4), (5, 6)),
    Encoded((9,), (8, 7, 6, 5, 4)),
    Encoded((1, 2, 3, 4, 5, 6), (7,)),
    Encoded((11, 12), (13, 14, 15)),
]
TOTALS = Totals(rows=4, tokens=11)


def task_loss(adapters: AdapterSlots, chosen: list[int]) -> Tensor:
    step = steps_of(GroupStep(adapters, *together({0: collate(DATA, chosen)}), {0: TOTALS}, {}))[0]
    return CrossEntropy()(step)["task"].value


def test_cross_entropy_is_the_mean_over_the_response_tokens_of_the_whole_batch(adapters):
    """torch's own, over all 2 + 5 + 1 + 3 = 11 response tokens of the four rows."""
    batch = collate(DATA, range(4))
    logits = adapters.model(batch.ids).logits
    labels = batch.labels[:, 1:].reshape(-1)
    whole = F.cross_entropy(logits[:, :-1].reshape(len(labels), -1), labels, ignore_index=-100)
    assert int((labels >= 0).sum()) == 11
    torch.testing.assert_close(task_loss(adapters, [0, 1, 2, 3]), whole)


@pytest.mark.parametrize("micro", [[[0], [1], [2], [3]], [[3, 1], [0, 2]], [[1], [0, 2, 3]]])
def test_shares_of_micro_batches_add_up_to_it(adapters, micro: list[list[int]]):
    """Though their rows have 1 to 5 tokens: no mean of means."""
    parts = sum(task_loss(adapters, chosen) for chosen in micro)
    torch.testing.assert_close(parts, task_loss(adapters, [0, 1, 2, 3]))


def test_prompts_are_not_scored(adapters):
    """Another prompt token changes what the response is conditioned on and no label."""
    batch = collate(DATA, [0])
    step = steps_of(GroupStep(adapters, *together({0: batch}), {0: TOTALS}, {}))[0]
    assert (step.nll[0, :3] == 0).all()
    assert (step.nll[0, 3:] > 0).all()
    assert tiny.WORDS  # the tiny vocabulary covers the ids used here
    torch.testing.assert_close(step.row_loss, step.nll.sum(dim=1) / 2)
