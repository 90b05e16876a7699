"""Figures: the same data give the same bytes, and nothing measured is left out of the axes."""

import re
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from summaries import (
    METHODS,
    ablation_sweep,
    comparison_sweep,
    gaps_sweep,
    histories,
    orders_sweep,
    reported,
    samples,
    sweep,
    typed,
)

from raycib.report import figures
from raycib.report.frame import to_frame
from raycib.report.scores import aligned_scores
from raycib.report.variants import named
from raycib.studies.comparison.bars import bars
from raycib.studies.comparison.price_figure import price_figure
from raycib.studies.strength.figures import figure2


def drawn(summary):
    return figure2(to_frame(typed(summary)), aligned_scores(typed(summary)))


def test_panel_c_shows_the_correlation_of_each_seed():
    head, values, *_ = (text.get_text() for text in drawn(sweep(failed=False)).axes[2].texts)
    assert head == "r by seed over λ > 0 (n = 4):"
    assert re.fullmatch(r"([+−]\d\.\d\d(, |$)){3}", values)


def test_of_many_seeds_the_ends_and_the_median_are_told_and_every_panel_keeps_its_width():
    """Twelve seeds once wrote a line so long that nothing was left of the panels."""
    figure = drawn(sweep(failed=False, seeds=12))
    _, values, *_ = (text.get_text() for text in figure.axes[2].texts)
    low, high, median = map(float, re.findall(r"[+-]\d\.\d\d", values.replace("−", "-")))
    assert low <= median <= high and values.endswith(" of 12")
    FigureCanvasAgg(figure).draw()
    widths = [panel.get_position().width * figures.PAGE for panel in figure.axes]
    assert min(widths) > 2.5, "inches, of 6.75 for two panels and their axes"


@pytest.fixture(scope="module")
def drawings():
    """Every figure of every study by its name."""
    found = {}
    for summary in (
        sweep(), comparison_sweep(1), ablation_sweep(), gaps_sweep(), orders_sweep(2, 2)
    ):  # fmt: skip
        report = reported(summary, samples(summary, 20), histories(summary))
        every = report.drawn() | {"curves": report.curves()}
        found |= {f"{report.results.study} {stem}": one for stem, one in every.items() if one}
    return found


def test_a_drawing_is_well_formed_and_bears_no_date(drawings):
    for figure in drawings.values():
        svg = figures.to_svg(figure)
        ElementTree.fromstring(svg)
        assert b"dc:date" not in svg and b"<script" not in svg


def test_every_mark_lies_inside_its_panel(drawings):
    marks = 0
    for name, figure in drawings.items():
        for panel in figure.axes:
            (left, right), (low, high) = panel.get_xlim(), panel.get_ylim()
            for line in panel.lines:
                if line.get_linestyle() == "None":
                    places = line.get_xydata()
                    x, y = places[np.isfinite(places).all(axis=1)].T
                    assert ((min(left, right) <= x) & (x <= max(left, right))).all(), name
                    assert ((min(low, high) <= y) & (y <= max(low, high))).all(), name
                    marks += len(x)
    assert marks > 500


def test_a_figure_is_as_wide_as_a_page_or_a_column_and_can_be_read_there(drawings):
    """No letter below 6.5 points, and none beyond the paper: whoever takes it into a paper of two
    columns need not scale it."""
    for name, figure in drawings.items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        assert figure.get_figwidth() in (figures.PAGE, figures.COLUMN)
        assert {one.get_fontsize() for one in figure.findobj(Text)} <= {6.5, 7, 7.5}
        ticks = {label for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)
                 for label in axis.get_ticklabels(which="both")}  # fmt: skip
        for text in {*figure.findobj(Text)} - ticks:
            if text.get_visible() and text.get_text().strip():
                box = Text.get_window_extent(text, canvas.get_renderer())
                assert box.x0 > -2 and box.x1 < figure.bbox.x1 + 2, (name, text, box)


def test_shades_of_a_hue_go_from_light_to_dark_and_one_alone_is_the_colour_itself():
    """Of (0, .4, .8): .4 of the way to white (.4, .64, .88), itself, and .6 of it (0, .24, .48)."""
    assert figures.shades("#0066cc", 3) == ["#66a3e0", "#0066cc", "#003d7a"]
    assert figures.shades("#0066cc", 1) == ["#0066cc"]
    assert figures.shades_of(["cib", "lora", "cib"]) == [
        figures.shades(figures.COLORS["cib"], 2)[0], "#000000",
        figures.shades(figures.COLORS["cib"], 2)[1],
    ]  # fmt: skip


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
    figure = figures.loss_curves(to_frame(typed(summary)), histories(summary))
    assert [len(panel.lines) for panel in figure.axes] == [5, 4]
    assert figures.loss_curves(to_frame(typed(summary)), {}) is None


def priced(summary):
    return price_figure(to_frame(typed(summary)), 0.0)


def test_every_method_has_a_look_of_its_own_and_a_name_in_the_legend():
    [legend] = priced(comparison_sweep(1)).legends
    handles = legend.get_lines()[: len(METHODS)]
    looks = {(line.get_color(), line.get_marker()) for line in handles}
    assert len(looks) == len(METHODS)
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[:3] == ["LoRA", "Random subset", "KL"] and "sees safety data" in texts


def test_variants_of_a_method_are_its_shades_and_differ_by_mark():
    [legend] = priced(ablation_sweep()).legends
    _, random, similar = legend.get_lines()[:3]
    assert [random.get_color(), similar.get_color()] == figures.shades(figures.COLORS["cib"], 2)
    assert random.get_marker() != similar.get_marker()


def test_losses_beyond_a_factor_of_ten_stand_on_a_logarithmic_axis():
    assert priced(comparison_sweep(1)).axes[0].get_xscale() == "log"
    assert priced(ablation_sweep()).axes[0].get_xscale() == "linear"


def test_the_front_leaves_out_what_is_incoherent_and_what_is_beaten_twice():
    """Of LoRA (.052, 66 %), random (.079, 21 %) and similar (.102, 3 %) all three stay; once the
    last one babbles, two."""
    summary = ablation_sweep()
    steps = [line for line in priced(summary).axes[0].lines if line.get_drawstyle() == "steps-post"]
    assert [len(line.get_xydata()) for line in steps] == [5]
    for cell in summary["cells"][-3:]:
        cell["scores"]["incoherent_rate"]["value"] = 0.5
    steps = [line for line in priced(summary).axes[0].lines if line.get_drawstyle() == "steps-post"]
    assert [len(line.get_xydata()) for line in steps] == [4]


@pytest.mark.parametrize("kept", ["lora", "cib", "nothing"])
def test_a_comparison_with_holes_is_still_drawn(kept):
    summary = comparison_sweep(1)
    for cell in summary["cells"]:
        if cell["method"] != kept:
            cell |= {"failed": "stopped", "scores": None}
    figures.to_svg(priced(summary))
    figures.to_svg(bars(to_frame(typed(summary))))


def test_panel_b_takes_the_first_price_that_was_measured():
    summary = comparison_sweep(1)
    for cell in summary["cells"]:
        del cell["scores"]["over_refusal"]
    assert priced(summary).axes[1].get_xlabel() == "Utility lost"


def test_bars_stand_in_the_order_given_with_a_dot_for_each_seed():
    [panel] = bars(to_frame(typed(ablation_sweep())), 0.0).axes
    names = [label.get_text() for label in panel.get_yticklabels()]
    assert names == ["LoRA", "CIB, random negatives", "CIB, most similar\nnegatives"]
    assert [len(line.get_xydata()) for line in panel.lines if line.get_marker() == "o"] == [3] * 3
    assert [round(bar.get_width(), 3) for bar in panel.patches] == pytest.approx(
        [0.658, 0.206, 0.031], abs=0.002
    )


def test_loss_curves_of_a_comparison_have_a_line_for_each_row():
    summary = ablation_sweep()
    figure = figures.loss_curves(named(to_frame(typed(summary))), histories(summary), "variant")
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "LoRA", "CIB, random negatives", "CIB, most similar negatives"
    ]  # fmt: skip


def test_the_last_strengths_of_lines_stand_apart():
    """No two names of lines in panel (a) overlap, of a comparison of all methods."""
    panel = priced(comparison_sweep()).axes[0]
    canvas = FigureCanvasAgg(panel.figure)
    canvas.draw()
    named = [Text.get_window_extent(text, canvas.get_renderer()) for text in panel.texts]
    assert len(named) > 4
    assert not [1 for one, other in combinations(named, 2) if one.overlaps(other)]
