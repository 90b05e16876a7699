"""Tables, figures and the page of a sweep of orders."""

import json
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from latex_tables import assert_tables_hold_text
from summaries import (
    HOSTILE,
    SEQUENCE,
    fail,
    histories,
    orders_sweep,
    page_of,
    reported,
    samples,
    terminal,
    typed,
    written,
)

from raycib.report.figures import to_svg
from raycib.report.forms import in_points
from raycib.report.page import FIGURE_FILES, TABLE_FILES, page
from raycib.report.table import shown
from raycib.studies.continual.figures import figure6, figure7, figure_orders
from raycib.studies.continual.sequences import (
    chained,
    sequences_of,
)
from raycib.studies.continual.stage_figures import figure4, figure5, safety_by_stage
from raycib.studies.continual.stage_tables import matrix_columns, matrix_table
from raycib.studies.continual.table import by_order, counts_line, orders_table


@pytest.fixture(scope="module")
def made(many):
    return reported(many, samples(many, 4))


# Tables


def test_a_row_for_each_method_and_first_the_model_before(whole):
    table = orders_table(sequences_of(typed(whole)))
    assert table["variant"].tolist() == ["before fine-tuning", "LoRA", "Random subset", "KL",
                                         "O-LoRA", "CIB"]  # fmt: skip
    before, cib = table.iloc[0], table.iloc[-1]
    assert before["bt_mean"] == pytest.approx((16 + 48 + 3) / 480) and math.isnan(
        before["bwt_mean"]
    )
    each = [cell["scores"]["hrr"]["value"] for cell in whole["cells"][-3:]]
    assert cib["hrr_mean"] == pytest.approx(np.mean(each)) == cib["hrr_stage_4_mean"]
    assert cib["hrr_std"] == pytest.approx(np.std(each, ddof=1))
    assert cib["hrr_low"] < cib["hrr_mean"] < cib["hrr_high"] and cib["hrr_n"] == 260
    assert table["rank"].tolist()[1:] == [8, 8, 8, 32, 8]


def test_a_rate_rests_on_the_fewest_prompts_and_a_bt_before_on_every_task():
    summary = orders_sweep(2)
    summary["cells"][0]["scores"]["hrr"] |= {"n": 200, "unread": 60}
    summary["aligned"]["scores"]["accuracies"]["gsm"] = None
    table = orders_table(sequences_of(typed(summary)))
    assert table["hrr_n"].tolist()[:3] == [260, 200, 260]
    assert math.isnan(table.iloc[0]["bt_mean"]) and table["bt_mean"].notna().sum() == 5


def test_over_orders_a_seed_counts_once(many):
    """Spread is over two seeds, each a mean over six orders, not over twelve runs."""
    study = sequences_of(typed(many))
    row = orders_table(study).set_index("variant").loc["CIB"]
    means = [
        np.mean([r.value("bt") for r in study.variants["CIB"] if r.cell.seed == s]) for s in (0, 1)
    ]
    assert (row["seeds"], row["runs"]) == (2, 12)
    assert row["bt_std"] == pytest.approx(np.std(means, ddof=1))
    each = by_order(study)
    assert len(each) == 1 + 6 * 5 and each["order"].nunique() == 7


def test_the_matrix_has_every_stage_of_every_method(whole):
    study = sequences_of(typed(whole))
    table = matrix_table(study)
    assert len(table) == 1 + 5 * 4 and table["stage"].tolist()[:5] == [0, 1, 2, 3, 4]
    assert table["open_mean"].iloc[0] == pytest.approx(0.05)
    seen = shown(table, matrix_columns(study))
    assert seen["gsm"].str.startswith("· ").tolist()[:5] == [False, False, True, False, False]


@pytest.mark.parametrize("orders", [1, 3])
def test_the_terminal_shows_orders_within_140_columns(orders):
    summary = orders_sweep(2, orders)
    fail(summary["cells"][-1], 2)
    text = terminal(summary)
    assert max(map(len, text.splitlines())) <= 140
    assert "CIB: failed (seed 1, " in text and text.endswith("reused")


def test_the_counts_say_what_was_shared(many):
    """Six orders that begin with open: 1 + 3 + 6 + 6 = 16 stages, not 24, by 5 methods, 2 seeds."""
    assert counts_line(typed(many).counts) == (
        "240 stages asked for, 160 distinct (80 shared by runs that begin alike): 160 trained, "
        "0 reused"
    )


def test_points_have_a_sign_and_no_negative_zero():
    assert in_points(0.0123, 0.004) == "+1.2 ± 0.4" and in_points(-0.05) == "-5.0"
    assert in_points(-0.0001) == "+0.0" and in_points(math.nan, 1) == ""


def test_names_are_text_in_every_table_drawing_and_on_the_page_of_orders(tmp_path):
    text = json.dumps(orders_sweep(1, 2, ("lora", "cib")))
    for name, hostile in (
        ("gsm", HOSTILE[0]),
        ("med", HOSTILE[1] + '" onload="alert(1)'),
        ("squad", "=1+1 & 5 % | $x_1$"),
    ):
        text = text.replace(f'"{name}"', json.dumps(hostile))
    summary = json.loads(text)
    made = reported(summary)
    assert_tables_hold_text(made.tables, tmp_path)
    html = page(made, {})
    assert "<img" not in html and html.count("<script") == 1, "the page's own"
    assert not re.search(r'<svg[^>]*onload="', html)


# Figures


def test_trajectories_have_a_panel_for_each_task_and_a_line_for_each_method(whole):
    figure = figure4(sequences_of(typed(whole)))
    assert [panel.get_title(loc="left") for panel in figure.axes] == list(SEQUENCE)
    for panel in figure.axes:
        lines = [line for line in panel.lines if line.get_linestyle() == "-"]
        assert len(lines) == 5 and all(len(line.get_ydata()) == 5 for line in lines)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["LoRA", "Random subset", "KL", "O-LoRA", "CIB"]
    assert [line.get_color() for line in lines][::4] == ["#000000", "#0072b2"]


def test_the_heat_map_shows_what_each_transition_cost(whole):
    figure = figure5(sequences_of(typed(whole)))
    panels = figure.axes[:3]
    assert [panel.images[0].get_array().shape for panel in panels] == [(5, 3), (5, 2), (5, 1)]
    lora = [
        [stage["scores"]["accuracies"]["open"]["value"] for stage in cell["stages"]]
        for cell in whole["cells"][:3]
    ]
    lost = 100 * np.mean([row[0] - row[1] for row in lora])
    assert float(panels[0].images[0].get_array()[0, 0]) == pytest.approx(lost)
    assert panels[0].texts[0].get_text() == in_points(lost / 100)


def test_bars_show_stability_and_transfer_with_and_without_the_first_task(whole):
    six, seven = figure6(sequences_of(typed(whole))), figure7(sequences_of(typed(whole)))
    assert six is not None and seven is not None
    titles = [panel.get_title(loc="left") for figure in (six, seven) for panel in figure.axes]
    assert titles == ["(a)  Stability of gsm", "(b)  Stability of open",
                      "(a)  BWT without open (the paper's)", "(b)  BWT with open"]  # fmt: skip
    assert "ddof = 0" in six.axes[0].get_xlabel()
    assert all(bar.get_width() < 0 for bar in seven.axes[1].patches)


def test_safety_is_shown_from_before_fine_tuning_on(whole):
    figure = safety_by_stage(sequences_of(typed(whole)))
    starts = [panel.lines[-1].get_ydata()[0] for panel in figure.axes]
    assert starts == [0.0, 1.0]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["before", *SEQUENCE]


def test_the_spread_over_orders_has_a_mark_for_each_order(many, whole):
    figure = figure_orders(sequences_of(typed(many)))
    assert figure is not None and figure_orders(sequences_of(typed(whole))) is None
    assert len(figure.axes[0].lines) == 6 * 5
    names = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert {"squad last", "order", "method", "order × method", "seed", "error"} <= set(names)


def test_nothing_finished_draws_nothing():
    summary = orders_sweep(1, 2)
    for cell in summary["cells"]:
        fail(cell, 2)
    study = sequences_of(typed(summary))
    for draw in (figure4, figure5, figure6, figure7, safety_by_stage, figure_orders):
        assert draw(study) is None
    page = page_of(summary, {}, {})
    assert "out of memory" in page and 'id="table"' in page and 'id="safety"' not in page


# Page


def test_a_sweep_of_orders_writes_its_exhibits_the_same_each_time(tmp_path):
    summary = orders_sweep(1, 1, ("lora", "cib"))
    given = (summary, samples(summary, 10), histories(summary, 2))
    files = written(*given, tmp_path)
    tables = ("orders", "accuracy_matrix", "stages")
    drawn = ("figure4", "figure5", "figure6", "figure7", "safety_by_stage", "curves")
    assert {file.name for file in files} == {
        *(f"{stem}.{kind}" for stem in tables for kind in TABLE_FILES),
        *(f"{stem}.{kind}" for stem in drawn for kind in FIGURE_FILES),
        *("cells.csv", "report.html"),
    }
    again = figure5(sequences_of(typed(summary)))
    assert again is not None and (tmp_path / "figure5.svg").read_bytes() == to_svg(again)


def test_the_page_of_several_orders_holds_its_sections(many, made):
    html = page(made, samples(many, 4))
    sections = re.findall(r'<section(?: class="notes")? id="([a-z-]+)"', html)
    assert sections == ["warnings", "safety", "claims", "table", "tasks", "orders", "stages",
                        "cells", "side-by-side", "measured", "provenance"]  # fmt: skip
    # Answers of the order that is shown, and of the model before: 5 methods, 2 seeds.
    answers = json.loads(re.findall(r'id="answers">(.*?)</script>', html, re.S)[0])
    assert len(answers["cells"]) == 11
    for figure in made.drawn().values():
        ElementTree.fromstring(to_svg(figure))


def test_loss_terms_go_on_from_stage_to_stage():
    """Two stages logged at steps 10 and 20 come to 10, 20, 30, 40."""
    summary = orders_sweep(1, 1, ("lora",))
    stages = summary["cells"][0]["stages"]
    logged = {stage["key"]: [{"step": 10, "task": 2.0}, {"step": 20, "task": 1.0}]
              for stage in stages[:2]}  # fmt: skip
    [entries] = chained(sequences_of(typed(summary)), logged).values()
    assert [entry["step"] for entry in entries] == [10, 20, 30, 40]
