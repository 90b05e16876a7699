"""A sweep from Python: a notebook, a debugger, a script of one's own."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import pandas as pd
from typer.exceptions import TyperException

from raycib.config import Method, RunSpec
from raycib.config.grid import Variant
from raycib.errors import UserError
from raycib.report.frame import to_frame
from raycib.runtime.command import Question, answer, parsed
from raycib.runtime.options import Options
from raycib.runtime.study import Study
from raycib.runtime.sweep_config import SweepConfig
from raycib.studies.strength import Strength

Variants = Iterable[Method | Variant]

OF_METHODS = ("methods", "strengths")
"""Options that choose among a sweep's own methods."""


def sweep(
    variants: Variants | Callable[[SweepConfig], Variants],
    *,
    name: str = "sweep",
    question: str = "",
    study: Study | None = None,
    **options: Any,
) -> pd.DataFrame:
    """See `raycib.sweep`."""
    asked = options_of(**options)
    if not callable(variants):
        if given := [option for option in OF_METHODS if getattr(asked, option) is not None]:
            raise UserError(f"{given[0]}: the methods that are given have theirs; leave it out")
        variants = partial(_changed, list(variants))
    runs = partial(_runs, variants)
    results, _ = answer(Question(name, question or name, runs, study or Strength()), asked)
    return to_frame(results) if results else pd.DataFrame()


def _changed(variants: Variants, setup: SweepConfig) -> list[Method | Variant]:
    """Methods with what the person changed of them."""
    return [one if isinstance(one, Variant) else setup.method(one) for one in variants]


def _runs(variants: Callable[[SweepConfig], Variants], setup: SweepConfig) -> list[RunSpec]:
    return setup.runs_of(variants(setup))


def options_of(**given: Any) -> Options:
    """Options by name, read as the command line reads them: `seeds=1, local=True`. A sequence is
    what has commas on the command line. Raises `UserError`."""
    known = [field.name for field in fields(Options)]
    if unknown := [name for name in given if name not in known]:
        raise UserError(f"a sweep has no option {unknown[0]!r}; there is {', '.join(known)}")
    arguments = [part for name, value in given.items() for part in _argument(name, value)]
    try:
        return parsed(arguments)
    except TyperException as error:
        raise UserError(getattr(error, "format_message", error.__str__)()) from error


def _argument(name: str, value: Any) -> Sequence[str]:
    """One option as on the command line."""
    option = "--" + name.replace("_", "-")
    if value is None or value is False:
        return ()
    if value is True:
        return (option,)
    if name == "set":  # may be given several times
        many = [value] if isinstance(value, str) else value
        return [f"{option}={one}" for one in many]
    if isinstance(value, (list, tuple)):
        value = ",".join(map(str, value))
    return (f"{option}={value}",)
