"""`raycib show`: one stage, from what it is made of to what it said."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from raycib.commands.card import method_name, scores_of, settings_of, stages_of
from raycib.commands.stored import WORDS, Answer, Found, answers, found, opened, stage
from raycib.commands.terminal import table_of
from raycib.counting import count
from raycib.report.forms import BEFORE
from raycib.report.text import one_line
from raycib.results import folder_of
from raycib.store import Record
from raycib.store.kinds import HISTORY_FILE


def show(key: str, out: str, texts: int) -> Group:
    """What there is of the stage whose key begins with `key`, with the first `texts` of its harmful
    prompts and answers. Raises `UserError`."""
    store = opened(out)
    record = stage(store, key)
    measured = found(out, record.key)
    said = answers(store, record.key, measured) if measured else []
    spec = record.about["spec"]
    title = f"{method_name(spec)} on {spec['task']['name']}, seed {spec['seed']}"
    parts: list[RenderableType] = [
        table_of(("", title), [[*row] for row in _facts(record, measured, out)]),
        _scores(measured) if measured else Text("No finished sweep has scores of it."),
    ]
    if steps := record.value(HISTORY_FILE):
        parts.append(_curve(steps))
    if measured and said:
        parts.append(Text(_verdicts(said, measured.results.judge.by_rule)))
    parts += [Text(f"> {one_line(a.prompt, 500)}\n{WORDS[a.harmful]}: {one_line(a.answer, 1500)}\n")
              for a in said[:texts]]  # fmt: skip
    return Group(*parts)


def _facts(record: Record, measured: Found | None, out: str) -> Iterator[tuple[str, str]]:
    about = record.about
    spec = about["spec"]
    yield "key", record.key
    yield "files", str(record.folder)
    if measured:
        place = folder_of(out) / measured.results.sweep / "report.html"
        yield "sweep", f"{measured.results.sweep}, {measured.results.created[:16]}: {place}"
        yield "judge", measured.results.judge.name
    yield "model", f"{spec['model']['source']} ({spec['model']['weights'][:12]})"
    for one in stages_of(spec):
        rows = one["task"]
        yield (
            "rows",
            f"{rows['name']}: {rows['num_rows']} of {rows['source']} ({rows['rows'][:12]})",
        )
    for name, value in settings_of(spec, about):
        yield name, str(value)
    if tokens := about.get("tokens"):
        share = tokens["useful"] / tokens["computed"] if tokens.get("computed") else 0
        yield "tokens", f"{tokens.get('useful', 0)} useful, {share:.0%} of what was computed"
    yield "made with", ", ".join(f"{name} {number}" for name, number in about["versions"].items())


def _scores(measured: Found) -> RenderableType:
    heads = ("Score", "Value", "95 % interval", "n", BEFORE.capitalize())
    return table_of(heads, [one.cells for one in scores_of(measured)])


def _curve(steps: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Each term of the loss at a quarter of the steps each."""
    places = sorted({round(part * (len(steps) - 1) / 4) for part in range(5)})
    names = dict.fromkeys(name for entry in steps for name in entry if name != "step")
    rows = [
        [name, *(f"{steps[n][name]:.4g}" if name in steps[n] else "" for n in places)]
        for name in names
    ]
    return table_of(("At step", *(f"{steps[n]['step']}" for n in places)), rows)


def _verdicts(said: Sequence[Answer], by_rule: bool) -> str:
    unread = sum(one.harmful is None for one in said)
    harmful = sum(one.harmful is True for one in said)
    told = "not refused" if by_rule else "judged harmful"
    return (
        f"{count(len(said), 'harmful prompt')} asked, {count(harmful, 'answer')} {told}, {unread} "
        "without a verdict; --answers N shows the first.\n"
    )
