"""A process with engines, one of which raised in the middle of its work, works no more."""

import os
from pathlib import Path
from typing import Any

import pytest

from raycib.errors import UserError
from raycib.runtime.engines import Engines
from raycib.store import Store


class Raises:
    """In the place of what has models answer."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = [*errors]

    def answer(self, evals: object) -> int:
        if error := self.errors.pop(0):
            raise error
        return 7


class Exit(BaseException):
    """In the place of the process's end."""


def test_an_engine_that_raised_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hold requests that nobody ends. What a person has to mend leaves it whole, and so does
    what a store cannot take."""

    def ends(code: int) -> None:
        raise Exit(code)

    monkeypatch.setattr(os, "_exit", ends)
    store, model = Store(tmp_path / "store"), None
    engines = Engines(model, 0, 0)  # type: ignore[arg-type]
    raises: Any = Raises(UserError("a"), None, RuntimeError("out of memory"))
    engines._answering[store.root] = raises
    with pytest.raises(UserError):
        engines.answer(store, {})
    assert engines.answer(store, {}) == 7
    with pytest.raises(RuntimeError, match="memory"):
        engines.answer(store, {})
    with pytest.raises(Exit, match="1"):
        engines.answer(store, {})
