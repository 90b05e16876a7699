"""Models of one's own whose files are spoilt."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from raycib.data.rows import Row
from raycib.models import load_model

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
Spoil = Callable[[Path], object]


def with_fields(file: str = "config.json", **fields: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return spoil


def with_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return spoil


def with_bytes(file: str, change: Callable[[bytes], bytes]) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / file).write_bytes(change((folder / file).read_bytes()))

    return spoil


def instead(file: str, make: Callable[[Path], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        make(folder / file)

    return spoil


def shards(change: Callable[[dict[str, str]], object], parts: int = 2) -> Spoil:
    """The weights in several files with an index, which is then changed."""

    def spoil(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        places = {n: f"model-{i % parts + 1}.safetensors" for i, n in enumerate(sorted(tensors))}
        for file in set(places.values()):
            part = {name: tensors[name] for name, place in places.items() if place == file}
            save_file(part, folder / file, metadata={"format": "pt"})
        change(places)
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))

    return spoil


def header(raw: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    length = struct.unpack("<Q", raw[:8])[0]
    described = json.loads(raw[8 : 8 + length])
    change(described)
    text = json.dumps(described).encode()
    return struct.pack("<Q", len(text)) + text + raw[8 + length :]


def both(*spoils: Spoil) -> Spoil:
    return lambda folder: [spoil(folder) for spoil in spoils]


CPU = torch.device("cpu")
IDS = torch.tensor([[3, 5, 7, 9, 11]])
ROW = Row("w1 w2 w3", "w4 w5")


def logits(spec: Any) -> torch.Tensor:
    with torch.no_grad():
        return load_model(spec, CPU)(IDS).logits
