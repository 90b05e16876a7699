"""What a model's JSON files say, and which of it is refused. No torch here."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raycib.errors import UserError

JSON_FILES = ("config.json", "generation_config.json", "tokenizer_config.json")
_RUNS_CODE = ("auto_map", "_attn_implementation_internal", "trust_remote_code", "custom_generate")
_ATTENTION = ("_attn_implementation", "attn_implementation")
_DEPTH = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_WIDTH = ("hidden_size", "n_embd", "n_embed", "d_model")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "top_k_experts", "moe_topk", "moe_top_k", "moe_k")
_WHOLE = (
    *_DEPTH,
    *_WIDTH,
    "vocab_size",
    "num_attention_heads",
    "num_key_value_heads",
)
_LENGTHS = (
    "max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_len",
    "max_seq_length", "seq_length", "seq_len", "model_max_length", "max_target_positions",
)  # fmt: skip
_OTHER_KINDS = {
    "quantization_config": "its weights are quantised; raycib trains on float weights",
    "vision_config": "it is a model of images too; give its text model",
    "audio_config": "it is a model of sound too; give its text model",
}
_CAUSAL = ("ForCausalLM", "LMHeadModel")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; `UserError` for anything else."""
    try:
        if not path.is_file():  # a pipe of that name would be waited for
            raise UserError(f"{path} is no file")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no object; is it a Hugging Face model?")
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder; `UserError` where a size in it is none."""
    path = folder / "config.json"
    config = read_json(path)
    if not isinstance(config.get("model_type"), str) or not config["model_type"]:
        raise UserError(f"{path} names no model_type; is it a Hugging Face model?")
    for part in _parts(config):
        for field, value in part.items():
            if value is not None and (wanted := _wanted(field, value)):
                raise UserError(f"{path}: {field} is {value!r:.40}; expected {wanted}")
    return config


def _wanted(field: str, value: Any) -> str | None:
    """What a field should be, where it is not."""
    whole = type(value) is int
    if field in _WHOLE and not (whole and 0 < value < 2**31):
        return "a positive number"
    if field == "sliding_window" and not whole:
        return "a number of tokens"
    if field == "num_labels" and not (whole and 0 <= value < 10**6):
        return "a few"  # a name is made for each, before anything is checked
    if field.endswith(("_eps", "_epsilon")) and not (
        isinstance(value, (int, float)) and 0 <= value < 0.1
    ):
        return "a small number"
    if field == "tie_word_embeddings" and not isinstance(value, bool):
        return "true or false"
    return None


def refuse_other_kinds(folder: Path, config: dict[str, Any]) -> None:
    """Raise `UserError` for what is no language model with plain weights: raycib trains no
    other."""
    path = folder / "config.json"
    for field, why in _OTHER_KINDS.items():
        if config.get(field) is not None:
            raise UserError(f"{path} sets {field!r}: {why}")
    if config.get("is_encoder_decoder"):
        raise UserError(f"{path} is of an encoder with a decoder; give a decoder alone")
    named = config.get("architectures")
    if named and not (isinstance(named, list) and str(named[0]).endswith(_CAUSAL)):
        raise UserError(f"{path} is of {named}; raycib trains language models (...ForCausalLM)")


def is_plain(config: dict[str, Any]) -> bool:
    """Whether layers and sizes are a language model's own, in floats."""
    return all(config.get(field) is None for field in _OTHER_KINDS)


def refuse_code(folder: Path) -> None:
    """Files that name code to run are refused: weights are data."""
    for name in JSON_FILES:
        path = folder / name
        if not path.exists():
            continue
        for field, value in _fields(read_json(path)):
            if field == "transformers_weights" and value is not None:
                raise UserError(f"{path} sets {field!r}: its weights are elsewhere; remove it")
            kernel = field in _ATTENTION and any(mark in str(value) for mark in "/:@")
            if (field in _RUNS_CODE and value) or kernel:
                raise UserError(
                    f"{path} sets {field!r}, which would run the model's own code; raycib loads "
                    "architectures that transformers ships: remove the field"
                )


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """All names and values of nested objects."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict() as found:
                yield from found.items()
                waiting += found.values()
            case list() as found:
                waiting += found


def _parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The configuration and, where its text model has one of its own, that."""
    inner = config.get("text_config")
    return [config, inner] if isinstance(inner, dict) else [config]


def _first(config: dict[str, Any], names: tuple[str, ...]) -> Any:
    parts = _parts(config)
    return next((p[n] for p in parts for n in names if p.get(n) is not None), None)


def depth(config: dict[str, Any]) -> int | None:
    """Decoder layers; None where the architecture's default holds."""
    return _first(config, _DEPTH)


def width(config: dict[str, Any]) -> int | None:
    """Size of a hidden state; None where the architecture's default holds."""
    return _first(config, _WIDTH)


def vocabulary(config: dict[str, Any]) -> int | None:
    """Token ids that the model has embeddings for; None where the default holds."""
    return _first(config, ("vocab_size",))


def experts_of(config: dict[str, Any]) -> int | None:
    """Experts of a layer that has some."""
    return _first(config, _EXPERTS)


def experts_chosen(config: dict[str, Any]) -> int | None:
    """Experts that read a token; None where it says nothing."""
    return _first(config, _CHOSEN)


def positions(config: dict[str, Any], path: Path) -> int | None:
    """Tokens that the model was made for; None where it says nothing. A stretch of its positions
    (`rope_scaling`) is not counted on: LongRoPE computes every row of a pass otherwise where one
    is longer than it was made for. `path` is for the error."""
    for part in _parts(config):
        for name in _LENGTHS:
            value = part.get(name)
            if value is None:
                continue
            whole = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not whole or not math.isfinite(value) or value != int(value) or value < 1:
                raise UserError(
                    f"{path}: {name} is {value!r:.40}; expected the number of tokens it can take"
                )
            return min([int(value), *_before_longrope(part)])
    return None


def _before_longrope(config: dict[str, Any]) -> Iterator[int]:
    own = config.get("original_max_position_embeddings")
    for rope in ropes(config):
        value = rope.get("original_max_position_embeddings", own)
        if rope.get("rope_type", rope.get("type")) in ("longrope", "su") and type(value) is int:
            yield value


def ropes(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a configuration says of rotary positions, of all layers or of each kind of them."""
    for field in ("rope_parameters", "rope_scaling"):
        found = config.get(field)
        for one in [found, *found.values()] if isinstance(found, dict) else []:
            if isinstance(one, dict):
                yield one


def own_dtype(config: dict[str, Any]) -> str:
    """What a model's weights are loaded as: bfloat16 where it says so, else float32, in which
    float16 weights are exact (bfloat16 would round them)."""
    named = str(_first(config, ("dtype", "torch_dtype")) or "").removeprefix("torch.")
    return "bfloat16" if named == "bfloat16" else "float32"


def check_special_ids(folder: Path, config: dict[str, Any]) -> None:
    """Special tokens lie within the vocabulary (a padding id of -1 means none)."""
    size = vocabulary(config)
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        found = read_json(path) if path.exists() else {}
        for field in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = found.get(field)
            ids = value if isinstance(value, list) else [value]
            least = -1 if field == "pad_token_id" else 0
            for one in ids:
                fits = type(one) is int and least <= one < (size or 2**31)
                if one is not None and not fits:
                    raise UserError(
                        f"{path}: {field} is {value!r:.40}, which is no token of a vocabulary of "
                        f"{size}"
                    )


def ends_elsewhere(folder: Path, config: dict[str, Any]) -> bool:
    """Whether generation_config.json names other ends of a text than config.json, or none: all that
    is read of it, and where it is there nobody reads config.json's."""
    path = folder / "generation_config.json"
    return path.exists() and read_json(path).get("eos_token_id") != config.get("eos_token_id")
