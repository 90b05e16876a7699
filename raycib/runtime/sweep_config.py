"""What a sweep is about, as specs, and the runs that are made of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from raycib.config import EvalSpec, LoRASpec, Method, ModelSpec, RunSpec, TaskSpec, TrainerSpec
from raycib.config.grid import Variant, single_task
from raycib.config.menu import menu
from raycib.config.presets import Execution, Preset
from raycib.errors import UserError
from raycib.runtime.named_judges import NamedJudge
from raycib.runtime.options import Options
from raycib.runtime.overrides import Part, changed, read_methods, read_strengths
from raycib.runtime.planning.reader import Reader
from raycib.runtime.row_sets import RowSets
from raycib.runtime.study import Inputs, Study


@dataclass(frozen=True)
class SweepConfig:
    """Everything a sweep is about, resolved and fingerprinted."""

    study: Study
    inputs: Inputs
    """What the study needs besides tasks and benchmarks."""
    origin: str
    """What gave the settings that nobody named: a preset, or the defaults for own models."""
    preset: Preset
    """Those settings, before what the person changed of them."""
    notes: list[str]
    """What to know of the data, a line each."""
    model: ModelSpec
    tasks: dict[str, tuple[TaskSpec, EvalSpec]]
    drawn: Mapping[tuple[str, int], TaskSpec]
    """Rows that hang on the seed, by the task's key and seed."""
    safety_source: str | None
    base_source: str | None
    """Read only once a method needs them: a base model may have to be fetched."""
    sets: RowSets
    """Rows of this sweep, with their lengths."""
    seeds: tuple[int, ...]
    judges: tuple[NamedJudge, ...]
    """The main one, then those that read the same answers."""
    execution: Execution
    options: Options
    reader: Reader
    overrides: dict[str, dict[str, Any]]

    @property
    def sizes(self) -> tuple[int, int]:
        """Tokens of a row, and of a generated answer."""
        return self.sets.sizes

    @cached_property
    def lora(self) -> LoRASpec:
        """Shape of the adapters."""
        return self._changed("lora", self.preset.lora)

    @cached_property
    def trainer(self) -> TrainerSpec:
        """How every method is trained."""
        found = self._changed("trainer", self.preset.trainer)
        if found.precision != "float32":
            raise UserError(
                "--set trainer.precision: an adapter has the precision of its base; leave it out, "
                "or set alignment.precision, for a base that is aligned first"
            )
        return found

    def without(self, part: str, name: str) -> "SweepConfig":
        """The same less one of the person's changes."""
        overrides = {
            one: {field: value for field, value in fields.items() if (one, field) != (part, name)}
            for one, fields in self.overrides.items()
        }
        other = replace(self, overrides=overrides)
        for read in ("safety", "base"):  # what was read and hashed is not read again
            if read in vars(self):
                vars(other)[read] = vars(self)[read]
        return other

    @cached_property
    def safety(self) -> TaskSpec | None:
        """Safety data, where there is some."""
        source = self.safety_source
        return self.sets.task("safety data", source) if source else None

    @cached_property
    def base(self) -> ModelSpec | None:
        """The model before alignment, where there is one."""
        if self.base_source is None:
            return None
        base = self.reader.model(self.base_source, self.model.dtype, self.model.template)
        if base.weights == self.model.weights:
            raise UserError(
                f"--base {self.base_source!r} has the weights of the aligned model itself; give "
                "the model that it was made from"
            )
        return base

    def method(self, chosen: Part) -> Part:
        """A sweep's method with what the person changed of its kind."""
        return self._changed(getattr(chosen, "kind", ""), chosen)

    def _changed(self, part: str, spec: Part) -> Part:
        return changed(part, spec, self.overrides.get(part, {}))

    def at(self, kind: str, strength: float) -> Method | None:
        """A method at a strength, with what it needs and what the person changed of it; None where
        there is not what it needs."""
        fields = menu()[kind].model_fields
        needs = {name: getattr(self, name) for name in ("safety", "base") if name in fields}
        if None in needs.values():
            return None
        return self.method(menu()[kind].at(strength, **needs))

    def lacking(self, kind: str) -> list[str]:
        """The options that would give a method what it needs and there is not."""
        method = menu()[kind]
        safety = "safety" in method.model_fields or method.stacked
        needs = {"--safety": safety and self.safety_source is None,
                 "--base": "base" in method.model_fields and self.base_source is None}  # fmt: skip
        return [option for option, lacks in needs.items() if lacks]

    @cached_property
    def wanted(self) -> tuple[str, ...]:
        """Kinds of the methods asked for; `UserError` shows the menu where one does not exist."""
        if self.options.methods is None:
            return tuple(menu())
        return read_methods(self.options.methods)

    def beyond(self, grid: Iterable[str]) -> dict[str, tuple[float, ...]]:
        """Methods that `--methods` names beyond a sweep's own, each at its own default strength;
        `strengths` replaces that by the ones asked for."""
        if self.options.methods is None:
            return {}
        kinds = [kind for kind in self.wanted if kind not in grid and kind != "lora"]
        return {kind: (menu()[kind].model_construct().strength,) for kind in kinds}

    def others(self, grid: Iterable[str]) -> list[Method]:
        """The methods of `beyond` that have what they need, at all of their strengths."""
        found = [
            self.at(kind, strength)
            for kind, default in self.beyond(grid).items()
            for strength in self.strengths(kind, default)
        ]
        return [method for method in found if method is not None]

    def strengths(self, kind: str, default: Sequence[float]) -> tuple[float, ...]:
        """A sweep's strengths of a method, or the ones asked for instead; none where the method
        is not asked for. `UserError` for one that it refuses."""
        if kind not in self.wanted:
            return ()
        if self.options.strengths is None:
            return tuple(default)
        return read_strengths(self.options.strengths, menu()[kind])

    def runs_of(self, rows: Iterable[Method | Variant]) -> list[RunSpec]:
        """One cell for each row of a sweep, each task and each seed."""
        return self.runs_on(self.tasks, rows)

    def runs_on(self, names: Iterable[str], rows: Iterable[Method | Variant]) -> list[RunSpec]:
        """The same on some of the tasks alone."""
        tasks = [self.tasks[name] for name in names]
        how = (self.seeds, self.lora, self.trainer, self.inputs.made_by, self.drawn)
        runs = single_task([self.model], tasks, rows, *how)
        every = {"hrr_every": self.options.hrr_every}
        return [run.model_copy(update=every) for run in runs]

    @property
    def model_name(self) -> str:
        """What tables call the aligned model."""
        stage, quantization = self.inputs.alignment_stage, self.model.quantization
        name = f"{stage.model.source} aligned on {stage.task.name}" if stage else self.model.source
        return f"{name} in {quantization.upper()}" if quantization else name
