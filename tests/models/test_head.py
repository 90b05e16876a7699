"""The output head in chunks: torch's own loss of all logits at once, in value and gradient."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from costs import counter
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig

from raycib.data.chat import Encoded
from raycib.models import head
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.models.group_step import GroupStep
from raycib.models.head import token_loss, with_logits
from raycib.models.tensors import Totals, collate, together
from raycib.objectives.kl import divergence

WORDS, DIM, TOKENS = 40, 6, 11
SIZES = {
    "vocab_size": WORDS, "hidden_size": DIM, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 6, "pad_token_id": 0,
}  # fmt: skip
CAP = 0.05
"""So low that Gemma's logits are bent all over."""


def model_of(name: str) -> Any:
    configs = {"Llama": LlamaConfig, "Gemma2": Gemma2Config}
    more: dict[str, Any] = {"final_logit_softcapping": CAP} if name == "Gemma2" else {}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(configs[name](**SIZES, **more)).requires_grad_(False)


def plain(model: Any, states: Tensor, labels: Tensor) -> Tensor:
    """Torch's loss of all tokens' logits."""
    logits = F.linear(states, model.get_output_embeddings().weight)
    if model.config.model_type == "gemma2":
        logits = CAP * torch.tanh(logits / CAP)
    return F.cross_entropy(logits, labels, reduction="none")


def gradient(loss: Callable[..., Tensor], *given: Any) -> tuple[Tensor, Tensor]:
    """Values, and the gradient of their sum with a weight that differs from token to token."""
    states = torch.randn(TOKENS, DIM, generator=torch.Generator().manual_seed(1)).requires_grad_()
    values = loss(given[0], states, *given[1:])
    values.backward(torch.arange(float(TOKENS)))
    assert states.grad is not None
    return values.detach(), states.grad


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda tokens: monkeypatch.setattr(head, "LOGITS_AT_ONCE", WORDS * tokens)


@pytest.mark.parametrize("name", ["Llama", "Gemma2"])
@pytest.mark.parametrize("tokens", [1, 3, 10, 11, 100])
def test_a_loss_in_chunks_is_torchs_of_all_logits(
    name: str, tokens: int, few_at_once: Callable[[int], None]
):
    few_at_once(tokens)
    model, labels = model_of(name), torch.randint(0, WORDS, (TOKENS,))
    for found, expected in zip(
        gradient(token_loss, model, labels), gradient(plain, model, labels), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_a_divergence_in_chunks_is_that_of_all_logits(few_at_once: Callable[[int], None]):
    """Of both models' logits: gradients reach the own states alone."""
    model, reference = model_of("Llama"), torch.randn(TOKENS, DIM)

    def of(model: Any, states: Tensor) -> Tensor:
        return with_logits(
            model, lambda to, own, other: divergence(to(own), to(other)), states, reference
        )

    whole = gradient(of, model)
    few_at_once(4)
    for found, expected in zip(gradient(of, model), whole, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("trained", [False, True])
def test_a_frozen_heads_logits_are_made_once(trained: bool, few_at_once: Callable[[int], None]):
    """Two products, for the logits and for the states' gradient. Of a head that is trained they are
    made again, and its own gradient is a fourth product; it is that of all logits at once."""
    model, labels = model_of("Llama"), torch.randint(0, WORDS, (TOKENS,))
    weight = model.get_output_embeddings().weight.requires_grad_(trained)
    gradient(plain, model, labels)
    expected = weight.grad
    weight.grad = None
    few_at_once(3)
    with counter() as counted:
        gradient(token_loss, model, labels)
    product = 2 * TOKENS * DIM * WORDS
    assert counted.get_total_flops() == (4 if trained else 2) * product
    if trained:
        torch.testing.assert_close(weight.grad, expected)


def test_a_chunk_may_hold_tokens_of_several_slots(
    few_at_once: Callable[[int], None], tmp_path: Path
):
    """Each gets the gradient that it has where all logits are there at once."""
    adapters = AdapterSlots(model_of("Llama"), [LoRAShape(2, 4.0, ("q_proj", "up_proj"))] * 2)
    for slot in range(2):
        adapters.initialise(slot, torch.Generator().manual_seed(slot))
    rows = [Encoded((5, 6, 7), (8, 9)), Encoded((1,), (2, 3, 4))]
    batches = {slot: collate(rows, [slot, 1 - slot]) for slot in range(2)}

    def gradients() -> list[Tensor]:
        for slot in range(2):
            adapters.begin(slot)
        step = GroupStep(
            adapters, *together(batches), dict.fromkeys(batches, Totals(2, 5)), {}, stacked=True
        )
        step.nll.square().sum().backward()
        return [
            one.grad.clone() for slot in range(2) for one in adapters.parameters_of(slot).values()
            if one.grad is not None
        ]  # fmt: skip

    whole = gradients()
    few_at_once(4)
    assert any(one.any() for one in whole)
    for found, expected in zip(gradients(), whole, strict=True):
        torch.testing.assert_close(found, expected)
