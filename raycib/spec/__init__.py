"""Every frozen spec and its key.

A spec is data that names itself: two specs that would give the same result share a key on every
machine, and a field that cannot change the result (a path, a display name) is marked `Location`
and left out of it. No torch here: specs are read by the driver, the command line and the analysis.
"""

from raycib.spec.base import Layer, Location, Pooling, Reading, Spec, Tokens, digest
from raycib.spec.data import MADE, TODAY, ModelSpec, RowsSpec, TaskSpec, Template
from raycib.spec.evals import EngineName, EvalSpec, JudgeSpec
from raycib.spec.measure import Measure
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
from raycib.spec.methods_newer import EMA, SBR, ConstrainedToken, SafeGrad, SafetyMix
from raycib.spec.methods_tradeoff import Case1, Case2, Case2Ball
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
    "MADE",
    "METHODS",
    "SBR",
    "TODAY",
    "About",
    "AnyMethod",
    "Case1",
    "Case2",
    "Case2Ball",
    "ConstrainedToken",
    "EngineName",
    "EvalSpec",
    "JudgeSpec",
    "Layer",
    "LoRASpec",
    "Location",
    "Measure",
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
    "Template",
    "Tokens",
    "TrainerSpec",
    "Vaccine",
    "digest",
]
