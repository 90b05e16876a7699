"""LoRA that cannot move the directions in which harmful prompts are answered (SaLoRA).

W' = W + s (C B A - C B0 A0), C = I - Uc Ucᵀ fixed. Uc spans what the module's output does on the
aligned model's refusals, B0 A0 the start in the task's own directions.

Both calibrate on response tokens. Deviations from the official code: one calibration pass over the
unchanged model (it runs the model once for each layer, and for the task's directions with B0 A0
already subtracted from the layers before, which moves the start of later layers by .3 relative);
exact eigenvectors (its SVD is randomised: its projectors are off by 3e-3 to 6e-2 where singular
values are close); training masks the prompt (its training text is packed and unmasked); s may
differ from 1; the adapter is exported with -C B0 A0 as further columns, so that it fits the
unchanged base.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raycib.config import TaskSpec
from raycib.data.chat import Encoded
from raycib.errors import UserError
from raycib.hooks import AdapterContext
from raycib.models.adapters import AdapterSlots
from raycib.models.decoder import hidden_states
from raycib.models.pooling import states_at
from raycib.models.tensors import collate, sent
from raycib.store.kinds import SUBSPACES

if TYPE_CHECKING:  # a method makes what is here, and is no part of it
    from raycib.methods.salora import SaLoRA


MOST_DIRECTIONS = 128
"""Kept of each module: any smaller subspace is the first of them."""
ROWS_AT_ONCE = 16
ENTRIES_AT_ONCE = 2**30
"""Of the moments held at a time (4 GB); more modules take another pass."""


def output_directions(
    adapters: AdapterSlots, modules: Mapping[str, nn.Linear], data: Sequence[Encoded]
) -> dict[str, Float[Tensor, "out_dim directions"]]:
    """For each linear the orthonormal directions in which its output W x is largest, largest
    first, over the response tokens of `data` in the aligned model: the right singular vectors of
    X Wᵀ, from its second moments. Computed where the model is; they lie on the host."""
    device, found = adapters.model.device, {}
    for group in _groups(modules):
        moments = {
            name: torch.zeros(module.out_features, module.out_features, device=device)
            for name, module in group.items()
        }
        for start in range(0, len(data), ROWS_AT_ONCE):
            batch = collate(data, range(start, min(start + ROWS_AT_ONCE, len(data))))
            scored = (batch.labels >= 0).flatten().nonzero()[:, 0]
            handles = [
                module.register_forward_hook(_adder(moments[name], scored))
                for name, module in group.items()
            ]
            try:
                with torch.no_grad(), adapters.disabled():
                    hidden_states(adapters.model, sent(batch.ids, device))
            finally:
                for handle in handles:
                    handle.remove()
        for name, moment in moments.items():
            vectors = torch.linalg.eigh(moment).eigenvectors  # the largest come last
            found[name] = vectors.flip(1)[:, :MOST_DIRECTIONS].contiguous().cpu()
    return found


def _groups(modules: Mapping[str, nn.Linear]) -> Iterator[dict[str, nn.Linear]]:
    group: dict[str, nn.Linear] = {}
    held = 0
    for name, module in modules.items():
        size = module.out_features**2
        if group and held + size > ENTRIES_AT_ONCE:
            yield group
            group, held = {}, 0
        group[name] = module
        held += size
    yield group


def _adder(moment: Tensor, scored: Tensor):
    def add(module: nn.Linear, _: object, output: Tensor) -> None:
        y = states_at(output, scored).float()
        if module.bias is not None:
            y = y - module.bias
        moment.add_(y.T @ y)

    return add


def start_off_safety(options: "SaLoRA") -> Callable[[AdapterContext], None]:
    """Fixes the safety directions of every module, and starts in the task's."""

    def start(context: AdapterContext) -> None:
        modules = context.adapters.modules_of(context.slot)
        safety = _directions(context, options.safety, options.calibration_rows)
        task = None
        if options.init == "task":
            task = _directions(context, context.stage.task, options.calibration_rows)
        slot = str(context.slot)
        for name, module in modules.items():
            a, b = module.lora_A[slot], module.lora_B[slot]
            fixed = safety[name][:, : options.safety_rank].to(b)
            module.fix(context.slot, fixed)
            if task is not None:
                directions = task[name][:, : options.task_rank].to(b)
                with gathered(context.adapters.model, name):
                    a0, b0 = task_start(module.base.weight, directions, len(a))
                with torch.no_grad():
                    a.copy_(a0)
                    b.copy_(b0)
                scale = module.shapes[context.slot].scale
                module.freeze(context.slot, a0, fixed @ (fixed.T @ b0) - b0, scale)

    return start


def task_start(
    weight: Float[Tensor, "out_dim in_dim"], directions: Float[Tensor, "out_dim task"], rank: int
) -> tuple[Float[Tensor, "rank in_dim"], Float[Tensor, "out_dim rank"]]:
    """A0 = sqrt(S) Vᵀ and B0 = Ut Utᵀ U sqrt(S), with U S Vᵀ the weight's truncated SVD."""
    u, s, vt = torch.linalg.svd(weight.detach().float(), full_matrices=False)
    root = s[:rank].sqrt()
    a0, b0 = root[:, None] * vt[:rank], u[:, :rank] * root
    return a0, directions @ (directions.T @ b0)


def _directions(context: AdapterContext, rows: TaskSpec, count: int) -> dict[str, Tensor]:
    """The output directions on the first rows of a set, computed once and stored."""
    model, targets = context.stage.model, context.adapters.shapes[context.slot].targets
    what = {
        "subspaces": 1,
        "model": model.identity(),
        "rows": rows.identity(),
        "count": count,
        "targets": list(targets),
    }

    def compute() -> dict[str, Tensor]:
        data = context.encode(rows)[:count]
        modules = context.adapters.modules_of(context.slot)
        linears = {name: module.base for name, module in modules.items()}
        found = output_directions(context.adapters, linears, data)
        if not all(torch.isfinite(directions).all() for directions in found.values()):
            raise UserError(f"SaLoRA: the aligned model gives non-finite outputs on {rows.name!r}")
        return found

    return context.once(SUBSPACES, what, compute)


@contextmanager
def gathered(model: Any, name: str) -> Iterator[None]:
    """Within it, the weights of the module of this full name are here whole, however the model
    lies over the workers (see `raycib.training.fsdp2`)."""
    parts = name.split(".")
    above = (model.get_submodule(".".join(parts[:n])) for n in range(len(parts) + 1))
    units = [module for module in above if hasattr(module, "unshard")]
    for unit in units:
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
