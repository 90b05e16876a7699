"""Projection of a trained adapter onto the direction that alignment took (Safe LoRA).

Deviations from the official code: modules are paired by their full names (it matches substrings
and pairs by order of iteration, which fails on models with biases); cosines are not rounded, so
`number` projects exactly that many; no matrix of the size of a weight beyond the weight itself.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from raycib.config import ModelSpec
from raycib.errors import UserError
from raycib.hooks import AdapterContext
from raycib.model_files import verified
from raycib.model_files.weights import stored_tensors

if TYPE_CHECKING:  # a method makes what is here, and is no part of it
    from raycib.methods.safe_lora import SafeLoRA


class Projected(NamedTuple):
    """One module's B after the projection, and how much of the update's direction it kept."""

    b: Float[Tensor, "out_dim rank"]
    cosine: float
    """cos(C B A, B A); 1 where the update or the alignment is zero, so that nothing is asked of
    it, and 0 where nothing of an update lies in the alignment's span."""


def project(
    v: Float[Tensor, "out_dim in_dim"],
    a: Float[Tensor, "rank in_dim"],
    b: Float[Tensor, "out_dim rank"],
    exact: bool = False,
) -> Projected:
    """C B for C = V Vᵀ / |V|_F, with V = W_aligned - W_base, in float32.

    cos = tr((Bᵀ C B) G) / sqrt(tr((C B)ᵀ(C B) G) tr(BᵀB G)) with G = A Aᵀ: no product B A. For
    V = diag(3, 4) and an update of ones it is .9629640. `exact`: the orthogonal projector onto
    the span of V, which is the identity where V has full rank.
    """
    v, a, b = v.float(), a.float(), b.float()
    if exact:
        u, sizes, _ = torch.linalg.svd(v, full_matrices=False)
        u = u[:, sizes > sizes.max() * max(v.shape) * torch.finfo(v.dtype).eps]
        moved = u @ (u.T @ b)
    else:
        moved = v @ (v.T @ b) / v.norm()
    gram = a @ a.T
    inner, new, old = (
        float(((x.T @ y) * gram).sum()) for x, y in ((b, moved), (moved, moved), (b, b))
    )
    if not old > 0 or not v.any():
        return Projected(b, 1.0)
    return Projected(moved, inner / (new * old) ** 0.5 if new > 0 else 0.0)


def project_to_alignment(options: "SafeLoRA") -> Callable[[AdapterContext], None]:
    """Projects the modules of the parent's adapter that `options` choose; A stays as it is."""

    def start(context: AdapterContext) -> None:
        aligned = _weights(context.stage.model)
        base = _weights(options.base)
        modules = context.adapters.modules_of(context.slot)
        slot = str(context.slot)
        found = {}
        for name, module in modules.items():
            v = aligned(f"{name}.weight") - base(f"{name}.weight")
            a, b = module.lora_A[slot].detach(), module.lora_B[slot].detach()
            found[name] = project(v.to(b.device), a, b, options.projector == "exact")
        for name in chosen({name: one.cosine for name, one in found.items()}, options):
            with torch.no_grad():
                modules[name].lora_B[slot].copy_(found[name].b)

    return start


def chosen(cosines: dict[str, float], options: "SafeLoRA") -> list[str]:
    """The modules to project: at most as similar as the threshold, or the least similar ones."""
    if options.choose == "threshold":
        return [name for name, cosine in cosines.items() if cosine <= options.threshold]
    return sorted(cosines, key=lambda name: cosines[name])[: options.number]


def _weights(model: ModelSpec) -> Callable[[str], Tensor]:
    """Reads one tensor of a model at a time, in float32, from its safetensors files."""
    folder = verified(model)
    places = stored_tensors(folder)

    def read(name: str) -> Tensor:
        if name not in places:
            raise UserError(
                f"Safe LoRA: {model.source!r} has no tensor {name!r}; the base and the aligned "
                "model must be of one architecture"
            )
        with safe_open(places[name].file, framework="pt") as file:
            return file.get_tensor(name).float()

    return read
