"""`raycib methods`: what there is to choose from, and checks of one's own."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from raycib.commands.terminal import console, table_of
from raycib.config.menu import menu, named

FACTS = ("name", "paper", "strength", "acts_by", "passes", "needs", "deviations")
HEADS = ("Method", "Name", "Strength", "Extra passes a step", "Needs")


def show(kind: str | None, as_json: bool) -> None:
    """Print all methods as a table, or one with its paper, deviations and settings. Raises
    `UserError` where there is no such method."""
    found = menu() if kind is None else dict([named(kind)])
    entries = {name: _entry(method) for name, method in found.items()}
    if as_json:
        print(json.dumps(entries, indent=1))
    elif kind is None:
        rows = [
            (name, e["name"], e["strength"].partition(":")[0], e["passes"], e["needs"])
            for name, e in entries.items()
        ]
        console().print(table_of(HEADS, rows))
        print("raycib methods KIND: its paper, deviations and settings")
    else:
        for name, entry in entries.items():
            print(f"{name}: {entry['about']}")
            for fact in FACTS[1:]:
                print(f"  {fact.replace('_', ' ') + ':':12}{entry[fact]}")
            for field, setting in entry["settings"].items():
                print(f"    {field} = {setting['default']}  {setting['about']}".rstrip())


def _entry(method: Any) -> dict[str, Any]:
    settings = {
        field: {
            "default": "required" if info.is_required() else _plain(info.default),
            "about": " ".join((info.description or "").split()),
        }
        for field, info in method.model_fields.items()
        if field != "kind"
    }
    facts = {fact: getattr(method.about, fact) for fact in FACTS}
    return {**facts, "about": " ".join((method.__doc__ or "").split()), "settings": settings}


def _plain(value: Any) -> Any:
    return "inf" if value == float("inf") else value  # JSON has no infinity


def check(place: str) -> int:
    """Print the six invariances of the method at `place`; how many fail."""
    from raycib.invariances import check as measure
    from raycib.invariances.bench import world_bench

    kind, method = named(place)
    failed = 0
    with TemporaryDirectory() as folder:
        bench, few = world_bench(Path(folder))
        for name, one in method.examples(bench.safety, bench.base).items():
            print(f"{kind}{', ' * bool(name)}{name}: {method.about.name} at {one.strength:g}")
            for found in measure(bench, one, few):
                verdict = "pass" if found.passed else "FAIL"
                bound = f"{found.measured:.1e} (at most {found.limit:g})"
                print(f"  {found.name:16}{verdict}  {bound:26}{found.about}", flush=True)
                failed += not found.passed
    return failed
