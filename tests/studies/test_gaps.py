"""Gaps: their intervals, their table, and what is said of them."""

import math

import pandas as pd
import pytest
from summaries import (
    comparison_sweep,
    gap_rows,
    gaps_sweep,
    rate,
    reported,
    sweep,
    typed,
    warned,
)

from raycib.report.claims import all_told
from raycib.report.frame import to_frame
from raycib.report.scores import aligned_scores
from raycib.report.statistics import front
from raycib.report.table import shown
from raycib.report.variants import ResultRow
from raycib.studies.tradeoff.gap import (
    GAP_COLUMNS,
    gap,
    gap_frame,
    places,
    smaller,
)
from raycib.studies.tradeoff.report import gap_headline
from raycib.studies.tradeoff.table import caption, columns, gaps_table


@pytest.fixture(scope="module")
def whole():
    """A sweep with everything, to be left as it is."""
    return gaps_sweep()


def tabled(summary):
    return gaps_table(
        gap_frame(typed(summary)), aligned_scores(typed(summary)), typed(summary).theory
    )


# Frame


def test_gaps_have_columns_that_other_sweeps_lack():
    frame = gap_frame(typed(gaps_sweep()))
    assert set(GAP_COLUMNS) <= set(frame.columns)
    assert all(frame[name].dtype.kind in "fi" for name in GAP_COLUMNS)
    for other in (sweep(), comparison_sweep(1)):
        assert not {*GAP_COLUMNS, "proxy"} & set(to_frame(typed(other)).columns)


def test_a_cell_of_gaps_knows_its_proxy_and_its_name_without_the_task():
    frame = gap_frame(typed(gaps_sweep()))
    case1 = frame[frame["method"] == "case1"]
    assert set(case1["proxy"]) == {"original data", "near outputs", "far outputs"}
    assert set(case1["label"]) == {f"Case I, {name}" for name in set(case1["proxy"])}
    assert "Case I, near outputs, how-to" in set(case1["series"])
    assert case1["safety_data"].all() and not frame[frame["method"] == "case2"]["safety_data"].any()


def test_gaps_that_were_not_measured_are_empty():
    summary = gaps_sweep(methods=("lora", "cib"))
    summary["cells"][0]["scores"] |= {"alignment_gap": None}
    del summary["cells"][0]["scores"]["capability_gap"]
    frame = gap_frame(typed(summary))
    assert frame.loc[0, ["alignment_gap", "alignment_gap_low", "capability_gap"]].isna().all()


# Intervals


def framed(*values):
    summary = gaps_sweep(len(values), methods=("lora",))
    for cell in summary["cells"]:
        cell["scores"]["alignment_gap"] = gap_rows(values[cell["seed"]])
    return next(iter(places(gap_frame(typed(summary)))))[2][0].done


def test_one_seed_has_the_standard_error_over_rows():
    found = gap(framed(1.0), "alignment_gap")
    assert (found.value, found.spread, found.n) == (1.0, 0.024, 400)
    assert (found.low, found.high) == pytest.approx((1 - 1.96 * 0.024, 1 + 1.96 * 0.024))


def test_several_seeds_have_their_own_spread_and_students_interval():
    """1, 2, 3: mean 2, sample std 1, t(.975, 2) = 4.302653, half width 4.302653 / sqrt 3."""
    found = gap(framed(1.0, 2.0, 3.0), "alignment_gap")
    half = 4.302653 / math.sqrt(3)
    assert (found.value, found.spread) == (2.0, 1.0)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), abs=1e-5)


def test_a_seed_without_a_gap_leaves_the_others_and_the_fewest_rows_count():
    """Of nan and 2 the second is the one seed that there is; of 400 and 300 rows, 300 are behind
    a mean."""
    cells = framed(1.0, 2.0).reset_index(drop=True)
    cells.loc[1, "alignment_gap_n"] = 300
    assert gap(cells, "alignment_gap").n == 300
    cells.loc[0, ["alignment_gap", *(f"alignment_gap_{end}" for end in ("se", "low", "high", "n"))]
              ] = math.nan  # fmt: skip
    found = gap(cells, "alignment_gap")
    assert (found.value, found.spread, found.n) == (2.0, 0.044, 300)
    assert (found.low, found.high) == pytest.approx((2 - 1.96 * 0.044, 2 + 1.96 * 0.044))


def variant(se, *values, n=100_000):
    """A variant of as many seeds as values, each over n rows."""
    cells = pd.DataFrame({"seed": range(len(values)), "gap": values, "gap_se": se, "gap_n": n})
    return ResultRow("variant", "variant", "case1", 1.0, False, cells, cells[:0])


def test_one_seed_is_told_apart_by_the_errors_over_rows():
    """.3 and .4: sqrt(.03² + .04²) = .05, times 1.96 is .098 < .1; with .041 it is .0996."""
    assert smaller(variant(0.03, 0.3), variant(0.04, 0.4), "gap") is True
    assert smaller(variant(0.04, 0.4), variant(0.03, 0.3), "gap") is False
    assert smaller(variant(0.03, 0.3), variant(0.042, 0.4), "gap") is None


def test_of_few_rows_errors_count_more():
    """t(.975, 9) = 2.262157 times .05 is .113 > .1; with 100 rows, 1.984217 times it is .099."""
    assert smaller(variant(0.03, 0.3), variant(0.04, 0.4, n=10), "gap") is None
    assert smaller(variant(0.03, 0.3), variant(0.04, 0.4, n=100), "gap") is True


def test_seeds_that_differ_by_the_same_are_no_more_than_one():
    """-.1 in both: the interval over seeds has no width, so the errors over rows decide."""
    first = variant(0.03, 0.3, 0.5)
    assert smaller(first, variant(0.042, 0.4, 0.6), "gap") is None
    assert smaller(first, variant(0.04, 0.4, 0.6), "gap") is True


def test_variants_without_a_seed_in_common_are_not_told_apart():
    """What seeds differ by is in no error over rows."""
    other = variant(0.001, 0.4)
    other.done["seed"] = 7
    assert smaller(variant(0.001, 0.3), other, "gap") is None


def test_several_seeds_are_paired():
    """Seeds far apart, differences of -1, -1.1, -.9: mean -1, std .1, t(.975, 2) = 4.302653, half
    width .248. With differences of -1, -3, 1 it is 4.97."""
    first = variant(9.0, 1.0, 5.0, 30.0)
    assert smaller(first, variant(9.0, 2.0, 6.1, 30.9), "gap") is True
    assert smaller(first, variant(9.0, 2.0, 8.0, 29.0), "gap") is None


def test_two_seeds_are_paired_already_and_equal_gaps_are_not_told():
    """-1 and -1.1: mean -1.05, std .0707, t(.975, 1) = 12.7062, half width .635; the errors over
    rows, of 9, have no say."""
    assert smaller(variant(9.0, 1.0, 5.0), variant(9.0, 2.0, 6.1), "gap") is True
    for values in ((1.0, 2.0), (1.0,)):
        assert smaller(variant(0.0, *values), variant(0.0, *values), "gap") is None


def test_what_was_not_measured_is_not_told():
    assert smaller(variant(0.1, math.nan), variant(0.1, 1.0), "gap") is None


def test_one_false_decides_and_one_open_leaves_open():
    assert all_told([True, None, False]) is False and all_told([True, None]) is None
    assert all_told([True, True]) is True and all_told([]) is None


def test_the_front_is_what_nothing_beats():
    points = [(0.0, 5.0), (1.0, 3.0), (1.0, 4.0), (2.0, 3.0), (3.0, 1.0), (-1.0, 6.0)]
    assert front(points) == [(-1.0, 6.0), (0.0, 5.0), (1.0, 3.0), (3.0, 1.0)]


# Table


def test_each_task_starts_with_the_model_before_and_plain_lora(whole):
    table = tabled(whole)
    for task, part in table.groupby("task"):
        assert part["series"].tolist()[:2] == ["before fine-tuning", "LoRA"], task
    first = table.iloc[0]
    assert first["alignment_gap_mean"] == 0 and first["capability_gap_mean"] == pytest.approx(13.8)
    assert first["hrr_mean"] == 0 and math.isnan(first["accuracy_mean"])
    assert len(table) == 3 + 55


def test_without_theory_there_is_no_row_before():
    assert tabled(gaps_sweep(theory=False, tasks=1))["series"].iloc[0] == "LoRA"


@pytest.mark.parametrize(("seeds", "words"), [(1, "standard error over rows"), (3, "ddof = 1")])
def test_the_caption_says_which_spread_it_is(seeds, words):
    table = tabled(gaps_sweep(seeds, methods=("lora", "case1"), tasks=1))
    assert words in caption(table) and "\u00b1" in caption(table)
    assert ("Seeds" in shown(table, columns(table))) == (seeds > 1)


def test_exact_gaps_and_tax_are_in_the_csv_and_shown_only_where_measured():
    summary = gaps_sweep(methods=("lora", "case1"), tasks=1)
    table = tabled(summary)
    seen = shown(table, columns(table))
    assert {"tax_mean", "alignment_gap_exact_low", "max_nll_mean"} <= set(table.columns)
    assert "Exact alignment gap, nats" in seen
    for cell in summary["cells"]:
        cell["scores"] |= {"alignment_gap_exact": None}
    assert "Exact alignment gap, nats" not in shown(tabled(summary), columns(tabled(summary)))


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_terminal_shows_gaps_within_140_columns(seeds):
    summary = gaps_sweep(seeds, tasks=2)
    summary["cells"][-1] |= {"failed": "out of memory", "scores": None}
    report = reported(summary)
    text = report.terminal()
    assert max(map(len, text.splitlines())) <= 140
    assert f"strength 2: failed (seed {seeds - 1}): out of memory" in text
    rows = report.main.brief
    assert not rows.duplicated(["Task", "Method", "Strength"]).any()


def test_negative_gaps_are_not_clipped():
    summary = gaps_sweep(methods=("lora", "case1"), tasks=1)
    summary["cells"][1]["scores"]["capability_gap"] = gap_rows(-0.5)
    assert tabled(summary)["capability_gap_mean"].min() == -0.5
    assert any("negative, interval and all" in t for t in warned(summary))


# Words


def test_the_answer_names_the_cheapest_way_to_a_tenth_of_the_gap(whole):
    """A tenth of 20.9: Case I at .1 with 1.6; CIB's least is 4.2."""
    text = gap_headline(gap_frame(typed(whole)), aligned_scores(typed(whole)), [])
    assert "how-to: Plain LoRA's alignment gap is 20.866 ± 0.424 nats per answer" in text
    assert "Case I, original data at 0.1 (capability gap 0.050" in text
    assert "no strength of CIB is enough" in text
    babbling = gaps_sweep()
    for cell in babbling["cells"]:
        if cell["label"] == "Case I, original data" and cell["strength"] == 0.1:
            cell["scores"]["incoherent_rate"] = rate(0.3, 260)
    text = gap_headline(gap_frame(typed(babbling)), aligned_scores(typed(babbling)), [])
    assert "Case I" in text and "Case I, original data at 0.1 (" not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: None, "One seed"),
        (lambda s: None, "C_p of Theorem 1"),
        (lambda s: None, "at most the true ones"),
        (lambda s: None, "not corrected for being several"),
        (lambda s: s.pop("theory"), "no bounds are shown"),
        (lambda s: s["theory"]["proxies"][1].update(how="estimated"), "terms of near outputs"),
        (lambda s: s["cells"][-1]["scores"].update(distance=3.0), "1.50 times its radius"),
        (lambda s: s["cells"][-1]["scores"].update(capability_gap=None), "no capability gap"),
    ],
)
def test_what_makes_gaps_and_bounds_doubtful_is_said(change, words):
    summary = gaps_sweep()
    change(summary)
    assert any(words in text for text in warned(summary))


def test_with_several_seeds_and_sound_data_there_is_less_to_warn_of():
    summary = gaps_sweep(2)
    found = warned(summary)
    assert not [text for text in found if "One seed" in text or "negative" in text]
