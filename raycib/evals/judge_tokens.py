"""A judge's tokenizer for text from the middle of a string, and for text that must hold no control
token: its specification, as `tokenizer.json` has it, changed."""

import json
from typing import Any

_WHITE = " \t\r\n\u2581"
"""The last is how SentencePiece writes a space."""


def control_ids(tokenizer: Any, spec: dict[str, Any]) -> frozenset[int]:
    """Every added token's id, special or not, but what any text may hold: the unknown word's, and
    those of white space."""
    ids = set(tokenizer.added_tokens_decoder) | {token["id"] for token in spec["added_tokens"]}
    return frozenset(ids - {_unknown_id(spec)} - {token["id"] for token in white_space(spec)})


def white_space(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Added tokens that stand for white space and for nothing else, and are words of the model.
    Gemma's has all its newlines and runs of spaces there: without them a judge reads bytes that it
    never saw in training."""
    words = spec["model"]["vocab"]
    if isinstance(words, list):  # ids are positions
        words = {piece: i for i, (piece, *_) in enumerate(words)}
    return [
        token
        for token in spec["added_tokens"]
        if not token["special"]
        and not token["content"].strip(_WHITE)
        and words.get(token["content"]) == token["id"]
    ]


def _unknown_id(spec: dict[str, Any]) -> int | None:
    model = spec["model"]
    if model["type"] == "Unigram":
        return model.get("unk_id")
    return model["vocab"].get(model.get("unk_token"))


def without_side_effects(spec: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer for text from the middle of a string: nothing is put in front of it."""
    spec = json.loads(json.dumps(spec))
    spec["post_processor"] = None
    for part in ("normalizer", "pre_tokenizer"):
        spec[part] = _drop_prefixes(spec.get(part))
    return spec


def _drop_prefixes(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    if part.get("type") == "Sequence":
        name = "normalizers" if "normalizers" in part else "pretokenizers"
        kept = [p for p in map(_drop_prefixes, part[name]) if p is not None]
        return part | {name: kept} if kept else None
    if part.get("type") == "Prepend":
        return None
    if part.get("type") == "Metaspace":
        return part | {"prepend_scheme": "never"}
    return part | {"add_prefix_space": False} if "add_prefix_space" in part else part


def without_added_tokens(spec: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer with no added token but white space, and none of the others left in its
    own vocabulary."""
    spec = without_side_effects(spec)
    unknown = _unknown_id(spec)
    kept = white_space(spec)
    others = {unknown, *(token["id"] for token in kept)}
    names = {token["content"] for token in spec["added_tokens"] if token["id"] not in others}
    spec["added_tokens"] = kept
    model = spec["model"]
    if model["type"] == "Unigram":  # ids are positions: the entry stays and can match no text
        model["vocab"] = [
            [f"\x00{i}\x00removed", -1e9] if piece in names else [piece, score]
            for i, (piece, score) in enumerate(model["vocab"])
        ]
        return spec
    model["vocab"] = {word: i for word, i in model["vocab"].items() if word not in names}
    if "merges" in model:
        vocabulary = model["vocab"]
        model["merges"] = [
            pair
            for pair in model["merges"]
            if all(part in vocabulary for part in (*_halves(pair), "".join(_halves(pair))))
        ]
    return spec


def _halves(merge: str | list[str]) -> list[str]:
    """A merge's two parts; older files write them as one string with a space."""
    return merge.split(" ") if isinstance(merge, str) else merge
