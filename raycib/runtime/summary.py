"""From what a sweep left in its store to its results: every cell with its scores, and where they
come from."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from raycib.config import RunSpec, StageSpec
from raycib.config.plan import Plan
from raycib.data.origins import origin
from raycib.evals.engine_losses import engine_losses
from raycib.evals.scores import Missing
from raycib.provenance import versions
from raycib.results import (
    FORMAT,
    Aligned,
    Cell,
    Cost,
    Counts,
    Model,
    Point,
    Results,
    Samples,
    Scores,
    TaskData,
    Unaligned,
)
from raycib.runtime.alone import asked_alone
from raycib.runtime.benchmarks import told
from raycib.runtime.failures import failed_before
from raycib.runtime.files import files_read
from raycib.runtime.harmful_rows import harmful_ratio, without_harmful
from raycib.runtime.judge import account
from raycib.runtime.judge_checks import judge_checks
from raycib.runtime.references import distinct_examples, reference_forwards, trained_tokens
from raycib.runtime.settings import settings_of
from raycib.runtime.sweep import Sweep, times_of
from raycib.store import Store
from raycib.store.kinds import HISTORY_FILE, POINTS, STAGES

LORA_VARIANT = "lora_variant"


def summarise(
    sweep: Sweep,
    asked: tuple[str, str],
    plan: Plan,
    failures: dict[str, str],
    counts: dict[str, int],
    timings: dict[str, float],
) -> Results:
    """The results of a sweep; `asked` is its name and question. `counts` and `timings` are of the
    run that ends here, by the names of `Counts` and in seconds by phase."""
    setup = sweep.setup
    (name, question), scores = asked, SweepScores(sweep, failures)
    training, tokens = trained_tokens(sweep)
    cells = [_cell(scores, run) for run in sweep.runs]
    whole = Counts(
        stages=plan.stages,
        stages_trained=0,
        stages_reused=plan.reused,
        stages_asked=plan.asked,
        stages_shared=plan.shared,
        stages_failed=len(failed_before(sweep).keys() | failures.keys()),
        cells_failed=sum(cell.failed is not None for cell in cells),
        reference_forwards=reference_forwards(sweep),
        distinct_examples=distinct_examples(sweep),
        engine_starts=0,
        judge_calls=0,
        **tokens,
    )
    results = Results(
        format=FORMAT,
        sweep=name,
        question=question,
        study=setup.study.name,
        preset=setup.origin.removeprefix("preset "),
        settings=settings_of(setup, sweep.runs),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        model=Model(name=setup.model_name, weights=setup.model.weights),
        judge=account(sweep.judge.spec, sweep.verdict_cache, sweep.pairs(), _asks_the_world(sweep)),
        files=files_read(sweep.runs),
        rows=list(setup.sets.sets.values()),
        training=training,
        aligned=Aligned(scores=scores.before),
        cells=cells,
        counts=whole.but(**counts),
        timings_s={phase: round(seconds, 2) for phase, seconds in timings.items()},
        damaged=list(sweep.store.damaged),
    )
    if setup.notes:
        results = results.but(notes=setup.notes)
    if sweep.benchmarks:
        results = results.but(benchmarks=told(sweep.benchmarks))
    if alone := asked_alone(sweep):
        results = results.but(asked_alone=alone)
    measured = ((one, next(iter(sweep.asked[one].values()))) for one in sweep.answered)
    if losses := engine_losses(sweep.store, setup.model, measured):
        results = results.but(engine_losses=losses)
    if checks := judge_checks(sweep):
        results = results.but(judge_flips=checks)
    if base := _before_alignment(sweep):
        results = results.but(unaligned=base)
    return setup.study.results(results, sweep)


def _before_alignment(sweep: Sweep) -> Unaligned | None:
    """How safe the base is that was aligned first; None where there is none."""
    for base, evals in sweep.before_alignment[:1]:
        try:
            found = sweep.scoring.safety_scores(base.key, evals)
        except Missing:
            found = None
        return Unaligned(name=base.source, scores=found)
    return None


def _asks_the_world(sweep: Sweep) -> bool:
    """Whether all harmful prompts are the embedded world's."""
    asked = (rows for one in sweep.evals.values() for rows in one.judged)
    return all(origin(rows.source).own_language for rows in asked)


class SweepScores:
    """Scores of a sweep's models. The aligned model's are the "before" of every cell and computed
    once for each evaluation."""

    def __init__(self, sweep: Sweep, failures: Mapping[str, str]) -> None:
        self.sweep, self.failures = sweep, failures
        self._aligned: dict[str, Scores] = {}

    @cached_property
    def before(self) -> Scores | None:
        """The aligned model's on the first run's benchmarks; None where not finished."""
        sweep = self.sweep
        try:
            found, model_id = self.aligned(sweep.runs[0]), sweep.setup.model.key
            return sweep.setup.study.scores(found, sweep, model_id, sweep.runs[0])
        except Missing:
            return None

    def aligned(self, run: RunSpec) -> Scores:
        """The aligned model's on a run's benchmarks. Raises `Missing`."""
        sweep, key = self.sweep, run.evals.key
        if key not in self._aligned:
            model_id = sweep.setup.model.key
            self._aligned[key] = sweep.scoring.scores(model_id, run.evals)
        return self._aligned[key]

    def of(self, stage: StageSpec, run: RunSpec) -> tuple[str | None, Scores | None]:
        """Why a stage of a run has no scores, or its scores."""
        if stage.key in self.failures:
            return self.failures[stage.key], None
        try:
            return None, self.sweep.scoring.scores(stage.key, run.evals)
        except Missing as gap:
            return f"not finished: {gap}", None

    def of_cell(self, run: RunSpec) -> tuple[str | None, Scores | None]:
        """The same of its last stage, with the aligned model's beside them and what the study
        adds."""
        failed, found = self.of(run.final, run)
        if found is None:
            return failed, None
        try:
            aligned = self.aligned(run)
            found = found.but(
                mutual_information_before=aligned.mutual_information,
                mutual_information_last_prompt_before=aligned.mutual_information_last_prompt,
                negative_cosine_before=aligned.negative_cosine,
                eval_loss_before=aligned.eval_loss,
            )
            return None, self.sweep.setup.study.scores(found, self.sweep, run.final.key, run)
        except Missing as gap:
            return f"not finished: {gap}", None

    def at_points(self, run: RunSpec) -> list[Point]:
        """Of a run's last stage in the middle of its training, and before and after it, as far as
        they are answered. Before a stage that follows another is the other's end."""
        sweep, evals, found = self.sweep, run.evals.at_points(), []
        before = run.final.parent or sweep.setup.model
        ends = ({0: before.key}, {run.final.steps: run.final.key})
        for step, model_id in (ends[0] | run.points | ends[1] if run.points else {}).items():
            with suppress(Missing):
                scores = sweep.scoring.safety_scores(model_id, evals)
                found.append(Point(step=step, scores=scores))
        return found


def _cell(scores: SweepScores, run: RunSpec) -> Cell:
    sweep, stage, method = scores.sweep, run.final, run.method
    failed, found = scores.of_cell(run)
    shape = stage.lora.model_dump() if stage.lora else {}
    others = {f"lora_{name}": value for name, value in shape.items()}
    others |= stage.trainer.model_dump(mode="json")
    # Cells that differ by these alone would else be two seeds of one row.
    taken = {*others, *Cell.model_fields}
    own = method.model_dump(mode="json", exclude={"kind"})
    parameters = {f"method_{n}" if n in taken else n: v for n, v in own.items()} | others
    cell = Cell(
        key=stage.key,
        adapter=sweep.adapters.get(stage.key),
        # Plain LoRA is what all else is compared with: one that differs by more has another name.
        method=LORA_VARIANT if run.label and method.is_plain else method.kind,
        method_name=method.about.name,
        label=run.label or None,
        strength=method.strength,
        seed=stage.seed,
        task=stage.task.name,
        model=sweep.setup.model_name,
        failed=failed,
        safety_data=any(_sees_safety_data(sweep, one) for one in run.adapters),
        cost=Cost(
            steps=sum(one.steps for one in run.adapters),
            rank=stage.exported_rank,
            trained=not stage.method_in_effect.derived,
        ),
        parameters={name: _flat(value) for name, value in parameters.items()},
        scores=found,
        points=scores.at_points(run),
        points_apart=_points_apart(sweep, run),
        task_data=TaskData(
            name=stage.task.name,
            source=stage.task.source,
            rows=stage.task.num_rows,
            digest=stage.task.rows,
            harmful_ratio=harmful_ratio(stage.task),
            without_harmful=without_harmful(stage.task),
        ),
        spec=stage.model_dump(mode="json"),
    )
    return sweep.setup.study.cell(cell, scores, run)


def _points_apart(sweep: Sweep, run: RunSpec) -> bool:
    if not run.points:
        return False
    record = sweep.store.get(POINTS, run.final.point_key(run.final.steps))
    return record is not None and not record.about["ends_as_stored"]


def _sees_safety_data(sweep: Sweep, stage: StageSpec) -> bool:
    safety = sweep.setup.safety
    on_it = safety is not None and stage.task.rows == safety.rows
    return on_it or stage.method_in_effect.safety_rows is not None


def _flat(value: Any) -> Any:
    if isinstance(value, dict):  # data or a model that a method needs
        return value.get("name", value["source"])
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


def stored_histories(store: Store, keys: Iterable[str]) -> dict[str, list[dict[str, float]]]:
    """Loss terms by step (unweighted, in nats) of those of the stages that are trained."""
    found = {}
    for key in keys:
        if record := store.get(STAGES, key, only=(HISTORY_FILE,)):
            found[key] = record.value(HISTORY_FILE)
    return found


def stored_times(store: Store, keys: Iterable[str]) -> dict[str, tuple[int, int]]:
    """When the training of those stages began and ended that are trained."""
    found = ((key, store.get(STAGES, key, only=())) for key in keys)
    return {key: times_of(record) for key, record in found if record}


def all_samples(sweep: Sweep, asked: str = "") -> dict[str, list[dict[str, Any]]]:
    """Harmful prompts with answers and verdicts, by stage key and "aligned"; ``asked`` names a
    further set of them in the place of the first."""
    model_ids = {"aligned": (sweep.setup.model.key, sweep.runs[0].evals)}
    model_ids |= {run.final.key: (run.final.key, run.evals) for run in sweep.runs}
    found = {}
    for name, (model_id, evals) in model_ids.items():
        try:
            rows = next((one for one in evals.other_harmful if one.name == asked), None)
            found[name] = sweep.scoring.samples(model_id, evals, rows)
        except Missing:
            continue
    return found


def with_cards(sweep: Sweep, results: Results, samples: Samples) -> Results:
    """The results with an acceptance card for every method, where the study has some."""
    if not sweep.setup.study.has_cards:
        return results
    from raycib.report.cards.cards import cards

    others = dict.fromkeys(rows.name for one in sweep.evals.values() for rows in one.other_harmful)
    further = {name: all_samples(sweep, name) for name in others}
    return results.but(cards=cards(results, samples, further))


def reasons(failures: dict[str, str]) -> list[str]:
    """Why stages failed, the most frequent reason first."""
    return [f"{count} x {why}" for why, count in Counter(failures.values()).most_common()]
