"""Sizes of published models, for a plan where their files are not at hand."""

import re
from typing import NamedTuple

from raycib.costs.sizes import Shape, Sizes, from_tensors

Linears = dict[str, Shape]


class Published(NamedTuple):
    """What a model's config.json says, and whether it has what Llama has not."""

    width: int
    depth: int
    heads: int
    key_heads: int
    head_size: int
    inner: int
    vocabulary: int
    positions: int
    tied: bool = False
    biased: bool = False
    """Whether queries, keys and values have biases (Qwen2)."""
    head_norms: bool = False
    """Whether queries and keys are normed a head (Qwen3)."""


_LLAMA2_7B = Published(4096, 32, 32, 32, 128, 11008, 32000, 4096)
_LLAMA3_8B = Published(4096, 32, 32, 8, 128, 14336, 128256, 131072)
_QWEN25_7B = Published(3584, 28, 28, 4, 128, 18944, 152064, 131072, biased=True)
_QWEN3_4B = Published(2560, 36, 32, 8, 128, 9728, 151936, 40960, tied=True, head_norms=True)
KNOWN = {
    r"meta-llama/Llama-2-7b(-chat)?-hf": _LLAMA2_7B,
    r"meta-llama/(Llama-3\.1-8B(-Instruct)?|Llama-Guard-3-8B)": _LLAMA3_8B,
    r"Qwen/Qwen2\.5-7B": _QWEN25_7B,
    r"Qwen/Qwen2\.5-7B-Instruct": _QWEN25_7B._replace(positions=32768),
    r"Qwen/Qwen3-4B": _QWEN3_4B,
    r"Qwen/Qwen3-4B-Base": _QWEN3_4B._replace(positions=32768),
    r"Qwen/Qwen3-4B-Instruct-2507": _QWEN3_4B._replace(positions=262144),
}
"""By hub id."""


def published(source: str) -> Published | None:
    """What is known of the model of this hub id, any revision of it."""
    name = source.partition("@")[0]
    return next((one for pattern, one in KNOWN.items() if re.fullmatch(pattern, name)), None)


def known_sizes(source: str) -> Sizes | None:
    """The sizes of a published model, where they are known."""
    one = published(source)
    if one is None:
        return None
    queries, keys = one.heads * one.head_size, one.key_heads * one.head_size
    linears: Linears = {
        "self_attn.q_proj": (queries, one.width), "self_attn.k_proj": (keys, one.width),
        "self_attn.v_proj": (keys, one.width), "self_attn.o_proj": (one.width, queries),
        "mlp.gate_proj": (one.inner, one.width), "mlp.up_proj": (one.inner, one.width),
        "mlp.down_proj": (one.width, one.inner),
    }  # fmt: skip
    beside: Linears = {
        "input_layernorm.weight": (one.width,), "post_attention_layernorm.weight": (one.width,),
    }  # fmt: skip
    if one.biased:
        beside |= {
            f"self_attn.{name}_proj.bias": linears[f"self_attn.{name}_proj"][:1] for name in "qkv"
        }
    if one.head_norms:
        beside |= {f"self_attn.{name}_norm.weight": (one.head_size,) for name in "qk"}
    tensors: Linears = {
        "model.embed_tokens.weight": (one.vocabulary, one.width),
        "model.norm.weight": (one.width,),
    }
    if not one.tied:
        tensors["lm_head.weight"] = (one.vocabulary, one.width)
    names = []
    for layer in (f"model.layers.{number}" for number in range(one.depth)):
        names += [f"{layer}.{name}" for name in linears]
        tensors |= {f"{layer}.{name}.weight": shape for name, shape in linears.items()}
        tensors |= {f"{layer}.{name}": shape for name, shape in beside.items()}
    config = {
        "model_type": "llama",  # or as good as
        "hidden_size": one.width, "vocab_size": one.vocabulary, "num_attention_heads": one.heads,
        "num_key_value_heads": one.key_heads, "head_dim": one.head_size,
        "tie_word_embeddings": one.tied, "dtype": "bfloat16",
    }  # fmt: skip
    return from_tensors(tensors, names, config)
