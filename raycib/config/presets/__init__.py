"""Ready-made settings by name."""

from raycib.config import LoRASpec, TrainerSpec
from raycib.config.presets.papers import (
    LLAMA2_7B_CHAT,
    LLAMA2_7B_TRADEOFFS,
    LLAMA31_8B,
    ON_A_GPU,
    QWEN3_4B,
    QWEN25_7B,
)
from raycib.config.presets.preset import (
    UNSAID,
    BaseFormat,
    Execution,
    Preset,
    StrategyName,
    TaskSource,
    split,
)
from raycib.config.presets.smollm2 import ON_TWO_CORES, SMOLLM2, SMOLLM2_FULL
from raycib.config.presets.world import WORLD
from raycib.errors import UserError

__all__ = [
    "PRESETS", "UNSAID", "BaseFormat", "Execution", "Preset", "StrategyName", "TaskSource",
    "for_own_model", "preset", "split",
]  # fmt: skip

PRESETS = {
    "world": WORLD,
    "llama31-8b": LLAMA31_8B,
    "qwen25-7b": QWEN25_7B,
    "qwen3-4b": QWEN3_4B,
    "llama2-7b-chat": LLAMA2_7B_CHAT,
    "llama2-7b-tradeoffs": LLAMA2_7B_TRADEOFFS,
    "smollm2": SMOLLM2,
    "smollm2-full": SMOLLM2_FULL,
}

OWN_MODEL_CPU = ON_TWO_CORES
"""A model of unknown size where there is no GPU: few tokens at a time, and room on two cores."""
OWN_MODEL_GPU = ON_A_GPU


def for_own_model(chosen: Preset, gpu: bool) -> Preset:
    """A preset with settings for a model of one's own instead of its own: the CIB paper's (C.2),
    whose rank, learning rate and batch are for models of 4 to 8 billion parameters."""
    return chosen.model_copy(
        update={
            "paper": "",
            "ours": {},
            "dtype": None,
            "chat": "own",
            "lora": LoRASpec(),
            "trainer": TrainerSpec(),
            "alignment_trainer": Preset.model_fields["alignment_trainer"].default,
            "sequence_trainer": None,
            "max_length": Preset.model_fields["max_length"].default,
            "max_tokens": Preset.model_fields["max_tokens"].default,
            "execution": OWN_MODEL_GPU if gpu else OWN_MODEL_CPU,
        }
    )


def preset(name: str) -> Preset:
    """The preset of that name; `UserError` lists what there is."""
    if name not in PRESETS:
        raise UserError(f"no preset {name!r}; there is {', '.join(PRESETS)}")
    return PRESETS[name]
