"""How far data are apart: by hand where laws are known, and what an estimate can and cannot see."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from raycib import world
from raycib.data.rows import Row, describe_rows, load_rows
from raycib.errors import UserError
from raycib.studies.tradeoff.divergence import (
    entropy,
    kl,
    mismatch,
    overlap,
    told_apart,
    total_variation,
)

Save = Callable[[str, Sequence[tuple[str, str]]], str]
THIRD = 1 / 3


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """A JSONL file of rows, by name."""

    def write(name: str, rows: Sequence[tuple[str, str]]) -> str:
        lines = [json.dumps({"prompt": prompt, "response": said}) for prompt, said in rows]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(lines))
        return str(path)

    return write


# Distances


def test_distances_by_hand():
    """(.8, .2) and (.2, .8): TV (.6 + .6) / 2; KL .8 ln 4 + .2 ln 1/4 = .6 ln 4."""
    p, q = {"a": 0.8, "b": 0.2}, {"a": 0.2, "b": 0.8}
    assert total_variation(p, q) == pytest.approx(0.6)
    assert kl(p, q) == pytest.approx(0.6 * math.log(4)) == pytest.approx(0.831777, abs=1e-6)


def test_kl_is_not_symmetric():
    """(1/2, 1/2) and (1/4, 3/4): 1/2 ln 2 + 1/2 ln 2/3 = .143841, and 1/4 ln 1/2 + 3/4 ln 3/2 =
    .130812."""
    p, q = {"a": 0.5, "b": 0.5}, {"a": 0.25, "b": 0.75}
    assert kl(p, q) == pytest.approx(0.143841, abs=1e-6)
    assert kl(q, p) == pytest.approx(0.130812, abs=1e-6)


def test_a_distribution_is_no_distance_from_itself():
    p = {"a": 0.7, "b": 0.3, "never": 0.0}
    assert total_variation(p, p) == kl(p, p) == 0
    assert total_variation({}, {}) == kl({}, {}) == 0


def test_disjoint_distributions_are_as_far_apart_as_can_be():
    p, q = {"a": 0.5, "b": 0.5}, {"c": 1.0}
    assert total_variation(p, q) == 1
    assert kl(p, q) == math.inf


def test_kl_is_infinite_only_where_something_is_missing():
    """From (1, 0) to (1/2, 1/2) is ln 2; back it is infinite."""
    one, both = {"a": 1.0, "b": 0.0}, {"a": 0.5, "b": 0.5}
    assert kl(one, both) == pytest.approx(math.log(2))
    assert kl(both, one) == kl(both, {"a": 1.0}) == math.inf


def test_pinsker_s_inequality_holds_for_random_distributions():
    """TV² <= KL / 2, and TV <= 1."""
    draw = Random(0)
    for _ in range(200):
        p, q = (
            dict(zip("abcd", (w / sum(ws) for w in ws), strict=True))
            for ws in ([draw.random() ** 3 for _ in "abcd"] for _ in "pq")
        )
        assert total_variation(p, q) ** 2 <= kl(p, q) / 2 + 1e-12
        assert 0 <= total_variation(p, q) <= 1


# The world's laws

REFUSED = {"near": (0.5, 0.25, 0.25), "far": (0.02, 0.03, 0.95)}
STYLED = {
    "own": (0.94, 0.02, 0.02, 0.02),
    "near": (0.8, 0.05, 0.05, 0.1),
    "far": (0.1, 0.1, 0.1, 0.7),
    "recast": (0.05, 0.63, 0.27, 0.05),
}


def kl_of(p: Sequence[float], q: Sequence[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize(
    ("proxy", "tv"),
    [
        # .4 of the prompts are refused: TV 1/6; .3 are answered: TV .14; .3 are skills: 0
        ("near", 0.4 / 6 + 0.3 * 0.14),
        # (.3133 + .3033 + .6167) / 2 = .61667 and (.84 + .08 + .08 + .68) / 2 = .84
        ("far", 0.4 * 37 / 60 + 0.3 * 0.84),
    ],
)
def test_other_answers_to_the_same_prompts(proxy: str, tv: float):
    found = mismatch("world:align.train", f"world:align.{proxy}")
    kl_outputs = 0.4 * kl_of([THIRD] * 3, REFUSED[proxy]) + 0.3 * kl_of(
        STYLED["own"], STYLED[proxy]
    )
    assert found.how == "exact"
    assert found.tv_inputs == pytest.approx(0, abs=1e-12)
    assert found.tv_outputs == pytest.approx(tv)
    assert found.kl_outputs == pytest.approx(kl_outputs)
    assert found.note == ""


def test_far_answers_are_farther_than_near_ones():
    near, far = (mismatch("world:align.train", f"world:align.{name}") for name in ("near", "far"))
    assert 0 < near.tv_outputs < far.tv_outputs < 1
    assert 0 < near.kl_outputs < far.kl_outputs < math.inf


def test_other_prompts_alone_are_a_mismatch_of_inputs_alone():
    """Where the proxy has no such prompt its answers are taken as the original's: TV 1 and 0."""
    found = mismatch("world:align.train", "world:align.other")
    assert found == (1.0, 0.0, 0.0, "exact", "")


@pytest.mark.parametrize("name", ["align.train", "align.far", "open.train", "gsm.train"])
def test_a_law_is_no_distance_from_itself_and_its_own_test_rows(name: str):
    assert mismatch(f"world:{name}", f"world:{name}#first-7") == (0.0, 0.0, 0.0, "exact", "")
    if name == "align.train":
        assert mismatch(f"world:{name}", "world:align.test")[:3] == (0.0, 0.0, 0.0)


def test_how_far_a_task_asks_the_same_and_is_answered_differently():
    """recast has the alignment data's harmless requests, .3 of its prompts, in styles of its own;
    the other way round all of its prompts are there."""
    there = overlap("world:align.train", "world:recast.train")
    assert there.how == "exact"
    assert there.overlap == pytest.approx(0.3)
    assert there.divergence == pytest.approx(0.3 * kl_of(STYLED["own"], STYLED["recast"]))
    back = overlap("world:recast.train", "world:align.train")
    assert back.overlap == pytest.approx(1)
    assert back.divergence == pytest.approx(kl_of(STYLED["recast"], STYLED["own"]))


@pytest.mark.parametrize("task", ["open", "gsm", "med", "squad"])
def test_other_tasks_share_no_prompt_with_the_alignment_data(task: str):
    for proxy in ("train", "near", "far", "other"):
        found = overlap(f"world:align.{proxy}", f"world:{task}.train")
        assert found == (0.0, 0.0, "exact", "")


def test_entropies_by_hand():
    """Refusals ln 3 in .4 of it, styles -.94 ln .94 - .06 ln .02 in .3, skills 0."""
    styles = -0.94 * math.log(0.94) - 0.06 * math.log(0.02)
    own = 0.4 * math.log(3) + 0.3 * styles
    assert own == pytest.approx(0.527310, abs=1e-6)
    assert entropy("world:align.train") == entropy("world:align.test") == pytest.approx(own)
    assert entropy("world:align.other") == pytest.approx(math.log(3))
    opened = -0.7 * math.log(0.7) - 0.3 * math.log(0.3)
    assert entropy("world:open.train") == pytest.approx(opened)
    assert entropy("world:open.train#first-400") == pytest.approx(opened)
    assert entropy("world:gsm.train") == 0


def test_where_no_law_is_known_there_is_no_entropy(save: Save):
    assert entropy("world:harmful.proxy") is None
    assert entropy(save("own", [("a", "b")])) is None
    assert mismatch("world:align.train", "world:harmful.proxy").how == "estimated"
    assert overlap("world:harmful.proxy", "world:open.train").how == "estimated"


# Estimates: half of 200 or 400 rows are held out, so noise is about 1/sqrt(200) = .07

PAPERS = [f"p{n}" for n in range(60)]
STONES = [f"s{n}" for n in range(60)]


def texts(words: Sequence[str], count: int, seed: int = 0) -> list[str]:
    draw = Random(f"texts {seed}")
    return [" ".join(draw.choices(words, k=8)) for _ in range(count)]


def rows(prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(prompts, answers, strict=True))


def test_the_same_file_is_not_told_apart(save: Save):
    own = save("own", rows(texts(PAPERS, 200), texts(STONES, 200, seed=1)))
    found = mismatch(own, own)
    assert found.how == "estimated"
    assert 0 <= found.tv_inputs < 0.1
    assert 0 <= found.tv_outputs < 0.1
    assert found.kl_outputs is None
    assert "on the 100% of prompts that are shared" in found.note


def test_other_draws_from_one_source_are_not_told_apart(save: Save):
    one, other = (
        save(f"draw{n}", rows(texts(PAPERS, 400, seed=n), texts(PAPERS, 400, seed=n + 9)))
        for n in range(2)
    )
    found = mismatch(one, other)
    assert found.tv_inputs < 0.2
    assert found.tv_outputs is None
    assert "no shared prompts, so nothing is known of the outputs" in found.note


def test_another_vocabulary_is_told_apart(save: Save):
    answers = texts(PAPERS, 200, seed=5)
    one, other = (
        save(name, rows(texts(words, 200), answers))
        for name, words in (("papers", PAPERS), ("stones", STONES))
    )
    found = mismatch(one, other)
    assert found.tv_inputs > 0.95
    assert found.tv_outputs is None


@pytest.mark.parametrize("shared", [1.0, 0.5])
def test_other_answers_to_shared_prompts_count_by_their_share(shared: float, save: Save):
    """TV 1 on the shared ones and 0 where the proxy has no such prompt: over D_s, the share."""
    prompts, count = texts(PAPERS, 200), int(200 * shared)
    one = save("one", rows(prompts, texts(PAPERS, 200, seed=1)))
    others = prompts[:count] + texts(PAPERS, 200 - count, seed=2)
    other = save("other", rows(others, texts(STONES, 200, seed=3)))
    found = mismatch(one, other)
    assert found.tv_inputs < 0.2
    assert found.tv_outputs == pytest.approx(shared, abs=0.05)
    assert f"on the {shared:.0%} of prompts that are shared" in found.note


def test_how_often_a_prompt_is_asked_is_no_difference_of_answers(save: Save):
    """Two prompts with one answer each, 90 to 10 here and 10 to 90 there: TV .8 of the inputs and 0
    of the outputs."""
    first, second = ("which paper", "a paper answer"), ("which stone", "the stone said so")
    one = save("one", [first] * 90 + [second] * 10)
    other = save("other", [first] * 10 + [second] * 90)
    found = mismatch(one, other)
    assert found.tv_inputs == pytest.approx(0.8, abs=0.05)
    assert found.tv_outputs == 0


@pytest.mark.parametrize(("name", "least"), [("near", 0.0), ("far", 0.3)])
def test_an_estimate_from_the_rows_stays_below_the_truth(name: str, least: float, save: Save):
    """The world's rows as files: prompts are the same; of far answers' .4987, most is seen."""
    files = [
        save(one, [(r["prompt"], r["response"]) for r in world.rows(f"align.{one}")[:1000]])
        for one in ("train", name)
    ]
    found = mismatch(*files)
    truth = mismatch("world:align.train", f"world:align.{name}").tv_outputs
    assert least <= found.tv_outputs < truth + 0.07
    assert found.tv_inputs < 0.1


def test_a_handful_of_rows_tells_nothing():
    """Each fold needs rows of both to learn from and to be held against."""
    assert told_apart(["paper"] * 3, ["stone"] * 100) == 0
    assert told_apart(["paper"] * 4, ["stone"] * 4) == 1
    assert told_apart([""] * 9, [""] * 9) == 0


def test_an_estimate_is_the_same_every_time():
    draws = texts(PAPERS, 100), texts(PAPERS + STONES, 60, seed=1)
    assert told_apart(*draws) == told_apart(*draws) > 0.2


def test_shared_prompts_are_counted_word_for_word(save: Save):
    """Proxy a, a, b, c; task a, d: 2 of 4 rows. What the answers are apart nobody knows."""
    proxy = save("proxy", [("a", "1"), ("a", "2"), ("b", "1"), ("c", "1")])
    found = overlap(proxy, save("task", [("a", "1"), ("d", "1"), ("A", "1")]))
    assert found.overlap == 0.5
    assert found.divergence is None
    assert found.how == "estimated"
    assert "divergence is not known from rows alone" in found.note
    apart = overlap(proxy, save("apart", [("d", "1")]))
    assert apart[:3] == (0.0, 0.0, "estimated")


# The first rows of something


def test_the_first_rows_of_anything(save: Save):
    every = [(f"prompt {n}", f"answer {n}") for n in range(30)]
    source = save("own", every)
    assert load_rows(f"{source}#first-3") == [Row(*row) for row in every[:3]]
    assert load_rows(f"{source}#first-99") == load_rows(source)
    held_out = load_rows(f"{source}#held-out#first-2")
    assert [row.prompt for row in held_out] == ["prompt 9", "prompt 19"]
    assert load_rows(f"{source}#train#first-10")[-1].prompt == "prompt 10", "the tenth is held out"
    assert load_rows("world:gsm.train#first-5") == load_rows("world:gsm.train")[:5]
    assert describe_rows("some", f"{source}#first-3", 64, 8).num_rows == 3


def test_the_first_rows_are_known_by_their_content(save: Save):
    """As any rows are: three rows of a longer file are those of a file of three."""
    every = [(f"prompt {n}", f"answer {n}") for n in range(30)]
    cut = describe_rows("a", save("long", every) + "#first-3", 64, 8)
    assert cut.key == describe_rows("b", save("short", every[:3]), 64, 8).key


@pytest.mark.parametrize("part", ["first-", "first-x", "first--1", "first-1.5", "last-3"])
def test_an_unknown_part_is_refused(part: str, save: Save):
    with pytest.raises(UserError, match="unknown part"):
        load_rows(f"{save('own', [('a', 'b')])}#{part}")
