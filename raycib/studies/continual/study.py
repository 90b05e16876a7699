"""What a continual study takes, asks and tells."""

from typing import Any

from raycib.config import RunSpec
from raycib.config.presets import Preset, TaskSource, split
from raycib.data.sources import named
from raycib.errors import UserError
from raycib.report.scores import OF_ANSWERS
from raycib.results import Cell, Results, Scores
from raycib.runtime.study import Study, Tasks
from raycib.runtime.summary import SweepScores
from raycib.runtime.sweep import Sweep
from raycib.studies.continual.results import (
    ContinualCell,
    ContinualResults,
    ContinualScores,
    Stage,
)
from raycib.studies.continual.scores import continual_scores


class Continual(Study):
    """Several tasks, one after another; all of them are asked after every stage."""

    name = "continual"
    reported_by = "raycib.studies.continual.report:report"
    has_cards = False
    options = frozenset({"orders"})

    def preset(self, chosen: Preset) -> Preset:
        """Its model, trainer and chat template for sequences, where they differ."""
        return chosen.model_copy(
            update={
                "model": chosen.sequence_model or chosen.model,
                "trainer": chosen.sequence_trainer or chosen.trainer,
                "chat": chosen.sequence_chat or chosen.chat,
            }
        )

    def tasks(self, chosen: Preset, files: str | None) -> dict[str, TaskSource]:
        """The preset's sequence, or a person's own files with commas between them."""
        if files is None:
            if len(chosen.sequence) < 2:
                raise UserError("this preset has no sequence of tasks; give --task a.jsonl,b.jsonl")
            return chosen.sequence
        several = named("--task", files)
        if len(several) < 2:
            raise UserError(
                f"--task {files!r}: one task has no order; give two or more, with commas"
            )
        return split(several)

    def evaluations(self, tasks: Tasks) -> Tasks:
        """One evaluation for all: every task's held-out rows are asked after every stage; losses
        and representations are always measured on the first one's."""
        rows = tuple(
            evals.held_out.model_copy(update={"name": name}) for name, (_, evals) in tasks.items()
        )
        (_, first), *_ = tasks.values()
        evals = first.model_copy(update={"tasks": rows})
        return {name: (task, evals) for name, (task, _) in tasks.items()}

    def cell(self, cell: Cell, scores: SweepScores, run: RunSpec) -> ContinualCell:
        """The order, every stage with its scores, and the numbers of continual learning. A stage's
        accuracy is that on its own task."""
        order = [stage.task.name for stage in run.adapters]
        stages = []
        for stage in run.adapters:
            failed, found = scores.of(stage, run)
            if found is not None:
                found = Scores.model_validate(answered_on(found, stage.task.name))
            stages.append(Stage(key=stage.key, task=stage.task.name, scores=found, failed=failed))
        told = cell.given() | {"order": order, "task": " → ".join(order), "stages": stages}
        ended = [stage.scores for stage in stages if stage.scores]
        if cell.scores is None or scores.before is None or len(ended) < len(stages):
            reasons = [stage.failed for stage in stages if stage.failed]
            told["failed"] = reasons[0] if reasons else "the aligned model was not measured"
        else:
            measured = continual_scores(
                order,
                scores.before.accuracies,
                [one.accuracies for one in ended],
                list(scores.sweep.setup.tasks)[:1],  # as the paper leaves out Dolly, always
            )
            last = answered_on(cell.scores, order[-1])
            told["scores"] = ContinualScores.model_validate(last | measured)
        return ContinualCell.model_validate(told)

    def results(self, results: Results, sweep: Sweep) -> ContinualResults:
        """With the tasks as they are given."""
        return ContinualResults(**results.given(), tasks=list(sweep.setup.tasks))


def answered_on(scores: Scores, task: str) -> dict[str, Any]:
    """Scores with the accuracy on a task in place of all that is said of answers to the first."""
    found = {name: value for name, value in scores.given().items() if name not in OF_ANSWERS}
    return found | {"accuracy": scores.accuracies[task]}
