"""Every frozen spec and its key.

A spec is data that names itself: two specs that would give the same result share a key on every
machine, and a field that cannot change the result (a path, a display name) is marked `Location`
and left out of it. No torch here: specs are read by the driver, the command line and the analysis.
"""

from raycib.config.base import Feature, Layer, Location, Pooling, Spec, Tokens, digest
from raycib.config.data import (
    MADE,
    TODAY,
    ModelSpec,
    Precision,
    Quantization,
    RowsSpec,
    TaskSpec,
    Template,
)
from raycib.config.evals import EngineName, EvalSpec, JudgeSpec
from raycib.config.lm_eval import LmEvalSpec
from raycib.config.measure import Measure
from raycib.config.method import About, Method, PlainLoRA
from raycib.config.stage import LoRASpec, RunSpec, StageSpec, TrainerSpec

__all__ = [
    "MADE", "TODAY", "About", "EngineName", "EvalSpec", "Feature", "JudgeSpec", "Layer",
    "LmEvalSpec", "LoRASpec", "Location", "Measure", "Method", "ModelSpec", "PlainLoRA", "Pooling",
    "Precision", "Quantization", "RowsSpec", "RunSpec", "Spec", "StageSpec", "TaskSpec", "Template",
    "Tokens", "TrainerSpec", "digest",
]  # fmt: skip
