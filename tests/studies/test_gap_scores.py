"""The two gaps of a model from its losses: means, standard errors and pairs by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from raycib.config import RowsSpec
from raycib.evals.scores import Missing, load_values
from raycib.store import Store
from raycib.studies.tradeoff.divergence import entropy
from raycib.studies.tradeoff.measure import (
    GapSpec,
    gap_scores,
    mean_with_error,
    paired_gap,
)
from raycib.studies.tradeoff.results import Mean

ROWS = RowsSpec(name="asked", source="asked.jsonl", rows="a" * 64, num_rows=4)
GAPS = GapSpec(alignment=ROWS, task=ROWS.model_copy(update={"rows": "b" * 64}))
TAX = {"tax": 0.25, "kept": 1.5}


def save(
    store: Store, model_id: str, alignment: list[float], task: list[float], gaps: GapSpec = GAPS
) -> None:
    def write(folder: Path) -> None:
        (folder / gaps.file).write_text(
            json.dumps({"alignment": alignment, "task": task, "tax": TAX})
        )

    store.put(gaps.folder, gaps.stored_key(model_id), write, {})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    own = Store(tmp_path)
    save(own, "aligned", [1.0, 2.0, 3.0], [9.0, 9.0, 9.0])
    save(own, "safe", [0.5, 1.0, 3.0], [4.0, 6.0, 5.0])
    save(own, "free", [5.0, 8.0, 5.0], [1.0, 2.0, 3.0])
    return own


def test_a_mean_and_its_error_by_hand():
    """1, 2, 3, 4: mean 2.5; squares around it 2.25 + .25 + .25 + 2.25 = 5; / 3 / 4 = .41667, whose
    root is .645497; t(.975, 3) = 3.182446 of it to either side."""
    found = mean_with_error([1, 2, 3, 4])
    assert found.value == 2.5
    assert found.se == pytest.approx(0.645497, abs=1e-6)
    assert found.low == pytest.approx(2.5 - 2.054261, abs=1e-5)
    assert found.high == pytest.approx(2.5 + 2.054261, abs=1e-5)
    assert found.n == 4


@pytest.mark.parametrize("n", [2, 5, 30])
def test_an_interval_has_the_mean_in_it_in_95_percent_of_samples(n: int):
    """Of 2,000 samples the share lies within .018 of .95 in all but 1 of 5,000 runs; the normal
    quantile gives .70 with 2 rows, .87 with 5 and .94 with 30."""
    draws = np.random.default_rng(0).normal(3.0, 2.0, size=(2000, n))
    found = [mean_with_error(rows) for rows in draws.tolist()]
    held = np.mean([one.low < 3 < one.high for one in found])  # type: ignore[operator]
    assert held == pytest.approx(0.95, abs=0.018)


def test_a_single_row_has_no_error():
    assert mean_with_error([2.0]) == Mean(value=2.0, low=None, high=None, se=None, n=1)


def test_a_sum_of_many_rows_loses_nothing():
    """1e16 + 1 - 1e16 is 0 in floats added one by one."""
    assert mean_with_error([1e16, 1.0, -1e16, 3.0]).value == 1.0


def test_a_gap_is_paired_row_by_row():
    """(1, 2, 3) - (2, 4, 3) = -1, -2, 0: mean -1, standard deviation 1, error 1/sqrt 3. Unpaired it
    would be sqrt(1/3 + 1/3) = .816."""
    found = paired_gap([1, 2, 3], [2, 4, 3])
    assert found.value == -1
    assert found.se == pytest.approx(1 / math.sqrt(3))
    assert found.high == pytest.approx(-1 + 4.302653 / math.sqrt(3)), "t(.975, 2)"


def test_a_model_has_no_gap_to_itself():
    assert paired_gap([1.0, 5.0], [1.0, 5.0]) == Mean(value=0, low=0, high=0, se=0, n=2)


def test_other_rows_are_no_pairs():
    with pytest.raises(ValueError, match="zip"):
        paired_gap([1, 2, 3], [1, 2])


def test_gaps_of_a_model_by_hand(store: Store):
    """Alignment: (.5, 1, 3) - (1, 2, 3) = -.5, -1, 0, mean -.5, below zero and left so.
    Capability against the same fine-tuning unconstrained: (4, 6, 5) - (1, 2, 3) = 3, 4, 2."""
    found = gap_scores(store, "safe", "aligned", "free", GAPS)
    assert found["alignment_gap"].value == -0.5
    assert found["alignment_gap"].se == pytest.approx(0.5 / math.sqrt(3))
    assert found["capability_gap"].value == 3
    assert found["capability_gap"].se == pytest.approx(1 / math.sqrt(3))
    assert found["alignment_nll"].value == 1.5
    assert found["capability_nll"].value == 5
    assert found["max_nll"] == 6
    assert found["tax"] == 0.25
    assert found["kept"] == 1.5
    assert "alignment_gap_exact" not in found, "no law is known of a file"
    assert "capability_gap_exact" not in found


def test_the_unconstrained_model_has_no_capability_gap_and_the_aligned_no_alignment_gap(
    store: Store,
):
    free = gap_scores(store, "free", "aligned", "free", GAPS)
    assert (free["capability_gap"].value, free["capability_gap"].se) == (0, 0)
    assert free["alignment_gap"].value == 4, "4, 6, 2"
    before = gap_scores(store, "aligned", "aligned", None, GAPS)
    assert before["alignment_gap"].value == 0
    assert "capability_gap" not in before, "with nothing to compare it with"


def test_against_a_known_law_a_gap_is_the_loss_above_its_entropy(tmp_path: Path):
    """Which a sample may fall below: .3 nats on rows whose law has .5273."""
    rows = [
        ROWS.model_copy(update={"source": f"world:{name}"})
        for name in ("align.test", "gsm.train#first-400")
    ]
    gaps, own = GapSpec(alignment=rows[0], task=rows[1]), Store(tmp_path)
    save(own, "model", [0.2, 0.4], [0.5, 0.7], gaps)
    found = gap_scores(own, "model", "model", None, gaps)
    least = entropy("world:align.test")
    assert least == pytest.approx(0.52731, abs=1e-5)
    assert found["alignment_gap_exact"].value == pytest.approx(0.3 - least)
    assert found["alignment_gap_exact"].value < 0
    assert found["alignment_gap_exact"].se == pytest.approx(found["alignment_nll"].se)
    assert found["capability_gap_exact"].value == pytest.approx(0.6), "sums have one answer"


@pytest.mark.parametrize("lacks", ["model_id", "aligned", "unconstrained"])
def test_losses_that_are_not_there_yet_are_missing(lacks: str, store: Store):
    asked = {"model_id": "safe", "aligned": "aligned", "unconstrained": "free"}
    with pytest.raises(Missing, match="no gaps of nobody"):
        gap_scores(store, **{**asked, lacks: "nobody"}, gaps=GAPS)
    with pytest.raises(Missing, match="no gaps of nobody"):
        load_values(store, "nobody", GAPS)


def test_losses_on_other_rows_are_others(store: Store):
    other = GAPS.model_copy(update={"task": ROWS})
    with pytest.raises(Missing):
        load_values(store, "safe", other)
    renamed = GAPS.model_copy(update={"task": GAPS.task.model_copy(update={"source": "moved"})})
    assert load_values(store, "safe", renamed)["task"] == [4.0, 6.0, 5.0]
