"""What a trade-off sweep is about besides tasks and benchmarks: the aligned model's own alignment
data, what may stand in for it, and the stage that makes the aligned model where there is none."""

from collections.abc import Mapping
from dataclasses import dataclass

from raycib.data.rows import rows_of
from raycib.data.sources import stem
from raycib.errors import UserError
from raycib.model_files import describe
from raycib.orchestration.options import Options
from raycib.orchestration.row_sets import RowSets
from raycib.presets import Preset
from raycib.spec import GapSpec, ModelSpec, StageSpec, TaskSpec
from raycib.store import whole_root

ORIGINAL = "original data"
"""What the alignment data itself is called among the proxies."""
GAP_ROWS = 400
"""Rows of a task, and of alignment data of one's own, that a gap is measured on."""


@dataclass(frozen=True)
class Tradeoff:
    """Resolved and fingerprinted."""

    model: ModelSpec
    """The aligned model."""
    maker: StageSpec | None
    """The stage that makes it from its base, all weights trained; None where it is there."""
    alignment: TaskSpec
    held_out: str
    """Source of the rows that the safety alignment gap is measured on."""
    proxies: dict[str, TaskSpec]
    """Safety data for Case I, by name; the original alignment data first."""

    def gaps(self, task: TaskSpec, sets: RowSets) -> GapSpec:
        """Rows to measure both gaps on; the task's are rows that it is trained on, as in the
        paper (4.6.2)."""
        first = f"{task.source}#first-{GAP_ROWS}"
        return GapSpec(
            alignment=sets.held_out("alignment data", self.held_out, asked=False),
            task=sets.held_out(f"{task.name} rows", first, asked=False),
        )


def starts_from(options: Options, chosen: Preset, own_data: bool) -> tuple[ModelSpec, bool]:
    """The model that a trade-off sweep starts from, and whether it is the aligned one or a base
    that is aligned first; `own_data` says that the preset's data are not meant."""
    base = options.base or (chosen.base if chosen.alignment and not own_data else None)
    if options.model or base is None:
        dtype = None if options.model else chosen.dtype
        return describe(options.model or chosen.model, dtype, options.chat), True
    return describe(base, None if options.base else chosen.dtype, options.chat), False


def resolve_tradeoff(
    options: Options,
    chosen: Preset,
    own_data: bool,
    tasks: Mapping[str, TaskSpec],
    sets: RowSets,
    start: tuple[ModelSpec, bool],
) -> Tradeoff:
    """The trade-off that `options` name, from what `starts_from` said. Raises `UserError` for what
    is missing or makes no sense."""
    source = options.alignment or (None if own_data else chosen.alignment)
    if source is None:
        raise UserError(
            "the safety alignment gap is measured on the data that the model was aligned on: give "
            "them with --alignment (prompts with the answers to keep)"
        )
    alignment = sets.task(ORIGINAL, source)
    given = source != chosen.alignment
    proxies = {ORIGINAL: alignment}
    if options.safety:
        name = stem(options.safety)
        proxies[name] = sets.task(name, options.safety)
    elif not given:
        proxies |= {name: sets.task(name, where) for name, where in chosen.proxies.items()}
    for task in tasks.values():
        for proxy in proxies.values():
            _refuse_same_rows(task, proxy)
    held_out = f"{source}#first-{GAP_ROWS}"
    if not given and chosen.alignment_held_out:
        held_out = chosen.alignment_held_out
    model, aligned = start
    maker = None
    if not aligned:
        maker = StageSpec(model=model, task=alignment, trainer=chosen.alignment_trainer, lora=None)
        model = maker.made_model(whole_root(options.out))
    return Tradeoff(model, maker, alignment, held_out, proxies)


def _refuse_same_rows(task: TaskSpec, proxy: TaskSpec) -> None:
    """A task whose rows are all safety rows has nothing to trade."""
    if set(rows_of(task)) <= set(rows_of(proxy)):
        raise UserError(
            f"all {task.num_rows} rows of the task {task.name!r} ({task.source}) are also in the "
            f"safety data {proxy.name!r} ({proxy.source}): both losses would be one; give other "
            "rows for one of the two"
        )
