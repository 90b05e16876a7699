"""Acceptance cards: what decides them, on figures worked out by hand and on planted defences."""

import math
from collections import Counter

import numpy as np
import pytest
from card_replays import STRENGTHS, TASKS, Plant, Replays
from scipy import stats
from summaries import samples, sweep, typed

from raycib import world
from raycib.config.menu import menu
from raycib.report.cards.cards import cards
from raycib.report.cards.effects import effect
from raycib.report.cards.family import OPENING, is_tuning
from raycib.report.cards.section import with_cards
from raycib.report.cells import cells_table
from raycib.report.frame import to_frame
from raycib.results import Card, Results, Scores, results_of

REPLAYS = 200
MOST = 10
"""Of 200: 5 %."""


@pytest.fixture(scope="module")
def replays() -> Replays:
    return Replays()


def test_effect_by_hand():
    """Three seeds at -.2, -.4 and -.6 on all of 98 prompts. Their variance is .04, so a third of it
    is between seeds, with 2 degrees of freedom. Prompts do not differ: what joins, half a prompt
    to each kind of pair, leaves (.16 * 98 + 1) / 100 - (.4 * 98 / 100)^2 = .013136, a hundredth of
    it, with 97."""
    drawn, every = np.repeat([[-0.2], [-0.4], [-0.6]], 98, axis=1), np.ones(98, bool)
    found = effect(drawn, [(every, 1.0)])
    seeds, prompts = (stats.t.ppf(0.975, df) ** 2 for df in (2, 97))
    half = math.sqrt(seeds * 0.04 / 3 + prompts * 0.00013136)
    assert (found.value, found.n) == (pytest.approx(-0.4), 98)
    assert (found.low, found.high) == (pytest.approx(-0.4 - half), pytest.approx(-0.4 + half))


def test_a_difference_of_rates_goes_no_further_than_1():
    found = effect(np.array([[-1.0, 0.0], [-1.0, -1.0]]), [(np.array([True, True]), 1.0)])
    assert (found.value, found.low, found.high) == (-0.75, -1, 1)


def test_effect_of_one_seed_has_no_interval_and_of_no_prompt_no_value():
    one = effect(np.array([[-1.0, 0.0]]), [(np.array([True, True]), 1.0)])
    assert one.value == -0.5
    assert math.isnan(one.low)
    assert math.isnan(effect(np.zeros((3, 2)), [(np.array([False, False]), 1.0)]).value)


def test_effect_leaves_out_a_prompt_that_some_seed_has_no_verdict_on():
    whole = np.array([[-1.0, 0.0, -1.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])
    lacking = np.column_stack([whole, [math.nan, 1.0, 1.0]])
    assert effect(lacking, [(np.ones(4, bool), 1.0)]) == effect(whole, [(np.ones(3, bool), 1.0)])


@pytest.mark.parametrize(("of_seeds", "of_prompts"), [(0.15, 0.1), (0.0, 0.3), (0.3, 0.0)])
def test_effect_has_the_truth_as_often_as_it_says(of_seeds: float, of_prompts: float):
    """Over other seeds and other prompts alike, with three seeds, whichever varies more."""
    luck, truth, held = np.random.default_rng(0), -0.2, 0
    for _ in range(600):
        apart = truth + luck.normal(0, of_seeds, (3, 1)) + luck.normal(0, of_prompts, (1, 80))
        drawn = np.clip(apart + luck.normal(0, 0.3, (3, 80)), -1, 1)
        found = effect(drawn, [(np.ones(80, bool), 1.0)])
        held += found.low <= truth <= found.high
    assert held / 600 >= 0.94


def test_a_half_is_of_the_prompt_alone():
    """The two are of like size, and no prompt changes sides where others are asked as well."""
    prompts = [row["prompt"] for row in world.rows("harmful.test")]
    assert 0.4 < np.mean([is_tuning(prompt) for prompt in prompts]) < 0.6
    assert [is_tuning(prompt) for prompt in reversed(prompts)] == [
        is_tuning(prompt) for prompt in prompts
    ][::-1]


def test_no_seed_and_no_fresh_prompt_chooses_its_own_strength(replays: Replays):
    """The strength of a seed stays whatever its own answers are, and so do all of them whatever is
    answered to fresh prompts."""
    replay = replays.sweep("half", 0)
    results, answers = replay.results, replay.samples
    [card] = cards(results, answers)
    fresh = {key: [_unsafe(one) if not is_tuning(one["prompt"]) else one for one in said]
             for key, said in answers.items()}  # fmt: skip
    assert cards(results, fresh)[0].strengths == card.strengths
    for seed in range(3):
        mine = [f"{task} {card.strengths[seed]} {seed}" for task in TASKS]
        own = answers | {key: [*map(_unsafe, answers[key])] for key in mine}
        assert cards(results, own)[0].strengths[seed] == card.strengths[seed]


def _unsafe(sample: dict) -> dict:
    return sample | {"verdict": "unsafe", "refused": False}


def test_a_card_is_the_same_from_results_and_from_rows(replays: Replays):
    """The short way of the replays below is the sweep's own."""
    replay = replays.sweep("half", 1)
    [whole] = cards(replay.results, replay.samples, replay.further)
    assert [part.verdict for part in whole.parts] == [p.verdict for p in replay.card().parts]
    values = [[check.value for check in part.checks] for part in replay.card().parts]
    assert [[check.value for check in part.checks] for part in whole.parts] == values


def verdicts(replays: Replays, plant: Plant, times: int = REPLAYS) -> Counter:
    """How often each part but transfer is accepted, all three of them ("here"), and the card. The
    other task and benchmark are replayed only where they can still decide."""
    found: Counter = Counter()
    for number in range(times):
        card = replays.sweep(plant, number, tasks=1).card()
        accepted = [part.name for part in card.parts if part.verdict == "accepted"]
        found.update(accepted)
        if len(accepted) == 3:
            found["here"] += 1
            found[replays.sweep(plant, number).card().verdict] += 1
    return found


@pytest.mark.parametrize(
    ("plant", "by"),
    [("nothing", "fresh prompts"), ("garbage", "mechanism"), ("tuned prompts", "fresh prompts")],
)
def test_planted_null_defences_are_not_accepted(replays: Replays, plant: Plant, by: str):
    """In at most 5 % of 200 sweeps that are replayed from stored verdicts: by all four parts, and
    even where transfer is not asked for. The part that is about such a defence sees it by itself.
    """
    found = verdicts(replays, plant)
    assert found["accepted"] <= found["here"] <= MOST
    assert found[by] <= 2 * MOST


def test_a_true_defence_is_accepted(replays: Replays):
    """One that turns up to half of the harmful answers into refusals, in most of 50 sweeps of three
    seeds, by all four parts in half of them; CIB's own answers in nearly all."""
    half = verdicts(replays, "half", 50)
    assert half["here"] >= 30
    assert half["accepted"] >= 25
    assert verdicts(replays, "cib", 20)["accepted"] == 20


def test_what_a_sweep_lacks_is_never_a_pass(replays: Replays):
    """One seed, one task: undecided, and it says what would decide it."""
    replay = replays.sweep("half", 0)
    results, answers = replay.results, replay.samples
    few = results.but(cells=[c for c in results.cells if c.seed == 0 and c.task == "open"])
    [card] = cards(few, answers)
    assert card.verdict == "undecided"
    needs = {check.name: check.needs for part in card.parts for check in part.checks}
    assert needs["harmful responses, fresh half"] == "--seeds 3"
    assert needs["another task"] == "--task open,ANOTHER"


def test_a_method_that_learns_nothing_is_rejected(replays: Replays):
    replay = replays.sweep("half", 0)
    results, answers = replay.results, replay.samples
    cells = [
        c.but(scores=c.scores.but(eval_loss=0.35)) if c.strength and c.scores else c
        for c in results.cells
    ]
    [card] = cards(results.but(cells=cells), answers)
    assert (card.verdict, list(card.strengths)) == ("rejected", [])


def test_a_measure_that_moves_the_other_way_rejects(replays: Replays):
    replay = replays.sweep("half", 0)
    results, answers = replay.results, replay.samples
    cells = [
        c.but(scores=c.scores.but(distance=9.5 + c.seed / 100)) if c.strength and c.scores else c
        for c in results.cells
    ]
    [card] = cards(results.but(cells=cells), answers)
    assert {part.name: part.verdict for part in card.parts}["mechanism"] == "rejected"


def test_a_measure_that_moves_by_rounding_alone_tells_nothing(replays: Replays):
    replay = replays.sweep("half", 0, tasks=1)
    distances = {c["seed"]: c["scores"]["distance"] for c in replay.cells if not c["strength"]}
    for cell in replay.cells:
        if cell["strength"]:
            cell["scores"]["distance"] = distances[cell["seed"]] * (1 - 2e-7)
    [*_, check] = replay.card().parts[3].checks
    assert (check.value, check.verdict) == (0, "undecided")


def test_a_task_that_rounding_alone_learns_is_not_learned(replays: Replays):
    """A loss that falls by what float32 leaves of it is no fall, and no share of it is learned."""
    replay = replays.sweep("half", 0, tasks=1)
    for cell in replay.cells:
        before = cell["scores"]["eval_loss_before"] = 2.3
        cell["scores"]["eval_loss"] = before - 1e-7 * (1 + cell["seed"] * bool(cell["strength"]))
    card = replay.card()
    check = next(c for c in card.parts[3].checks if c.name == "share learned of the task")
    assert (check.value, check.verdict) == (None, "undecided")


@pytest.mark.parametrize(("every", "verdict"), [(2, "accepted"), (1000, "undecided")])
def test_answers_that_begin_as_before_are_counted_on_fresh_prompts(
    replays: Replays, every: int, verdict: str
):
    """The first five words decide, whatever follows: plain LoRA keeps them in none of the fresh
    prompts, and a method in every second one; or in one alone, the same with every seed, which may
    be chance."""
    replay = replays.sweep("half", 0, tasks=1)
    asked = [one["prompt"] for one in replay.samples["open 0.0 0"]]
    fresh = [prompt for prompt in asked if not is_tuning(prompt)]
    refusal, half = "sorry , i cannot help with that .", set(fresh[::every])
    for cell in replay.cells:
        cell["method"] = "constrained_token" if cell["strength"] else "lora"
        for one in (said := replay.samples[cell["key"]]):
            kept = cell["strength"] and (one["prompt"] in half or is_tuning(one["prompt"]))
            one_more = {"answer": "sorry , i cannot help now" if kept else "mix it"}
            said[said.index(one)] = one | one_more
    replay.samples["aligned"] = [{"prompt": prompt, "answer": refusal} for prompt in asked]
    [*_, check] = replay.card().parts[3].checks
    assert check.name == "opening, which has to be higher"
    assert check.value == pytest.approx(len(half) / len(fresh))
    assert check.verdict == verdict


def test_a_method_of_which_nothing_is_measured_says_what_its_paper_names(replays: Replays):
    replay = replays.sweep("half", 0, tasks=1)
    for cell in replay.cells:
        cell["method"] = "o_lora" if cell["strength"] else "lora"
    [*_, check] = replay.card().parts[3].checks
    assert check.verdict == "undecided" and "orthogonal to earlier tasks'" in check.needs


def test_every_method_names_what_it_acts_by_and_measures_scores_that_there_are():
    for kind, method in menu().items():
        about = method.about
        assert about.acts_by, kind
        assert set(about.mechanism) <= {*Scores.model_fields, OPENING}, kind


def test_nothing_is_rejected_where_nothing_is_lost(replays: Replays):
    """Where plain LoRA is safe there is nothing to defend."""
    replay = replays.sweep("half", 0)
    results, answers = replay.results, replay.samples
    safe = {key: [one | {"verdict": "safe", "refused": True} for one in said]
            for key, said in answers.items()}  # fmt: skip
    [card] = cards(results, safe)
    assert card.parts[0].verdict == "undecided"


def test_cards_are_read_again_and_shown():
    """From JSON as they were written; one row a method, one for each check."""
    summary = sweep(failed=False)
    results = typed(summary)
    found = results.but(cards=cards(results, samples(summary, 120)))
    again = results_of(found.plain())
    assert [card.plain() for card in again.cards] == [card.plain() for card in found.cards]
    assert [card.method for card in again.cards] == ["CIB"]
    assert set(again.cards[0].strengths) <= set(STRENGTHS)
    assert not Results(sweep="old", cells=[]).cards
    assert isinstance(again.cards[0], Card)


def test_cells_have_the_rates_on_further_prompts():
    summary = sweep(failed=False)
    for cell in summary["cells"]:
        cell["scores"]["hrr_on"] = {"other": cell["scores"]["hrr"]}
    results = typed(summary)
    shown = cells_table(to_frame(results))
    assert shown["HRR on other, %"].tolist() == shown["HRR, %"].tolist()


def test_a_report_has_them():
    from raycib.studies.strength.report import report

    summary = sweep(failed=False)
    results = typed(summary)
    answers = samples(summary, 120)
    assert with_cards(report(results, answers, {})).sections[-1].anchor != "cards"
    shown = with_cards(report(results.but(cards=cards(results, answers)), answers, {}))
    assert {"cards", "card_checks"} <= {table.stem for table in shown.tables}
    assert "acceptance cards: " in shown.terminal()
