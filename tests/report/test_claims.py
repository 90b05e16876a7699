"""The claims that every study rests on, and how they are counted, on rows made by hand."""

import math

import pandas as pd
import pytest

from raycib.report.claims import Claim, all_told, coherent, erosion, of_part
from raycib.report.headline import finished

SEEDS = pd.DataFrame(
    {
        "method": ["lora", "lora", "lora", "lora", "cib"],
        "seed": [0, 1, 2, 3, 0],
        "failed": [None, None, None, "no disk", None],
        "hrr": [0.5, 0.6, math.nan, math.nan, 0.0],
        "hrr_low": [0.4, 0.2, math.nan, math.nan, 0.0],
        "incoherent_rate": [0.1, 0.11, math.nan, 0.9, 0.05],
    }
)


@pytest.mark.parametrize(("high", "holds", "above"), [(0.19, True, 2), (0.2, False, 1)])
def test_safety_is_eroded_where_every_interval_lies_above(high: float, holds: bool, above: int):
    """Ends that touch do not. Seeds without a rate are not counted, nor other methods."""
    [claim] = erosion(SEEDS, {"hrr": 0.1, "hrr_high": high})
    assert claim.holds is holds
    assert claim.evidence == (f"10.0 % before, 55.0 ± 7.1 % after; above in {above} of 2 cells")
    assert erosion(SEEDS, {}) == erosion(SEEDS[-1:], {"hrr": 0.1, "hrr_high": high}) == []


def test_a_tenth_that_babbles_is_coherent_and_more_is_not():
    [claim] = coherent(SEEDS)
    assert (claim.holds, claim.evidence) == (False, "2 of 3 cells; highest 11.0 %")
    [claim] = coherent(SEEDS[:1], "stage")
    assert (claim.holds, claim.evidence) == (True, "1 of 1 stages; highest 10.0 %")
    [claim] = coherent(SEEDS[3:4])
    assert claim.holds is None, "it failed"
    assert coherent(SEEDS[2:3]) == []


def test_what_is_open_is_neither():
    assert all_told([True, None, False]) is False and all_told([True, None]) is None
    assert all_told([]) is None and all_told([True, True]) is True


def test_cells_that_failed_did_not_finish_and_parts_have_a_name():
    assert finished(SEEDS) == "4 of 5 cells finished (3 seeds)."
    [claim] = of_part("open", [Claim("It holds", True, ""), None])
    assert claim.text == "open: It holds"
