"""Sweeps of orders: their frames, tables, variance, figures and page."""

import json
import math

import numpy as np
import pytest
from scipy import stats
from summaries import (
    SEQUENCE,
    comparison_sweep,
    fail,
    gaps_sweep,
    orders_sweep,
    sweep,
    typed,
)

from raycib.report.frame import to_frame
from raycib.report.statistics import Interval, t_interval
from raycib.studies.continual.scores import MEASURES
from raycib.studies.continual.sequences import (
    above,
    difference,
    over_seeds,
    sequence_frame,
    sequences_of,
    stages_frame,
)
from raycib.studies.continual.variance import analyse, anova, variance_caption, variance_table

# Frames


def test_a_cell_of_orders_is_a_row_with_its_order_and_measures(whole):
    frame = sequence_frame(typed(whole))
    assert len(frame) == 15 and set(frame["order"]) == {SEQUENCE}
    assert set(frame["task"]) == {"open → gsm → med → squad"}
    assert all(frame[name].dtype.kind == "f" for name in MEASURES)
    assert frame[list(MEASURES)].notna().all(axis=None)
    assert set(frame["label"]) == {"LoRA", "Random subset", "KL", "O-LoRA", "CIB"}
    for other in (sweep(), comparison_sweep(1), gaps_sweep(methods=("lora",))):
        assert not {*MEASURES, "order"} & set(to_frame(typed(other)).columns)


def test_measures_of_a_cell_come_from_its_stages(whole):
    """BT: the mean of the last stage's accuracies without open; BWT (gsm, med): last less own."""
    cell = whole["cells"][4]
    gsm, med, squad = (
        [stage["scores"]["accuracies"][task]["value"] for stage in cell["stages"]]
        for task in SEQUENCE[1:]
    )
    row = sequence_frame(typed(whole)).iloc[4]
    assert row["bt"] == pytest.approx((gsm[3] + med[3] + squad[3]) / 3)
    assert row["bwt"] == pytest.approx((gsm[3] - gsm[1] + med[3] - med[2]) / 2)
    assert row["stability"] == pytest.approx(np.std(gsm[1:]))


def test_stages_have_a_row_each_with_accuracy_on_every_task(whole):
    frame = stages_frame(typed(whole))
    assert len(frame) == 60 and frame["stage"].tolist()[:4] == [1, 2, 3, 4]
    assert frame["task"].tolist()[:4] == list(SEQUENCE)
    first = whole["cells"][0]["stages"][1]
    assert frame["key"].iloc[1] == first["key"]
    assert frame["accuracy_med"].iloc[1] == first["scores"]["accuracies"]["med"]["value"]
    assert not [name for name in frame if frame[name].map(lambda v: isinstance(v, dict)).any()]


def test_a_failed_stage_is_a_row_that_says_why_and_its_run_is_in_no_mean():
    summary = orders_sweep()
    fail(summary["cells"][0], 3)
    frame, study = stages_frame(typed(summary)), sequences_of(typed(summary))
    assert frame["failed"].tolist()[:4] == [None, None, "out of memory",
                                            "not finished: squad has no adapter"]  # fmt: skip
    assert math.isnan(frame["hrr"].iloc[2]) and frame["hrr"].iloc[1] > 0
    assert sequence_frame(typed(summary)).loc[0, list(MEASURES)].isna().all()
    assert len(study.done) == 14 and over_seeds(study.variants["LoRA"], "bwt").n == 2


def test_a_method_at_several_strengths_is_several_variants():
    summary = orders_sweep(1)
    again = json.loads(json.dumps(summary["cells"][-1])) | {"strength": 10, "key": "ab" * 32}
    summary["cells"].append(again)
    assert list(sequences_of(typed(summary)).variants)[-2:] == ["CIB at 5", "CIB at 10"]


def test_plain_lora_is_first_and_the_papers_order_before_others():
    summary = orders_sweep(1, 2, ("cib", "lora"))
    summary["cells"].reverse()
    study = sequences_of(typed(summary))
    assert list(study.variants) == ["LoRA", "CIB"] and study.orders[0] == SEQUENCE
    for cell in summary["cells"]:
        if cell["order"] == list(SEQUENCE):
            fail(cell, 1)
    assert sequences_of(typed(summary)).main.orders == [("open", "gsm", "squad", "med")]


# Statistics


def test_students_interval_by_hand():
    """1, 2, 3: mean 2, std 1, t(.975, 2) = 4.302653: 2 ± 4.302653 / sqrt 3."""
    found = t_interval([1.0, 2.0, 3.0, math.nan])
    half = 4.302653 / math.sqrt(3)
    assert (found.value, found.n) == (2, 3)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), abs=1e-5)
    one = t_interval([5.0])
    assert one.value == 5 and math.isnan(one.low) and above(one) is None


def test_a_difference_is_paired_by_seed_and_order(many):
    study = sequences_of(typed(many))
    one, other = study.variants["CIB"], study.variants["LoRA"]
    by_hand = [
        np.mean([a.value("hrr") - b.value("hrr") for a in one for b in other
                 if a.cell.seed == b.cell.seed == seed and a.order == b.order])
        for seed in (0, 1)
    ]  # fmt: skip
    found = difference(one, other, "hrr")
    assert found.n == 2 and found.value == pytest.approx(np.mean(by_hand))
    assert found.low == pytest.approx(t_interval(by_hand).low)
    missing = [run for run in other if run.order != SEQUENCE]
    assert difference([run for run in one if run.order == SEQUENCE], missing, "hrr").n == 0


def test_seeds_are_the_unit_and_orders_are_averaged_within_them():
    """Seed 0 has .1 and .3 in two orders, seed 1 has .6 in one and nothing in the other: .2 and .6,
    of which the mean is .4 and the deviation .4 / sqrt 2."""
    runs = sequences_of(typed(orders_sweep(2, 2, ("lora",)))).variants["LoRA"]
    keys = [run.cell.key for run in sorted(runs, key=lambda run: run.cell.seed)]
    values = dict(zip(keys, (0.1, 0.3, 0.6, math.nan), strict=True))
    found = over_seeds(runs, lambda run: values[run.cell.key])
    assert (found.mean, found.std, found.n) == pytest.approx((0.4, 0.4 / math.sqrt(2), 2))


def test_an_interval_that_holds_the_level_leaves_it_open():
    told = [above(Interval(sum(ends) / 2, *ends, 3), 1.0) for ends in ((0, 3), (2, 3), (-1, 0))]
    assert told == [None, True, False]


CUBE = np.array([[[1.0, 3.0], [4.0, 8.0]], [[2.0, 4.0], [9.0, 13.0]]])
"""Two orders, two methods, two seeds; grand mean 5.5."""


def test_variance_of_two_orders_methods_and_seeds_by_hand():
    """Means: orders 4 and 7, methods 2.5 and 8.5, seeds 4 and 7, cells 2, 6, 3, 11. Order
    8 x 1.5^2 = 18, method 8 x 3^2 = 72, seed 8 x 1.5^2 = 18. Cells 2 (3.5^2 + .5^2 + 2.5^2 + 5.5^2)
    = 98, of which 98 - 90 = 8 is order x method. Squares of the values 360, less 8 x 5.5^2: 118 in
    all; error 118 - 98 - 18 = 2, with (2 x 2 - 1)(2 - 1) = 3 degrees of freedom."""
    order, method, both, seed, error = anova(CUBE)
    assert [s.ss for s in (order, method, both, seed, error)] == pytest.approx([18, 72, 8, 18, 2])
    assert [s.df for s in (order, method, both, seed, error)] == [1, 1, 1, 1, 3]
    assert [s.f for s in (order, method, both, seed)] == pytest.approx([27, 108, 12, 27])
    assert order.share == pytest.approx(18 / 118)
    # F(1, 3) is the square of Student's t with 3 degrees of freedom.
    assert order.p == pytest.approx(2 * stats.t.sf(math.sqrt(27), 3))
    assert math.isnan(error.f) and math.isnan(error.p)


def test_with_one_seed_the_interaction_is_the_error():
    """1, 4 and 2, 9: grand mean 4; order (2.5, 5.5) 9, method (1.5, 6.5) 25, rest 4."""
    order, method, error = anova(CUBE[:, :, :1])
    assert (order.ss, method.ss, error.ss) == pytest.approx((9, 25, 4))
    assert (error.name, error.df, order.f) == ("error", 1, pytest.approx(9 / 4))


def test_two_methods_and_orders_without_an_order_effect_are_a_paired_t_test():
    """Method in a block design of 2 x 2 cells over one seed: F is the square of the paired t."""
    values = CUBE[:, :, :1]
    t = stats.ttest_rel(values[:, 0, 0], values[:, 1, 0])
    assert anova(values)[1].f == pytest.approx(t.statistic**2)
    assert anova(values)[1].p == pytest.approx(t.pvalue)


def test_shares_of_the_variance_sum_to_one_and_nothing_varies_without_variance():
    values = np.random.default_rng(0).normal(size=(6, 5, 3))
    assert sum(source.share for source in anova(values)) == pytest.approx(1)
    assert all(math.isnan(source.share) for source in anova(np.ones((2, 2, 2))))
    with pytest.raises(ValueError, match="2 orders"):
        anova(values[:1])


def test_a_missing_run_costs_the_fewest_runs_that_keep_the_design_balanced():
    """60 runs: without one, its order goes (10 runs), not its seed (30) or its method (12)."""
    summary = orders_sweep(2, 6)
    fail(summary["cells"][0], 4)
    found = analyse(sequences_of(typed(summary)), "hrr")
    assert (found.orders, found.methods, found.seeds, found.runs, found.of) == (5, 5, 2, 50, 59)
    assert " 9 finished runs are left out" in variance_caption(sequences_of(typed(summary)))
    assert analyse(sequences_of(typed(orders_sweep(2, 1))), "hrr") is None
    assert analyse(sequences_of(typed(orders_sweep(2, 3, ("cib",)))), "hrr") is None


def test_the_caption_says_which_model_it_is(many):
    assert "seeds as blocks" in variance_caption(sequences_of(typed(many)))
    single = sequences_of(typed(orders_sweep(1, 2)))
    assert "the interaction is the error" in variance_caption(single)
    assert set(variance_table(single)["source"]) == {"order", "method", "error"}


def test_sums_of_squares_are_in_points():
    """Of all sources together: what runs' rates in per cent are off their mean, squared."""
    summary = orders_sweep(2, 3)
    rates = [100 * cell["scores"]["hrr"]["value"] for cell in summary["cells"]]
    table = variance_table(sequences_of(typed(summary)))
    whole = table[table["response"] == "final HRR"]["sum_of_squares"].sum()
    assert whole == pytest.approx(np.var(rates) * len(rates))
