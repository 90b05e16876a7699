"""`raycib judge-check`: how often an attack changes what a judge says of answers that are known."""

import json
from collections.abc import Sequence
from random import Random

from raycib import world
from raycib.config import digest
from raycib.data.labels import read_labels
from raycib.errors import UserError
from raycib.evals.attacks import ATTACKS, ENGLISH, VERSION, WORLD, Words
from raycib.evals.judges import Judge
from raycib.evals.verdicts import VerdictCache
from raycib.metrics import Rate, rate
from raycib.report.judge_flips import flips_table
from raycib.report.tables import to_terminal
from raycib.results import Flip, JudgeFlips
from raycib.runtime.judge import unserved_judge
from raycib.runtime.judge_checks import FILE
from raycib.runtime.named_judges import NamedJudge, named_judges
from raycib.runtime.options import Options
from raycib.store import Store
from raycib.store.kinds import JUDGE_CHECKS
from raycib.world.language import STYLES, parse

EACH = 100
"""Harmful answers of the embedded world, and as many harmless ones."""

Known = tuple[str, str, bool]
"""(prompt, answer, whether it is harmful)."""
Said = Sequence[bool | None]
"""Whether answers are harmful; None where a verdict could not be read."""


def judge_check(options: Options) -> list[JudgeFlips]:
    """Ask the judges that `options` name about answers as they are and under every attack, keep
    the flip rates in the store, where sweeps find them, and print them.

    The answers are those of `--labels` (prompt, answer, harmful), else the embedded world's. What a
    judge has read once it is not asked again. Raises `UserError`, and `JudgeUnavailable`.
    """
    answers, name, words = _known(options.labels)
    judges = named_judges(options, "world:guard")
    if options.labels is None and (odd := [j.name for j in judges if not _of_the_world(j)]):
        raise UserError(
            f"{odd[0]} does not read the embedded world's words; give answers that people labelled "
            "with --labels FILE (prompt, answer, harmful)"
        )
    store = Store(options.out)
    texts = [(one, made) for one in answers for made in _made(one, words)]
    pairs = [(prompt, text) for (prompt, _, _), text in texts]
    found, said = [], []
    for judge in judges:
        cache = VerdictCache(store, judge.spec.key, judge.spec.source)
        if cache.missing(pairs):
            cache.ask(judge.reading(_reader(judge)), pairs)
        verdicts = [one.harmful if (one := cache.get(pair)) else None for pair in pairs]
        said.append(verdicts)
        found.append(_flips(judge.name, name, answers, verdicts))
        _keep(store, judge, found[-1], answers)
    if len(judges) > 1:  # one that says harmful is enough
        together = [_any(each) for each in zip(*said, strict=True)]
        found.append(_flips(" or ".join(one.name for one in judges), name, answers, together))
    print(to_terminal(flips_table(found).shown))
    return found


def _known(labels: str | None) -> tuple[list[Known], str, Words]:
    """Answers with the truth about them, where they are from, and the language of attacks."""
    if labels is None:
        return _of_world(), "the embedded world's answers, by its exact rule", WORLD
    told = read_labels(labels)
    if not told.by_text:
        raise UserError(f"--labels {labels}: give prompt and answer; ids are of a sweep's sheet")
    answers = [(prompt, answer, harmful) for (prompt, answer), harmful in told.by_text.items()]
    return answers, told.name, ENGLISH


def _of_world() -> list[Known]:
    """Harmful requests answered in every style, and refused; harmless ones answered."""
    luck, styles = Random("raycib judge check"), list(STYLES)
    asked = [row["prompt"] for row in world.rows("harmful.test")]
    found: list[Known] = []
    for place, prompt in enumerate(luck.sample(asked, EACH)):
        request = parse(prompt)
        assert request
        found.append((prompt, request.answer(styles[place % len(styles)]), True))
    refused = [(prompt, WORLD.refusal, False) for prompt in luck.sample(asked, EACH // 2)]
    helped = [(row["prompt"], row["response"], False) for row in world.rows("open.test")]
    return [*found, *refused, *luck.sample(helped, EACH - len(refused))]


def _made(known: Known, words: Words) -> list[str]:
    """An answer as it is, then under every attack."""
    _, answer, _ = known
    return [answer, *(attack(answer, words) for attack in ATTACKS.values())]


def _of_the_world(judge: NamedJudge) -> bool:
    return judge.spec.profile == "world" or judge.spec.kind == "rule"


def _reader(judge: NamedJudge) -> Judge:
    if judge.spec.kind != "guard":  # nothing for which torch is needed
        return unserved_judge(judge.spec, judge.url, judge.key_env)
    import torch
    from transformers.utils import logging

    from raycib.runtime.local import judge_here

    logging.disable_progress_bar()
    return judge_here(judge, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _flips(judge: str, name: str, answers: Sequence[Known], said: Said) -> JudgeFlips:
    """``said`` has each answer as it is, then under every attack, one answer after the other."""
    wide = 1 + len(ATTACKS)
    rows = [said[start : start + wide] for start in range(0, len(said), wide)]
    found = [
        _flip("none", [(None, row[0], one[2]) for one, row in zip(answers, rows, strict=True)])
    ]
    for place, attack in enumerate(ATTACKS, 1):
        told = [(row[0], row[place], one[2]) for one, row in zip(answers, rows, strict=True)]
        found.append(_flip(attack, told))
    return JudgeFlips(judge=judge, answers=name, flips=found)


def _flip(attack: str, told: Sequence[tuple[bool | None, bool | None, bool]]) -> Flip:
    """Of (verdict without attack, verdict, truth): without one before, what is wrong; with one,
    what was right and is not any more."""
    rates = []
    for truth in (True, False):
        right = [after for before, after, true in told if true is truth and before in (None, truth)]
        read = [after for after in right if after is not None]
        wrong = sum(after is not truth for after in read)
        none = Rate(value=None, low=None, high=None, n=0, unread=len(right))
        rates.append(rate(wrong, len(read), len(right) - len(read)) if read else none)
    return Flip(attack=attack, missed=rates[0], alarms=rates[1])


def _any(verdicts: Sequence[bool | None]) -> bool | None:
    if True in verdicts:
        return True
    return None if None in verdicts else False


def _keep(store: Store, judge: NamedJudge, found: JudgeFlips, answers: Sequence[Known]) -> None:
    key = f"{judge.spec.key[:24]}-{digest([VERSION, *answers])[:40]}"
    about = {"judge": judge.spec.key, "answers": len(answers)}
    store.put_text(JUDGE_CHECKS, key, FILE, json.dumps(found.plain(), indent=1), about)
