"""The page of a comparison: its exhibits, with holes and hostile labels, and its warnings."""

import re

import pytest
from pages import parsed
from summaries import (
    HOSTILE,
    ablation_sweep,
    comparison_sweep,
    histories,
    page_of,
    samples,
    warned,
    written,
)

from raycib.report.page import FIGURE_FILES, TABLE_FILES


@pytest.fixture(scope="module")
def exhibits(tmp_path_factory):
    """The files of a comparison; nobody changes them."""
    summary = comparison_sweep(1)
    folder = tmp_path_factory.mktemp("exhibits")
    return written(summary, samples(summary, 20), histories(summary), folder)


def test_a_comparison_writes_its_own_exhibits_the_same_each_time(exhibits, tmp_path):
    stems = ("matched_cost", "paired", "table1", "budget", "budget_curve")
    tables = [f"{stem}.{kind}" for stem in stems for kind in TABLE_FILES]
    drawn = [f"{stem}.{kind}" for stem in ("tradeoff", "budget_curve") for kind in FIGURE_FILES]
    found = {file.name: file.read_bytes() for file in exhibits}
    assert found.keys() == {*tables, *drawn, "cells.csv", "report.html"}
    summary = comparison_sweep(1)
    again = written(summary, samples(summary, 20), histories(summary), tmp_path)
    assert {file.name: file.read_bytes() for file in again} == found


def test_an_ablation_has_figure_3_as_well(tmp_path):
    summary = ablation_sweep()
    files = written(summary, samples(summary, 20), histories(summary), tmp_path)
    assert {"bars.png", "bars.svg", "tradeoff.svg", "paired.csv"} <= {file.name for file in files}
    page = (tmp_path / "report.html").read_text()
    assert "Negatives chosen by similarity beat random ones" in page and 'id="curves"' in page


def test_the_page_of_a_comparison_holds_its_sections_and_no_dose(exhibits):
    [file] = [one for one in exhibits if one.name == "report.html"]
    page = file.read_text(encoding="utf-8")
    sections = re.findall(r'<section[^>]* id="([a-z-]+)"|<section id="([a-z-]+)"', page)
    assert [a or b for a, b in sections] == [
        "warnings", "figure", "claims", "table", "cost", "budget", "pairs", "cells", "side-by-side",
        "measured",
        "provenance",
    ]  # fmt: skip
    assert "λ" not in page and "CIB, strength = 5, seed 0" in page
    assert "chosen on the same prompts" in page


def test_a_hostile_label_is_text_on_the_page_of_a_comparison():
    summary = comparison_sweep(1, labels={"cib": HOSTILE[0], "kl": HOSTILE[1]})
    page = page_of(summary, samples(summary, 20), {})
    tags = parsed(page)
    assert [attrs for tag, attrs in tags.seen if tag == "script"] == [
        {"type": "application/json", "id": "answers"}, {}
    ]  # fmt: skip
    assert not [tag for tag, _ in tags.seen if tag == "img"]
    assert "&lt;script&gt;document.body" in page


@pytest.mark.parametrize("kept", ["lora", "cib", "nothing"])
def test_a_comparison_with_holes_has_a_report(kept):
    summary = comparison_sweep(1) | {"aligned": {"scores": None}}
    for cell in summary["cells"]:
        if cell["method"] != kept:
            cell |= {"failed": "stopped", "scores": None}
    page = page_of(summary, {}, {})
    assert "stopped" in page and 'id="side-by-side"' not in page


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (("lora", "cib"), ["up to 4"]),
        (("lora", "cib", "safe_lora"), ["up to 4", "Only one strength was tried of Safe LoRA:"]),
        (("lora", "safe_lora", "salora"), []),
    ],
)
def test_a_comparison_warns_of_what_choosing_strengths_does(methods, words):
    summary = comparison_sweep(1)
    summary["cells"] = [c for c in summary["cells"] if c["method"] in methods]
    found = warned(summary)
    said_so = [text for text in found if "strength was tried" in text or "flatters" in text]
    assert len(said_so) == len(words)
    assert all(word in text for word, text in zip(words, said_so, strict=True))
