"""What says the shape of its tensors is held to it while tests run (see `conftest.py`)."""

import jaxtyping
import pytest
import torch

from raycib.models.pooling import pool
from raycib.models.tensors import Batch


def batch(rows: int = 2) -> Batch:
    """Two rows of three tokens, of which the last two are scored."""
    ids = torch.zeros(rows, 3, dtype=torch.long)
    counts = torch.full((rows,), 3)
    return Batch(ids, ids, counts - 2, counts, counts, counts)


def test_a_tensor_of_another_kind_is_refused() -> None:
    held = torch.tensor([[True, True, False], [False, False, True]])
    assert pool(torch.ones(2, 3, 5), batch(), "mean_all").shape == (2, 5)
    assert pool(torch.ones(3, 5), batch(), "mean_all", held).shape == (2, 5), "some of them"
    with pytest.raises(jaxtyping.TypeCheckError, match="hidden"):
        pool(torch.ones(2, 3, 5, dtype=torch.long), batch(), "mean_all")


def test_dimensions_of_one_name_are_one_number() -> None:
    ids, counts = torch.zeros(2, 3, dtype=torch.long), torch.ones(4, dtype=torch.long)
    with pytest.raises(jaxtyping.TypeCheckError, match="prompt_lengths"):
        Batch(ids, ids, counts, counts, counts, counts)
