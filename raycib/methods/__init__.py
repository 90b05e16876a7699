"""The menu: what each method changes about plain LoRA fine-tuning."""

from dataclasses import dataclass
from typing import assert_never

from raycib import spec
from raycib.objectives import Objective, Sum
from raycib.objectives.cib import ContrastiveBottleneck
from raycib.objectives.cross_entropy import CrossEntropy
from raycib.spec import Layer, MethodSpec, Pooling


@dataclass(frozen=True)
class Method:
    """What a method changes about a stage; each default changes nothing."""

    objective: Objective
    references: tuple[tuple[Pooling, Layer], ...] = ()
    """Readings of the aligned model's representations that the objective looks up."""


def build_method(method: MethodSpec, dim: int) -> Method:
    """The method of a spec for a model of hidden size `dim`; strength zero is plain LoRA."""
    match method.reduced():
        case spec.PlainLoRA():
            return Method(CrossEntropy())
        case spec.CIB() as options:
            return Method(
                Sum([CrossEntropy(), ContrastiveBottleneck(options, dim)]),
                references=((options.pooling, options.layer),),
            )
        case never:
            assert_never(never)
