"""LoRA products of all tokens of an adapter are those of each token by itself."""

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"
)
SLOTS, RANK, WIDE = 3, 4, 6
NAMED = [11, 12, None]
"""Adapters in the slots, by vLLM's numbers; the last one is free."""


def stacked(*shape: int) -> torch.Tensor:
    return torch.randn(SLOTS, 1, *shape)


def told(tokens: list[int], sampled: list[int]) -> Any:
    """A wrapper at the beginning of a step with these tokens; 0 is without an adapter."""
    from raycib.evals.lora_on_cpu import LoRAByAdapter

    wrapper = LoRAByAdapter(64, 64, torch.device("cpu"))
    mapping = SimpleNamespace(
        index_mapping=tuple(tokens), prompt_mapping=tuple(sampled), is_prefill=True
    )
    wrapper.update_metadata(mapping, NAMED, SLOTS, 32)
    return wrapper


TOKENS = [0, 11, 11, 12, 12, 12, 0, 0, 11]


@pytest.mark.parametrize("tokens", [TOKENS, sorted(TOKENS)], ids=["here and there", "together"])
def test_each_token_has_its_adapters_product_and_one_without_has_none(tokens: list[int]) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(len(tokens), 5), torch.randn(len(tokens), 2 * WIDE)
    a, b = (tuple(stacked(*shape) for _ in range(2)) for shape in ((RANK, 5), (WIDE, RANK)))
    expected = y.clone()
    for place, named in enumerate(tokens):
        if named:
            slot = NAMED.index(named)
            parts = [b[i][slot, 0] @ (a[i][slot, 0] @ x[place]) for i in range(2)]
            expected[place] += 0.5 * torch.cat(parts)
    told(tokens, [11]).add_lora_linear(y, x, a, b, 0.5, (WIDE, WIDE))
    torch.testing.assert_close(y, expected)
    alone = [place for place, named in enumerate(tokens) if not named]
    assert torch.equal(y[alone], expected[alone])
