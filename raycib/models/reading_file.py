"""The file of one reading, written a few rows at a time: one of tokens may not fit into memory.

It is an ordinary safetensors file, which `safetensors` maps into memory as it reads it. Its own
writer wants all tensors at once, and copies them.
"""

import json
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""What the format calls them."""


class ReadingFile:
    """`z` (values of all examples, one after the other, *dim) and, where asked for, `starts`: where
    each example begins, and where the last one ends. Examples may be written in any order."""

    def __init__(
        self,
        path: Path,
        sizes: Sequence[int],
        dim: tuple[int, ...],
        dtype: torch.dtype,
        starts: bool,
    ) -> None:
        """`sizes` are values of each example."""
        self._starts = [0, *accumulate(sizes)]
        self._dtype = dtype
        self._bytes = torch.Size(dim).numel() * dtype.itemsize
        end = self._starts[-1] * self._bytes
        z = {"dtype": NAMES[dtype], "shape": [self._starts[-1], *dim], "data_offsets": [0, end]}
        header, indices = {"z": z}, b""
        if starts:
            indices = torch.tensor(self._starts).numpy().tobytes()
            offsets = [end, end + len(indices)]
            header["starts"] = {"dtype": "I64", "shape": [len(sizes) + 1], "data_offsets": offsets}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self._data = 8 + len(text)
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._file.seek(self._data + end)
        self._file.write(indices)

    def write(self, example: int, values: Tensor) -> None:
        """All values of one example."""
        self._file.seek(self._data + self._starts[example] * self._bytes)
        raw = values.to("cpu", self._dtype).contiguous().reshape(-1).view(torch.uint8)
        if len(raw) != (self._starts[example + 1] - self._starts[example]) * self._bytes:
            raise ValueError(f"example {example} has {tuple(values.shape)} values, not as planned")
        self._file.write(raw.numpy().tobytes())

    def __enter__(self) -> "ReadingFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._file.close()
