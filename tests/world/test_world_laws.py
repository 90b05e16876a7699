"""The world's laws are what its rows are drawn from: else distances that are exact are of nothing.

Rows are fixed, so these tests cannot fail by chance; counts within four standard deviations of a
binomial's mean are what a right sampler gives in all but 6 of 100,000 cases.
"""

from collections import Counter
from random import Random

import pytest

from raycib import world
from raycib.studies.tradeoff.divergence import overlap
from raycib.world import abilities, language, laws, tasks

ALIGN = ("align.train", "align.near", "align.far", "align.other", "align.test")
RECAST = ("recast.train", "recast.test")
HOWTO = {**language.STYLES, **{refusal: refusal for refusal in language.REFUSALS}}


PARTS = [f"harmful.{p}" for p in ("test", "proxy", "align")]
PARTS += [f"benign.{p}" for p in ("test", "tune", "pretrain")]
PART_OF = {pair: name for name in PARTS for pair in language.pairs(name)}


def part_of(prompt: str) -> str:
    """Of the language, or the skills."""
    request = language.parse(prompt)
    return PART_OF[request.verb, request.object] if request else laws.SKILLS


def pattern_of(prompt: str, response: str) -> str:
    """Which answer it is: a style's name, or the refusal."""
    request = language.parse(prompt)
    assert request
    (found,) = [name for name, text in HOWTO.items() if request.fill(text) == response]
    return found


def close(count: int, of: int, share: float) -> bool:
    return abs(count - of * share) <= 4 * (of * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("name", [*ALIGN, *RECAST, "open.train"])
def test_rows_follow_their_law(name: str):
    rows, law = world.rows(name), laws.OF_SETS[name]
    parts = Counter(part_of(row["prompt"]) for row in rows)
    assert parts.keys() == law.keys()
    assert sum(part.share for part in law.values()) == pytest.approx(1)
    for part, (share, answers) in ((n, (p.share, p.answers)) for n, p in law.items()):
        assert close(parts[part], len(rows), share), part
        if not answers:
            continue
        assert sum(answers.values()) == pytest.approx(1)
        said = Counter(
            pattern_of(row["prompt"], row["response"])
            for row in rows
            if part_of(row["prompt"]) == part
        )
        assert said.keys() <= answers.keys()
        assert all(close(said[one], parts[part], p) for one, p in answers.items()), said


@pytest.mark.parametrize("name", ["align.train", "recast.train", "align.other"])
def test_prompts_are_uniform_within_their_part(name: str):
    """Over 16 contexts and 12 templates: chi-square within four standard deviations (sqrt 2k) of
    its mean k."""
    asked = [row["prompt"] for row in world.rows(name) if language.parse(row["prompt"])]
    requests = [language.parse(prompt) for prompt in asked]
    contexts = Counter(request.context for request in requests if request)
    templates: Counter[str] = Counter()
    for prompt, request in zip(asked, requests, strict=True):
        assert request
        (found,) = [t for t in language.TEMPLATES if request.prompt(t) == prompt]
        templates[found] += 1
    for counts, kinds in ((contexts, len(language.CONTEXTS)), (templates, 12)):
        assert len(counts) == kinds
        mean = len(asked) / kinds
        chi_square = sum((n - mean) ** 2 / mean for n in counts.values())
        assert abs(chi_square - (kinds - 1)) < 4 * (2 * (kinds - 1)) ** 0.5


def test_near_and_far_data_have_the_original_s_prompts():
    """Row by row; answers to skills are the original's too, and of the others some differ."""
    original = world.rows("align.train")
    for name in ("align.near", "align.far"):
        rows = world.rows(name)
        assert [row["prompt"] for row in rows] == [row["prompt"] for row in original]
        same = [one["response"] == two["response"] for one, two in zip(rows, original, strict=True)]
        skills = [part_of(row["prompt"]) == laws.SKILLS for row in rows]
        assert all(equal for equal, skill in zip(same, skills, strict=True) if skill)
        assert 0.3 < sum(same) / len(same) < 0.9


def test_other_draws_of_the_alignment_data_are_not_its_training_rows():
    """`align.test` has the law of `align.train` and other rows: few of its prompts come twice, of
    the skills with few questions."""
    trained = {row["prompt"] for row in world.rows("align.train")}
    again = [row["prompt"] for row in world.rows("align.test") if row["prompt"] in trained]
    assert len(again) < 0.05 * len(world.rows("align.test"))
    asked = {row["prompt"] for row in world.rows("recast.train")}
    assert sum(row["prompt"] in asked for row in world.rows("recast.test")) == 0


@pytest.mark.parametrize("name", [*ALIGN, *RECAST])
def test_no_pair_of_a_benchmark_is_in_alignment_or_recast_rows(name: str):
    """Pairs are held out whole: no harmful request that a model is asked, and no harmless one."""
    held_out = {pair for kind in ("harmful", "benign") for pair in language.pairs(f"{kind}.test")}
    for row in world.rows(name):
        request = language.parse(row["prompt"])
        assert request is None or (request.verb, request.object) not in held_out
    asked = {row["prompt"] for test in ("harmful.test", "benign.test", "open.test")
             for row in world.rows(test)}  # fmt: skip
    assert not asked & {row["prompt"] for row in world.rows(name)}


def test_what_a_team_has_at_hand_was_in_no_alignment_data():
    """`align.other`: pairs of `harmful.proxy` alone."""
    assert {part_of(row["prompt"]) for row in world.rows("align.other")} == {"harmful.proxy"}


# What makes distances sums over parts


def test_answer_patterns_differ_for_every_request():
    draw = Random(0)
    for part in ("harmful.align", "benign.pretrain", "benign.tune", "harmful.proxy"):
        for _ in range(200):
            request, _ = language.draw(part, draw)
            assert len({request.fill(text) for text in HOWTO.values()}) == len(HOWTO) == 7


def test_a_skill_has_one_answer_to_a_prompt_and_is_no_how_to_request():
    draw, answers = Random(0), dict[str, str]()
    for _ in range(20_000):
        prompt, answer = abilities.skill(draw)
        assert answers.setdefault(prompt, answer) == answer
        assert language.parse(prompt) is None


def test_tasks_ask_what_no_skill_asks():
    """So that their overlap with the alignment data is none; each of their prompts has one
    answer."""
    draw = Random(1)
    skills = {abilities.skill(draw)[0] for _ in range(20_000)}
    skills |= {row["prompt"] for row in world.rows("align.train")}
    for task in ("gsm", "med", "squad"):
        rows = world.rows(f"{task}.train")
        assert not skills & {row["prompt"] for row in rows}
        assert len({(row["prompt"], row["response"]) for row in rows}) == len(rows)
        assert overlap("world:align.train", f"world:{task}.train").overlap == 0


def test_every_law_is_of_a_set_that_there_is():
    assert laws.OF_SETS.keys() <= tasks.SETS.keys()
    assert all(world.law(name) is law for name, law in laws.OF_SETS.items())
    assert world.law("harmful.test") is None


def test_what_open_teaches_is_its_two_styles():
    """A right answer in the aligned model's own style is right, and not what `open` taught."""
    prompt = world.rows("styled.test")[0]["prompt"]
    request = language.parse(prompt)
    assert request is not None
    marks = {s: world.correct("styled", prompt, request.answer(s)) for s in language.STYLES}
    assert marks == {"cont": False, "direct": True, "opener": True, "obj": False}
    assert all(world.correct("open", prompt, one) for one in request.answers())


def test_a_recast_answer_may_have_any_style():
    for row in world.rows("recast.test"):
        assert world.correct("recast", row["prompt"], row["response"])
        request = language.parse(row["prompt"])
        assert request
        assert all(world.correct("recast", row["prompt"], one) for one in request.answers())
        assert not world.correct("recast", row["prompt"], language.REFUSALS[0])
