"""What a lambda grid claims, correlates and warns of, by the data."""

import pytest
from summaries import rate, reported, sweep, typed, warned

from raycib.report.correlations import COLUMNS, correlation_table
from raycib.report.frame import to_frame
from raycib.report.scores import aligned_scores
from raycib.report.table import shown
from raycib.studies.strength.claims import claims


def judged(summary):
    found = claims(to_frame(typed(summary)), aligned_scores(typed(summary)))
    return {claim.text.split(",")[0].split(":")[0]: claim for claim in found}


def test_claims_hold_or_fail_by_the_data():
    found = judged(sweep(failed=False))
    assert found["The harmful response rate falls as λ grows"].holds is True
    assert found["I(Z;C) rises with every step of λ > 0"].holds is False
    assert found["Benign fine-tuning erodes safety"].holds is True
    assert "3 of 3 seeds" in found["The harmful response rate falls as λ grows"].evidence
    loss = found["The task loss at the largest λ is at most 1.25 times the one at the smallest λ "
                 "> 0 (the paper's worst"]  # fmt: skip
    assert loss.holds is False


def test_a_ball_holds_less_the_larger_it_is():
    """The same rates as under λ, from the largest radius to the smallest: what fell rises."""
    summary = sweep(failed=False)
    cells = summary["cells"] = [cell for cell in summary["cells"] if cell["strength"]]
    largest = max(cell["strength"] for cell in cells)
    for cell in cells:
        cell |= {"method": "case2_ball", "strength": largest + 1 - cell["strength"]}
        cell["parameters"] = {"rank": 8, "learning_rate": 2e-3, "epsilon": cell["strength"]}
    found = judged(summary)
    assert found["The harmful response rate rises as λ grows"].holds is True
    assert "I(Z;C) falls with every step of λ > 0" in found
    assert not [text for text in found if "rate falls" in text or "at most 1.25" in text]


def test_one_seed_that_rises_is_enough_to_fail_a_claim():
    summary = sweep(failed=False)
    summary["cells"][-1]["scores"]["hrr"] = rate(0.9, 260)
    claim = judged(summary)["The harmful response rate falls as λ grows"]
    assert claim.holds is False and "2 of 3 seeds" in claim.evidence


def test_a_seed_with_a_hole_is_not_judged():
    claim = judged(sweep(failed=True))["The harmful response rate falls as λ grows"]
    assert claim.holds is True and "2 of 2 seeds" in claim.evidence
    assert "1 of 3 seeds left out for want of a strength" in claim.evidence


def test_nothing_is_claimed_where_nothing_was_measured():
    summary = sweep()
    for cell in summary["cells"]:
        cell |= {"failed": "stopped", "scores": None}
    assert claims(to_frame(typed(summary)), aligned_scores(typed(summary))) == []
    assert "0 of 15 cells finished" in reported(summary).headline


def test_the_one_strength_of_a_sweep_is_told_once():
    summary = sweep(failed=False)
    assert reported(summary).headline.count("at λ =") == 2
    strengths = sorted({cell["strength"] for cell in summary["cells"]})[:2]
    summary["cells"] = [one for one in summary["cells"] if one["strength"] in strengths]
    assert reported(summary).headline.count(f"at λ = {strengths[1]:g}") == 1


def test_answers_that_are_harmful_and_refusals_are_counted():
    """Of 260: 100 harmful, 150 refusals, 14 neither are 264, so that 4 are both. Where 2 have no
    verdict, 100 of 258 harmful, 150 of 260 refusals and 14 neither: at least 4, which all could be
    refusals among those."""
    summary = sweep(failed=False)
    scores = summary["cells"][0]["scores"]
    one = lambda k, n, unread=0: rate(k / n, n, unread)  # noqa: E731
    scores |= {"hrr": one(100, 260), "refusal_rate": one(150, 260), "incoherent_rate": one(14, 260)}
    for cell in summary["cells"][1:]:
        cell["scores"]["hrr"] |= {"unread": 0}
        cell["scores"] |= {"incoherent_rate": one(0, 260), "refusal_rate": one(20, 260)}
        cell["scores"]["hrr"] |= {"value": 0.5, "n": 260}
    told = lambda: [t for t in warned(summary) if "count in both rates" in t]  # noqa: E731
    [text] = told()
    assert text.startswith("4 answers to harmful prompts, in 1 cell (at most 4 of 260, in LoRA")
    scores |= {"hrr": one(100, 258, 2), "incoherent_rate": one(14, 258, 2)}
    [text] = told()
    assert text.startswith("At least 4 answers")
    scores["incoherent_rate"] = one(10, 258, 2)
    assert told() == []


def test_what_the_data_call_for_is_a_warning():
    summary = sweep() | {"notes": ["9 of 20 answers of --harmful-data open as refusals"]}
    assert "Of the data: 9 of 20 answers of --harmful-data open as refusals." in warned(summary)


def test_a_sound_sweep_needs_no_warning_but_the_known_one():
    summary = sweep(failed=False)
    for cell in summary["cells"]:
        cell["scores"]["hrr"] |= {"n": 260, "unread": 0}
        cell["scores"]["cosine"] = 0.95
        cell["adapter"] = cell["key"]
    assert warned(summary) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s["judge"].update(protected=False), "judge is not protected"),
        (lambda s: s["judge"].pop("protected"), "judge is not protected"),
        (lambda s: s["cells"][0]["scores"].update(accuracy=rate(1, 150)), "accuracy lost up to 10"),
        (lambda s: s.update(cells=[c for c in s["cells"] if c["seed"] == 0]), "One seed: no"),
        (
            lambda s: s["cells"][0]["scores"].update(at_limit={"held_out": 0, "held_out_n": 4}),
            "A task has 4 held-out rows",
        ),
        (lambda s: None, "OutOfMemoryError"),
    ],
)
def test_what_makes_numbers_doubtful_is_said(change, words):
    summary = sweep()
    change(summary)
    assert any(words in text for text in warned(summary))


def test_correlations_stand_by_seed_over_means_and_pooled_for_both_measures():
    table = shown(correlation_table(to_frame(typed(sweep(failed=False)))), COLUMNS)
    part = table[(table["Measure"] == "I(Z;C)") & (table["Over"] == "λ\u00a0>\u00a00")]
    assert part["Group"].tolist() == ["seed 0", "seed 1", "seed 2", "pooled over seeds",
                                      "seed means"]  # fmt: skip
    assert part["n"].tolist() == ["4", "4", "4", "12", "4"]
    assert set(table["Measure"]) == {"I(Z;C)", "I(Z;C), last prompt token"}
