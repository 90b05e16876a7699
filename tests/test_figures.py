"""Figures: the same data give the same bytes, and nothing measured is left out of the axes."""

import re
from xml.etree import ElementTree

import pytest
from summaries import histories, sweep

from raycib.analysis import figures
from raycib.analysis.frame import aligned_scores, to_frame


def drawn(summary):
    return figures.figure2(to_frame(summary), aligned_scores(summary))


def test_the_same_data_give_the_same_bytes():
    summary = sweep()
    assert figures.to_svg(drawn(summary)) == figures.to_svg(drawn(summary))
    assert figures.to_png(drawn(summary), 60) == figures.to_png(drawn(summary), 60)


def test_an_svg_is_well_formed_and_bears_no_date():
    svg = figures.to_svg(drawn(sweep()))
    ElementTree.fromstring(svg)
    assert b"dc:date" not in svg and b"<script" not in svg


def test_every_point_lies_inside_its_panel():
    figure = drawn(sweep())
    for panel in figure.axes:
        left, right = panel.get_xlim()
        low, high = panel.get_ylim()
        for line in panel.lines:
            if line.get_linestyle() == "None":
                for x, y in line.get_xydata():
                    assert left <= x <= right and low <= y <= high


def test_panel_c_shows_the_correlation_of_each_seed():
    texts = [text.get_text() for text in drawn(sweep(failed=False)).axes[2].texts]
    [note] = [text for text in texts if text.startswith("r by seed")]
    assert len(re.findall(r"[+−]\d\.\d\d", note)) == 3 and "(n = 4)" in note


def test_a_seed_with_fewer_strengths_is_counted_as_such():
    texts = [text.get_text() for text in drawn(sweep(failed=True)).axes[2].texts]
    assert any("(n = 3 to 4)" in text for text in texts)


def test_without_the_last_prompt_token_there_are_three_panels():
    summary = sweep()
    for cell in summary["cells"]:
        (cell["scores"] or {}).pop("mutual_information_last_prompt", None)
    assert len(drawn(summary).axes) == 3


def test_a_ceiling_within_the_axis_is_a_line_and_one_above_it_is_named():
    summary = sweep()
    above = [text.get_text() for text in drawn(summary).axes[0].texts]
    for cell in summary["cells"]:
        if cell["scores"]:
            cell["scores"]["mutual_information_ceiling"] = 2.45
    within = [text.get_text() for text in drawn(summary).axes[0].texts]
    assert "↑ ceiling 5.55" in above and "ceiling 2.45" in within


@pytest.mark.parametrize("kept", ["lora", "cib", "nothing"])
def test_a_sweep_with_holes_is_still_drawn(kept):
    summary = sweep()
    for cell in summary["cells"]:
        if cell["method"] != kept:
            cell |= {"failed": "stopped", "scores": None}
    figures.to_svg(drawn(summary))


def test_names_with_dollars_and_braces_are_names():
    summary = sweep()
    for cell in summary["cells"]:
        if cell["method"] == "cib":
            cell["parameters"]["draw"] = "$\\frac{x$" if cell["seed"] else "--><script>"
    svg = figures.to_svg(drawn(summary))
    ElementTree.fromstring(svg)
    assert b"<script" not in svg


def test_strengths_over_several_decades_stand_on_a_logarithmic_axis():
    summary = sweep()
    for cell in summary["cells"]:
        cell["strength"] = {0: 0, 1: 1e-5, 2: 1e-4, 5: 1e-3, 10: 1e-2}[cell["strength"]]
        cell["parameters"].pop("lam", None)
    assert drawn(summary).axes[0].get_xscale() == "symlog"


def test_loss_curves_have_a_panel_for_each_term_and_a_line_for_each_strength():
    summary = sweep()
    figure = figures.loss_curves(to_frame(summary), histories(summary))
    assert figure is not None
    assert [len(panel.lines) for panel in figure.axes] == [5, 4]
    assert figures.loss_curves(to_frame(summary), {}) is None
