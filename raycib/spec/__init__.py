"""Every frozen spec and its key.

A spec is data that names itself: two specs that would give the same result share a key on every
machine, and a field that cannot change the result (a path, a display name) is marked `Location`
and left out of it. No torch here: specs are read by the driver, the command line and the analysis.
"""

from raycib.spec.base import Layer, Location, Pooling, Reading, Spec, Tokens, digest
from raycib.spec.data import ModelSpec, RowsSpec, TaskSpec
from raycib.spec.evals import EvalSpec, JudgeSpec
from raycib.spec.method import About, MethodBase
from raycib.spec.methods_cib import (
    CIB,
    KL,
    OLoRA,
    PlainLoRA,
    RandomSubset,
    SafeLoRA,
    SaLoRA,
    Vaccine,
)
from raycib.spec.methods_newer import EMA, SBR, Case2, ConstrainedToken, SafeGrad, SafetyMix
from raycib.spec.stage import (
    METHODS,
    AnyMethod,
    LoRASpec,
    MethodSpec,
    RunSpec,
    StageSpec,
    TrainerSpec,
)

__all__ = [
    "CIB",
    "EMA",
    "KL",
    "METHODS",
    "SBR",
    "About",
    "AnyMethod",
    "Case2",
    "ConstrainedToken",
    "EvalSpec",
    "JudgeSpec",
    "Layer",
    "LoRASpec",
    "Location",
    "MethodBase",
    "MethodSpec",
    "ModelSpec",
    "OLoRA",
    "PlainLoRA",
    "Pooling",
    "RandomSubset",
    "Reading",
    "RowsSpec",
    "RunSpec",
    "SaLoRA",
    "SafeGrad",
    "SafeLoRA",
    "SafetyMix",
    "Spec",
    "StageSpec",
    "TaskSpec",
    "Tokens",
    "TrainerSpec",
    "Vaccine",
    "digest",
]
