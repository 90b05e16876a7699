"""Which safetensors files a model is loaded from, and whether they are whole and fit its
configuration: read from their headers, without torch.

Format: https://huggingface.co/docs/safetensors (8 bytes little-endian: length of a JSON header; the
header names dtype, shape and bytes of every tensor; then the bytes).
"""

import functools
import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any, NamedTuple

from raycib.errors import UserError
from raycib.model_files import config as model_config
from raycib.model_files.config import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_MOST_HEADER = 100_000_000
"""Bytes: the format's own limit."""
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2,
          "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}  # fmt: skip
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.+)")
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte|embed_in|word_embeddings)\.weight$")
_LIKE_LLAMA = {
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "granite", "cohere",
    "cohere2", "olmo", "olmo2", "smollm3",
}  # fmt: skip
"""Architectures whose layers have the seven projections of Llama's."""


class Stored(NamedTuple):
    """One tensor as its file describes it."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Where its bytes begin in the file."""
    size: int
    """Bytes."""


Stamp = tuple[int, int, int, int]


def stamp(path: Path) -> Stamp:
    """What changes with a file's content. `UserError` for what is not a readable file."""
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode) or not os.access(path, os.R_OK):
        raise UserError(f"{path} is no file that can be read")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers and vLLM both load: one, or those of an index.

    Raises `UserError` where the two would load different ones.
    """
    there = {path.name for path in folder.iterdir() if path.name.endswith(".safetensors")}
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if (folder / name).exists():
            raise UserError(
                f"model folder {folder} also holds an adapter ({name}), which would be applied "
                "to its weights a second time, or in training only: move it elsewhere"
            )
    indexed = (folder / INDEX).exists()
    if indexed and SINGLE in there:
        raise UserError(f"model folder {folder} holds {SINGLE} and {INDEX}: remove one of them")
    if indexed:
        names = sorted(set(_index(folder).values()))
        others = {name for name in there if not name.startswith("consolidated")} - set(names)
    else:
        names, others = [SINGLE], there - {SINGLE}
        if SINGLE not in there:
            more = f" but {sorted(others)[0]}" if others else ""
            raise UserError(
                f"model folder {folder} has no *.safetensors to load: no {SINGLE}, no {INDEX}"
                f"{more}; pickled weights are not read"
            )
    if others:
        raise UserError(
            f"model folder {folder} holds {sorted(others)[0]} beside its weights, which vLLM would "
            "load and transformers not: move it elsewhere"
        )
    return [folder / name for name in names]


def _index(folder: Path) -> dict[str, str]:
    """The file of every tensor, by the index."""
    path = folder / INDEX
    whole = read_json(path)
    listed = whole.get("weight_map")
    if not isinstance(listed, dict) or not listed or not isinstance(whole.get("metadata"), dict):
        raise UserError(f"{path} has no weight_map or no metadata; fetch it again")
    for file in listed.values():
        plain = isinstance(file, str) and file == Path(file).name
        if not (plain and file.endswith(".safetensors")):
            raise UserError(f"{path} names {file!r:.80}, which is no safetensors file beside it")
        if not (folder / file).exists():
            raise UserError(f"{path} names {file}, which is missing; fetch the model again")
    return listed


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of a model folder. Raises `UserError` for files that are cut off, are no
    safetensors, or do not hold what their index says."""
    found: dict[str, Stored] = {}
    for path in weight_files(folder):
        for name, one in _header(path, stamp(path)).items():
            if name in found:
                raise UserError(f"{path} holds {name!r}, which {found[name].file.name} holds too")
            found[name] = one
    if (folder / INDEX).exists():
        listed = _index(folder)
        wrong = {n for n, one in found.items() if listed.get(n) != one.file.name} | (
            listed.keys() - found.keys()
        )
        if wrong:
            raise UserError(f"{folder / INDEX} is wrong about {min(wrong)!r}; fetch it again")
    return found


@functools.cache
def _header(path: Path, _: Stamp) -> dict[str, Stored]:
    whole = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        if first.startswith(b"version "):
            raise UserError(f"{path} is a pointer of git-lfs, not the file: run git lfs pull")
        if len(first) < 8 or length > min(_MOST_HEADER, whole - 8):
            raise UserError(f"{path} is cut off, or no safetensors file; fetch it again")
        text = file.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        found = {
            name: Stored(
                path,
                one["dtype"],
                tuple(one["shape"]),
                8 + length + one["data_offsets"][0],
                one["data_offsets"][1] - one["data_offsets"][0],
            )
            for name, one in header.items()
        }
        sizes = [math.prod(one.shape) * _SIZES[one.dtype] == one.size for one in found.values()]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is no safetensors file: {str(error)[:80]}; fetch it again"
        ) from error
    end = max((one.start + one.size for one in found.values()), default=0)
    if not found or not all(sizes) or end != whole:
        raise UserError(f"{path} has {whole} bytes and its header asks for {end}; fetch it again")
    return found


def check_whole(folder: Path) -> None:
    """Raise `UserError` unless every weight is there and finite."""
    for path in sorted({one.file for one in stored_tensors(folder).values()}):
        if (name := _not_finite(path, stamp(path))) is not None:
            raise UserError(f"{path}: {name} holds NaN or infinity; fetch or save it again")


def check_fit(folder: Path, config: dict[str, Any]) -> None:
    """Raise `UserError` unless the weights are floats that fit the configuration, as far as that
    is known without the architecture's code."""
    tensors = stored_tensors(folder)
    for name, one in tensors.items():
        if name.endswith("weight") and one.dtype not in _FLOATS:
            raise UserError(f"{one.file}: {name} is {one.dtype}; raycib reads float weights")
    _check_layers(folder, config, tensors)
    rows = model_config.vocabulary(config), model_config.width(config)
    for name, one in tensors.items():
        if _EMBEDDING.search(name) and "word_embed_proj_dim" not in config:
            _check_shape(name, one, rows)
    places = tensors.get("transformer.wpe.weight") or tensors.get("wpe.weight")
    if places and type(config.get("n_positions")) is int:
        _check_shape("wpe.weight", places, (config["n_positions"], model_config.width(config)))
    head = tensors.get("lm_head.weight")
    embedding = next((one for name, one in tensors.items() if _EMBEDDING.search(name)), None)
    if config.get("tie_word_embeddings") is True and head and embedding:
        if not _same(head, embedding):
            raise UserError(
                f"{folder}: config.json ties lm_head.weight to the embeddings, but the two differ: "
                "transformers would use it and vLLM not; set tie_word_embeddings to false"
            )
    elif config.get("tie_word_embeddings") is False and config.get("model_type") in _LIKE_LLAMA:
        _need(folder, tensors, "lm_head.weight")


def _check_layers(folder: Path, config: dict[str, Any], tensors: dict[str, Stored]) -> None:
    there = {int(found[1]) for name in tensors if (found := LAYER.search(name))}
    depth = model_config.depth(config)
    extra = config.get("num_nextn_predict_layers")
    extra = extra if type(extra) is int else 0
    if depth is not None and there and not (depth <= max(there) + 1 <= depth + extra):
        raise UserError(
            f"{folder} has weights of {max(there) + 1} layers, but config.json names {depth}"
        )
    if config.get("model_type") not in _LIKE_LLAMA or depth is None or depth > len(tensors):
        if depth is not None and depth > len(tensors):
            raise UserError(f"{folder} has {len(tensors)} tensors, too few for {depth} layers")
        return
    wide, heads = model_config.width(config), config.get("num_attention_heads")
    groups, of_head = config.get("num_key_value_heads", heads), config.get("head_dim")
    inner = config.get("intermediate_size")
    if of_head is None and not str(config["model_type"]).startswith(("gemma", "qwen3")):
        of_head = wide // heads if wide and heads else None
    sizes = [v if type(v) is int else None for v in (heads, groups, of_head, inner)]
    heads, groups, of_head, inner = sizes
    queries = heads * of_head if heads and of_head else None
    keys = groups * of_head if groups and of_head else None
    expected = {
        "self_attn.q_proj": (queries, wide), "self_attn.k_proj": (keys, wide),
        "self_attn.v_proj": (keys, wide), "self_attn.o_proj": (wide, queries),
        "mlp.gate_proj": (inner, wide), "mlp.up_proj": (inner, wide),
        "mlp.down_proj": (wide, inner),
    }  # fmt: skip
    for number in range(depth):
        for linear, shape in expected.items():
            name = f"model.layers.{number}.{linear}.weight"
            _need(folder, tensors, name)
            _check_shape(name, tensors[name], shape)


def _need(folder: Path, tensors: dict[str, Stored], name: str) -> None:
    if name not in tensors:
        raise UserError(f"{folder} lacks the tensor {name}; fetch or save the model again")


def _check_shape(name: str, found: Stored, expected: tuple[int | None, ...]) -> None:
    fits = len(found.shape) == len(expected) and all(
        want in (None, have) for have, want in zip(found.shape, expected, strict=False)
    )
    if not fits:
        wanted = " x ".join("any" if size is None else str(size) for size in expected)
        raise UserError(
            f"{found.file}: {name} is {' x '.join(map(str, found.shape))}, but config.json asks "
            f"for {wanted}; is it the configuration of another model?"
        )


def _same(one: Stored, other: Stored) -> bool:
    import numpy as np

    if one[1:3] != other[1:3]:
        return False
    return bool(np.array_equal(_bytes(one, "u1"), _bytes(other, "u1")))


def _bytes(one: Stored, kind: str) -> Any:
    import numpy as np  # not before there is something to compute: the command line starts fast

    count = one.size // np.dtype(kind).itemsize
    return np.memmap(one.file, mode="r", offset=one.start, dtype=kind, shape=(count,))


@functools.cache
def _not_finite(path: Path, now: Stamp) -> str | None:
    """The first tensor of a file with an entry that is not finite: all bits of its exponent set."""
    import numpy as np

    for name, one in _header(path, now).items():
        if one.dtype not in _FLOATS or not one.size:
            continue
        values = _bytes(one, _FLOATS[one.dtype])
        for start in range(0, len(values), 2**22):
            part = values[start : start + 2**22]
            bad = (part & 0x7F80) == 0x7F80 if one.dtype == "BF16" else ~np.isfinite(part)
            if bad.any():
                return name
    return None
