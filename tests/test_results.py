"""The results of a sweep as a file: nothing is lost, and what cannot be right is refused."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from summaries import RESULTS, ablation_sweep, comparison_sweep, gaps_sweep, orders_sweep, sweep

from raycib.errors import UserError
from raycib.results import Results, Scores, folder_of, read_results
from raycib.store import whole_root

KINDS = (sweep, comparison_sweep, ablation_sweep, gaps_sweep, orders_sweep)


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_what_is_read_is_written_again(make: Callable[[], dict[str, Any]]) -> None:
    """Also fields that nobody here knows; what is absent stays absent."""
    whole = copy.deepcopy(make())
    whole["later"] = {"value": 1}
    whole["cells"][0]["of_another_study"] = [1, {"n": 2}]
    whole["cells"][0]["scores"]["moved"] = 0.5
    assert RESULTS.get(whole.get("study", ""), Results).model_validate(whole).plain() == whole
    assert Results.model_validate(whole).plain() == whole


def test_a_file_of_another_format_or_shape_is_refused_in_one_line(tmp_path: Path) -> None:
    def read(values: Any) -> str:
        (tmp_path / "summary.json").write_text(
            values if isinstance(values, str) else json.dumps(values)
        )
        with pytest.raises(UserError) as caught:
            read_results(tmp_path)
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
        return str(caught.value)

    good = sweep(seeds=1)
    assert "has format 1, this version reads 2" in read(good | {"format": 1})
    assert "has format None" in read([good])
    assert "cannot be read" in read(json.dumps(good)[:-9])
    without = [{k: v for k, v in cell.items() if k != "strength"} for cell in good["cells"]]
    assert "cells.0.strength: Field required" in read(good | {"cells": without})
    words = [good["cells"][0] | {"seed": "0"}]
    assert "cells.0.seed: Input should be a valid integer" in read(good | {"cells": words})


def test_a_copy_with_other_values_is_checked() -> None:
    scores = Scores(eval_loss=0.5)
    assert scores.but(utility=1.0).plain() == {"eval_loss": 0.5, "utility": 1.0}
    with pytest.raises(ValueError, match="utility"):
        scores.but(utility="high")


def test_they_are_beside_their_store_also_behind_a_link_and_a_way_back(tmp_path: Path) -> None:
    """The system goes back from where the link leads."""
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    out = f"{tmp_path}/link/../out"
    folder_of(out).mkdir()
    assert Path(whole_root(out)).is_dir()
