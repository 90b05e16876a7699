"""How many bytes a worker needs: weights, adapters, and what one micro-batch keeps for its backward
pass.

Checked against `torch.autograd.graph.saved_tensors_hooks` on small models of eight architectures
(`tests/costs/test_memory.py`). On a GPU it was not measured.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from raycib.costs.sizes import BYTES, Shape, Sizes
from raycib.model_files.adapter_targets import matches
from raycib.model_files.weights import LAYER

GIB = 2**30
ADAPTER_BYTES = 16
"""Of each trained weight: itself, its gradient and Adam's two means, in float32."""
LOGITS_AT_ONCE = 2**26
"""Entries of the logits held at a time (256 MB in float32); of more tokens they are made a chunk
after the other."""
BLOCK = 64
"""Weights of a quantised layer that share a scale: bitsandbytes' own choice."""
HEAD_TENSORS = 3
"""Of these logits' size in float32, at the peak: logits and log-probabilities forward, then
log-probabilities and two gradients. What holds more takes fewer tokens at a time."""
RUNTIME = {True: GIB, False: 3 * GIB // 4}
"""Bytes of a worker that holds nothing yet, with a GPU and without. GPU: CUDA's context and cuBLAS'
workspace, assumed. CPU: torch, transformers and a small model, measured."""
CACHED_TOKENS = 2**15
"""Whose keys and values transformers holds for a batch of answers: 4 GiB for 8 billion weights."""
USABLE = 0.9
"""Of a GPU's memory: the allocator leaves gaps, and vLLM takes the same share of it."""

INTO_ATTENTION = {"q_proj", "k_proj", "v_proj", "qkv_proj"}
OUT_OF_ATTENTION = {"o_proj"}
_INTO_MLP = {"gate_proj", "up_proj", "gate_up_proj"}
OUT_OF_MLP = {"down_proj"}
_KNOWN = INTO_ATTENTION | OUT_OF_ATTENTION | _INTO_MLP | OUT_OF_MLP


@dataclass(frozen=True)
class Adapter:
    """Shape of the adapters of a group."""

    rank: int
    targets: tuple[str, ...]


def layer_bytes(
    sizes: Sizes, layer: int, adapter: Adapter, dtype: str, packed: bool = False, seen: int = 0
) -> int:
    """What one token leaves in a decoder layer for the backward pass, in bytes.

    In the model's dtype: what a product with A needs (its input, shared by the projections that
    read the same, and A x); queries, keys, values and what attention gives; of a gated MLP the gate
    before and after its activation, the other factor and the product. In float32: the inputs of
    norms, their inverse size, and the logarithm of each head's softmax sum. Frozen weights keep no
    input. Attention sees `packed` rows with up to a quarter of padding (`raycib.models.packing`,
    but for rows of less than 32 tokens), and what it gives is copied together. `seen` are the
    tokens of a row where attention keeps its scores ("eager"), 0 where it does not.
    """
    linears = sizes.layers[layer]
    adapted = [name for name in linears if any(matches(name, one) for one in adapter.targets)]
    kinds, ours = set(map(last_part, linears)), set(map(last_part, adapted))
    # Keys and values that scores are made of are repeated for every head.
    attention = 3 * sizes.queries if seen else 2 * (sizes.queries + sizes.keys)
    kept = adapter.rank * len(adapted) + attention
    kept += sizes.width * (bool(ours & INTO_ATTENTION) + bool(ours & _INTO_MLP))
    kept += 3 * sum(_gated(name, shape) for name, shape in linears.items())
    kept += sum(linears[name][1] for name in adapted if last_part(name) in OUT_OF_MLP)
    if "qkv_proj" in kinds and not packed:
        # Values are a view of the whole, which stays; what attention gives is copied.
        kept += 2 * sizes.queries + sizes.keys
    elif (packed or seen) and ours & OUT_OF_ATTENTION:
        kept += sizes.queries
    kept += packed * attention // 4
    # Of a layer that is not Llama's: all that goes in and out.
    kept += sum(sum(shape) for name, shape in linears.items() if last_part(name) not in _KNOWN)
    found = kept * BYTES[dtype] + 4 * _in_norms(sizes, layer)
    if experts := sizes.routed[layer]:
        found += _of_experts(sizes, experts, dtype)
    if not seen:
        return found + 4 * sizes.heads
    scores = sizes.heads * seen * (25 if packed else 16) // 16  # padding is squared
    # Their softmax in float32, and as it is multiplied with; with a cap its tanh.
    return found + scores * (4 + BYTES[dtype] * (sizes.capped + (dtype != "float32")))


def _gated(name: str, shape: Shape) -> int:
    """Entries of the gate before its activation, if the layer makes the factor beside it: as many
    as after it, and as that factor has."""
    kind = last_part(name)
    return shape[0] if kind == "up_proj" else shape[0] // 2 if kind == "gate_up_proj" else 0


def _of_experts(sizes: Sizes, weights: int, dtype: str) -> int:
    """What one token leaves in the experts that read it, which have so many `weights` together.

    In the model's dtype: of each its gated MLP's three factors, and what it gives. Of those that
    choose: probabilities in float32, those that are chosen, their sum, and four places.
    """
    chosen = sizes.chosen or sizes.experts
    passes = weights // sizes.width + chosen * sizes.width
    return passes * BYTES[dtype] + 4 * (sizes.experts + 1 + 2 * chosen) + 4 * 8 * chosen


def last_part(name: str) -> str:
    """Of a layer's full name: what kind it is."""
    return name.rpartition(".")[2]


def _in_norms(sizes: Sizes, layer: int) -> int:
    """Entries that a layer's norms keep of each token: their input, and one inverse size."""
    kept = 0
    for name, (size,) in sizes.norms[layer].items():
        if "q_norm" in name or "k_norm" in name:
            all_heads, heads = (
                (sizes.queries, sizes.heads) if "q_norm" in name else (sizes.keys, sizes.key_heads)
            )
            kept += all_heads + (heads if size == sizes.head_size else 1)
        else:
            kept += size + 1
    return kept


@dataclass(frozen=True)
class Activations:
    """What one micro-batch needs besides weights, in bytes."""

    kept: int
    """By the decoder's layers until the backward pass."""
    layer: int
    """On top, within one layer while its gradients are computed."""
    head: int
    """On top, before that: logits, and the states that they are made of."""

    @property
    def total(self) -> int:
        """At the peak."""
        return self.kept + max(self.layer, self.head)


def activations(
    sizes: Sizes,
    adapters: Sequence[Adapter],
    dtype: str,
    tokens: int,
    scored: int,
    checkpointed: bool,
    packed: bool = False,
    seen: int = 0,
) -> Activations:
    """Of a micro-batch of `tokens` in all, padding included unless rows are `packed`, of which
    `scored` are predicted; `adapters` are those of its slots. With `checkpointed` layers each keeps
    its input alone and is computed again in the backward pass. See `layer_bytes` for `seen`."""
    size, widest = BYTES[dtype], max(adapters, key=lambda one: one.rank)
    layers = [layer_bytes(sizes, n, widest, dtype, packed, seen) for n in range(len(sizes.layers))]
    # Slots' factors are cast for each forward pass, where the base is not float32 as they are.
    factors = sum(sizes.adapter_parameters(a.rank, a.targets) for a in adapters)
    cast = size * factors if dtype != "float32" else 0
    if checkpointed:
        kept = tokens * size * sizes.width * len(layers)
        inside = tokens * max(layers) + cast // max(1, len(layers))
        inside += inside // 2
    else:
        kept, inside = tokens * sum(layers) + cast, tokens * max(layers) // 2
    at_once = min(scored, LOGITS_AT_ONCE // sizes.vocabulary)
    states = 2 * tokens * sizes.width * size + scored * sizes.width * size
    head = at_once * sizes.vocabulary * HEAD_TENSORS * 4 + states
    return Activations(kept, inside, head)


def said(size: float) -> str:
    """Bytes for a person, in three digits."""
    for unit, one in (("TiB", 2**40), ("GiB", GIB), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= 999.5 / 1024 * one:  # 1,000 has four digits
            return f"{size / one:.3g} {unit}"
    return f"{size:.0f} bytes"


def weight_bytes(sizes: Sizes, dtype: str, quantization: str | None = None) -> int:
    """Of the frozen base; of a quantised linear layer half a byte a weight, and a float32 for each
    `BLOCK` of them."""
    whole = sizes.parameters * BYTES[dtype]
    if quantization is None:
        return whole
    layers = _linear_sizes(sizes)
    return whole + sum(-(-n // 2) + 4 * -(-n // BLOCK) - n * BYTES[dtype] for n in layers)


def unpacked_bytes(sizes: Sizes, dtype: str, quantization: str | None = None) -> int:
    """Of what is made of a quantised layer's bits while it is computed with: two, as one follows
    the other."""
    return 0 if quantization is None else 2 * max(_linear_sizes(sizes)) * BYTES[dtype]


def _linear_sizes(sizes: Sizes) -> list[int]:
    return [math.prod(shape) for layer in sizes.layers for shape in layer.values()]


@dataclass(frozen=True)
class Shards:
    """A base that lies in shards over workers, in numbers of weights."""

    rows: int
    """Of the decoder's layers, one worker's rows of every weight."""
    outside: int
    """Of embeddings, last norm and head."""
    outside_rows: int
    """One worker's rows of those."""
    layer: int
    """Of the largest layer."""

    @classmethod
    def of(cls, sizes: Sizes, workers: int) -> "Shards":
        """Rows are dealt in equal parts, rounded up."""
        layers: Counter[int] = Counter()
        rows: Counter[bool] = Counter()
        for name, shape in sizes.tensors.items():
            inside = LAYER.search(name)
            rows[bool(inside)] += -(-shape[0] // workers) * math.prod(shape[1:])
            if inside:
                layers[int(inside[1])] += math.prod(shape)
        outside = sizes.parameters - layers.total()
        return cls(rows[True], outside, -(-outside // workers), max(layers.values()))

    def frozen(self, dtype: str) -> tuple[int, int]:
        """Bytes that a worker holds of a frozen base, all that is outside of layers included; and
        of the layer that is gathered, twice while it is copied out."""
        return (self.rows + self.outside) * BYTES[dtype], 2 * self.layer * BYTES[dtype]

    def trained(self, precision: str, copied: bool = False) -> tuple[int, int]:
        """Bytes of all weights that are trained, with gradients and Adam; and of what is gathered
        at the peak, in the precision that is computed with: what is outside of layers and its
        gradients, a layer twice, and its gradients; and those on their way to the other workers, in
        float32. ZeRO-3 has its part `copied` to that precision besides."""
        own = (ADAPTER_BYTES + BYTES[precision] * copied) * (self.rows + self.outside_rows)
        gathered = 2 * self.outside + 3 * self.layer
        return own, BYTES[precision] * gathered + 4 * self.layer


def trained_bytes(sizes: Sizes, precision: str) -> int:
    """Of all weights, trained by a worker that has them all; where they are computed with in
    bfloat16 it has them in that, too."""
    read = BYTES[precision] if precision != "float32" else 0
    return sizes.parameters * (ADAPTER_BYTES + read)


def adapter_bytes(sizes: Sizes, adapter: Adapter) -> int:
    """Of one adapter with its gradients and its optimiser."""
    return ADAPTER_BYTES * sizes.adapter_parameters(adapter.rank, adapter.targets)
