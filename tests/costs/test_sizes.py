"""What a model's tensors say of its sizes."""

import pytest

from raycib.costs.sizes import from_tensors


@pytest.mark.parametrize(
    ("said", "tied", "weights"),
    [({"tie_word_embeddings": True}, True, 80), ({"tie_word_embeddings": False}, False, 160),
     ({}, False, 160)],
)  # fmt: skip
def test_a_tied_head_counts_once_though_it_is_stored(said: dict, tied: bool, weights: int):
    """Of 20 tokens and states of 4; where nothing is said, a head that is stored is none's."""
    shapes = {"model.embed_tokens.weight": (20, 4), "lm_head.weight": (20, 4)}
    sizes = from_tensors(shapes, [], {"hidden_size": 4, "num_attention_heads": 2} | said)
    assert (sizes.tied, sizes.parameters) == (tied, weights)
    assert (sizes.vocabulary, sizes.width) == (20, 4), "which a configuration may leave out"
    assert from_tensors(shapes, [], {"vocab_size": 18}).vocabulary == 18, "the rest is padding"
    del shapes["lm_head.weight"]
    assert from_tensors(shapes, [], said).tied is said.get("tie_word_embeddings", True)
