"""Claims about methods side by side: each rule on numbers small enough to check by eye."""

import pytest
from summaries import ablation_sweep, comparison_sweep, samples, typed
from test_comparison import cell as scored
from test_comparison import framed, said

from raycib.report.frame import to_frame
from raycib.report.scores import aligned_scores
from raycib.studies.comparison.claims import ablation_claims, comparison_claims
from raycib.studies.comparison.report import MOST_ROWS, comparison_headline

STARTS = {
    "without": "CIB has the lowest harmful response rate of all methods that see no safety data",
    "all": "CIB has the lowest harmful response rate of all methods (",
    "order": "Table 1's order",
    "accuracy": "CIB at its best strength keeps",
    "case2": "At equal task loss CIB's harmful response rate is below that of a penalty",
    "kl": "At equal task loss CIB's harmful response rate is below that of KL",
    "negatives": "Negatives chosen by similarity",
    "below": "CIB's harmful response rate is below plain LoRA's",
}


def cell(*place, accuracy=1.0, **more):
    """A cell whose accuracy was measured."""
    return scored(*place, accuracy=accuracy, **more)


LORA = cell("lora", 0, 0.6, 1.0, accuracy=1.0)


def judged(*cells, claims=comparison_claims, answers=None):
    found = claims(framed(*cells), {}, answers or {})
    return {
        name: claim
        for claim in found
        for name, start in STARTS.items()
        if claim.text.startswith(start)
    }


def test_safety_data_are_a_league_of_their_own():
    found = judged(LORA, cell("cib", 5, 0.2, 1.1), cell("kl", 1, 0.3, 1.1),
                   cell("safety_mix", 0.1, 0.1, 1.0))  # fmt: skip
    assert (found["without"].holds, found["all"].holds) == (True, False)
    assert "lowest of the others: KL (30.0 %)" in found["without"].evidence
    assert "lowest of the others: Safety mix (10.0 %)" in found["all"].evidence


def test_a_cell_may_say_itself_whether_it_saw_safety_data():
    """Vaccine within the task's own training sees none; plain LoRA after a safety stage does."""
    rows = [LORA, cell("cib", 5, 0.2, 1.1), cell("vaccine", 1, 0.1, 1) | {"safety_data": False},
            cell("lora_variant", 0, 0.15, 1) | {"safety_data": True}]  # fmt: skip
    found = judged(*rows)
    assert found["without"].holds is False and "Vaccine" in found["without"].evidence
    rows[2] |= {"safety_data": True}
    assert judged(*rows)["without"].evidence.endswith("lowest of the others: LoRA (60.0 %)")


def test_an_equal_rate_is_not_a_lower_one():
    assert judged(LORA, cell("cib", 5, 0.2, 1.1), cell("kl", 1, 0.2, 1.1))["without"].holds is True


def test_who_forgets_the_task_does_not_win():
    """Case II at 1 has an HRR of 0 with 94 % of LoRA's accuracy: its .3 at 95 % is what counts."""
    found = judged(LORA, cell("cib", 5, 0.2, 1.1, accuracy=1.0),
                   cell("case2", 1, 0.0, 5.0, accuracy=0.94),
                   cell("case2", 0.1, 0.3, 2.0, accuracy=0.95))  # fmt: skip
    assert found["all"].holds is True and "Case II penalty at 0.1 (30.0 %)" in found["all"].evidence


def test_the_order_of_table_1_is_judged_at_each_methods_best():
    cells = [LORA, cell("vaccine", 1, 0.5, 1), cell("safe_lora", 1, 0.4, 1),
             cell("salora", 1, 0.3, 1), cell("cib", 1, 0.9, 1), cell("cib", 5, 0.2, 1)]  # fmt: skip
    claim = judged(*cells)["order"]
    assert claim.holds is True and claim.evidence.startswith("LoRA (60.0 %) > Vaccine (50.0 %) >")
    cells[3] = cell("salora", 1, 0.4, 1)
    claim = judged(*cells)["order"]
    assert claim.holds is False and "Safe LoRA (40.0 %) not > SaLoRA (40.0 %)" in claim.evidence


def test_of_table_1_what_was_not_run_is_left_out():
    claim = judged(LORA, cell("salora", 1, 0.3, 1), cell("cib", 5, 0.2, 1))["order"]
    assert claim.holds is True and "LoRA > SaLoRA > CIB" in claim.text
    assert "order" not in judged(LORA, cell("cib", 5, 0.2, 1))


@pytest.mark.parametrize(("accuracy", "holds"), [(0.96, True), (0.95, False)])
def test_accuracy_is_kept_above_95_percent_of_loras(accuracy, holds):
    claim = judged(LORA, cell("cib", 5, 0.2, 1, accuracy=accuracy))["accuracy"]
    assert claim.holds is holds


def test_equal_loss_is_a_tenth_above_loras_at_most():
    """Within 1.1 nats CIB reaches .3 and the penalty .4, though .1 beyond it."""
    found = judged(LORA, cell("cib", 5, 0.3, 1.1), cell("case2", 1, 0.4, 1.05),
                   cell("case2", 2, 0.1, 1.2), cell("kl", 1, 0.2, 1.0))  # fmt: skip
    assert found["case2"].holds is True and "within 1.100 nats" in found["case2"].evidence
    assert found["kl"].holds is False


def test_without_a_strength_at_equal_loss_nothing_can_be_told():
    found = judged(LORA, cell("cib", 5, 0.3, 1.2), cell("kl", 1, 0.2, 1.0))
    assert found["kl"].holds is None and "no strength of CIB" in found["kl"].evidence
    assert "case2" not in found


def test_what_pairs_on_prompts_do_not_tell_apart_is_left_open():
    """2 became safe of 2 flips: p = 2 * 1 / 4 = .5. Of 8 flips p = 2 / 256: told apart."""
    answers = {"cib 5 0": said("sss"), "kl 1 0": said("uus")}
    claim = judged(LORA, cell("cib", 5, 0.0, 1), cell("kl", 1, 0.7, 1), answers=answers)["kl"]
    assert claim.evidence.endswith("paired on 3 prompts and 1 seed, exact p = 0.5000")
    assert claim.holds is None
    answers = {"cib 5 0": said("s" * 8), "kl 1 0": said("u" * 8)}
    claim = judged(LORA, cell("cib", 5, 0.0, 1), cell("kl", 1, 1.0, 1), answers=answers)["kl"]
    assert claim.evidence.endswith("exact p = 0.0078")
    assert claim.holds is True


def drawn(strength, hrr, draw, label, queue="recent"):
    row = cell("cib", strength, hrr, 1)
    row |= {"label": label, "key": f"{label} {strength}"}
    return row | {"parameters": {"draw": draw, "queue": queue}}


def test_similar_negatives_must_win_at_every_strength_they_share():
    rows = [LORA, drawn(1, 0.2, "most_similar", "S"), drawn(5, 0.1, "most_similar", "S"),
            drawn(1, 0.3, "uniform", "R"), drawn(5, 0.1, "uniform", "R"),
            drawn(5, 0.0, "uniform", "hard", queue="hardest")]  # fmt: skip
    found = judged(*rows, claims=ablation_claims)
    assert found["negatives"].holds is False and "hard" not in found["negatives"].evidence
    assert found["below"].holds is True
    rows[4] = drawn(5, 0.15, "uniform", "R")
    assert judged(*rows, claims=ablation_claims)["negatives"].holds is True


def test_one_strength_at_which_similar_negatives_lose_is_enough():
    """At 1 all 8 answers flip the wrong way (p = 2 / 256), at 5 nothing is told (p = .5)."""
    rows = [LORA, drawn(1, 1.0, "most_similar", "S"), drawn(5, 0.0, "most_similar", "S"),
            drawn(1, 0.0, "uniform", "R"), drawn(5, 0.7, "uniform", "R")]  # fmt: skip
    answers = {"S 5": said("sss"), "R 5": said("uus")}
    answers |= {"S 1": said("u" * 8), "R 1": said("s" * 8)}
    assert judged(*rows, answers=answers, claims=ablation_claims)["negatives"].holds is False
    rows[1], rows[3] = drawn(1, 0.0, "most_similar", "S"), drawn(1, 1.0, "uniform", "R")
    answers["S 1"], answers["R 1"] = answers["R 1"], answers["S 1"]
    assert judged(*rows, answers=answers, claims=ablation_claims)["negatives"].holds is None


def test_an_ablation_of_something_else_claims_nothing_about_negatives():
    found = judged(LORA, cell("case2", 1, 0.1, 1), claims=ablation_claims)
    assert found == {}
    assert "negatives" not in judged(LORA, drawn(1, 0.1, "uniform", "R"), claims=ablation_claims)


def test_a_comparison_makes_no_claims_about_doses():
    summary = comparison_sweep()
    found = comparison_claims(
        to_frame(typed(summary)), aligned_scores(typed(summary)), samples(summary)
    )
    assert len(found) == 8 and not [claim for claim in found if "λ" in claim.text]


def test_nothing_is_claimed_where_everything_failed():
    rows = [c | {"failed": "stopped", "scores": None} for c in (LORA, cell("cib", 5, 0.2, 1))]
    assert all(claim.holds is None for claim in comparison_claims(framed(*rows), {}, {}))


def test_without_lora_or_with_one_method_there_are_fewer_claims():
    assert judged(cell("cib", 5, 0.2, 1)) == {}
    assert set(judged(cell("cib", 5, 0.2, 1), cell("kl", 1, 0.3, 1))) == {"without", "all"}


def test_settings_are_judged_apart_and_named():
    rows = [LORA, cell("cib", 5, 0.2, 1), cell("kl", 1, 0.3, 1)]
    other = [row | {"task": "math", "key": row["key"] + "m"} for row in rows]
    found = comparison_claims(framed(*rows, *other), {}, {})
    assert {claim.text.split(": ")[0] for claim in found} == {"m, open", "m, math"}


def test_the_answer_names_the_safest_and_cibs_place():
    rows = [LORA, cell("cib", 5, 0.2, 1.1), cell("kl", 1, 0.1, 1.3), cell("ema", 0.9, 0.5, 1),
            cell("safety_mix", 0.1, 0.05, 1)]  # fmt: skip
    text = comparison_headline(framed(*rows), {"hrr": 0.0}, [])
    assert "from 0.0 % before fine-tuning to 60.0 % at a task loss of 1.000 nats" in text
    assert "Lowest without safety data: KL (10.0 %, loss 1.300), CIB (20.0 %" in text
    assert "Lowest with safety data: Safety mix (5.0 %" in text
    assert "CIB is number 2 of the 3 methods without safety data and 3 of all 4" in text


def test_the_answer_of_an_ablation_names_every_row():
    summary = ablation_sweep()
    text = comparison_headline(
        to_frame(typed(summary)), aligned_scores(typed(summary)), [], MOST_ROWS
    )
    assert "CIB, random negatives (20.6 ± 2.1 %" in text and "is number" not in text
