"""Figures and page of a sweep of gaps: whole, the same each time, and nothing in them that acts."""

import json
import re
from xml.etree import ElementTree

import pytest
from latex_tables import assert_tables_hold_text
from summaries import (
    HOSTILE,
    gap_rows,
    gaps_sweep,
    histories,
    page_of,
    reported,
    samples,
    typed,
    written,
)

from raycib.report.figures import to_svg
from raycib.report.page import FIGURE_FILES, TABLE_FILES
from raycib.studies.tradeoff.figures import figure1, figure2
from raycib.studies.tradeoff.gap import gap_frame


@pytest.fixture(scope="module")
def pictures():
    """Of a sweep with everything."""
    return drawn(gaps_sweep())


@pytest.fixture(scope="module")
def exhibits(tmp_path_factory):
    """The files of a sweep of one task; nobody changes them."""
    summary = gaps_sweep(tasks=1)
    folder = tmp_path_factory.mktemp("exhibits")
    return written(summary, samples(summary, 10), histories(summary, 2), folder)


def only(summary, *methods):
    """A sweep whose other cells have failed."""
    for cell in summary["cells"]:
        if cell["method"] not in methods:
            cell |= {"failed": "stopped", "scores": None}
    return summary


# Figures


def drawn(summary):
    frame, theory = gap_frame(typed(summary)), typed(summary).theory
    return figure1(frame, theory), figure2(frame, theory)


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def test_figure_1_has_a_line_for_each_proxy_and_for_each_task(pictures):
    one, _ = pictures
    left, right = one.axes
    named = texts(left.get_legend())
    assert named[:3] == ["original data", "near outputs", "far outputs"]
    assert named[3].startswith("plain LoRA (λ = 0): 20.9")
    assert texts(right.get_legend())[:3] == ["how-to", "shop", "sums"]
    assert "nats per answer" in left.get_ylabel() and left.get_xlabel() == "λ"


def test_figure_2_has_every_method_of_one_task_and_the_front(pictures):
    _, two = pictures
    left, right = two.axes
    assert left.get_xscale() == "log" and right.get_xscale() == "symlog"
    named = texts(right.get_legend())
    assert {"Case II penalty", "Case II ball", "CIB", "plain LoRA", "Pareto front"} <= set(named)
    [steps] = [line for line in right.lines if line.get_drawstyle() == "steps-post"]
    heights = [y for _, y in steps.get_xydata()]
    assert heights == sorted(heights, reverse=True)


def test_methods_of_gaps_keep_their_colours_and_differ_by_mark(pictures):
    _, two = pictures
    handles = two.axes[1].get_legend().get_lines()[:6]
    assert len({line.get_marker() for line in handles}) == 6
    assert [line.get_color() for line in handles[:3]] == ["#D81B60"] * 3
    assert (handles[3].get_color(), handles[5].get_color()) == ("#009E73", "#0072B2")


def test_gaps_of_one_size_stand_on_a_linear_axis_and_both_signs_too():
    summary = gaps_sweep(methods=("lora", "case1"))
    for cell in summary["cells"]:
        if cell["method"] == "case1":
            cell["scores"]["capability_gap"] = gap_rows(cell["strength"] - 0.5)
    one, two = drawn(summary)
    assert one is not None and two is None
    assert one.axes[1].get_xscale() == "linear" and one.axes[1].get_xlim()[0] < -0.4


def test_a_figure_is_drawn_for_what_was_run():
    no_case1, two = drawn(gaps_sweep(methods=("lora", "case2", "cib"), tasks=1))
    assert no_case1 is None and two is not None
    summary = gaps_sweep(methods=("lora", "case1"), tasks=1)
    summary["cells"] = [c for c in summary["cells"] if "outputs" not in (c["label"] or "")]
    assert drawn(summary) == (None, None)


@pytest.mark.parametrize("kept", [("case1",), ("case2_ball",), ()])
def test_gaps_with_holes_are_still_shown(kept):
    page = page_of(only(gaps_sweep(tasks=1), *kept), {}, {})
    assert "stopped" in page and 'id="table"' in page


# Page


def test_a_sweep_of_gaps_writes_its_exhibits_the_same_each_time(exhibits):
    stems = ("bounds", "bounds_summary", "data_terms", "gaps", "model_terms", "tax")
    drawn = ("figure1", "figure2")
    found = {file.name: file.read_bytes() for file in exhibits}
    assert found.keys() == {
        *(f"{stem}.{kind}" for stem in stems for kind in TABLE_FILES),
        *(f"{stem}.{kind}" for stem in drawn for kind in FIGURE_FILES),
        *("cells.csv", "report.html"),
    }
    for stem, figure in reported(gaps_sweep(tasks=1)).drawn().items():
        assert found[f"{stem}.svg"] == to_svg(figure)


def test_the_page_of_gaps_holds_its_sections(exhibits):
    [file] = [one for one in exhibits if one.name == "report.html"]
    page = file.read_text(encoding="utf-8")
    sections = re.findall(r'<section(?: class="notes")? id="([a-z-]+)"', page)
    assert sections == ["warnings", "claims", "figure", "table", "bounds", "terms", "tax", "cells",
                        "side-by-side", "measured", "provenance"]  # fmt: skip
    assert "Theorem 4 corrected" in page and "Every cell against every bound" in page


def test_without_theory_the_page_says_that_there_are_no_bounds():
    page = page_of(gaps_sweep(theory=False, methods=("lora", "cib"), tasks=1), {}, {})
    assert 'id="bounds"' not in page and 'id="terms"' not in page
    assert "no bounds are shown" in page


def test_hostile_names_are_text_on_the_page_of_gaps():
    summary = gaps_sweep(methods=("lora", "case1"), tasks=1)
    for cell in summary["cells"]:
        if cell["label"]:
            cell["label"] = HOSTILE[0]
    summary["theory"]["proxies"][0] |= {"name": HOSTILE[1], "note": HOSTILE[2]}
    summary["theory"]["overlaps"][0] |= {"note": HOSTILE[0]}
    page = page_of(summary, {}, {})
    assert "<img" not in page and page.count("<script") == 1, "the page's own"
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page)


def test_a_name_is_one_cell_of_text_in_every_table_of_gaps(tmp_path):
    summary = gaps_sweep(methods=("lora", "case1", "case2_ball"), tasks=2)
    text = json.dumps(summary)
    for name, hostile in (
        ("near outputs", "<script>alert(1)</script>"),
        ("far outputs", "a_b & 5 % of $x$ | c"),
        ("shop", "=1+1"),
    ):
        text = text.replace(name, hostile)
    summary = json.loads(text)
    made = reported(summary)
    assert_tables_hold_text(made.tables, tmp_path)
    for svg in map(to_svg, made.drawn().values()):
        ElementTree.fromstring(svg)
        assert b"<script" not in svg
