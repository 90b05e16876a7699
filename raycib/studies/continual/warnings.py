"""What a reader must know before believing measures of continual fine-tuning, in plain words."""

from raycib.counting import count
from raycib.report.forms import share
from raycib.report.statistics import finite_mean
from raycib.studies.continual.results import ContinualResults
from raycib.studies.continual.sequences import Run, Sequences, sequences_of, stages_frame

LEARNED = 0.5
"""Accuracy right after its own stage below which a task was hardly learned."""
SOLVED = 0.8
"""Accuracy before its own stage above which there was little to learn, or to forget."""


def warnings(results: ContinualResults) -> list[str]:
    """Warnings that a sweep of orders calls for."""
    sequences = sequences_of(results)
    found = [
        *_thin(sequences),
        *_unlearned(sequences),
        *_solved(sequences),
        *_early_garbage(results),
    ]
    if any(run.cell.method == "o_lora" for run in sequences.done):
        found.append(
            "O-LoRA trains an adapter for each task and keeps all of them, so it ends with more "
            "parameters than the others: see the total rank."
        )
    return found


def _thin(sequences: Sequences) -> list[str]:
    found = []
    seeds = len({run.cell.seed for run in sequences.done})
    if 1 < seeds < 5:
        found.append(
            f"{seeds} seeds: Student's intervals over them are wide (with 3, 4.3 standard errors "
            "to each side)."
        )
    if seeds > 1 and len(sequences.variants) > 2:
        found.append(
            "Several comparisons are not corrected for being several, which more seeds do not "
            "mend: of equal methods 1 in 20 is told apart. To hold against every other method is "
            "no matter of luck by that; to fail against one of several may be."
        )
    orders = sequences.orders
    if len(orders) == 1:
        found.append("One order of the tasks: how much depends on it is not known.")
        return found
    missing = len(sequences.runs) - len(sequences.done)
    if missing:
        found.append(
            f"{count(missing, 'run is', 'runs are')} missing of {len(sequences.runs)}: means over "
            "orders do not rest on the same orders for every method, and the analysis of variance "
            "leaves out what it must to stay balanced."
        )
    found.append(
        "Orders that begin alike share their first stages: they are not independent, and p values "
        "over orders are too small."
    )
    return found


def _unlearned(sequences: Sequences) -> list[str]:
    """Tasks that their own stage did not teach, by method: BWT has nothing to forget there."""
    weak: dict[str, list[str]] = {}
    for variant, runs in sequences.variants.items():
        for task in sequences.tasks:
            after = _mean(runs, task, own=True)
            before = _mean(runs, task, own=False)
            if after < LEARNED or after <= before:
                weak.setdefault(task, []).append(f"{variant} {share(after)}")
    return [
        f"{task} was hardly learned in its own stage (accuracy right after it below "
        f"{share(LEARNED)}, or not above the one before fine-tuning): {', '.join(variants)}. What "
        "was not learned cannot be forgotten: BWT and stability say little there."
        for task, variants in weak.items()
    ]


def _solved(sequences: Sequences) -> list[str]:
    known = {task: sequences.aligned.get(f"accuracy_{task}") for task in sequences.tasks}
    high = [f"{task} ({share(v)})" for task, v in known.items() if v is not None and v > SOLVED]
    if not high:
        return []
    return [
        f"Solved before any fine-tuning: {', '.join(high)}. There BWT compares two models that "
        "could do the task anyway, and says little of what a stage taught."
    ]


def _early_garbage(results: ContinualResults) -> list[str]:
    stages = stages_frame(results)
    early = stages[stages["stage"] < stages.groupby("order")["stage"].transform("max")]
    bad = early[early["incoherent_rate"] > 0.1]
    if not len(bad):
        return []
    worst = bad.sort_values("incoherent_rate").iloc[-1]
    return [
        f"In {count(len(bad), 'stage')} before the last more than 10 % of the answers to harmful "
        f"prompts are neither harmful nor refusals (most: {share(worst['incoherent_rate'])}, in "
        f"{worst['variant']} after {worst['task']}, seed {worst['seed']})."
    ]


def _mean(runs: list[Run], task: str, own: bool) -> float:
    """Mean accuracy right after the task's own stage, or before any fine-tuning."""
    values = [
        run.matrix[run.order.index(task) + 1 if own else 0, run.order.index(task)]
        for run in runs
        if task in run.order
    ]
    return finite_mean(values)
