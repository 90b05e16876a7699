"""The menu: what each method changes about plain LoRA fine-tuning."""

from typing import assert_never

from raycib import spec
from raycib.methods.ball import stay_within
from raycib.methods.ema import WeightAverage
from raycib.methods.method import Beside, Method
from raycib.methods.random_subset import random_subset
from raycib.methods.safe_lora import project_to_alignment
from raycib.methods.safegrad import surgery
from raycib.methods.safety_mix import safety_mix
from raycib.methods.salora import start_off_safety
from raycib.methods.vaccine import worst_perturbation
from raycib.objectives import Sum
from raycib.objectives.alignment_penalty import AlignmentPenalty
from raycib.objectives.cib import ContrastiveBottleneck
from raycib.objectives.constrained_token import ConstrainedTokens
from raycib.objectives.cross_entropy import CrossEntropy
from raycib.objectives.kl import ReferenceDivergence
from raycib.objectives.orthogonality import Orthogonality
from raycib.objectives.parameter_distance import ParameterDistance
from raycib.objectives.safety_anchor import SafetyAnchor
from raycib.spec import AnyMethod

__all__ = ["Method", "build_method"]


def build_method(method: AnyMethod, dim: int) -> Method:
    """The method of a spec for a model of hidden size `dim`; at strength zero it is plain LoRA."""
    if method.is_plain:
        method = spec.PlainLoRA()
    task = CrossEntropy()
    match method:
        case spec.PlainLoRA():
            return Method(task)
        case spec.RandomSubset():
            return Method(task, rows=random_subset(method))
        case spec.KL(lam=lam, direction=direction, tokens=tokens):
            return Method(Sum([task, ReferenceDivergence(lam, direction, tokens)]))
        case spec.Vaccine(rho=rho, ascent_steps=steps, norm=norm):
            return Method(task, look_ahead=worst_perturbation(rho, steps, norm))
        case spec.SafeLoRA():
            return Method(task, start=project_to_alignment(method))
        case spec.SaLoRA():
            return Method(task, start=start_off_safety(method))
        case spec.OLoRA(lam=lam, norm=norm, factor=factor, mean=mean):
            return Method(Sum([task, Orthogonality(lam, norm, factor, mean)]))
        case spec.CIB():
            return Method(Sum([task, ContrastiveBottleneck(method, dim)]))
        case spec.SafetyMix():
            return Method(task, rows=safety_mix(method))
        case spec.ConstrainedToken(beta=beta, first_factor=first, early_factor=early):
            return Method(ConstrainedTokens(beta, first, early))
        case spec.EMA(decay=decay):
            return Method(task, follow=lambda parameters, _: WeightAverage(parameters, decay))
        case spec.SBR(lam=lam, anchors=anchors):
            return Method(Sum([task, SafetyAnchor(lam)]), beside=Beside(anchors, anchors, True))
        case spec.SafeGrad(lam=lam, rows_per_step=rows):
            return Method(task, beside=Beside(rows), look_ahead=surgery(lam))
        case spec.Case1(lam=lam, form=form, rows_per_step=rows, reduction=reduction):
            rest = 1 - lam if form == "convex" else 1.0
            return Method(AlignmentPenalty(lam, rest, reduction), beside=Beside(rows))
        case spec.Case2(lam=lam):
            return Method(Sum([task, ParameterDistance(lam)]))
        case spec.Case2Ball(epsilon=epsilon, scope=scope):
            return Method(task, follow=stay_within(epsilon, scope))
        case never:
            assert_never(never)
