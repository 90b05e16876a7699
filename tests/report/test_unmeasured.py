"""What was not measured is shown as such: a task of free text has no accuracy, in no exhibit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from summaries import (
    ablation_sweep,
    comparison_sweep,
    gaps_sweep,
    histories,
    orders_sweep,
    reported,
    samples,
    terminal,
    typed,
    written,
)
from summaries import sweep as dose_sweep

from raycib.report.frame import to_frame
from raycib.report.scores import aligned_scores

KINDS = [dose_sweep, ablation_sweep, comparison_sweep, gaps_sweep, orders_sweep]
UNMEASURED = ("accuracy", "over_refusal", "utility")


def without(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary of the same sweep on a task of free text, without probes or harmless prompts."""
    scored = [summary["aligned"], *summary["cells"]]
    scored += [stage for cell in summary["cells"] for stage in cell.get("stages", ())]
    for one in scored:
        if scores := one["scores"]:
            scores |= dict.fromkeys(UNMEASURED)
            scores["utility_by_probe"] = {}
            if "accuracies" in scores:
                scores["accuracies"] = dict.fromkeys(scores["accuracies"])
                for name in ("bt", "bt_all", "bwt", "bwt_all", "forward_transfer", "forgetting",
                             "stability", "stability_first"):  # fmt: skip
                    scores.pop(name, None)
    return summary


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_sweep_without_accuracy_has_every_exhibit_and_claims_none(
    make: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    summary = without(make())
    frame = to_frame(typed(summary))
    for name in UNMEASURED:
        assert frame[name].isna().all()
        assert aligned_scores(typed(summary)).get(name) is None
    files = written(summary, samples(summary, 5), histories(summary), tmp_path)
    assert any(file.name == "report.html" for file in files)
    page = (tmp_path / "report.html").read_text()
    assert " nan" not in page.lower().replace("nanoseconds", "")
    assert "accuracy" not in terminal(summary).casefold()


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_tables_say_how_answers_are_scored(make: Callable[[], dict[str, Any]]) -> None:
    summary = make()
    scorer = {"setting": "accuracy of sums", "value": "final number", "from": "its rows"}
    summary["settings"] = [{"setting": "rank", "value": "8", "from": "preset"}, scorer]
    told = "Scored, accuracy of sums: final number."
    assert terminal(summary).endswith(told)
    report = reported(summary)
    assert report.caption(report.main).endswith(told)
