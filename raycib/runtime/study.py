"""What a study is: what one question takes, measures and shows beyond what every sweep does.

The core knows no study. A sweep file names one of `raycib.studies`, or a class of its own that
overrides what differs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from raycib.config import EvalSpec, Measure, ModelSpec, RunSpec, StageSpec, TaskSpec
from raycib.config.presets import Preset, TaskSource, split
from raycib.data.sources import named
from raycib.errors import UserError
from raycib.results import Cell, Histories, Results, Samples, Scores
from raycib.runtime.options import Options
from raycib.runtime.planning.reader import Reader
from raycib.runtime.row_sets import RowSets
from raycib.store import Store

if TYPE_CHECKING:
    from raycib.report.report import Report
    from raycib.runtime.summary import SweepScores
    from raycib.runtime.sweep import Sweep
    from raycib.runtime.sweep_config import SweepConfig

OF_STUDIES = ("orders", "budget", "harmful_ratio", "hrr_every")
"""Options that only some studies read."""
Tasks = dict[str, tuple[TaskSpec, EvalSpec]]
"""Tasks by name, each with what is asked of the models that are trained on it."""


@dataclass(frozen=True)
class Given:
    """What a study may choose from."""

    options: Options
    preset: Preset
    own_data: bool
    """Whether the data are a person's, so that none of the preset's are meant."""
    reader: Reader


@dataclass(frozen=True)
class Inputs:
    """What a study needs besides tasks and benchmarks; a study with more has a subclass."""

    alignment_stage: StageSpec | None = None
    """Makes the aligned model, all weights trained; None where the model is there."""

    @property
    def made_by(self) -> tuple[StageSpec, ...]:
        """The stages that come before all others."""
        return (self.alignment_stage,) if self.alignment_stage else ()


ALIGNMENT = "alignment data"
"""What the rows that a base is aligned on are called."""


def aligning(given: Given, base: ModelSpec, rows: TaskSpec) -> StageSpec:
    """The stage that aligns a base, all of its weights, as the preset says (the Trade-offs paper's
    first stage)."""
    return StageSpec(model=base, task=rows, trainer=given.preset.alignment_trainer, lora=None)


class AlignedJob(Protocol):
    """Something computed once on the aligned model, for the summary."""

    folder: ClassVar[str]
    """Of the store."""

    @property
    def stored_key(self) -> str:
        """Under which the result is stored there."""
        ...

    def run(self, store: Store, device: Any) -> None:
        """Compute and store it, where the accelerator is."""
        ...


class Study:
    """A study in its plainest form: one task, nothing measured besides, nothing told besides."""

    name: ClassVar[str]
    """In `summary.json`."""
    options: ClassVar[frozenset[str]] = frozenset()
    """Those of `OF_STUDIES` that it reads."""
    differentiates_base: ClassVar[bool] = False
    """Whether it measures gradients of the aligned model's own weights."""
    reported_by: ClassVar[str] = ""
    """Where `report` finds what makes its report of results, samples and histories, which need not
    be imported before: `package.module:function`."""
    has_cards: ClassVar[bool] = True
    """Whether its rows are methods over strengths on one task at a time, so that each method has an
    acceptance card."""

    # What it takes of a preset or of a person's options

    def preset(self, chosen: Preset) -> Preset:
        """The preset with the model and the settings that this study takes of it."""
        return chosen

    def tasks(self, chosen: Preset, files: str | None) -> dict[str, TaskSource]:
        """The preset's tasks, or those in a person's own `files` (`--task`). Raises `UserError`
        where there are too few."""
        if files:
            return split(named("--task", files))
        return {name: chosen.tasks[name] for name in (chosen.task, *chosen.further_tasks)}

    def own_model(self, options: Options) -> str | None:
        """A person's own model that this study starts from; its settings are not the preset's."""
        return options.model or (options.base if options.alignment else None)

    def base_to_align(self, given: Given) -> str | None:
        """The base that is aligned first: a person's own with rows to align it on, or that of a
        preset without an aligned model. None where the aligned model is there."""
        options, chosen = given.options, given.preset
        if options.model:
            return None
        if options.base and options.alignment:
            return options.base
        return chosen.base if chosen.model is None else None

    def first_model(self, given: Given) -> ModelSpec:
        """The model that is there before anything is trained: the aligned one, or the base that
        it is made from."""
        options, chosen = given.options, given.preset
        source = self.base_to_align(given) or options.model or chosen.model
        assert source, "a preset without a model has a base"
        own = source in (options.model, options.base)  # a model of one's own has its own
        dtype = None if own else chosen.dtype
        return given.reader.model(source, dtype, options.chat or chosen.chat)

    def inputs(
        self, given: Given, model: ModelSpec, tasks: Mapping[str, TaskSpec], sets: RowSets
    ) -> Inputs:
        """What it needs besides; `model` is `first_model`'s. Raises `UserError` for what is
        missing or makes no sense."""
        source = given.options.alignment
        if self.base_to_align(given) is None:
            if source:
                raise UserError(
                    f"--alignment is what --base is aligned on, and a {self.name} study asks for "
                    "nothing else of it; give --base and no --model, or leave it out"
                )
            return Inputs()
        source = source or given.preset.alignment
        assert source, "a preset without a model has rows to align its base on"
        return Inputs(aligning(given, model, sets.task(ALIGNMENT, source)))

    # What is asked and measured

    def measures(self, task: TaskSpec, inputs: Inputs, sets: RowSets) -> tuple[Measure, ...]:
        """What is measured on every model of a task besides losses and representations."""
        return ()

    def evaluations(self, tasks: Tasks) -> Tasks:
        """The tasks with what is asked of the models of each."""
        return tasks

    def jobs(self, sweep: "Sweep") -> Sequence[AlignedJob]:
        """What is computed once on the aligned model; a sweep is finished when all is stored."""
        return ()

    # What it tells

    def notes(self, setup: "SweepConfig") -> Sequence[str]:
        """Lines for a person before anything starts."""
        return ()

    def scores(self, scores: Scores, sweep: "Sweep", model_id: str, run: RunSpec) -> Scores:
        """The scores of a model with what the study adds; `model_id` is a stage's key of `run`, or
        the aligned model's. Raises `Missing`."""
        return scores

    def cell(self, cell: Cell, scores: "SweepScores", run: RunSpec) -> Cell:
        """A cell with what the study adds or replaces."""
        return cell

    def results(self, results: Results, sweep: "Sweep") -> Results:
        """The whole with what the study adds, which is what `report` gets."""
        return results

    def report(self, results: Results, samples: Samples, histories: Histories) -> "Report":
        """Tables, figures, claims and warnings."""
        return resolve_name(self.reported_by)(results, samples, histories)


def refuse_others(options: Options, study: Study) -> None:
    """`UserError` for an option that is about other studies."""
    for option in OF_STUDIES:
        if getattr(options, option) is not None and option not in study.options:
            named = option.replace("_", "-")
            raise UserError(f"--{named} is not about a {study.name} study; leave it out")
