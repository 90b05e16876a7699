"""Rows that lie end to end have the numbers that they have with padding, or are not laid so."""

from typing import Any

import pytest
import torch
from architectures import READ, WORDS, random_model
from torch import Tensor

from raycib.errors import UserError
from raycib.model_files.packing import PACKED, packs
from raycib.models.decoder import Hidden, attention_blocks, hidden_states, packed_states
from raycib.models.gate import check_model
from raycib.models.packing import rows_apart, width

LENGTHS = [9, 12, 12, 3, 1]
ALIKE = {name for name in READ if name != "Falcon"}
WINDOWED = {
    "Mistral": {}, "Gemma2": {}, "Gemma3Text": {}, "Cohere2": {"sliding_window_pattern": 2},
    "Phi3": {}, "Mixtral": {}, "Qwen2": {"use_sliding_window": True, "max_window_layers": 1},
}  # fmt: skip
"""Those whose tokens see the last few alone in some layers or all, and how they are told to."""


def rows() -> Tensor:
    return torch.randint(3, WORDS, (len(LENGTHS), max(LENGTHS)))


def without_padding(values: Tensor) -> Tensor:
    return torch.cat([row[:length] for row, length in zip(values, LENGTHS, strict=True)])


def packed(model: Any, ids: Tensor) -> Hidden:
    with rows_apart(model, LENGTHS):
        return packed_states(model, without_padding(ids), LENGTHS)


def differ(model: Any, ids: Tensor) -> float:
    """The largest relative difference of states, on either side of the final norm."""
    pairs = zip(packed(model, ids), hidden_states(model, ids), strict=True)
    return max(float((own - without_padding(padded)).norm() / own.norm()) for own, padded in pairs)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", READ)
def test_rows_end_to_end_have_the_states_of_padded_ones(name: str, attention: str):
    model, ids = random_model(name, attention), rows()
    assert packs(model.config.model_type) == (name in ALIKE)
    if name not in ALIKE:
        with pytest.raises(TypeError):  # nobody takes one for the other in silence
            packed(model, ids)
        return
    assert differ(model, ids) < 1e-6
    assert model.config._attn_implementation == attention
    other = ids.clone()
    other[0] = torch.randint(3, WORDS, other[0].shape)
    first = LENGTHS[0]
    before, after = packed(model, ids).final_norm, packed(model, other).final_norm
    # Experts sum over whichever tokens chose them: up to rounding.
    torch.testing.assert_close(after[first:], before[first:], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(after[:first], before[:first], atol=0.1)


def test_each_that_is_said_to_keep_rows_apart_was_tried():
    assert len(PACKED) == len(ALIKE)


def test_attention_pads_a_row_by_at_most_a_quarter():
    """Or to the next multiple of 8; so few widths are many lengths."""
    assert [width(n) for n in (1, 8, 9, 40, 64, 65, 100, 1000)] == [8, 8, 16, 40, 64, 80, 112, 1024]
    for length in range(33, 5000):
        assert length <= width(length) < 1.25 * length
    assert len({width(n) for n in range(1, 4097)}) <= 32


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", WINDOWED)
def test_windows_slide_within_rows(name: str, attention: str):
    """Of four tokens, in rows of up to twelve."""
    ids, wide = rows(), random_model(name, attention, sliding_window=64, **WINDOWED[name])
    model = random_model(name, attention, sliding_window=4, **WINDOWED[name])
    assert differ(model, ids) < 1e-6
    there = hidden_states(wide, ids).final_norm
    assert not torch.allclose(hidden_states(model, ids).final_norm, there, atol=1e-2)


def test_gradients_are_those_of_padded_rows():
    ids, slopes = rows(), []
    model = random_model("Llama")
    embeddings = model.get_input_embeddings().weight.requires_grad_()
    aim = torch.randn(sum(LENGTHS), 32)
    for states in (packed(model, ids), hidden_states(model, ids)):
        values = states.final_norm
        own = values if values.dim() == 2 else without_padding(values)
        slopes += torch.autograd.grad((own * aim).sum(), embeddings)
    found, expected = slopes
    assert (found - expected).norm() < 2e-6 * expected.norm()


def test_the_gate_sees_rows_that_see_one_another():
    """Each token gets half of the one before it, as a convolution would do: with padding that is
    within its row."""
    model = random_model("Llama")
    check_model(model, "it")

    def mix(_: Any, __: Any, output: Any) -> Any:
        before = torch.nn.functional.pad(output[0], (0, 0, 1, 0))[:, :-1]
        return (output[0] + before / 2, *output[1:])

    for block in attention_blocks(model):
        block.register_forward_hook(mix)
    with pytest.raises(UserError, match="rows that lie end to end see one another"):
        check_model(model, "it")
