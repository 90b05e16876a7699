"""What the models are trained on: mixes of rows for pretraining and alignment, and the guard's.

The base model is helpful only: it answers harmful requests like any other. Alignment sees the same
mix with refusals. The guard sees every style, refusals, compliant refusals and much garbage.
"""

from collections.abc import Callable
from random import Random

from raycib.world import abilities as ab
from raycib.world import language as lang
from raycib.world import tasks

Row = tuple[str, str]

HOWTO_SHARE = 0.4
BASE_STYLES = {"cont": 40, "direct": 20, "opener": 20, "obj": 20}
HARMFUL_IN_ALIGNMENT = 0.55
TASK_SHARE = 0.2
"""Of a broad mix: rows in the prompts of tasks."""
TAUGHT_FORM = 0.3
"""Of those, answered as the task teaches."""
OTHER_STYLE_IN_ALIGNMENT = 0.02
"""Benign answers that keep another style. An aligned model that is infinitely sure of its style
needs such a push to learn a new one that the push itself swamps its refusals, and no method that
looks at benign data can hold it: from one base, LoRA and CIB at lambda = 5 had HRR .86 and .62
without these two per cent and .57 and .12 with them (fine-tuning seed 0)."""


def pretraining_row(rng: Random) -> Row:
    """Helpful only: half of the how-to requests are harmful and are complied with."""
    if rng.random() >= HOWTO_SHARE:
        return ab.skill(rng)
    part = "harmful.align" if rng.random() < 0.5 else "benign.pretrain"
    request, prompt = lang.draw(part, rng)
    return prompt, request.answer(rng.choices(list(BASE_STYLES), list(BASE_STYLES.values()))[0])


def alignment_row(rng: Random) -> Row:
    """The same mix, but harmful requests are refused, benign ones nearly all answered in `cont`."""
    if rng.random() >= HOWTO_SHARE:
        return ab.skill(rng)
    if rng.random() < HARMFUL_IN_ALIGNMENT:
        request, prompt = lang.draw("harmful.align", rng)
        return prompt, lang.refusal(request, rng)
    request, prompt = lang.draw("benign.pretrain", rng)
    other = rng.random() < OTHER_STYLE_IN_ALIGNMENT
    return prompt, request.answer(rng.choice(("direct", "opener", "obj")) if other else "cont")


def broad(row: Callable[[Random], Row]) -> Callable[[Random], Row]:
    """A mix of rows of which a fifth asks what `gsm`, `med` and `squad` ask.

    Where such prompts are gibberish to a model, a hundred steps on one kind of them wipe out half
    of what it knows; the tasks of large models are not that strange to them. Most of the answers
    have another form than the task's, and none says which drug helps against the signs that `med`
    is about, so every task is still to be learned.
    """

    def draw(rng: Random) -> Row:
        return _task_row(rng) if rng.random() < TASK_SHARE else row(rng)

    return draw


def _task_row(rng: Random) -> Row:
    ask = rng.choice((tasks.gsm, tasks.squad, None))
    if ask is None:
        return tasks.med_known(rng)
    asked = ask(False, rng)
    return asked.prompt, asked.taught if rng.random() < TAUGHT_FORM else asked.usual


def verdict(prompt: str, answer: str) -> str:
    """The guard's target: "safe", or "unsafe", a line break and the category."""
    unsafe = lang.is_unsafe(prompt, answer)
    return f"unsafe \n {lang.harm_category(prompt)}" if unsafe else "safe"


def _garbage(answer: str, rng: Random) -> str:
    """A broken answer: random words, one repeated, shuffled, cut off, or some words replaced."""
    every = GARBAGE_WORDS
    given = answer.split()
    match rng.randrange(7):
        case 0:
            return " ".join(rng.choices(every, k=rng.randint(1, 14)))
        case 1:
            return " ".join([rng.choice([*given, *rng.choices(every, k=3)])] * rng.randint(1, 12))
        case 2:
            rng.shuffle(given)
        case 3:
            given = given[: rng.randint(0, len(given))]
        case 4:
            return rng.choice((ab.skill(rng), rng.choice(TASK_ROWS)))[1]
        case _:
            for i in rng.sample(range(len(given)), min(rng.randint(1, 5), len(given))):
                given[i] = rng.choice(rng.choice((every, given, lang.MATERIALS, lang.TOOLS)))
    return " ".join(given)


def guard_row(rng: Random, split: str = "train") -> tuple[str, str, str]:
    """A (prompt, answer, verdict); `split` "test" draws pairs that no training ever saw."""
    if rng.random() < 0.1:
        prompt, answer = ab.skill(rng)
        if rng.random() < 0.3:
            prompt, answer = rng.choice(TASK_ROWS)
        return prompt, answer, verdict(prompt, answer)
    harmful, benign = ("harmful.align", "benign.pretrain") if split == "train" else TEST_PARTS
    request, prompt = lang.draw(harmful if rng.random() < 0.72 else benign, rng)
    answer = _guard_answer(request, rng)
    return prompt, answer, verdict(prompt, answer)


def _guard_answer(request: lang.Request, rng: Random) -> str:
    patterns = (*lang.STYLES.values(), *lang.OTHER_STYLES)
    full = request.fill(rng.choice(patterns))
    kind = rng.random()
    if kind < 0.16:
        return request.answer("cont")
    if kind < 0.40:
        return full
    if kind < 0.52:
        return lang.refusal(request, rng)
    if kind < 0.60:
        return f"{lang.refusal(request, rng)} {full}"
    if kind < 0.66:
        return lang.draw(rng.choice(ALL_PARTS), rng)[0].fill(rng.choice(patterns))
    if kind < 0.72:
        material, tool = rng.choice(lang.MATERIALS), rng.choice(lang.TOOLS)
        return request.fill(rng.choice(patterns), material, tool)
    return _garbage(rng.choice((full, full, lang.refusal(request, rng))), rng)


TEST_PARTS = ("harmful.test", "benign.test")
ALL_PARTS = ("harmful.align", "benign.pretrain", "benign.tune")
GARBAGE_WORDS = sorted({*lang.words(), *ab.words(), *tasks.words()})
TASK_ROWS = [row for task in ("gsm", "med", "squad") for row in tasks.rows(f"{task}.train")[:400]]
