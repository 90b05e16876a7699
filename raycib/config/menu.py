"""The menu: every method that can be named, found where it is written down.

raycib's own are the files of `raycib/methods`; other packages add theirs by an entry point of the
group `raycib.methods`; a person names a file or a module of their own.
"""

import importlib
import pkgutil
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from raycib.config.method import Method, PlainLoRA, Source
from raycib.custom import code_of, imported, module_at, run
from raycib.errors import UserError

PACKAGE = "raycib.methods"
"""Of raycib's own; the group of other packages' entry points has the same name."""
_GIVEN: dict[str, type[Method]] = {}
"""Methods of a person's own that this process was pointed to, by kind."""


def menu() -> dict[str, type[Method]]:
    """Every method by its kind: plain LoRA, raycib's own, other packages', a person's own."""
    return _installed() | _GIVEN


def method_of(kind: object) -> type[Method]:
    """The method of that kind; `UserError` shows the menu where there is none."""
    found = menu().get(kind) if isinstance(kind, str) else None
    if found is None:
        shown = ", ".join(f"{name} ({one.about.name})" for name, one in menu().items())
        raise UserError(
            f"no method {kind!r}; there is {shown}; one of your own: my_methods.py:MyMethod"
        )
    return found


def named(text: str) -> tuple[str, type[Method]]:
    """(kind, method) of what a person writes: a kind of the menu, or a place of their own."""
    if ".py" in text or ":" in text:
        method = from_place(text)
        return _kind(method), method
    return text, method_of(text)


def read_method(value: Any) -> Any:
    """A method from plain data: the class that its `kind` names reads the rest. `UserError` where
    the method is not known here, or in another version of its code."""
    if not isinstance(value, dict):
        return value
    fields = dict(value)
    place, code = fields.pop("custom", "raycib"), fields.pop("code", None)
    method = method_of(fields.get("kind"))
    if code != (method.source.code if method.source else None):
        raise UserError(
            f"{fields['kind']} is the one of {place} with the code {str(code)[:12]}, which this "
            f"process does not have; it has {method.source or 'its own'}"
        )
    return method.model_validate(fields)


def from_place(place: str) -> type[Method]:
    """The method at `my_methods.py:Anchor` or `package.module:Anchor` (the class may be left out
    where there is one alone). It is on the menu from now on, and its module's text is part of its
    keys. `UserError` where it cannot be read, or is no method."""
    where, _, name = place.partition(":")
    module, text = module_at(where, place)
    found = {method.__name__: method for method in _methods_in(module)}
    if not (name in found or (not name and len(found) == 1)):
        there = ", ".join(found) or "none"
        raise UserError(
            f"{place}: which method? A subclass of raycib.config.Method: there is {there}"
        )
    method = found[name] if name else next(iter(found.values()))
    return _give(method, f"{where}:{method.__name__}", text)


def from_source(source: Source) -> type[Method]:
    """The method that another process found, from what it sent of it."""
    known = [one for one in menu().values() if one.source == source]
    if known:
        return known[0]
    if not source.text:
        method = from_place(source.place)
    else:
        where, _, name = source.place.partition(":")
        module = run(source.text, Path(where).absolute())
        method = _give(getattr(module, name), source.place, source.text)
    if method.source is None or method.source.code != source.code:
        raise UserError(f"{source.place} has other code here than where the sweep was started")
    return method


@cache
def _installed() -> dict[str, type[Method]]:
    found: dict[str, type[Method]] = {"lora": PlainLoRA}
    package = importlib.import_module(PACKAGE)  # by name: it is built upon this
    for entry in pkgutil.iter_modules(package.__path__, f"{PACKAGE}."):
        for method in _methods_in(importlib.import_module(entry.name)):
            _add(found, method)
    for point in entry_points(group=PACKAGE):
        where = point.value.partition(":")[0]
        try:
            method = point.load()
        except Exception as error:
            raise UserError(
                f"the method {point.name!r} of an installed package ({point.value}) cannot be "
                f"imported: {error}; mend or uninstall that package"
            ) from error
        method.source = Source(point.value, code_of(imported(where, point.value)))
        _add(found, method)
    return found


def _give(method: type[Method], place: str, text: str) -> type[Method]:
    """Put a person's own on the menu."""
    code = code_of(sys.modules[method.__module__], text)
    method.source = Source(place, code, text)
    kind = _kind(method)
    before = menu().get(kind)
    if before is not None and (before.source is None or before.source.place != place):
        taken = before.source.place if before.source else "a method of raycib"
        raise UserError(f"{place}: its kind {kind!r} is that of {taken}; call it otherwise")
    _refuse_twins(menu(), kind, method)
    _GIVEN[kind] = method
    return method


def _add(found: dict[str, type[Method]], method: type[Method]) -> None:
    kind = _kind(method)
    if kind in found:
        raise UserError(f"{method.__module__} and {found[kind].__module__} are both {kind!r}")
    _refuse_twins(found, kind, method)
    found[kind] = method


def _refuse_twins(found: dict[str, type[Method]], kind: str, method: type[Method]) -> None:
    """Tables know methods by their names: cells of two of one name would be seeds of one row."""
    name = method.about.name
    for other, its in found.items():
        if other != kind and its.about.name == name:
            raise UserError(
                f"methods {kind!r} and {other!r} are both called {name!r}, and tables would make "
                "one of them; give one's About another name"
            )


def _kind(method: type[Method]) -> str:
    """What a class calls itself; UserError where it lacks what every method must say."""
    kind = method.model_fields["kind"].default
    if not isinstance(kind, str) or not hasattr(method, "about"):
        raise UserError(
            f"{method.__name__} needs a kind (kind: Literal['my_method'] = 'my_method') and "
            "about: ClassVar = About(...); docs/add_a_method.md"
        )
    return kind


def _methods_in(module: ModuleType) -> list[type[Method]]:
    """The methods that a module defines itself."""
    return [
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Method) and one.__module__ == module.__name__
    ]
