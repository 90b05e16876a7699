"""A base in bfloat16 is passed through under autocast, which rounds both sides of every product.
What methods make of its states is computed in float32 all the same."""

from collections.abc import Callable

import pytest
import torch
from oracles import draws
from torch import Tensor

from raycib.data.chat import Encoded
from raycib.models.pooling import pool
from raycib.models.tensors import collate
from raycib.objectives.cib import info_nce
from raycib.objectives.orthogonality import overlap

Z, REFERENCE, OTHERS = (draws(6, 32, seed=seed) for seed in range(3))


def pooled() -> Tensor:
    """Of six rows of five tokens with three of an answer."""
    batch = collate([Encoded((1, 2), (3, 4, 5))] * 6, range(6))
    return pool(torch.stack([Z, REFERENCE, OTHERS, Z, REFERENCE], dim=1), batch, "mean_response")


@pytest.mark.parametrize(
    "compute",
    [
        lambda: info_nce(Z, REFERENCE, OTHERS, 0.1),
        lambda: overlap(Z, OTHERS),
        lambda: overlap(Z, OTHERS, "squared"),
        pooled,
    ],
)
def test_autocast_rounds_none_of_a_methods_products(compute: Callable[[], Tensor]):
    expected = compute()
    with torch.autocast("cpu", torch.bfloat16):
        assert (Z @ OTHERS.T).dtype == torch.bfloat16
        found = compute()
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
