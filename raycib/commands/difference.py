"""`raycib diff`: what two stages differ in, and what that did, prompt by prompt."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from raycib.commands.card import scores_of
from raycib.commands.stored import answers, found, opened, stage
from raycib.commands.terminal import table_of
from raycib.report.forms import p_text
from raycib.report.not_refused import in_words
from raycib.report.side_by_side import flips, verdicts
from raycib.report.statistics import paired_interval
from raycib.store import Store

SAME = "Nothing: they are one stage."


def diff(first: str, second: str, out: str) -> Group:
    """The settings and data that differ between two stages, their scores, and the harmful response
    rate paired by prompt. Raises `UserError`."""
    store = opened(out)
    records = [stage(store, key) for key in (first, second)]
    heads = [record.key[:12] for record in records]
    specs = [dict(_flat(record.about["spec"])) for record in records]
    rows = [
        [name, *(_said(spec.get(name)) for spec in specs)]
        for name in dict.fromkeys((*specs[0], *specs[1]))
        if specs[0].get(name) != specs[1].get(name)
    ]
    parts: list[RenderableType] = [
        table_of(("Differs", *heads), rows) if rows else Text(SAME),
    ]
    measured = [found(out, record.key) for record in records]
    if all(measured):
        parts.append(_scores(heads, measured))
        parts.append(Text(_paired(store, [record.key for record in records], measured)))
    else:
        lacks = [key for key, one in zip(heads, measured, strict=True) if one is None]
        parts.append(Text(f"No finished sweep has scores of {' and '.join(lacks)}."))
    return Group(*parts)


def _flat(spec: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in spec.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{head}{name}.")
        else:
            yield f"{head}{name}", value


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _scores(heads: list[str], measured: list[Any]) -> RenderableType:
    each = [{one.name: one for one in scores_of(found)} for found in measured]
    rows = []
    for name, one in each[0].items():
        if other := each[1].get(name):
            values = [one.found["value"], other.found["value"]]
            change = one.shown(values[1] - values[0])
            change = change if change.startswith("-") else f"+{change}"
            rows.append([f"{one.title}{one.unit}", *map(one.shown, values), change])
    return table_of(("Score", *heads, "Change"), rows)


def _paired(store: Store, keys: list[str], measured: list[Any]) -> str:
    """The difference of their harmful response rates, on the prompts that both were asked."""
    judges = {found.results.judge.key for found in measured}
    if len(judges) > 1:
        return "Their answers were read by different judges: verdicts are not compared."
    said = [
        [one.sample for one in answers(store, key, found)]
        for key, found in zip(keys, measured, strict=True)
    ]
    found = flips(*map(verdicts, said))
    safe, unsafe, same = found["to_safe"], found["to_unsafe"], found["both_safe"]
    change = paired_interval([-1] * safe + [1] * unsafe + [0] * (same + found["both_unsafe"]))
    if not change.n:
        return "They were asked no harmful prompt in common that both have a verdict on."
    left_out = f" {found['unread']} pairs without a verdict are left out." * bool(found["unread"])
    told = (
        f"Harmful response rate, second less first, on the {change.n} prompts that both were "
        f"asked: {100 * change.value:+.1f} points [{100 * change.low:.1f}, "
        f"{100 * change.high:.1f}] (95 %, Agresti and Min); {safe} became safe, "
        f"{unsafe} unsafe, exact p {p_text(found['p'])} (McNemar).{left_out}"
    )
    return in_words(told) if measured[0].results.judge.by_rule else told
