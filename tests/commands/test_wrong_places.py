"""Commands that look at a store, or write to a folder, where there is none or it cannot be."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from programs import RAYCIB, Program

import raycib
from raycib.commands.listing import results_of
from raycib.errors import UserError


@pytest.mark.parametrize("words", [("show", "a"), ("diff", "a", "b"), ("export", "a"), ("ls",)])
def test_to_look_makes_no_store(words: tuple[str, ...], tmp_path: Path, program: Program) -> None:
    """A mistyped `--out` was a new and empty folder from then on."""
    place = tmp_path / "nowhere"
    assert f"in {place}: run one of sweeps/" in program(RAYCIB, *words, "--out", place).refusal
    assert not place.exists()


@pytest.mark.parametrize("look", [raycib.answers, raycib.curves])
def test_nor_from_python(look: Callable[..., object], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no store in"):
        look("a", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_sweep_that_is_not_finished_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid/progress.json").write_text(json.dumps({"phase": "answering"}))
    with pytest.raises(UserError, match=r"grid is not finished \(.*answering\): run it again"):
        results_of(str(tmp_path), "grid")
    with pytest.raises(UserError, match=r"no finished sweep 'other' .* none: run one of sweeps/"):
        results_of(str(tmp_path), "other")


def test_a_file_is_no_place_to_fetch_to(tmp_path: Path, program: Program) -> None:
    """It was the network that should be checked."""
    file = tmp_path / "file"
    file.touch()
    said = program(RAYCIB, "fetch", "llama31-8b", "--to", file).refusal
    assert said == f"error: --to {file} is no folder; name one, or a new one\n"


def test_what_is_missing_is_said_as_a_sentence(program: Program) -> None:
    assert program(RAYCIB, "show").refusal == "error: Missing argument 'key'; see --help\n"
