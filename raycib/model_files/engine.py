"""Whether vLLM answers with adapters of a model, and computes it as transformers does: known before
anything starts. No torch here, and no vLLM: importing it takes long."""

import importlib.util
import math
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from raycib.errors import UserError
from raycib.model_files import find
from raycib.model_files.config import read_config, ropes

NO_ADAPTERS_IN_VLLM = {
    "BailingMoeV2_5ForCausalLM", "BailingMoeV3ForCausalLM", "BloomForCausalLM",
    "Cohere2MoeForCausalLM", "DbrxForCausalLM", "DeepseekV32ForCausalLM", "DeepseekV4ForCausalLM",
    "FalconForCausalLM", "FalconMambaForCausalLM", "GPT2LMHeadModel", "GPTJForCausalLM",
    "GPTNeoXForCausalLM", "Gemma3nForCausalLM", "HCXVisionV2ForCausalLM", "HYV4ForCausalLM",
    "HrmTextForCausalLM", "IQuestLoopCoderForCausalLM", "InklingForCausalLM",
    "InklingForConditionalGeneration", "KimiLinearForCausalLM", "Mamba2ForCausalLM",
    "MambaForCausalLM", "MiMoV2FlashForCausalLM", "MiMoV2ForCausalLM",
    "MiniMaxM3SparseForCausalLM", "OrionForCausalLM", "Qwen4ExpForCausalLM", "StableLmForCausalLM",
    "Step1ForCausalLM", "Step3TextForCausalLM", "Step3p5ForCausalLM", "Zamba2ForCausalLM",
}  # fmt: skip
"""Architectures that vLLM 0.29 serves without adapters (`SupportsLoRA` in its models)."""

SPLIT_IN_VLLM = {"GlmForCausalLM": "gate_up_proj", "Glm4ForCausalLM": "gate_up_proj"}
"""Layers that transformers has as one and vLLM takes for several: it refuses adapters of them."""

LARGEST_RANK = 512
"""Of an adapter that vLLM answers with."""

_MEND = "give --local, where transformers answers, or choose another model"


def check_engine(source: str, targets: Collection[str]) -> None:
    """Raise `UserError` where vLLM cannot answer with adapters of the model at `source`, or its
    code computes something else of it than transformers' does."""
    config = read_config(find(source))
    named = str((config.get("architectures") or [""])[0])
    if named in NO_ADAPTERS_IN_VLLM:
        why = "which vLLM serves without adapters"
    elif named and (known := _served()) and named not in known:
        why = "which vLLM does not list among its models"
    elif _stretch_differs(config):
        why = "whose YaRN scales attention by a factor that vLLM does not read"
    else:
        if (split := SPLIT_IN_VLLM.get(named)) in targets:
            raise UserError(
                f"model {source!r}: vLLM takes {split!r} of a {named} for several layers and "
                "no adapter of it; leave it out of lora.targets, or give --local, where "
                "transformers answers"
            )
        return
    raise UserError(
        f"model {source!r} is a {named}, {why}: it could be trained, but not asked; {_MEND}"
    )


@cache
def _served() -> frozenset[str]:
    """What vLLM's registry lists; empty where vLLM is not installed. Any other it runs by
    transformers' code with attention of its own, which nobody tried: of Persimmon, that it dropped,
    it gave other tokens."""
    found = importlib.util.find_spec("vllm")
    for place in (found and found.submodule_search_locations) or ():
        text = (Path(place) / "model_executor" / "models" / "registry.py").read_text()
        return frozenset(re.findall(r'^ +"(\w+)": \(', text, re.MULTILINE))
    return frozenset()


def _stretch_differs(config: dict[str, Any]) -> bool:
    """Whether attention is scaled otherwise by transformers, as YaRN's entries of config.json say
    (`attention_factor`, or `mscale` by `mscale_all_dim`), than by vLLM 0.29, which takes 0.1 ln s +
    1 for a stretch of s (https://arxiv.org/abs/2309.00071, eq. 22). Models with compressed keys
    have code of their own in both."""
    if config.get("kv_lora_rank") is not None:
        return False
    for rope in ropes(config):
        stretch, told, one, all_ = (
            value if isinstance(value := rope.get(field), (int, float)) else None
            for field in ("factor", "attention_factor", "mscale", "mscale_all_dim")
        )
        if rope.get("rope_type", rope.get("type")) != "yarn" or not stretch:
            continue
        if told is None and one and all_:
            told = _attention_factor(stretch, one) / _attention_factor(stretch, all_)
        if told is not None and not math.isclose(told, _attention_factor(stretch), rel_tol=1e-4):
            return True
    return False


def _attention_factor(stretch: float, scale: float = 1.0) -> float:
    return 0.1 * scale * math.log(stretch) + 1 if stretch > 1 else 1.0
