"""What a spec is: frozen, strict data with a key."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict

RESULTS_VERSION = 2
"""Part of every key; raised whenever the same spec would give another result than before."""

NOT_IDENTITY = "raycib: where or how it is called, never part of a key"
LATER = "raycib: came after others had keys, and is part of a key where it is not its default"
Location = Annotated[str, NOT_IDENTITY]

Pooling = Literal["mean_response", "last_prompt_token", "last_token", "mean_all"]
Layer = Literal["final_norm", "before_norm"]
Tokens = Literal["response_states", "all_states", "response_nll"]
"""What is read of each token instead of each row: hidden states at the positions that predict the
response, or any token; or -log p of each response token."""
READ_PROMPTS = ("mean_all", "all_states")
"""Readings of more than the last state of a prompt."""
Feature = tuple[Pooling | Tokens, Layer]
"""Something of the aligned model that is computed once for a set of rows."""

_KEPT = "_key"
"""Where a spec keeps its key; pydantic leaves names with an underscore out of all it does."""


class Spec(BaseModel):
    """Frozen, strict data: a misspelt field is an error, and equal data have equal keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    key_name: ClassVar[str]
    """Stands for the class in a key; never changed, so that a class may be renamed. A spec that is
    only ever a part of others has none, and no key."""

    def identity(self) -> dict[str, Any]:
        """The fields that can change a result, as plain JSON values."""
        found: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            usual = LATER in field.metadata and value == field.default
            if not (usual or NOT_IDENTITY in field.metadata):
                found[name] = _plain(value)
        return found

    @property
    def key(self) -> str:
        """sha256 of the identity as canonical JSON, 64 hex digits."""
        kept = vars(self).get(_KEPT)
        if kept is None:  # the identity holds those of all specs within, and nothing of it changes
            whole = {"kind": self.key_name, "version": RESULTS_VERSION, **self.identity()}
            kept = vars(self)[_KEPT] = digest(whole)
        return kept

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, which would give the copy the key of what it was made from."""
        copied = super().model_copy(update=update, deep=deep)
        vars(copied).pop(_KEPT, None)
        return copied

    @property
    def short(self) -> str:
        """The first 12 digits of the key, for people."""
        return self.key[:12]


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.identity()
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 1, 1.0 and -0.0, 0 are equal, and so are specs that hold them
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def digest(value: Any) -> str:
    """sha256 of a JSON value in canonical form (sorted keys, no spaces, shortest floats)."""
    return hashlib.sha256(_canonical(value)).hexdigest()


def digest_of(values: Iterable[Any]) -> str:
    """`digest` of the list of some values, of which there may be too many to be in memory twice."""
    found = hashlib.sha256(b"[")
    for place, value in enumerate(values):
        found.update(b"," * bool(place) + _canonical(value))
    found.update(b"]")
    return found.hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=True).encode()
