"""Where the Hugging Face hub does not answer, what was fetched before is read at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

PATIENCE_S = 10
"""For the hub's first word."""


@contextmanager
def tried_once(*clients: Any) -> Iterator[None]:
    """Within it a silent hub is not asked: its clients would try five times for each file, half a
    minute with as many lines on stderr. `clients` are modules with a flag `HF_HUB_OFFLINE` of their
    own.

    Raises ConnectionError, which names the hub, where something is missing that it would have had
    to give.
    """
    from huggingface_hub import constants

    flags: tuple[Any, ...] = (constants, *clients)
    before = [flag.HF_HUB_OFFLINE for flag in flags]
    silent = not constants.HF_HUB_OFFLINE and not _answers(constants.ENDPOINT)
    try:
        for flag in flags if silent else ():
            flag.HF_HUB_OFFLINE = True
        yield
    except (ConnectionError, FileNotFoundError) as error:  # the clients' own are kinds of these
        if not silent:
            raise
        told = f"{constants.ENDPOINT} does not answer, and it was not fetched before"
        raise ConnectionError(told) from error
    finally:
        for flag, was in zip(flags, before, strict=True):
            flag.HF_HUB_OFFLINE = was


@cache
def _answers(hub: str) -> bool:
    """Whether a hub says anything at all; asked once."""
    from huggingface_hub import get_session

    try:
        get_session().head(hub, timeout=PATIENCE_S)
    except Exception:  # no name, no route, no answer
        return False
    return True
