"""Rows as a model sees them: its template around them, what is trained and what is not, how long
they are, and what is left out."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.text import Text

from raycib.config import ModelSpec, RowsSpec, TaskSpec
from raycib.config.presets import Preset, TaskSource, preset, split
from raycib.counting import count
from raycib.data.chat import Encoded, encode, encode_prompt
from raycib.data.chat_format import chat_format
from raycib.data.lengths import Length, Lengths
from raycib.data.origins import origin
from raycib.data.rows import Row
from raycib.data.sources import parse, stem
from raycib.errors import UserError
from raycib.evals.scorers import scorer_of
from raycib.models import load_tokenizer
from raycib.report.text import plain
from raycib.runtime.count_tokens import counted
from raycib.runtime.options import Options
from raycib.runtime.own import DEFAULT_PRESET, OWN_MODEL, settings_of_model
from raycib.runtime.row_sets import NO_LIMIT, RowSets
from raycib.runtime.study import Study
from raycib.runtime.token_counts import TokenCounts

READ = ("preset", "model", "chat", "max_length", "max_tokens", "too_long", "scorer", "local")
"""The options of a sweep that change what is seen here; the last only where a GPU is looked for."""
QUANTILES = {"least": 0.0, "25 %": 0.25, "half": 0.5, "75 %": 0.75, "95 %": 0.95, "99 %": 0.99,
             "most": 1.0}  # fmt: skip
TRAINED = ("[[", "]]")
"""Around what is trained, where there is no colour."""


class Part(NamedTuple):
    """Rows at one source, without those that are too long."""

    spec: TaskSpec | RowsSpec
    rows: list[Row]
    """All of them."""
    lengths: Lengths
    answered: bool
    """Whether rows have responses; prompts alone are only asked."""


def inspect(task: str, shown: int, options: Options, console: Console) -> None:
    """Print the rows of `task`, a preset's by name or a source of one's own: how they are read,
    their lengths, what is left out, how answers are scored, and the first `shown` of each part.

    What is trained is coloured, or in double brackets. Raises `UserError`.
    """
    _refuse_others(options)
    chosen, whence = settings_of_model(options, preset(options.preset or DEFAULT_PRESET), Study())
    # Neither is stored here, so nothing is hashed.
    model = ModelSpec(
        source=options.model or chosen.model or str(chosen.base),  # which is aligned first
        weights="",
        tokenizer="",
        template=options.chat or chosen.chat,
    )
    tokenizer = load_tokenizer(model.source, model.template)
    parts = _parts(task, model, options, chosen, own=whence == OWN_MODEL)
    _print(console, f"{model.source}, {model.template} chat template", "bold")
    for note in chat_format(tokenizer).notes:
        _print(console, f"  {note}")
    for part in parts:
        _print(console, f"\n{part.spec.name}: {part.spec.source}", "bold")
        for line in (*part.spec.notes, *_told(part, options)):
            _print(console, f"  {line}")
        _print_lengths(part, console)
        for number in _to_show(part, shown):
            _print_row(part, number, tokenizer, console)


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(Text(plain(text), style), soft_wrap=True)


def _refuse_others(options: Options) -> None:
    plain_options = Options()
    for field in fields(Options):
        if field.name in (*READ, "out"):
            continue
        if getattr(options, field.name) != getattr(plain_options, field.name):
            name = field.name.replace("_", "-")
            raise UserError(f"--{name} changes nothing about how rows are seen; leave it out")


def _parts(task: str, model: ModelSpec, options: Options, chosen: Preset, own: bool) -> list[Part]:
    """The rows to train on and those held out; one part where the source is cut already, or where
    its rows are prompts alone."""
    counts = TokenCounts(model, "", {}, counted)
    sets = RowSets(counts, options.too_long)
    given = (options.max_length, options.max_tokens)
    usual = (chosen.max_length, chosen.max_tokens)
    whole = None if task in chosen.tasks else counts.read(task).rows
    if whole is not None and not any(row.response for row in whole):
        sets.choose_sizes((given[0] or usual[0], given[1] or usual[1]), [], [], [])
        spec = sets.prompts(stem(task), task)
        return [Part(spec, whole, *counts.of([], [task]), answered=False)]
    if task in chosen.tasks:
        name, found = task, chosen.tasks[task]
    elif parse(task).cuts or origin(task).own_language:
        name, found = stem(task), TaskSource(train=task, held_out=task)
    else:
        name, found = stem(task), split({stem(task): task})[stem(task)]
    sizes = given if own else (given[0] or usual[0], given[1] or usual[1])
    sets.choose_sizes(sizes, [found.train], [found.held_out], [])
    specs: list[TaskSpec | RowsSpec] = [sets.task(name, found.train)]
    if found.held_out != found.train:
        specs.append(sets.held_out(f"{name} held out", found.held_out))
    sources = [spec.source for spec in specs]
    every = zip(specs, map(counts.read, sources), counts.of(sources), strict=True)
    return [Part(spec, loaded.rows, lengths, answered=True) for spec, loaded, lengths in every]


def _told(part: Part, options: Options) -> Iterator[str]:
    spec, rows, lengths = part.spec, part.rows, part.lengths.rows
    whole = sum(one.whole for one in lengths)
    if not part.answered:
        yield (
            f"{count(len(rows), 'prompt')}, {whole:,} tokens; without responses they are only asked"
        )
        return
    trained = whole - sum(one.prompt for one in lengths)
    yield (
        f"{count(len(rows), 'row')}, {whole:,} tokens, of which {trained / whole:.1%} are in "
        "answers"
    )
    yield f"at most {spec.max_length} tokens a row: {_over(spec, options)}"
    asked = RowsSpec(name=spec.name, source=spec.source, rows=spec.rows, num_rows=len(rows))
    named = options.scorer or parse(spec.source).scorer
    rule = scorer_of(asked.model_copy(update={"scorer": named}), rows)
    yield f"answers are scored by: {rule.name}"


def _over(spec: TaskSpec | RowsSpec, options: Options) -> str:
    if not spec.left_out and not spec.cut:
        return "none is longer"
    numbers = ", ".join(str(n + 1) for n in spec.left_out[:8])
    more = ", ..." if len(spec.left_out) > 8 else ""
    left_out = f"{len(spec.left_out)} left out (row {numbers}{more})" * bool(spec.left_out)
    cut = f"{spec.cut} lose the end of their answer" * bool(spec.cut)
    return " and ".join(filter(None, (left_out, cut))) + f" (--too-long {options.too_long})"


def _print_lengths(part: Part, console: Console) -> None:
    kinds = {"prompt": [one.prompt for one in part.lengths.rows]}
    if part.answered:
        kinds["answer"] = [one.whole - one.prompt for one in part.lengths.rows]
        kinds["row"] = [one.whole for one in part.lengths.rows]
    _print(console, "  tokens    " + "".join(f"{name:>8}" for name in QUANTILES))
    for name, counts in kinds.items():
        found = np.quantile(counts, list(QUANTILES.values()), method="inverted_cdf")
        _print(console, f"  {name:10}" + "".join(f"{int(count):8,}" for count in found))


def _to_show(part: Part, shown: int) -> list[int]:
    """The first rows, and of those that are too long the first."""
    over = [n for n, one in enumerate(part.lengths.rows) if one.whole > part.spec.max_length]
    return list(dict.fromkeys([*range(min(shown, len(part.rows))), *over[: bool(shown)]]))


def _print_row(part: Part, number: int, tokenizer: Any, console: Console) -> None:
    row, length = part.rows[number], part.lengths.rows[number]
    gone = number in part.spec.left_out
    tokens = _tokens(tokenizer, row, NO_LIMIT if gone else part.spec.max_length)
    _print(console, f"\n  row {number + 1}: {_count(length, tokens)}{', left out' * gone}", "bold")
    prompt = tokenizer.decode(tokens.prompt)
    whole = tokenizer.decode(tokens.prompt + tokens.response)
    # Decoded apart, a first token may lose the space before it.
    together = whole.startswith(prompt)
    answer = whole.removeprefix(prompt) if together else tokenizer.decode(tokens.response)
    opened, closed = TRAINED if console.color_system is None and tokens.response else ("", "")
    answer = f"{opened}{plain(answer)}{closed}"
    console.print(Text.assemble((plain(prompt), "dim"), (answer, "bold green")), soft_wrap=True)


def _tokens(tokenizer: Any, row: Row, limit: int) -> Encoded:
    if not row.response:
        return Encoded(tuple(encode_prompt(tokenizer, row.prompt, row.system)), ())
    return encode(tokenizer, row, limit)


def _count(length: Length, tokens: Encoded) -> str:
    if not tokens.response:
        return f"{length.prompt} tokens, none trained"
    cut = f" of {length.whole}" * (len(tokens) < length.whole)
    return f"{len(tokens)}{cut} tokens, {len(tokens.response)} trained"
