"""What tensors look like here, and the batch they travel in.

Words in shapes: `rows` of a batch (one slot's, or a group's), `seq` tokens, `dim` the hidden size,
`tokens` the scored tokens of a batch, `negatives` those of one step, `examples` a whole task.
Rows are padded on the right, so causal attention needs no mask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F

from raycib.data.chat import Encoded

IGNORED = -100
"""Label of a token that is not scored: prompts and padding."""


@dataclass(frozen=True)
class Batch:
    """Rows of one slot: what one micro-batch on one worker sees of an optimiser step."""

    ids: Int[Tensor, "rows seq"]
    labels: Int[Tensor, "rows seq"]
    """The token itself where it is scored, else `IGNORED`."""
    prompt_lengths: Int[Tensor, " rows"]
    lengths: Int[Tensor, " rows"]
    examples: Int[Tensor, " rows"]
    """Index of each row in its task: its identity."""
    positions: Int[Tensor, " rows"]
    """Place of each row in the whole effective batch."""

    def split(self, rows: Sequence[int]) -> "list[Batch]":
        """So many rows each, in their order; views."""
        parts = zip(*(getattr(self, field.name).split(rows) for field in fields(self)), strict=True)
        return [Batch(*part) for part in parts]

    @property
    def unscored(self) -> "Batch":
        """The same rows, to pass through the model for nothing."""
        return replace(self, labels=torch.full_like(self.labels, IGNORED))

    @property
    def predicting(self) -> Bool[Tensor, "rows seq"]:
        """Positions whose next token is scored: the last prompt token to the last but one."""
        shifted = torch.full_like(self.labels, IGNORED)
        shifted[:, :-1] = self.labels[:, 1:]
        return shifted != IGNORED

    @property
    def feature(self) -> Bool[Tensor, "rows seq"]:
        """Positions whose next token is there, the prompt's included: all but the last one."""
        places = torch.arange(self.ids.shape[1], device=self.ids.device)
        return places < self.lengths[:, None] - 1

    @property
    def answering(self) -> Bool[Tensor, "rows seq"]:
        """Positions from the last prompt token on: all that decide the response, or are of it."""
        places = torch.arange(1, self.ids.shape[1] + 1, device=self.ids.device)
        return (places >= self.prompt_lengths[:, None]) & (places <= self.lengths[:, None])

    @property
    def present(self) -> Bool[Tensor, "rows seq"]:
        """Positions that hold a token, no padding. What they choose of a (rows seq) tensor is the
        rows laid end to end."""
        places = torch.arange(self.ids.shape[1], device=self.ids.device)
        return places < self.lengths[:, None]


@dataclass(frozen=True)
class Totals:
    """Size of one slot's whole effective batch, over all micro-batches and workers."""

    rows: int
    tokens: int
    """Scored tokens."""
    predicted: int = 0
    """Tokens with one before them, the prompts' included."""


def collate(
    data: Sequence[Encoded], examples: Sequence[int], positions: Sequence[int] | None = None
) -> Batch:
    """The chosen `examples` of `data`, padded on the right to the longest."""
    places = range(len(examples)) if positions is None else positions
    return padded([data[example] for example in examples], examples, places)


def padded(rows: Sequence[Encoded], examples: Sequence[int], positions: Sequence[int]) -> Batch:
    """Rows that are these `examples` of their tasks, padded on the right to the longest."""
    ids = [[*row.prompt, *row.response] for row in rows]
    width = max(map(len, ids))
    lengths = torch.tensor([len(row) for row in ids])
    prompt_lengths = torch.tensor([len(row.prompt) for row in rows])
    together = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    places = torch.arange(width)
    scored = (places >= prompt_lengths[:, None]) & (places < lengths[:, None])
    return Batch(
        ids=together,
        labels=together.where(scored, IGNORED),
        prompt_lengths=prompt_lengths,
        lengths=lengths,
        examples=torch.tensor(examples),
        positions=torch.tensor(positions),
    )


def widen(batch: Batch, width: int) -> Batch:
    """The same rows with padding up to `width` tokens."""
    if not (missing := width - batch.ids.shape[1]):
        return batch
    return replace(
        batch,
        ids=F.pad(batch.ids, (0, missing)),
        labels=F.pad(batch.labels, (0, missing), value=IGNORED),
    )


def together(batches: Mapping[int, Batch]) -> tuple[Batch, dict[int, int]]:
    """The rows of several slots as one batch, and how many each has."""
    width = max(batch.ids.shape[1] for batch in batches.values())
    wide = [widen(batch, width) for batch in batches.values()]
    whole = (torch.cat([getattr(one, field.name) for one in wide]) for field in fields(Batch))
    return Batch(*whole), {slot: len(batch.ids) for slot, batch in batches.items()}


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host, on a device. The host does not wait until the device has done what it
    was given before: CUDA copies ordinary memory aside first."""
    return tensor.to(device, non_blocking=True)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A batch of the host, on a device."""
    parts = {field.name: sent(getattr(batch, field.name), device) for field in fields(Batch)}
    return Batch(**parts)
