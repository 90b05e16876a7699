"""What a continual study takes, asks and tells."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raycib.config import RunSpec
from raycib.config.presets import Preset, TaskSource, split
from raycib.errors import UserError
from raycib.runtime.own import named
from raycib.runtime.study import Histories, Samples, Study, Tasks
from raycib.runtime.summary import Scores
from raycib.runtime.sweep import Sweep
from raycib.studies.continual.scores import continual_scores

if TYPE_CHECKING:
    from raycib.report.report import Report


class Continual(Study):
    """Several tasks, one after another; all of them are asked after every stage."""

    name = "continual"
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

    def cell(self, scores: Scores, run: RunSpec, cell: Mapping[str, Any]) -> dict[str, Any]:
        """The order, every stage with its scores, and the numbers of continual learning. A stage's
        accuracy is that on its own task."""
        order = [stage.task.name for stage in run.adapters]
        stages: list[dict[str, Any]] = []
        for stage in run.adapters:
            failed, found = scores.of(stage, run)
            if found is not None:
                found["accuracy"] = found["accuracies"][stage.task.name]
            entry = {"key": stage.key, "task": stage.task.name, "scores": found, "failed": failed}
            stages.append(entry)
        told = {"order": order, "task": " → ".join(order), "stages": stages}
        reasons = [one["failed"] for one in stages if one["failed"]]
        before = (scores.before or {}).get("accuracies")
        if reasons or before is None:
            return told | {
                "failed": reasons[0] if reasons else "the aligned model was not measured"
            }
        matrix = [one["scores"]["accuracies"] for one in stages]
        left_out = list(scores.sweep.setup.tasks)[:1]  # as the paper leaves out Dolly, always
        last = cell["scores"] | {"accuracy": stages[-1]["scores"]["accuracy"]}
        return told | {"scores": last | continual_scores(order, before, matrix, left_out)}

    def summary(self, sweep: Sweep) -> dict[str, Any]:
        """The tasks as they are given."""
        return {"tasks": list(sweep.setup.tasks)}

    def report(
        self, summary: Mapping[str, Any], samples: Samples, histories: Histories
    ) -> "Report":
        """Methods, each order, every stage, the variance, Figures 4 to 7."""
        from raycib.studies.continual.report import report

        return report(summary, samples, histories)
