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
from raycib.hooks.types import Correct
from raycib.objectives import Observations
from raycib.randomness import generator
from raycib.step import PackStep
from raycib.tensors import Batch, Totals, collate, to_device
from raycib.training.lane import Lane
from raycib.training.stream import Stream
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
    for lane in lanes:
        lane.optimiser.zero_grad(set_to_none=True)
        lane.objective.begin_step(lane.step, generator(lane.stage.seed, "negatives", lane.step))
    micros = _micro_batches(adapters, lanes, workers, micro_batch_size)
    device = next(iter(lanes[0].parameters.values())).device
    mixed = adapters.model.dtype == torch.bfloat16
    terms: dict[int, dict[str, Tensor]] = {lane.index: defaultdict(_zero) for lane in lanes}
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        corrections = _look_ahead(lanes, micros, workers)
    while micros:
        steps = micros.pop(0).steps()  # nothing holds on to a pass that is over
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = torch.zeros((), device=device)
            for lane in lanes:
                if lane.index not in steps:
                    continue
                for name, term in lane.objective(steps[lane.index]).items():
                    loss = loss + term.weight * term.value
                    terms[lane.index][name] = terms[lane.index][name] + term.value.detach()
        loss.backward()
    _sum_gradients(lanes, workers)
    for lane in lanes:
        if correct := corrections.get(lane.index):
            correct(lane.parameters)
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
        entry = {"step": lane.step + 1, **lane.update()}
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


def _look_ahead(
    lanes: Sequence[Lane], micros: Sequence[PackStep], workers: Workers
) -> dict[int, Correct]:
    """What methods do before the gradient, and what they want done to it, by lane."""
    found = {}
    for lane in lanes:
        if lane.hooks.look_ahead is not None:
            steps = [micro.steps()[lane.index] for micro in micros if lane.index in micro.batches]
            correct = lane.hooks.look_ahead(steps, lane.parameters, workers.sum_)
            if correct is not None:
                found[lane.index] = correct
    return found


def _micro_batches(
    adapters: LaneAdapters, lanes: Sequence[Lane], workers: Workers, size: int
) -> list[PackStep]:
    """This worker's rows of every lane, cut into micro-batches of at most `size` rows a lane.

    Safety rows are spread over a lane's micro-batches, among the workers that have any.
    """
    device = next(iter(lanes[0].parameters.values())).device
    micros: list[tuple[dict[int, Batch], dict[int, Batch]]] = []
    totals: tuple[dict[int, Totals], dict[int, Totals]] = ({}, {})
    for lane in lanes:
        rows = lane.task.rows(lane.step)
        totals[0][lane.index] = lane.task.totals(rows)
        positions = range(len(rows))[workers.rank :: workers.size]
        parts = [positions[start : start + size] for start in range(0, len(positions), size)]
        micros += [({}, {}) for _ in range(len(parts) - len(micros))]
        for micro, part in zip(micros, parts, strict=False):
            micro[0][lane.index] = _batch(lane.task, rows, part, device)
        if lane.safety is not None:
            rows = lane.safety.rows(lane.step)
            totals[1][lane.index] = lane.safety.totals(rows)
            with_rows = min(workers.size, totals[0][lane.index].rows)
            positions = range(len(rows))[workers.rank :: with_rows] if parts else range(0)
            for number, micro in enumerate(micros[: len(parts)]):
                if part := positions[number :: len(parts)]:
                    micro[1][lane.index] = _batch(lane.safety, rows, part, device)
    banks = {lane.index: lane.task.bank for lane in lanes}
    safety_banks = {lane.index: lane.safety.bank for lane in lanes if lane.safety is not None}
    return [
        PackStep(
            adapters,
            task,
            totals[0],
            banks,
            PackStep(adapters, safety, totals[1], safety_banks) if safety else None,
        )
        for task, safety in micros
    ]


def _batch(
    stream: Stream, rows: Sequence[int], positions: Sequence[int], device: torch.device
) -> Batch:
    chosen = collate(stream.data, [rows[place] for place in positions], positions)
    return to_device(chosen, device)


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
