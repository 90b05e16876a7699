"""lm-eval's benchmarks in the reports of all studies: what is shown, meant and left out."""

from typing import Any

import pytest
from summaries import (
    comparison_sweep,
    gaps_sweep,
    orders_sweep,
    page_of,
    reported,
    sweep,
    terminal,
    typed,
)

from raycib.report.scores import flat_scores

STUDIES = {
    "strength": sweep,
    "comparison": comparison_sweep,
    "tradeoff": gaps_sweep,
    "continual": orders_sweep,
}


def scored(summary: dict[str, Any]) -> dict[str, Any]:
    """The same with two benchmarks in every finished cell: ARC falls by a point a seed."""
    every = [(summary["aligned"], 0), *((cell, cell["seed"]) for cell in summary["cells"])]
    for one, seed in every:
        if one["scores"]:
            arc = 0.5 - seed / 100
            one["scores"] |= {
                "benchmarks": {
                    "arc acc_norm": {"value": arc, "low": arc - 0.03, "high": arc + 0.03,
                                     "n": 1172, "stderr": 0.0153},
                    "wiki word_perplexity": {"value": 9.25, "low": None, "high": None, "n": 62,
                                             "stderr": None},
                },
                "benchmark_details": {"arc acc": {"value": 0.4, "low": 0.37, "high": 0.43,
                                                  "n": 1172, "stderr": 0.0153}},
                "benchmarks_mean": arc,
            }  # fmt: skip
    return summary


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_has_a_table_of_benchmarks(study: str) -> None:
    summary = scored(STUDIES[study]())
    report = reported(summary)
    table = report.benchmarks
    assert {"arc acc_norm, %", "wiki word_perplexity"} < set(table.shown.columns)
    assert "Mean of 1, %" not in table.shown.columns, "a mean of one says nothing"
    before, *others = table.rows.to_dict("records")
    assert before["benchmark_arc acc_norm_mean"] == 0.5
    done = [row for row in others if not row["status"]]
    assert done
    for row in done:
        assert row["benchmark_detail_arc acc_mean"] == pytest.approx(0.4)
        seeds = {0, 1, 2} if row["seeds"] % 3 == 0 else set(range(int(row["seeds"])))
        assert row["benchmark_arc acc_norm_mean"] == pytest.approx(
            0.5 - sum(seeds) / len(seeds) / 100
        )
    assert "9.250" in set(table.shown["wiki word_perplexity"]) | {
        text.partition(" ")[0] for text in table.shown["wiki word_perplexity"]
    }
    assert "arc acc_norm, %" in terminal(summary)
    page = page_of(summary)
    assert "50.0 [47.0, 53.0] of 1172" in page, "every cell's own value has its interval and n"
    assert 'id="benchmarks"' in page


def test_benchmarks_tell_abilities_where_there_are_no_probes() -> None:
    """Utility is then not missed, and its column is gone; without benchmarks it is missed."""
    summary = sweep()
    for one in (summary["aligned"], *summary["cells"]):
        if one["scores"]:
            one["scores"] |= {"utility": None, "utility_by_probe": {}}
    without = page_of(summary)
    assert "Not measured in any cell: Utility." in without
    assert 'id="benchmarks"' not in without
    assert "Not measured in any cell" not in page_of(scored(summary))


def test_tracking_gets_every_metric() -> None:
    flat = flat_scores(typed(scored(sweep())).cells[0].scores)
    assert flat["benchmark_arc acc_norm"] == 0.5
    assert flat["benchmark_arc acc_norm_n"] == 1172
    assert flat["benchmark_detail_arc acc_stderr"] == 0.0153
    assert flat["benchmarks_mean"] == 0.5
