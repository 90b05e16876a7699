"""What a trade-off study takes, measures and tells."""

from collections.abc import Mapping

from raycib.config import Measure, ModelSpec, PlainLoRA, RunSpec, StageSpec, TaskSpec
from raycib.config.presets import Preset, TaskSource
from raycib.results import Results, Scores
from raycib.runtime.options import Options
from raycib.runtime.row_sets import RowSets
from raycib.runtime.study import AlignedJob, Given, Inputs, Study
from raycib.runtime.sweep import Sweep
from raycib.studies.tradeoff.inputs import (
    GAP_ROWS,
    TradeoffInputs,
    resolve_inputs,
)
from raycib.studies.tradeoff.measure import GapSpec, gap_scores, gaps_of
from raycib.studies.tradeoff.results import GapScores, TradeoffResults
from raycib.studies.tradeoff.theorem_inputs import answer_tokens, landscapes, theory


class Tradeoff(Study):
    """Both gaps of every model, the alignment tax, and what each theorem needs to be checked."""

    name = "tradeoff"
    reported_by = "raycib.studies.tradeoff.report:report"
    differentiates_base = True
    has_cards = False

    def tasks(self, chosen: Preset, files: str | None) -> dict[str, TaskSource]:
        """The preset's tasks for such studies; a person's own one."""
        if files or not chosen.tradeoff_tasks:
            return super().tasks(chosen, files)
        return {name: chosen.tasks[name] for name in chosen.tradeoff_tasks}

    def own_model(self, options: Options) -> str | None:
        """A base of one's own is aligned first."""
        return options.model or options.base

    def base_to_align(self, given: Given) -> str | None:
        """A preset's base is aligned even where its aligned model is there: what it is aligned on
        is then known."""
        options, chosen = given.options, given.preset
        if options.model:
            return None
        known = chosen.alignment and not given.own_data
        return options.base or (chosen.base if known else super().base_to_align(given))

    def inputs(
        self, given: Given, model: ModelSpec, tasks: Mapping[str, TaskSpec], sets: RowSets
    ) -> TradeoffInputs:
        """Alignment data, what may stand in for them, and the alignment stage."""
        align = self.base_to_align(given) is not None
        return resolve_inputs(given, model, tasks, sets, align)

    def measures(self, task: TaskSpec, inputs: Inputs, sets: RowSets) -> tuple[Measure, ...]:
        """Losses for both gaps; the task's rows are some that it is trained on, as in the paper
        (4.6.2)."""
        assert isinstance(inputs, TradeoffInputs)
        first = f"{task.source}#first-{GAP_ROWS}"
        alignment = sets.held_out("alignment data", inputs.held_out, asked=False)
        rows = sets.held_out(f"{task.name} rows", first, asked=False)
        return (GapSpec(alignment=alignment, task=rows),)

    def jobs(self, sweep: Sweep) -> list[AlignedJob]:
        """The loss landscape, and how long answers are."""
        return [*answer_tokens(sweep).values(), *landscapes(sweep).values()]

    def scores(self, scores: Scores, sweep: Sweep, model_id: str, run: RunSpec) -> GapScores:
        """Both gaps and the tax; the unconstrained model is the same fine-tuning as plain LoRA."""
        aligned = sweep.setup.model.key
        free = StageSpec.model_validate({**dict(run.final), "method": PlainLoRA()}).key
        unconstrained = free if model_id != aligned and free in sweep.trained else None
        found = gap_scores(sweep.store, model_id, aligned, unconstrained, gaps_of(run.evals))
        return GapScores.model_validate(scores.given() | found)

    def results(self, results: Results, sweep: Sweep) -> TradeoffResults:
        """With what the theorems need."""
        return TradeoffResults(**results.given(), theory=theory(sweep))
