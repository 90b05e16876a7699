"""The sizes of a decoder, from its stored tensors and its configuration."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from raycib.model_files import find
from raycib.model_files.adapter_targets import linears_of, matches
from raycib.model_files.config import experts_chosen, experts_of, own_dtype, read_config
from raycib.model_files.packing import narrows, packs
from raycib.model_files.weights import LAYER, stored_tensors

_HEAD = re.compile(r"(?:^|\.)lm_head\.weight$")
_NORM = re.compile(r"norm\d?\.weight$|ln_\d\.weight$")
BYTES = {"float32": 4, "bfloat16": 2}
"""Of one weight."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sizes:
    """A decoder in numbers."""

    tensors: Mapping[str, Shape]
    """Shape of every stored weight, by its full name."""
    linears: tuple[str, ...]
    """Full names of the linear layers within the decoder's layers, experts and what chooses them
    left out."""
    width: int
    """Of a hidden state."""
    vocabulary: int
    heads: int
    key_heads: int
    """Heads of keys and values."""
    head_size: int
    experts: int
    """Of a layer that has some."""
    chosen: int | None
    """Experts that read a token; None where the configuration does not say."""
    capped: bool
    """Whether attention scores have a cap, so that attention keeps them."""
    dtype: str
    """As its weights are loaded where nobody says."""
    tied: bool
    """Whether the output head is the embeddings."""
    packs: bool
    """Whether rows may lie end to end, without padding."""
    narrows: bool
    """Whether the last layer may be computed for some tokens alone."""

    @property
    def parameters(self) -> int:
        """Weights in memory; a tied head counts once."""
        whole = sum(map(math.prod, self.tensors.values()))
        twice = [shape for name, shape in self.tensors.items() if _HEAD.search(name)]
        return whole - (math.prod(twice[0]) if self.tied and twice else 0)

    @cached_property
    def layers(self) -> list[dict[str, Shape]]:
        """The linear layers of each decoder layer: (out, in) by full name."""
        found: dict[int, dict[str, Shape]] = {}
        for name in self.linears:
            number = int(LAYER.search(name)[1])  # type: ignore[index]
            found.setdefault(number, {})[name] = self.tensors[f"{name}.weight"]
        return [found[number] for number in sorted(found)]

    @cached_property
    def norms(self) -> list[dict[str, Shape]]:
        """The norms' weights of each decoder layer, by name within it."""
        found: list[dict[str, Shape]] = [{} for _ in self.layers]
        for name, shape in self.tensors.items():
            inside = LAYER.search(name)
            if inside and len(shape) == 1 and _NORM.search(name) and int(inside[1]) < len(found):
                found[int(inside[1])][inside[2]] = shape
        return found

    @cached_property
    def routed(self) -> list[int]:
        """Weights of the experts that read a token, of each decoder layer; all of them where their
        number is not known."""
        found: Counter[int] = Counter()
        for name, shape in self.tensors.items():
            if ".experts." in name and (inside := LAYER.search(name)):
                found[int(inside[1])] += math.prod(shape)
        share = self.chosen or self.experts
        return [found[number] * share // max(1, self.experts) for number in range(len(self.layers))]

    @property
    def choosing(self) -> int:
        """Weights that choose among a layer's experts."""
        return self.experts * self.width

    @cached_property
    def decoder_parameters(self) -> int:
        """Weights that a token is multiplied with on its way through the decoder's layers."""
        linear = sum(math.prod(shape) for layer in self.layers for shape in layer.values())
        return linear + sum(experts + self.choosing for experts in self.routed if experts)

    @property
    def queries(self) -> int:
        """Width of all queries together."""
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        """Width of all keys, and of all values."""
        return self.key_heads * self.head_size

    @cached_property
    def _adapted(self) -> dict[tuple[str, ...], dict[str, Shape]]:
        return {}

    def adapted(self, targets: Iterable[str]) -> Mapping[str, Shape]:
        """The linear layers that an adapter with these targets has a place in, by full name; looked
        for once, as a plan asks thousands of times."""
        wanted = tuple(targets)
        if wanted not in self._adapted:
            self._adapted[wanted] = {
                name: self.tensors[f"{name}.weight"]
                for name in self.linears
                if any(matches(name, target) for target in wanted)
            }
        return self._adapted[wanted]

    def adapter_parameters(self, rank: int, targets: Iterable[str]) -> int:
        """Of an adapter: A (rank, in) and B (out, rank) of every layer that it adapts."""
        return sum(rank * sum(shape) for shape in self.adapted(targets).values())


def sizes_of(source: str) -> Sizes:
    """The sizes of the model at `source`, from the heads of its files."""
    folder = find(source)
    tensors = {name: one.shape for name, one in stored_tensors(folder).items()}
    return from_tensors(tensors, linears_of(folder), read_config(folder))


def from_tensors(
    tensors: Mapping[str, Shape], linears: Iterable[str], config: Mapping[str, Any]
) -> Sizes:
    """The sizes of a model with these tensors; what its configuration leaves out follows from
    them."""
    own = config.get("text_config") or config
    heads = own.get("num_attention_heads") or own.get("n_head") or 1
    vocabulary, width = next((shape for shape in tensors.values() if len(shape) == 2), (0, 0))
    vocabulary = own.get("vocab_size") or vocabulary
    width = own.get("hidden_size") or own.get("n_embd") or width
    experts = experts_of(dict(config)) or 0
    return Sizes(
        tensors=tensors,
        # What chooses among experts has an output for each of them.
        linears=tuple(one for one in linears if tensors[f"{one}.weight"] != (experts, width)),
        width=width,
        vocabulary=vocabulary,
        heads=heads,
        key_heads=own.get("num_key_value_heads") or heads,
        head_size=own.get("head_dim") or width // heads,
        experts=experts,
        chosen=experts_chosen(dict(config)),
        capped=own.get("attn_logit_softcapping") is not None,
        dtype=own_dtype(dict(config)),
        tied=bool(config.get("tie_word_embeddings", not any(map(_HEAD.search, tensors)))),
        packs=packs(config.get("model_type", "")),
        narrows=narrows(config.get("model_type", "")),
    )
