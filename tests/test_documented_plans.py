"""Every sweep that a page shows gets as far as its plan; the plan that a page shows is what one is.

Commands are run in this process, and nothing is trained.
"""

import re
from pathlib import Path

import pytest
from documentation import PAGES, ROOT, blocks, commands
from programs import RAYCIB, Program

OWN = re.compile(r"\.\.\.|[A-Z]{4}|--preset|\.(jsonl|csv|yaml)\b|/shared")
"""In a command that needs more than the world: a place to fill in, a file, a shared disk. Presets
have tests of their own."""


def sweeps() -> list[tuple[str, ...]]:
    """The distinct sweeps of all pages, as a script and its arguments."""
    found = dict.fromkeys(tuple(words[1:]) for page in PAGES for words in commands(page)
                          if words[0] == "python" and not OWN.search(" ".join(words)))  # fmt: skip
    begins = "sweeps/", "docs/examples/learning_rate"
    return [words for words in found if words and words[0].startswith(begins) and words[1:]]


@pytest.mark.parametrize("words", sweeps(), ids=" ".join)
def test_a_sweep_that_is_shown_can_be_planned(
    words: tuple[str, ...], tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--methods lora,cib,... --strengths 0.1,1,10` was refused, for plain LoRA has no strength."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("raycib.config.menu._GIVEN", {})  # a page's method stays on no menu
    script, *options = words
    ended = program(ROOT / script, *options, "--dry-run", "--out", tmp_path)
    assert (ended.code, ended.err) == (0, "")


def test_a_dozen_sweeps_are_shown() -> None:
    assert len(sweeps()) >= 12


def test_the_plan_that_is_shown_is_what_a_plan_says(tmp_path: Path, program: Program) -> None:
    """`…` stands for the rest of a word or a line."""
    page = ROOT / "docs/plan.md"
    shown = next(one.text for one in blocks(page) if one.text.startswith("level 1")).splitlines()
    like = [re.escape(line).replace("…", ".*") for line in shown]
    options = ["lambda_grid", "--preset", "llama31-8b", "--out", tmp_path, "--gpu"]
    said = program(RAYCIB, "plan", *options, "H100").out.splitlines()[-len(shown) :]
    assert [
        line for line, form in zip(said, like, strict=True) if not re.fullmatch(form, line)
    ] == []
    fitted = re.search(r'(?m)^says "(chosen to fit into L4: .*)"\.$', page.read_text())
    assert fitted
    assert f"note: {fitted[1]}\n" in program(RAYCIB, "plan", *options, "L4").out
