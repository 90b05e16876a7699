"""What vLLM is told before it is asked anything."""

import os
from typing import get_args

import pytest

from raycib.evals.generate import LORA_RANKS, Generator, round_rank, set_vllm_environment


@pytest.mark.parametrize(
    ("rank", "served"), [(1, 1), (2, 8), (8, 8), (9, 16), (33, 64), (300, 320), (512, 512)]
)
def test_a_rank_is_served_by_the_next_one_vllm_has(rank: int, served: int) -> None:
    assert round_rank(rank) == served


@pytest.mark.parametrize("rank", [0, -1, 513])
def test_an_impossible_rank_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=str(rank)):
        round_rank(rank)


def test_our_list_of_ranks_is_vllms() -> None:
    set_vllm_environment()
    from vllm.config.lora import MaxLoRARanks

    assert get_args(MaxLoRARanks) == LORA_RANKS


def test_what_is_set_in_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    set_vllm_environment()
    assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert os.environ["DO_NOT_TRACK"] == "1"


def test_adapters_of_no_named_modules_are_refused() -> None:
    """vLLM would make room for adapters of the head, and of all else that it knows."""
    with pytest.raises(ValueError, match="max_lora_rank 4 and no targets; name the modules"):
        Generator("nowhere", max_lora_rank=4, max_model_len=8)
