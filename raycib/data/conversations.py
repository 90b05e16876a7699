"""Lists of turns, as chat data sets have them, as one prompt and its response."""

from typing import Any, NamedTuple

from raycib.data.tables import shown
from raycib.data.texts import text_of
from raycib.errors import UserError

SPEAKERS = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant",
}  # fmt: skip
ORDERS = (["user"], ["user", "assistant"])
"""Who may speak, after a system turn or none."""


class Conversation(NamedTuple):
    """One turn of each; "" where there is none."""

    prompt: str
    response: str
    system: str
    unread: frozenset[str]
    """What turns have besides speaker and text."""


def conversation(turns: Any) -> Conversation:
    """A list of turns (`role` and `content`, or `from` and `value`). Raises `UserError` for one
    with more than a prompt and a response: a row has no earlier turns."""
    if not isinstance(turns, list):
        raise UserError(f"{shown(turns)} is not a list of turns")
    said: list[tuple[str, str]] = []
    unread: set[str] = set()
    for turn in turns:
        names = ("role", "content") if isinstance(turn, dict) and "role" in turn else _SHAREGPT
        if not (isinstance(turn, dict) and turn.keys() >= {*names}):
            raise UserError(f"{shown(turn)} is no turn with role and content")
        speaker = SPEAKERS.get(str(turn[names[0]]).strip().casefold())
        if speaker is None:
            raise UserError(f"a turn of {shown(turn[names[0]])}, which a row cannot hold")
        said.append((speaker, text_of(turn[names[1]], numbers=False)))
        unread |= {str(name) for name, value in turn.items() if name not in names and value}
    system = said.pop(0)[1] if said and said[0][0] == "system" else ""
    speakers = [speaker for speaker, _ in said]
    if speakers not in ORDERS:
        raise UserError(
            f"turns of {', '.join(speakers) or 'nobody'}, but a row has one prompt and one "
            "response; cut it into rows"
        )
    texts = [text for _, text in said]
    return Conversation(texts[0], "".join(texts[1:]), system, frozenset(unread))


_SHAREGPT = ("from", "value")
