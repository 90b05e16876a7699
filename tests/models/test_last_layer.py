"""The last layer where it is read: the same numbers as in a pass that makes every token's state."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from architectures import READ, WORDS, random_model
from costs import counter
from torch import Tensor

from raycib.config import Pooling
from raycib.data.chat import Encoded
from raycib.methods.cib import CIB
from raycib.model_files.packing import narrows
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.models.decoder import Hidden, attention_blocks, hidden_states
from raycib.models.group_step import GroupStep
from raycib.models.last_layer import last_layer_at
from raycib.models.step import Step, steps_of
from raycib.models.tensors import Totals, collate, together
from raycib.objectives import Sum
from raycib.objectives.cib import ContrastiveBottleneck
from raycib.objectives.cross_entropy import CrossEntropy
from raycib.objectives.kl import ReferenceDivergence

PLACES = torch.tensor([3, 4, 5, 6, 9, 10, 11, 17, 20])
"""Of three rows of seven tokens: four of the first, three of the second, two of the third."""
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
POOLED: list[Pooling] = ["mean_response", "last_prompt_token", "last_token"]
DATA = [Encoded((5, 6, 7), (8, 9)), Encoded((1,), (2, 3, 4)), Encoded((4, 3, 2, 9, 9, 9), (6,))]


def narrow(model: Any, ids: Tensor) -> Hidden:
    with last_layer_at(model, PLACES, nullcontext):
        return Hidden(*(states[0] for states in hidden_states(model, ids)))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", READ)
def test_states_and_gradients_are_those_of_a_whole_pass(name: str, attention: str):
    """In every architecture that trains so, with a hook on attention seen once, by every token."""
    model, ids = random_model(name, attention), torch.randint(3, WORDS, (3, 7))
    if not narrows(model.config.model_type):
        return
    weights = [one for one in model.get_decoder().parameters() if one.dim() > 1]
    seen: list[int] = []
    attention_blocks(model)[-1].register_forward_hook(lambda *call: seen.append(call[2][0].numel()))
    own = narrow(model, ids)
    whole = [states.flatten(0, 1)[PLACES] for states in hidden_states(model, ids)]
    assert seen == [3 * 7 * 32] * 2
    slopes = []
    for states in (own, whole):
        assert states[0].shape == (len(PLACES), 32)
        loss = torch.stack([(one * torch.arange(32)).sum() for one in states]).sum()
        slopes.append(torch.autograd.grad(loss, weights, allow_unused=True))
    for found, expected in zip([*own], whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for found, expected in zip(*slopes, strict=True):
        if expected is not None:
            assert (found - expected).norm() <= 1e-5 * expected.norm()
    assert torch.equal(hidden_states(model, ids).final_norm.flatten(0, 1)[PLACES], whole[0])


@pytest.fixture(scope="module")
def adapters() -> AdapterSlots:
    """Two slots, both doing something, on a model with rows of a length and of several."""
    made = AdapterSlots(random_model("Llama"), [LoRAShape(4, 8.0, TARGETS)] * 2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for slot in range(2):
            for parameter in made.parameters_of(slot).values():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made


def steps(adapters: AdapterSlots, packed: bool, reads_prompts: bool) -> list[Step]:
    batches = {slot: collate(DATA, rows) for slot, rows in enumerate([[0, 1, 2], [2, 0]])}
    totals = dict.fromkeys(batches, Totals(5, 10))
    group = GroupStep(
        adapters,
        *together(batches),
        totals,
        {},
        packed=packed,
        reads_prompts=reads_prompts,
        stacked=True,
    )
    return list(steps_of(group).values())


def readings(step: Step) -> list[Tensor]:
    own = [step.nll, step.row_loss, step.states("response_states")]
    own += [step.pooled(how, "before_norm") for how in POOLED]
    aligned = [step.reference(how, "final_norm") for how in POOLED]
    return own + aligned + [step.reference_tokens("response_nll")]


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_a_step_reads_the_same(adapters: AdapterSlots, packed: bool, checkpointed: bool):
    """Every reading of every slot, of the trained and of the aligned model, and the gradients."""
    found, slopes = [], []
    for reads_prompts in (True, False):
        for slot in (0, 1):
            adapters.begin(slot)
        adapters.checkpointed = checkpointed and not reads_prompts
        own = [one for step in steps(adapters, packed, reads_prompts) for one in readings(step)]
        losses = [one.square().sum() for one in own if one.requires_grad]
        adapters.backward(torch.stack(losses).sum())
        adapters.checkpointed = False
        slopes.append(
            [
                torch.clone(grad)
                for slot in (0, 1)
                if (grad := adapters.trained(slot)[0].grad) is not None
            ]
        )
        found.append(own)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
    for whole, own in zip(*slopes, strict=True):
        assert whole.norm() > 0
        assert (own - whole).norm() <= 1e-5 * whole.norm()


@pytest.mark.parametrize("what", ["mean_all", "all_states"])
def test_states_that_were_not_made_are_not_read(adapters: AdapterSlots, what: Any):
    step = steps(adapters, False, False)[0]
    with pytest.raises(RuntimeError, match=f"'{what}' reads states of prompts, which were not"):
        step.pooled(what, "final_norm") if what == "mean_all" else step.states(what)


def test_an_objective_that_reads_prompts_says_so():
    """And so does a sum with it: the loop asks."""
    poolings: list[tuple[Pooling, bool]] = [(how, False) for how in POOLED] + [("mean_all", True)]
    for pooling, reads in poolings:
        assert ContrastiveBottleneck(CIB(pooling=pooling), 32).reads_prompts == reads
    own, every = (ReferenceDivergence(1.0, "forward", which) for which in ("response", "all"))
    assert not Sum([CrossEntropy(), own]).reads_prompts
    assert Sum([CrossEntropy(), every]).reads_prompts


def test_prompts_do_not_go_beyond_the_last_attention(adapters: AdapterSlots):
    """Of rows with a last prompt token and 2, 3, 1, 1 and 2 of a response, 14 of 35 places: gate,
    up and down of the last layer, with their adapters of rank 4, run on no more."""

    def cost(reads_prompts: bool) -> int:
        group = steps(adapters, False, reads_prompts)
        with counter() as counted, torch.no_grad():
            torch.stack([step.nll.sum() for step in group])
        return counted.get_total_flops()

    inner = 3 * 32 * 48 + 4 * 3 * (32 + 48)
    assert cost(True) - cost(False) == 2 * inner * (35 - 14)
