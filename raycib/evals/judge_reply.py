"""What a judge's server replied: the value of its JSON, or why there is none.

A server may say anything, and says it in many dialects: nothing here raises but `Malformed`, which
may pass, and `Refused`, which does not.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

_RETRIED_STATUS = frozenset({408, 409, 425, 429})
"""Of the 4xx only these may pass by themselves; every 5xx may."""
_LASTING_STATUS = frozenset({401, 402, 404, 405, 407})
"""About the asker or the server, never about one conversation; every 3xx is, too."""
_LASTING_CODE = frozenset({"insufficient_quota", "invalid_api_key", "model_not_found"})

_LONGEST_ASKED_PAUSE_S = 60.0

_TOO_LONG = re.compile(
    r"context.?(?:length|window|size)|maximum (?:input|prompt|model) length|too long"
    r"|too many (?:input )?tokens|reduce the length",
    re.IGNORECASE,
)
_FILTERED = re.compile(
    r"content.?(?:filter|policy|management)|moderation|flagged|filtered|data_inspection|safety",
    re.IGNORECASE,
)


class Malformed(ValueError):
    """A reply that is no verdict, such as half a JSON. Retried: servers die in mid-sentence."""

    def __init__(self, what: str, pause_s: float = 0.0) -> None:
        super().__init__(what)
        self.pause_s = pause_s
        """What the server asked for before the next try."""


class NotThere(Malformed):
    """Nobody answered at all."""


class Refused(Exception):
    """A reply that will not change by asking again."""

    def __init__(self, status: int, code: str, param: str, message: str) -> None:
        super().__init__(f"HTTP {status}{f' {code}' if code else ''}: {message}")
        self.status, self.code, self.about = status, code, f"{param} {message}"

    @property
    def lasting(self) -> bool:
        """Whether the server refuses whatever it is asked."""
        moved = 300 <= self.status < 400
        return moved or self.status in _LASTING_STATUS or self.code in _LASTING_CODE

    @property
    def too_long(self) -> bool:
        """Whether the conversation is longer than the judge takes."""
        return self.status == 413 or _TOO_LONG.search(f"{self.code} {self.about}") is not None

    @property
    def why(self) -> str:
        """In a few words, for a count."""
        if self.too_long:
            return "too long for the judge"
        filtered = _FILTERED.search(f"{self.code} {self.about}")
        return "filtered by the judge's server" if filtered else f"refused with HTTP {self.status}"


def content(
    status: int, headers: Mapping[str, str], text: str, redacted: Callable[[str], str]
) -> Any:
    """The value of a reply's JSON. `redacted` takes our secrets out of what a server says. Raises
    `Malformed` and `Refused`."""
    found = _json(text)
    error = found.get("error") if isinstance(found, dict) and "choices" not in found else None
    inner = error.get("code") if isinstance(error, dict) else None
    if 200 <= status < 300 and type(inner) is int:
        status = inner  # some gateways reply 200 and put the status inside
    if 200 <= status < 300 and found is not None and not error:
        return found

    def short(said: str) -> str:
        return _short(redacted(said))

    if 300 <= status < 400:
        to = short(headers.get("Location", "")) or "nowhere"
        raise Refused(status, "", "", f"it redirects to {to}; give the address that answers")
    problem = _refusal(status, error or found, text, short)
    if 200 <= status < 300:
        raise Malformed(str(problem) if error else f"no JSON: {short(text)}")
    if (status >= 500 or status < 200 or status in _RETRIED_STATUS) and not problem.lasting:
        raise Malformed(str(problem), _asked_pause(headers.get("Retry-After", "")))
    raise problem


def models(reply: Any) -> list[str]:
    """The names of the models that an endpoint lists. Raises `Malformed`."""
    cards = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(cards, list):
        raise Malformed("no list of models; is this an OpenAI-compatible server?")
    names = [card.get("id") for card in cards if isinstance(card, dict)]
    return [name for name in names if isinstance(name, str)]


def _refusal(status: int, error: Any, text: str, short: Callable[[str], str]) -> Refused:
    """What a reply of that status says."""
    fields = error if isinstance(error, dict) else {"message": error}
    code, param = (
        short(value) if isinstance(value := fields.get(name), str) else ""
        for name in ("code", "param")
    )
    message = fields.get("message") or fields.get("detail")
    said = message if isinstance(message, str) else json.dumps(message) if message else text
    return Refused(status, code, param, short(said) or "it says no more")


def _short(text: str) -> str:
    """A server's text as one short line without escapes."""
    shown = "".join(c if c.isprintable() else " " for c in text[:2000])
    return " ".join(shown.split())[:300]


def _json(text: str) -> Any:
    """The value of a JSON text; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _asked_pause(value: str) -> float:
    """Seconds that a Retry-After header asks for, at most a minute; 0 where it says nothing."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError, OverflowError):
            return 0.0
    return min(_LONGEST_ASKED_PAUSE_S, seconds) if seconds > 0 else 0.0
