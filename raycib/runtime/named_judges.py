"""The judges that a person names. The first is the main one, whose verdicts the tables show; the
others read the same answers."""

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from raycib.config import JudgeSpec
from raycib.errors import UserError
from raycib.evals.content_judge import CONTENT, ContentJudge
from raycib.evals.judge_address import OWN_KEY, shown
from raycib.evals.judges import Judge
from raycib.report.text import one_line
from raycib.runtime.judge import describe_judge
from raycib.runtime.options import Options

_ENDPOINT = re.compile(r"(?:(.*?)@)?([a-zA-Z][a-zA-Z0-9+.-]*://.*)", re.DOTALL)


@dataclass(frozen=True)
class NamedJudge:
    """A judge, what tables call it, and how it is reached, which no key holds."""

    name: str
    spec: JudgeSpec
    url: str | None = field(default=None, repr=False)
    """Of its endpoint, with the secrets that a person gave."""
    key_env: str | None = None
    """The variable with its key."""

    def reading(self, judge: Judge) -> Judge:
        """What reads answers for it by means of `judge`, which asks its model."""
        return ContentJudge(judge) if self.spec.content else judge


def named_judges(
    options: Options, usual: str, describe: Callable[..., JudgeSpec] = describe_judge
) -> tuple[NamedJudge, ...]:
    """The judges of `--judge`, or the `usual` one; an endpoint is MODEL@URL, or its URL alone, and
    with "+content" after it a judge reads answers without their refusals as well.

    `--judge-profile` and `--judge-key-env` say something of each, with commas between. `describe`
    makes a spec as `describe_judge` does. Raises `UserError`.
    """
    named = _several(options.judge or ("" if options.judge_url else usual))
    texts = [text.removesuffix(CONTENT) for text in named]
    if options.judge_url is not None and len(texts) > 1:
        raise UserError("--judge-url is about one judge; of several give each as MODEL@URL")
    places = [_place(text) for text in texts]
    if options.judge_url is not None:
        if places[0][1] is not None:
            raise UserError("--judge names an endpoint already; leave --judge-url out")
        places = [(places[0][0], options.judge_url)]
    profiles = _each("--judge-profile", options.judge_profile, len(places))
    keys = _each("--judge-key-env", options.judge_key_env, len(places))
    _refuse_shared_key([url for (_, url), key in zip(places, keys, strict=True) if url and not key])
    specs = [
        describe(model, url, profile, key).model_copy(update={"content": name.endswith(CONTENT)})
        for name, (model, url), profile, key in zip(named, places, profiles, keys, strict=True)
    ]
    if twice := [spec for n, spec in enumerate(specs) if spec.key in {s.key for s in specs[:n]}]:
        raise UserError(f"--judge: {twice[0].source!r} comes twice; give each judge once")
    return tuple(
        NamedJudge(name, spec, url, key)
        for name, spec, (_, url), key in zip(_names(specs), specs, places, keys, strict=True)
    )


def _several(text: str) -> list[str]:
    """A comma in the name of a folder that is there separates nothing."""
    return [text] if Path(text).is_dir() else [part.strip() for part in text.split(",")]


def _place(text: str) -> tuple[str | None, str | None]:
    """The model, and the endpoint where it is one's."""
    if found := _ENDPOINT.fullmatch(text):
        return found[1] or None, found[2]
    return text or None, None


def _each(option: str, text: str | None, count: int) -> list[str | None]:
    if text is None:
        return [None] * count
    texts = text.split(",") if count > 1 else [text]
    parts = [part.strip() or None for part in texts]
    if len(parts) != count:
        raise UserError(
            f"{option} {text!r}: there are {count} judges; give one for each, with commas between "
            "and nothing where it is known"
        )
    return parts


def _refuse_shared_key(urls: list[str]) -> None:
    """One key must not go to several servers unasked."""
    servers = sorted({shown(url) for url in urls})
    if len(servers) > 1 and os.environ.get(OWN_KEY):
        raise UserError(
            f"{OWN_KEY} would be sent to {' and '.join(servers)}; name each judge's variable with "
            "--judge-key-env A,B"
        )


def _names(specs: list[JudgeSpec]) -> list[str]:
    """The last part of a folder's or a model's name; with the profile, then the number, where it
    is another's too."""
    short = [
        one_line(text.rstrip("/").rpartition("/")[2]) + CONTENT * spec.content
        for spec in specs
        for text in [spec.weights if spec.kind == "endpoint" else spec.source]
    ]
    for more in (
        [f" ({spec.profile})" for spec in specs],
        [f" {n + 1}" for n in range(len(specs))],
    ):
        counts = Counter(short)
        short = [name + more[n] * (counts[name] > 1) for n, name in enumerate(short)]
    return short
