"""A sweep of several tasks, each by itself or in sequence: no number of one stands for another."""

import copy
import statistics

import pytest
from summaries import histories, orders_sweep, rate, reported, sweep, typed, warned

from raycib.commands.card import scores_of
from raycib.commands.stored import Found
from raycib.report.scores import aligned_scores, before_all
from raycib.results import Scores
from raycib.studies.continual.study import answered_on

OTHER = {"eval_loss": 1.5, "mutual_information_before": 0.75, "accuracy": rate(0.5, 80)}
"""What the second task has otherwise, besides half the harmful response rate."""


@pytest.fixture(scope="module")
def two():
    """The lambda grid on two tasks, whose rows and losses are others."""
    whole = sweep(failed=False)
    cells = copy.deepcopy(whole["cells"])
    for cell in cells:
        cell |= {"task": "sums", "key": cell["key"][::-1]}
        share = cell["scores"]["hrr"]["value"] / 2
        cell["scores"] |= OTHER | {"hrr": rate(share, 260), "eval_loss_before": 4.0}
    return whole | {"cells": [*whole["cells"], *cells]}


def test_plain_lora_is_that_of_each_task(two):
    report = reported(two, None, histories(two))
    for task in ("open", "sums"):
        plain = [c["scores"] for c in two["cells"] if c["task"] == task and not c["strength"]]
        rates = [100 * one["hrr"]["value"] for one in plain]
        said = f"{statistics.mean(rates):.1f} ± {statistics.stdev(rates):.1f} %"
        assert f"{task}: Plain LoRA brings harmful responses from 0.0 %" in report.headline
        [claim] = [one for one in report.claims if f"{task}: Benign" in one.text]
        assert said in report.headline and said in claim.evidence
        assert "3 of 3 cells" in claim.evidence
    [tail] = [part for part in report.headline.split("With ") if part.startswith("CIB, sums")]
    assert "(plain LoRA: 1.500 ± 0.000)" in tail, "the loss of its own task"


def test_curves_of_two_tasks_are_not_averaged(two):
    """Steps of the second task are twice as dear: a mean of both is no curve of either."""
    told = histories(two)
    for cell in two["cells"]:
        if cell["task"] == "sums":
            told[cell["key"]] = [one | {"task": 2 * one["task"]} for one in told[cell["key"]]]
    for most, lines in ((2, 4), (1, 2)):  # with CIB at one strength, and plain LoRA alone
        few = two | {"cells": [one for one in two["cells"] if one["strength"] < most]}
        figure = reported(few, None, told).curves()
        drawn = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
        assert len(drawn) == lines
        assert drawn["LoRA, sums"] == pytest.approx([2 * y for y in drawn["LoRA, open"]])


def test_levels_of_information_are_named_by_task(two):
    [figure] = [figure for stem, figure in reported(two).drawn().items() if stem == "figure2"]
    said = {text.get_text() for text in figure.axes[0].texts}
    assert {"before fine-tuning, open 1.51", "before fine-tuning, sums 0.75"} <= said
    one = reported(sweep(failed=False)).drawn()["figure2"]
    assert "before fine-tuning 1.51" in {text.get_text() for text in one.axes[0].texts}


def test_only_terms_in_nats_are_called_so():
    whole = sweep(failed=False)
    told = {key: [{"step": 1, "task": 0.5, "distance": 9.0}] for key in histories(whole)}
    figure = reported(whole, None, told).curves()
    units = {panel.get_title(loc="left"): panel.get_ylabel() for panel in figure.axes}
    assert units == {"task": "nats, unweighted", "distance": "unweighted"}


def test_rows_are_lost_against_cells_of_the_same_task(two):
    """80 rows of the one task are none that the other's 160 lack."""
    assert not [text for text in warned(two) if text.startswith("accuracy lost")]
    fewer = copy.deepcopy(two)
    fewer["cells"][-1]["scores"]["accuracy"] = rate(0.5, 77)
    [lost] = [text for text in warned(fewer) if text.startswith("accuracy lost")]
    assert lost.startswith("accuracy lost up to 3 rows in 1 cell")


def test_a_card_holds_a_cell_against_its_own_task_before(two):
    results = typed(two)
    cell = results.cells[-1]
    found = {one.name: one for one in scores_of(Found(results, cell.scores.plain(), cell))}
    assert found["eval_loss"].before == {"value": 4.0}
    assert found["hrr"].before["value"] == 0
    assert found["accuracy"].before.get("value") is None, "which is the first task's"


def test_in_a_sequence_answers_before_are_those_by_task():
    summary = orders_sweep()
    scores = summary["aligned"]["scores"]
    scores |= {"accuracy": rate(0.9, 160), "f1": 0.9, "eval_loss": 3.0}
    before = before_all(typed(summary))
    assert before and before.accuracy is None and before.f1 is None
    assert before.eval_loss == 3.0, "which is the first task's in every cell"
    first, *_ = summary["tasks"]
    assert (
        aligned_scores(typed(summary))[f"accuracy_{first}"] == scores["accuracies"][first]["value"]
    )


def test_after_a_stage_nothing_is_said_of_answers_to_another_task():
    first, last = rate(1, 160), rate(0.25, 80)
    both = {"open": first, "sums": last}
    scores = Scores.model_validate({"accuracy": first, "f1": 0.9, "eval_loss": 0.1,
                                    "accuracies": both})  # fmt: skip
    after = Scores.model_validate(answered_on(scores, "sums"))
    assert after.accuracy and after.accuracy.value == 0.25
    assert after.f1 is None and after.eval_loss == 0.1
