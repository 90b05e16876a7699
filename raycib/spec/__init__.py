"""Every frozen spec and its key.

A spec is data that names itself: two specs that would give the same result share a key on every
machine, and a field that cannot change the result (a path, a display name) is marked `Location`
and left out of it. No torch here: specs are read by the driver, the command line and the analysis.
"""

from raycib.spec.base import Layer, Location, Pooling, Reading, Spec, Tokens, digest
from raycib.spec.data import MADE, TODAY, ModelSpec, RowsSpec, TaskSpec, Template
from raycib.spec.evals import EngineName, EvalSpec, JudgeSpec
from raycib.spec.measure import Measure
from raycib.spec.method import About, Method, PlainLoRA
from raycib.spec.stage import LoRASpec, RunSpec, StageSpec, TrainerSpec

__all__ = [
    "MADE",
    "TODAY",
    "About",
    "EngineName",
    "EvalSpec",
    "JudgeSpec",
    "Layer",
    "LoRASpec",
    "Location",
    "Measure",
    "Method",
    "ModelSpec",
    "PlainLoRA",
    "Pooling",
    "Reading",
    "RowsSpec",
    "RunSpec",
    "Spec",
    "StageSpec",
    "TaskSpec",
    "Template",
    "Tokens",
    "TrainerSpec",
    "digest",
]
