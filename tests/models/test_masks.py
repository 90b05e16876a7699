"""From text to tokens, and from tokens to masks and poolings."""

import pytest
import torch

from raycib.config import Pooling
from raycib.config.base import Tokens
from raycib.data.chat import Encoded, encode, encode_prompt
from raycib.data.rows import Row
from raycib.models import load_tokenizer
from raycib.models.pooling import pool, token_states
from raycib.models.tensors import IGNORED, collate, widen

DATA = [Encoded((5, 6, 7), (8, 9)), Encoded((1,), (2, 3, 4))]
"""Small enough to read: the first has 3 prompt and 2 response tokens, the second 1 and 3."""


def test_only_the_response_is_scored():
    batch = collate(DATA, [0, 1])
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9], [1, 2, 3, 4, 0]]
    no = IGNORED
    assert batch.labels.tolist() == [[no, no, no, 8, 9], [no, 2, 3, 4, no]]
    assert (batch.prompt_lengths.tolist(), batch.lengths.tolist()) == ([3, 1], [5, 4])


def test_the_last_prompt_token_predicts_the_first_response_token():
    """Position 2 (id 7) predicts 8, position 3 (id 8) predicts 9; nothing predicts beyond."""
    assert collate(DATA, [0, 1]).predicting.int().tolist() == [[0, 0, 1, 1, 0], [1, 1, 1, 0, 0]]


def test_rows_know_which_example_they_are_and_where_they_stand():
    batch = collate(DATA, [1, 0], positions=[6, 2])
    assert batch.ids[0, :4].tolist() == [1, 2, 3, 4]
    assert (batch.examples.tolist(), batch.positions.tolist()) == ([1, 0], [6, 2])
    assert collate(DATA, [1, 0]).positions.tolist() == [0, 1]


def test_padding_is_neither_scored_nor_pooled():
    batch = widen(collate(DATA, [0, 1]), 9)
    assert batch.ids.shape == batch.labels.shape == (2, 9)
    assert (batch.labels[:, 5:] == IGNORED).all()
    assert not batch.predicting[:, 4:].any()
    hidden = torch.randn(2, 9, 3)
    garbage = hidden.clone()
    garbage[0, 5:], garbage[1, 4:] = 1e6, -1e6
    for how in ("mean_response", "last_prompt_token", "last_token", "mean_all"):
        assert torch.equal(pool(hidden, batch, how), pool(garbage, batch, how))


@pytest.mark.parametrize(
    ("how", "by_hand"),
    [
        ("mean_response", [(2 + 3) / 2, 10 + (0 + 1 + 2) / 3]),
        ("last_prompt_token", [2, 10 + 0]),
        ("last_token", [4, 10 + 3]),
        ("mean_all", [(0 + 1 + 2 + 3 + 4) / 5, 10 + (0 + 1 + 2 + 3) / 4]),
    ],
)
def test_each_pooling_by_hand(how: Pooling, by_hand: list[float]):
    """Hidden states that are 10 * row + position, so a mean says where it was taken."""
    hidden = (10.0 * torch.arange(2)[:, None] + torch.arange(5))[..., None].expand(-1, -1, 4)
    batch = collate(DATA, [0, 1])
    expected = torch.tensor(by_hand, dtype=torch.float32)[:, None].expand(-1, 4)
    found = pool(hidden.bfloat16(), batch, how)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    end_to_end = hidden[batch.present]
    torch.testing.assert_close(pool(end_to_end, batch, how, batch.present), expected)


def test_which_positions_are_there_answer_or_have_a_next_token():
    """Of 3 + 2 and 1 + 3 tokens in a width of 5."""
    batch = collate(DATA, [0, 1])
    assert batch.present.int().tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert batch.answering.int().tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert batch.feature.int().tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("which", "by_hand"),
    [("response_states", [2, 3, 10, 11, 12]), ("all_states", [0, 1, 2, 3, 10, 11, 12])],
)
def test_the_states_of_tokens_are_row_after_row(which: Tokens, by_hand: list[int]):
    """Padded, and rows end to end: the same ones."""
    batch = collate(DATA, [0, 1])
    hidden = (10.0 * torch.arange(2)[:, None] + torch.arange(5))[..., None]
    assert token_states(hidden, batch, which).flatten().tolist() == by_hand
    held = batch.present
    assert token_states(hidden[held], batch, which, held).flatten().tolist() == by_hand


def ids(tokenizer, *words: str) -> tuple[int, ...]:
    return tuple(tokenizer.convert_tokens_to_ids(list(words)))


def test_a_row_becomes_the_template_s_prompt_and_a_response_that_ends_its_turn(tokenizer):
    encoded = encode(tokenizer, Row("w1 w2", "w2 w1"), max_length=64)
    assert encoded.prompt == ids(tokenizer, "<user>", "w1", "w2", "<assistant>")
    assert encoded.response == ids(tokenizer, "w2", "w1", "<eos>")
    assert len(encoded) == 7
    assert None not in encoded.prompt + encoded.response
    assert tokenizer.unk_token_id not in encoded.prompt + encoded.response


def test_training_and_generation_see_the_same_prompt(tokenizer):
    row = Row("w7 w8 w9", "w1")
    assert list(encode(tokenizer, row, 64).prompt) == encode_prompt(tokenizer, row.prompt)


def test_a_long_row_loses_the_end_of_its_answer_and_neither_its_prompt_nor_its_turn_s_end(
    tokenizer,
):
    """4 prompt tokens and 1 that closes: of 3 words of the answer 2 fit in 7, 1 in 6; 5 hold
    none."""
    row = Row("w1 w2", "w2 w1 w3")
    whole = encode(tokenizer, row, 8)
    assert len(whole.response) == 4
    for length, words in [(7, ("w2", "w1")), (6, ("w2",))]:
        cut = encode(tokenizer, row, length)
        assert (cut.prompt, cut.response) == (whole.prompt, ids(tokenizer, *words, "<eos>"))
    with pytest.raises(ValueError, match="4 tokens leaves no room for an answer in max_length=5"):
        encode(tokenizer, row, 5)


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return load_tokenizer(str(tiny_folder / "model"))
