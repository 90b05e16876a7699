"""PEFT's adapter folders, which PEFT and vLLM load: a configuration and the factors."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file, save_file
from torch import Tensor

from raycib.models.lean_imports import hidden

with hidden("bitsandbytes"):  # which PEFT would import in every process, wherever it is installed
    from peft import LoraConfig, import_utils
for found in (import_utils.is_bnb_available, import_utils.is_bnb_4bit_available):
    found.cache_clear()  # so that it is there for whoever wants it later

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"

# Fields of `adapter_config.json` that do not change what a trained adapter computes, or that
# `load` checks by itself. Any other field must hold PEFT's default.
_HARMLESS_FIELDS = {
    *("peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("r", "lora_alpha", "use_rslora", "lora_dropout", "init_lora_weights", "eva_config"),
    *("auto_mapping", "peft_version"),
}
# Other initialisations (PiSSA, OLoRA, CorDA, LoftQ, ...) also change the base model's weights, so
# such an adapter belongs to another base than the one it names.
_HARMLESS_INITS = (True, False, "gaussian", "orthogonal", "eva")


class PeftAdapter(NamedTuple):
    """A LoRA adapter as a folder holds it."""

    factors: dict[str, Tensor]
    """By name, `<module>.lora_A` (rank, in_dim) and `<module>.lora_B` (out_dim, rank)."""
    rank: int
    alpha: float | int
    scale: float
    """The factor before `B A`."""


def write_adapter(
    folder: Path,
    adapter: PeftAdapter,
    targets: tuple[str, ...],
    base_model_name: str,
    base: dict[str, Any] | None = None,
) -> None:
    """Write an adapter as PEFT does; `base`: what it is told of how to get the base model."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        _peft_key(name): t.detach().cpu().contiguous() for name, t in adapter.factors.items()
    }
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    alpha = adapter.alpha
    config = LoraConfig(task_type="CAUSAL_LM", inference_mode=True).to_dict() | {
        "auto_mapping": base,
        "base_model_name_or_path": base_model_name,
        "r": adapter.rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "target_modules": list(targets),
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True))


def read_adapter(folder: Path) -> PeftAdapter:
    """The adapter in a folder.

    Raises FileNotFoundError if `folder` holds no safetensors adapter, and ValueError if the
    adapter uses a feature of PEFT that would make it compute something else here.
    """
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder} is not a PEFT adapter folder: it has no {file}")
    config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text())
    _refuse_unsupported(config, folder)
    rank, alpha = config["r"], config["lora_alpha"]
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    tensors = load_file(folder / WEIGHTS_FILE)
    return PeftAdapter({_name(key): t for key, t in tensors.items()}, rank, alpha, scale)


def _peft_key(name: str) -> str:
    return f"{_HEAD}{name}{_TAIL}"


def _name(key: str) -> str:
    return key.removeprefix(_HEAD).removesuffix(_TAIL)


_HEAD, _TAIL = "base_model.model.", ".weight"


def _refuse_unsupported(config: Mapping[str, Any], folder: Path) -> None:
    if (kind := config.get("peft_type")) != "LORA":
        raise ValueError(f"{folder} holds a {kind} adapter; only LORA can be loaded")
    defaults = LoraConfig().to_dict()
    unsupported = {
        field: value
        for field, value in config.items()
        if field not in _HARMLESS_FIELDS and value and value != defaults.get(field)
    }
    if (init := config.get("init_lora_weights", True)) not in _HARMLESS_INITS:
        unsupported["init_lora_weights"] = init
    if unsupported:
        raise ValueError(f"{folder} uses features of PEFT that slots do not have: {unsupported}")
