"""What rounding leaves is no variance, no correlation, no difference and no claim; what a method
does, however small, still is."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from summaries import orders_sweep, page_of, sweep, typed

from raycib.report.frame import to_frame
from raycib.report.statistics import (
    constant,
    less,
    mean_std,
    pearson,
    spearman,
    t_interval,
    wilson,
)
from raycib.report.table import shown
from raycib.report.variants import ResultRow, best
from raycib.studies.comparison.claims import comparison_claims
from raycib.studies.continual.claims import order_claims
from raycib.studies.continual.sequences import above, sequences_of
from raycib.studies.continual.variance import (
    BOTH,
    COLUMNS,
    ERROR,
    METHOD,
    ORDER,
    SEED,
    analyse,
    anova,
    variance_table,
)
from raycib.studies.strength.claims import _always_rises, _never_rises, correlation_text

SHAPE = (3, 2, 3)
"""Orders, methods, seeds."""


def constants():
    """One number each, written 18 times as arithmetic leaves it: shares k / n themselves, sums of
    tenths in any order (0.1 + 0.2 for 0.3), means of thirds, float32 with some last bits astray."""
    luck = np.random.default_rng(0)
    for n in range(2, 60):
        for k in range(0, n + 1, 3):
            yield np.full(18, k / n)
    for _ in range(800):
        parts = luck.integers(-9, 10, luck.integers(2, 7)) / 10
        yield np.array([sum(luck.permutation(parts).tolist()) for _ in range(18)])
    for _ in range(400):
        size = 10.0 ** luck.uniform(-3, 4)
        thirds = luck.permutation(np.full(18, size) * luck.integers(1, 9, 18))
        yield thirds / 3 / (thirds / size) * 3
    for _ in range(800):
        number = np.float32(10.0 ** luck.uniform(-3, 4) * luck.choice([-1, 1]))
        ulps = luck.integers(-4, 5, 18) * np.spacing(number)
        yield (number + ulps.astype(np.float32)).astype(np.float64)


def test_small_numbers_are_compared_by_their_own_size():
    """A billionth and two are apart; a billionth and its thousand-millionth more are not."""
    assert not constant([1e-9, 2e-9]) and mean_std([1e-9, 3e-9]).std > 0
    assert mean_std([1e-9, 3e-9], scale=1.0).std == 0, "as differences of numbers of order one"
    assert less(1e-9, 2e-9) and not less(1e-9, 1e-9 + 1e-18)
    assert less(1, math.inf) and not less(math.inf, math.inf) and not less(math.nan, 1)


def test_rounding_has_no_variance_no_correlation_and_no_interval():
    """Over 2,600 constants: no share, no F, no p, no r, a spread of 0 and an interval of no
    width."""
    line = np.arange(18.0)
    tried = 0
    for values in constants():
        tried += 1
        sources = anova(values.reshape(SHAPE))
        assert all(math.isnan(n) for s in sources for n in (s.share, s.f, s.p)), values
        assert all(s.ss == 0 for s in sources)
        for measure in (pearson, spearman):
            for pair in ((values, line), (line, values)):
                found = measure(*pair)
                assert found.r is found.p_t is found.p_exact is found.low is None, values
                assert "does not vary" in found.note
        spread, ends = mean_std(values), t_interval(values)
        assert spread.std == 0 and ends.low == ends.high == ends.value == spread.mean
        assert constant(values) and not _always_rises(list(values))
        assert not _never_rises(list(values)), "without a fall nothing falls"
    assert tried > 2_600


def test_differences_of_equal_numbers_are_nothing():
    """(c + 0.3) - (c + 0.1) - 0.2 is 0 to within what float64, or float32, leaves of c."""
    luck = np.random.default_rng(1)
    for _ in range(2_000):
        c = 10.0 ** luck.uniform(-2, 3)
        left = [(c + 0.3) - (c + 0.1) - 0.2 for _ in range(2)] + [c + 0.7 - 0.7 - c]
        found = t_interval(left, scale=c)
        assert found.value == 0 and above(found) is None
        coarse = np.float32(c) * np.float32(3) / np.float32(3) - np.float32(c)
        assert above(t_interval([float(coarse)] * 3, scale=c)) is None
        assert not less(c, c + float(coarse)) and not less(c + float(coarse), c)


def test_a_source_of_rounding_beside_a_real_one_has_no_f():
    """The method changes y by a thousandth, the seed by a ten-thousandth; the rest is float32's."""
    luck = np.random.default_rng(2)
    noise = luck.integers(-4, 5, SHAPE) * float(np.spacing(np.float32(0.4)))
    values = 0.4 + 1e-3 * np.arange(2)[None, :, None] + 1e-4 * np.arange(3)[None, None, :] + noise
    found = {source.name: source for source in anova(values)}
    assert [n for n, s in found.items() if s.ss] == [METHOD, SEED]
    assert found[ORDER].share == found[BOTH].share == found[ERROR].share == 0
    assert found[METHOD].share + found[SEED].share == pytest.approx(1)
    assert all(math.isnan(source.p) for source in found.values()), "against no error there is no F"


@pytest.mark.parametrize("effect", [1e-4, 5e-5])
def test_small_effects_are_still_found(effect):
    """One answer of 20,000 (5e-5): found by every test, with errors a tenth of the effect."""
    luck = np.random.default_rng(3)
    for _ in range(100):
        level = luck.uniform(0.05, 0.95)
        errors = 0.1 * effect * luck.standard_normal(SHAPE)
        values = level + effect * np.arange(3)[:, None, None] + errors
        order = anova(values)[0]
        assert order.name == ORDER and order.p < 0.001 and order.share > 0.9
        dose = level + effect * np.arange(6)
        assert pearson(np.arange(6), dose).r == pytest.approx(1)
        assert spearman(np.arange(6), dose).p_exact == pytest.approx(1 / 360)
        assert above(t_interval(effect + errors.ravel()[:5], scale=level)) is True
        assert less(level, level + effect) and _always_rises(list(dose))


def test_neighbours_that_rounding_tells_apart_share_a_rank():
    """0.1 + 0.2 and 0.3 tie, so rho is that of the ranks 1.5, 1.5, 3, 4."""
    found = spearman([0.1 + 0.2, 0.3, 0.5, 0.7], [1, 2, 3, 4])
    assert found.r == pytest.approx(stats.spearmanr([1, 1, 3, 4], [1, 2, 3, 4]).statistic)


def test_means_of_the_same_rates_in_another_order_settle_no_claim():
    """Sums of the same rates differ by 4e-17: no method has the lower rate, none is above."""
    summary = orders_sweep(3, 2, ("lora", "cib"))
    mine = sum([0.1, 0.2, 0.3]) / 3, sum([0.3, 0.2, 0.1]) / 3
    assert mine[0] != mine[1] and not less(*mine) and not less(*mine[::-1])
    for cell in summary["cells"]:
        for stage in cell["stages"]:
            place = mine[cell["method"] == "cib"]
            stage["scores"]["hrr"] |= {"value": place}
        cell["scores"] = cell["stages"][-1]["scores"]
    frame = to_frame(typed(summary))
    frame = frame.assign(label="", task="t", accuracy=1.0)
    [claim] = [c for c in comparison_claims(frame, {}, {}) if "of all methods (none" in c.text]
    assert claim.holds is True, "none is lower"
    study = sequences_of(typed(summary))
    found = analyse(study, "hrr")
    assert found is not None and all(math.isnan(source.share) for source in found.sources)
    told = {claim.text[:53]: claim for claim in order_claims(typed(summary))}
    [safest] = [c for text, c in told.items() if "lowest harmful response rate" in text]
    [order] = [c for text, c in told.items() if "changes the final HRR" in text]
    assert safest.holds is None and order.holds is None and "no variance" in order.evidence
    seen = shown(variance_table(study), COLUMNS)
    part = seen[seen["Of"] == "final HRR"]
    assert set(part["Share (η²), %"]) == {"no variance"} and set(part["p"]) == {""}


def test_a_mean_at_a_bound_is_within_it_whatever_rounding_leaves():
    """Three seeds of which a tenth babbles each: their mean is above .1 in floats, and .1
    times 1.1 is above .11."""
    tenth = [26 / 260] * 3
    assert np.mean(tenth) > 0.1

    def row(babble: list[float], loss: float = 0.1) -> ResultRow:
        seeds = {"seed": [0, 1, 2], "hrr": [0.2] * 3, "eval_loss": [loss] * 3}
        done = pd.DataFrame(seeds | {"incoherent_rate": babble})
        return ResultRow("kl", "kl", "kl", 1.0, False, done, done[:0])

    assert row(tenth).coherent and row([math.nan] * 3).coherent
    assert not row([26 / 260, 26 / 260, 27 / 260]).coherent
    within = row([0.0] * 3, loss=0.1 * 1.1)
    assert 0.1 * 1.1 > 0.11 and best([within], budget=0.11) is within
    assert best([row([0.0] * 3, loss=0.1101)], budget=0.11) is None
    assert best([row([0.0] * 3, loss=math.nan)], budget=0.11) is None


def test_a_mean_of_rates_that_rounding_puts_outside_is_a_rate():
    """Exact arithmetic says 1; float64 may say 1 + 2e-16."""
    assert sum([Fraction(1)] * 3) / 3 == 1
    assert wilson(1 + 2.3e-16, 260).value == 1 and wilson(-1e-17, 260).value == 0
    with pytest.raises(ValueError):
        wilson(1.01, 260)


def test_no_p_is_shown_as_zero():
    """Of 8! = 40,320 pairings two are as far from zero; 60 flips one way are 2 in 2^60."""
    told = correlation_text(spearman(range(8), range(8)))
    assert told.endswith("exact p <\u00a00.0001")
    summary = sweep(failed=False)
    keys = ("aligned", *(cell["key"] for cell in summary["cells"]))
    answers = {
        key: [{"prompt": f"{n}", "answer": "", "verdict": verdict, "refused": False}
              for n in range(60)]
        for key, verdict in zip(keys, ["safe", *["unsafe"] * 15], strict=True)
    }  # fmt: skip
    page = page_of(summary, answers)
    assert (
        "60 became unsafe, 0 became safe; McNemar&#39;s exact two-sided p &lt;\u00a00.0001" in page
    )
