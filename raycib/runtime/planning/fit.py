"""What fits into a worker's memory: chosen where nobody chose it, and refused where nothing does,
before anything starts."""

from collections.abc import Iterable, Iterator

from raycib.config.presets import Execution
from raycib.costs.memory import said, weight_bytes
from raycib.costs.sizes import Sizes
from raycib.errors import UserError
from raycib.runtime.capacity import lacking
from raycib.runtime.overrides import EXECUTION
from raycib.runtime.planning.machine import Machine
from raycib.runtime.planning.memory import Group, Memory
from raycib.runtime.sweep import Sweep

LEAST_TOKENS = 1024
"""Of a micro-batch that is chosen here, unless a row is longer."""


def fitted(sweep: Sweep, machine: Machine) -> tuple[Execution, list[str]]:
    """How the sweep is spread so that it fits, and what was chosen for that, a line each.

    What the person set stays. Of the rest, a group becomes smaller, then its micro-batches, then
    layers are computed twice. Raises `UserError` where nothing of that is enough.
    """
    execution = sweep.setup.execution
    group = Group(sweep, machine)
    trained = sweep.trained.issuperset(sweep.alignment_stages | sweep.stages)
    if trained and sweep.kept >= sweep.points:
        return execution, []
    # Finished stages count: a grid that was interrupted is grouped as before.
    lacking = [one for one in group.needs(execution) if not one.fits]
    if not lacking:
        return execution, []
    free = _choices(group, execution, _set_by_the_person(sweep))
    for choice in free:
        if _fit(group, choice):
            return choice, [f"chosen to fit into {machine.name}: {_told(group, choice)}"]
    problem = _too_large(group, execution, lacking[0])
    if machine.known:
        raise problem
    return execution, [f"{problem} (the {machine.name} is assumed; --gpu names another)"]


def _set_by_the_person(sweep: Sweep) -> set[str]:
    given = set(sweep.setup.overrides.get(EXECUTION, {}))
    return given | ({"group_size"} if sweep.setup.options.group_size else set())


def _choices(group: Group, execution: Execution, kept: set[str]) -> Iterator[Execution]:
    """Ways to need less, the least harm first."""
    sizes = range(group.slots(execution), 0, -1) if "group_size" not in kept else [0]
    ways = [False, True] if "checkpoint_activations" not in kept else [False]
    budgets: list[int | None] = [None]
    if not kept & {"micro_batch_tokens", "micro_batch_size"}:
        most = execution.micro_batch_tokens or group.tokens(execution, group.slots(execution))
        least = max(LEAST_TOKENS, group.longest)
        budgets += [most >> n for n in range(20) if most >> n > least] + [least]
    for way in ways:
        for budget in budgets:
            for slots in sizes:
                change: dict[str, object] = {}
                if slots:
                    change |= {"most_slots": slots, "group_size": None}
                if budget:
                    change["micro_batch_tokens"] = budget
                if way:
                    change["checkpoint_activations"] = True
                yield execution.model_copy(update=change)


def _fit(group: Group, execution: Execution) -> bool:
    return all(one.fits for one in group.needs(execution))


def _told(group: Group, execution: Execution) -> str:
    tokens = group.tokens(execution, group.slots(execution))
    again = ", layers computed twice" if execution.checkpoint_activations else ""
    return f"groups of up to {group.slots(execution)}, micro-batches of {tokens:,} tokens{again}"


def _too_large(group: Group, execution: Execution, needed: Memory) -> UserError:
    """What would fit, were everything free."""
    name, room = group.machine.name, needed.room or 0
    for choice in _choices(group, execution, set()):
        if _fit(group, choice):
            ways = [f"--group-size {group.slots(choice)}"]
            if choice.micro_batch_tokens:
                ways.append(f"--set execution.micro_batch_tokens={choice.micro_batch_tokens}")
            if choice.checkpoint_activations:
                ways.append("--set execution.checkpoint_activations=true")
            return UserError(
                f"{needed} does not fit into a worker's share of {name}: {' '.join(ways)}"
            )
    base = weight_bytes(group.sizes, group.model.dtype, group.model.quantization)
    return UserError(
        f"{needed} does not fit into a worker's share of {name}, nor does a group of one with the "
        f"shortest micro-batches ({said(base)} are weights, {said(room)} are there): "
        f"take {_more_room(group.machine, execution)}"
    )


def _more_room(machine: Machine, execution: Execution) -> str:
    """What may help where no choice of sizes does."""
    if machine.gpu is None and execution.workers > 1:
        return "fewer --workers: each has its share of this machine's memory"
    more = "a GPU with more memory, a smaller model, or more GPUs"
    return f"{more}: --workers N --set execution.strategy=fsdp2"


def refuse_split(name: str, gpus: float, sizes: Sizes) -> None:
    """Raise `UserError` where vLLM cannot split a model over its GPUs: each has as many of the
    attention heads as another."""
    if gpus > 1 and sizes.heads % gpus:
        fitting = [number for number in range(1, sizes.heads + 1) if sizes.heads % number == 0]
        raise UserError(
            f"execution.{name} {gpus:g}: each GPU gets as many attention heads, and the model has "
            f"{sizes.heads}; give one of {', '.join(map(str, fitting))}"
        )


def refuse_crowd(sweep: Sweep, machine: Machine, judge_is_served: bool) -> None:
    """Raise `UserError` where this machine has not the CPUs and GPUs that some kind of work wants,
    as Ray would. A finished sweep is only read."""
    short = lacking(sweep.setup.execution, machine.there, judge_is_served)
    if machine.there and short and not sweep.finished:
        raise UserError(f"this machine is too small: {'; '.join(short)}")


def refuse_unfit(memories: Iterable[Memory], machine: Machine) -> None:
    """Raise `UserError` for a process that does not fit where it runs, if that is known."""
    for one in memories:
        if machine.known and not one.fits:
            raise UserError(
                f"{one} does not fit into {machine.name}: take a smaller model, or more memory"
            )
