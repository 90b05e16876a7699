"""What a sweep of orders is held against, and what its reader is warned of."""

import json

import pytest
from summaries import SEQUENCE, fail, orders_sweep, rate, typed, warned

from raycib.studies.continual.claims import order_claims
from raycib.studies.continual.report import orders_headline
from raycib.studies.continual.sequences import one_answer, sequences_of


def claim(summary, words):
    [found] = [c for c in order_claims(typed(summary)) if words in c.text]
    return found


def told(summary, words):
    return claim(summary, words).holds


def change(summary, method, edit):
    """Edits every stage of a method's cells; the last stage's scores are the cell's own."""
    for cell in summary["cells"]:
        if cell["method"] == method:
            for number, stage in enumerate(cell["stages"], 1):
                edit(stage["scores"], number, cell["seed"])
    return summary


def final_hrr(*by_seed):
    def edit(scores, number, seed):
        if number == 4:
            scores["hrr"] = rate(by_seed[seed], 1000)

    return edit


def test_cib_is_safest_where_every_interval_says_so():
    assert told(orders_sweep(), "lowest harmful response rate") is True
    evidence = claim(orders_sweep(), "lowest harmful response rate").evidence
    assert "less LoRA -" in evidence and "over 3 seeds" in evidence


def test_a_difference_whose_interval_holds_0_is_open_and_one_above_fails():
    """CIB less KL, by seed: -.1, .1, 0 (open); .3 in each (fails, whatever LoRA's is)."""
    even = change(orders_sweep(), "cib", final_hrr(0.4, 0.6, 0.5))
    even = change(even, "kl", final_hrr(0.5, 0.5, 0.5))
    assert told(even, "lowest harmful response rate") is None
    worse = change(orders_sweep(), "cib", final_hrr(0.6, 0.6, 0.6))
    worse = change(worse, "kl", final_hrr(0.3, 0.3, 0.3))
    assert told(worse, "lowest harmful response rate") is False


def test_the_rate_rises_where_the_last_stage_is_above_the_first():
    assert told(orders_sweep(), "rises along the sequence") is True
    flat = change(orders_sweep(), "lora", lambda s, n, seed: s.update(hrr=rate(0.9 - n / 10, 1000)))
    assert told(flat, "rises along the sequence") is False
    evidence = claim(flat, "rises along the sequence").evidence
    assert evidence.startswith("0.0 % before, 80.0 % after open, 70.0 % after gsm")
    assert "-30.0 [-30.2, -29.8] points over 3 seeds, alike: taken to be one answer" in evidence


def test_one_prompt_in_each_of_two_seeds_decides_nothing():
    """.1 point in both, of 1,000 prompts: +- 12.7062 / sqrt 2 times that, .9 points. Thirty times
    as much in both is told, and so is one prompt in each of 7 seeds: t(.975, 6) / sqrt 7 = .925."""
    even = [0.3] * 7

    def less(points, seeds):
        summary = change(orders_sweep(seeds, methods=("kl", "cib")), "kl", final_hrr(*even))
        change(summary, "cib", final_hrr(*(rate - points / 100 for rate in even)))
        return claim(summary, "lowest harmful response rate")

    found = less(0.1, 2)
    assert found.holds is None
    assert "-0.1 [-1.0, +0.8] points over 2 seeds, alike: taken to be one answer" in found.evidence
    assert less(3, 2).holds is True
    assert [less(0.1, seeds).holds for seeds in (6, 7)] == [None, True]


@pytest.mark.parametrize(
    ("measure", "answers"), [("hrr", 1000), ("bt", 480), ("bwt", 320), ("stability", 320)]
)
def test_one_answer_moves_a_measure_by_its_share(measure, answers):
    """Of 1,000 prompts, or of tests of 160 rows each, of which BT counts three and BWT two; of two
    equal accuracies one that moves by 1/160 makes a deviation of half of it. In the mean over six
    orders a sixth of that."""
    for summary, orders in ((orders_sweep(2), 1), (orders_sweep(2, 6), 6)):
        runs = sequences_of(typed(change(summary, "cib", final_hrr(0.1, 0.1)))).variants["CIB"]
        assert one_answer(runs, measure) == pytest.approx(1 / answers / orders)
    assert one_answer([], measure) == 0


def with_final(*accuracies):
    """Sets the last stage's accuracy on the tasks that BT counts, by seed."""

    def edit(scores, number, seed):
        if number == 4:
            for task in SEQUENCE[1:]:
                scores["accuracies"][task] = rate(accuracies[seed], 1000)

    return edit


@pytest.mark.parametrize(
    ("mine", "holds"),
    [((0.895, 0.896, 0.895), True), ((0.880, 0.881, 0.880), False), ((0.80, 0.80, 0.81), False),
     ((0.85, 0.93, 0.90), None)],
)  # fmt: skip
def test_competitive_is_within_a_point_of_the_best_mean(mine, holds):
    """O-LoRA at 90.0 %: half a point below is within; two, or ten, are not; from -5 to
    +3 it is open."""
    summary = change(orders_sweep(), "cib", with_final(*mine))
    summary = change(summary, "o_lora", with_final(0.9, 0.9, 0.9))
    assert told(summary, "competitive") is holds
    assert "O-LoRA 90.0 ± 0.0 %" in claim(summary, "competitive").evidence


def test_stability_is_held_against_every_other_method():
    """O-LoRA is the steadier one in the made-up sweep; without it CIB is."""
    assert told(orders_sweep(), "most stable on gsm") is False
    assert " points; less LoRA" in claim(orders_sweep(), "most stable on gsm").evidence
    without = orders_sweep(methods=("lora", "random_subset", "kl", "cib"))
    assert told(without, "most stable on gsm") is True


def test_backward_transfer_has_a_claim_with_and_without_the_first_task():
    found = [
        c for c in order_claims(typed(orders_sweep())) if "forgets less than plain LoRA" in c.text
    ]
    assert [c.holds for c in found] == [True, True]
    assert "without open, Figure 7" in found[0].text and "open included" in found[1].text
    assert all(" points, LoRA " in c.evidence for c in found), "no rates, but differences"


def test_the_first_task_is_forgotten_most_where_it_is():
    summary = orders_sweep(methods=("lora", "cib"))
    assert told(summary, "forgotten most") is True

    def keep(scores, number, seed):
        scores["accuracies"]["open"] = rate(1.0, 160)

    assert told(change(summary, "lora", keep), "forgotten most") is False


def test_where_the_first_task_lost_most_is_said():
    """Of 100, 90, 50 and 45 % after each stage: 40 points from the second to the third."""

    def lose(scores, number, seed):
        scores["accuracies"]["open"] = rate((1.0, 0.9, 0.5, 0.45)[number - 1], 1000)

    found = claim(change(orders_sweep(methods=("lora", "cib")), "lora", lose), "forgotten most")
    assert "LoRA: open lost most at gsm → med (40.0 points)" in found.evidence


def test_with_one_seed_what_compares_methods_is_open():
    found = {c.text: c for c in order_claims(typed(orders_sweep(1)))}
    compared = [c for text, c in found.items() if "interval over seeds" in text]
    assert len(compared) == 7 and {c.holds for c in compared} == {None}
    assert all("one seed: no interval" in c.evidence for c in compared)


def test_the_order_has_claims_where_there_are_several():
    assert not [c for c in order_claims(typed(orders_sweep())) if "order of the tasks" in c.text]
    summary = orders_sweep(2, 6, ("lora", "cib"))
    found = [c for c in order_claims(typed(summary)) if "order of the tasks" in c.text]
    assert len(found) == 4
    assert "order × method" in found[0].evidence and "(24 runs)" in found[0].evidence


@pytest.mark.parametrize(
    ("values", "holds", "said"),
    [((1, 3, 4, 8, 2, 4, 9, 13), True, "F = 27.0, p = 0.0138"),
     ((1, 4, 4, 8, 5, 4, 9, 13), None, "F = 8.6, p = 0.0605")],
)  # fmt: skip
def test_an_order_counts_where_its_p_is_below_5_percent(values, holds, said):
    """By order, method and seed. The first sums of squares are in `test_orders.py`. Of the second
    values the order's is 24.5 and the error's 8.5, of 3: of 100 in all, 50 are the method's, 4.5
    both's, 12.5 the seed's."""
    summary = orders_sweep(2, 2, ("lora", "cib"))
    for cell, value in zip(summary["cells"], values, strict=True):
        cell["stages"][-1]["scores"]["hrr"] = rate(value / 20, 4000)
        cell["scores"] = cell["stages"][-1]["scores"]
    found = claim(summary, "order of the tasks changes the final HRR")
    assert found.holds is holds and f"order: {said}" in found.evidence


def test_what_was_not_run_makes_no_claim():
    texts = " ".join(c.text for c in order_claims(typed(orders_sweep(methods=("lora", "kl")))))
    assert "CIB" not in texts and "rises along" in texts
    alone = " ".join(c.text for c in order_claims(typed(orders_sweep(methods=("cib",)))))
    assert "lowest harmful" not in alone and "plain LoRA" not in alone


def test_every_stage_must_be_coherent():
    def garble(scores, number, seed):
        if number == 2:
            scores["incoherent_rate"] = rate(0.4, 260)

    summary = change(orders_sweep(), "cib", garble)
    found = claim(summary, "not garbage")
    assert found.holds is False and found.evidence.startswith("57 of 60 stages")
    assert any("3 stages before the last" in t for t in warned(summary))


def test_claims_stand_without_failed_runs():
    summary = orders_sweep()
    for cell in summary["cells"][1:3]:
        fail(cell, 2)
    assert told(summary, "rises along the sequence") is None
    assert told(summary, "lowest harmful response rate") is None


# Words


def test_the_answer_names_each_method_from_the_safest():
    summary = orders_sweep()
    text = orders_headline(typed(summary), order_claims(typed(summary)))
    assert text.startswith("15 of 15 runs finished (open → gsm → med → squad; 3 seeds).")
    assert text.index("CIB 11") < text.index("KL 42") < text.index("O-LoRA 66")
    assert "after open and" in text and "60 stages asked for" in text


def warns(summary, words):
    return any(words in text for text in warned(summary))


def unlearned(summary):
    return change(
        summary, "kl", lambda s, n, _: s["accuracies"].update(gsm=rate(0.3, 160))
    )  # fmt: skip


def solved(summary):
    summary["aligned"]["scores"]["accuracies"]["med"] = rate(0.9, 160)
    return summary


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: unlearned(orders_sweep()), "gsm was hardly learned in its own stage"),
        (lambda: unlearned(orders_sweep()), "KL 30.0 %"),
        (lambda: solved(orders_sweep()), "Solved before any fine-tuning: med (90.0 %)"),
        (lambda: orders_sweep(1), "One seed"),
        (lambda: orders_sweep(3), "3 seeds: Student's intervals"),
        (lambda: orders_sweep(5), "not corrected for being several"),
        (lambda: orders_sweep(3), "One order of the tasks"),
        (lambda: orders_sweep(1, 2), "Orders that begin alike"),
        (lambda: orders_sweep(3), "O-LoRA trains an adapter for each task"),
    ],
)
def test_what_makes_continual_measures_doubtful_is_said(made, words):
    assert warns(made(), words)


def test_sound_data_warn_of_less():
    summary = orders_sweep(5, 2, ("lora", "cib"))
    assert [t for t in warned(summary) if "begin alike" not in t] == []


def test_a_missing_run_of_several_orders_is_said():
    summary = orders_sweep(1, 2)
    fail(summary["cells"][0], 3)
    assert warns(summary, "1 run is missing of 10")
    assert warns(summary, "failed and is in no mean: out of memory")


def test_tests_of_different_sizes_are_no_lost_rows():
    """squad's test has 100 rows in every cell: those ending with it lost nothing."""
    text = json.loads(json.dumps(orders_sweep(1, 2)))
    for cell in text["cells"]:
        for stage in cell["stages"]:
            stage["scores"]["accuracies"]["squad"] = rate(0.9, 100)
            stage["scores"]["accuracy"] = stage["scores"]["accuracies"][stage["task"]]
        cell["scores"] = cell["stages"][-1]["scores"]
    text["aligned"]["scores"]["accuracies"]["squad"] = rate(0.0, 100)
    assert not warns(text, "lost up to")
    text["cells"][0]["scores"]["accuracies"]["gsm"] = rate(0.7, 90)
    assert warns(text, "accuracy_gsm lost up to 70 rows in 1 cell")
