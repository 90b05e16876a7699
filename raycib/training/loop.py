"""The training loop: one optimiser step of every lane of a pack at a time.

Lanes share the forward and backward pass through the frozen base and nothing else. Each lane's
loss is normalised by its own batch, its gradients are clipped by its own norm and its optimiser
is its own, so a pack equals separate runs up to rounding.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from raycib.adapters import LaneAdapters
from raycib.objectives import Observations
from raycib.step import PackStep
from raycib.tensors import Batch, collate, to_device
from raycib.training.lane import Lane, generator
from raycib.training.workers import Workers

AfterStep = Callable[[Sequence[Lane]], None]


def train(
    adapters: LaneAdapters,
    lanes: Sequence[Lane],
    workers: Workers,
    micro_batch_size: int,
    after_step: AfterStep = lambda lanes: None,
) -> None:
    """Train every lane to its last step; `after_step` sees the lanes that just moved.

    `micro_batch_size` is in rows a lane and worker; it changes memory, not results. A lane whose
    gradients stop being finite is marked failed and left behind; the others go on.
    """
    while moving := [lane for lane in lanes if lane.active]:
        take_step(adapters, moving, workers, micro_batch_size)
        after_step(moving)


def take_step(
    adapters: LaneAdapters, lanes: Sequence[Lane], workers: Workers, micro_batch_size: int
) -> None:
    """One optimiser step of each of `lanes`."""
    batches = {lane.index: lane.rows() for lane in lanes}
    totals = {lane.index: lane.totals(batches[lane.index]) for lane in lanes}
    banks = {lane.index: lane.bank for lane in lanes}
    for lane in lanes:
        lane.optimiser.zero_grad(set_to_none=True)
        lane.objective.begin_step(lane.step, generator(lane.stage.seed, "negatives", lane.step))
    terms: dict[int, dict[str, Tensor]] = {lane.index: defaultdict(_zero) for lane in lanes}
    for micro in _micro_batches(lanes, batches, workers, micro_batch_size):
        device = next(iter(lanes[0].parameters.values())).device
        mixed = adapters.model.dtype == torch.bfloat16
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            steps = PackStep(adapters, _on(device, micro), totals, banks).steps()
            loss = torch.zeros((), device=device)
            for lane in lanes:
                if lane.index not in steps:
                    continue
                for name, term in lane.objective(steps[lane.index]).items():
                    loss = loss + term.weight * term.value
                    terms[lane.index][name] = terms[lane.index][name] + term.value.detach()
        loss.backward()
    _sum_gradients(lanes, workers)
    shared = workers.gather(
        {
            lane.index: (
                {name: float(value) for name, value in terms[lane.index].items()},
                lane.objective.observations() if workers.size == 1
                else {k: v.cpu() for k, v in lane.objective.observations().items()},
            )
            for lane in lanes
        }
    )  # fmt: skip
    for lane in lanes:
        norm = lane.update()
        entry = {"step": lane.step + 1, "grad_norm": norm}
        for part, _ in (each[lane.index] for each in shared):
            for name, value in part.items():
                entry[name] = entry.get(name, 0.0) + value
        lane.history.append(entry)
        if bad := [name for name, value in entry.items() if value - value != 0]:
            lane.failed = f"{', '.join(bad)} not finite at step {lane.step + 1}"
            continue
        device = next(iter(lane.parameters.values())).device
        seen = _in_order([each[lane.index][1] for each in shared], device)
        lane.objective.end_step(lane.step, seen)
        lane.step += 1


def _zero() -> Tensor:
    return torch.zeros(())


def _on(device: torch.device, batches: dict[int, Batch]) -> dict[int, Batch]:
    return {lane: to_device(batch, device) for lane, batch in batches.items()}


def _micro_batches(
    lanes: Sequence[Lane], batches: dict[int, list[int]], workers: Workers, size: int
) -> list[dict[int, Batch]]:
    """This worker's rows of every lane, cut into micro-batches of at most `size` rows a lane."""
    micros: list[dict[int, Batch]] = []
    for lane in lanes:
        positions = range(len(batches[lane.index]))[workers.rank :: workers.size]
        for number, start in enumerate(range(0, len(positions), size)):
            if number == len(micros):
                micros.append({})
            mine = positions[start : start + size]
            rows = [batches[lane.index][place] for place in mine]
            micros[number][lane.index] = collate(lane.data, rows, mine)
    return micros


def _sum_gradients(lanes: Sequence[Lane], workers: Workers) -> None:
    """Shares add up: no division by the number of workers or micro-batches anywhere."""
    gradients: list[Tensor] = []
    for lane in lanes:
        for parameter in lane.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    workers.sum_(gradients)


def _in_order(parts: Sequence[Observations], device: torch.device) -> Observations:
    """Observations of all workers as one worker alone would have made them."""
    parts = [part for part in parts if part]
    if not parts:
        return {}
    merged = {name: torch.cat([part[name] for part in parts]).to(device) for name in parts[0]}
    positions = next(v for k, v in merged.items() if k.rpartition("/")[2] == "positions")
    order = positions.argsort()
    return {name: value[order] for name, value in merged.items()}
