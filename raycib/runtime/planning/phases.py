"""The hours that each kind of a plan's work takes, from its FLOPs."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from raycib.config import RowsSpec, TaskSpec
from raycib.config.plan import Plan
from raycib.costs import flops
from raycib.costs.gpus import ANSWERING, UTILISATION
from raycib.costs.memory import weight_bytes
from raycib.counting import count
from raycib.runtime.planning.machine import machine_of
from raycib.runtime.planning.memory import Group, adapter_of
from raycib.runtime.planning.side_by_side import engines
from raycib.runtime.planning.work import Work
from raycib.runtime.references import distinct_examples, references
from raycib.runtime.sweep import Sweep

CPU_PEAK = 68e9
"""FLOP/s of one core in float32: large products on an AVX2 server, measured."""
POLICY = 250
"""Tokens that a judge reads around a conversation; assumed: Llama-Guard-3's with its categories."""
LOADING = 1e9
"""Bytes a second at which weights are read and hashed; assumed."""


class Phase(BaseModel, frozen=True):
    """One kind of work."""

    name: str
    amount: str
    flops: float
    hours: float
    """Of one GPU, or of one core."""

    @property
    def told(self) -> bool:
        """Whether its hours are known: they are not, but 0, on a GPU whose peak is not."""
        return self.hours > 0 or not self.flops


def phases(group: Group, work: Work) -> Iterator[Phase]:
    """One after the other."""
    sweep, sizes = group.sweep, group.sizes
    gpu, dtype = group.machine.gpu, sweep.setup.model.dtype
    peaks = {"bfloat16": gpu.peak, "float32": gpu.float32} if gpu else {}

    def phase(name: str, amount: str, done: Mapping[str, float], utilisation: float) -> Phase:
        """Of FLOPs by the precision that they are `done` in."""
        speeds = {precision: peaks.get(precision, 0.0 if gpu else CPU_PEAK) for precision in done}
        seconds = sum(done[one] / (speed * utilisation) for one, speed in speeds.items() if speed)
        return Phase(name=name, amount=amount, flops=sum(done.values()), hours=seconds / 3600)

    def forward(rows: TaskSpec | RowsSpec) -> float:
        lengths = sweep.setup.sets.used(rows)
        tokens, scored = (sum(o.whole for o in lengths), sum(o.whole - o.prompt for o in lengths))
        return flops.forward(sizes, tokens, sum(one.whole**2 for one in lengths), scored)

    again = sweep.setup.execution.checkpoint_activations
    trained: dict[str, float] = defaultdict(float)
    for stage, tokens, squares, scored, answering, _ in work.stages:
        adapter = adapter_of(stage) if stage.lora else None
        batch = min(stage.trainer.batch_size, stage.task.num_rows)
        more = 1 + stage.method_in_effect.extra_rows(batch) / batch
        trained[dtype if adapter else stage.trainer.precision] += more * flops.train(
            sizes, adapter, tokens.computed, squares, scored, again, answering
        )
    computed = sum(one.tokens.computed for one in work.stages)
    yield phase("training", f"{_many(computed)} tokens", trained, UTILISATION)
    share = work.forwards / max(1, distinct_examples(sweep))
    referred = share * sum(forward(rows) for rows, _ in references(sweep))
    measured = sum(
        forward(rows)
        for model_id in work.questioned
        for one in sweep.asked[model_id].values()
        for rows, _ in one.referred
    )
    told = (
        f"{work.forwards:,} rows of the aligned model, {count(len(work.questioned), 'model')} "
        "measured"
    )
    yield phase("references and measures", told, {dtype: referred + measured}, UTILISATION)
    said = sum(flops.answer(sizes, one.prompts, one.max_tokens) for one in work.asked)
    answers = sum(len(one.prompts) for one in work.asked)
    yield phase("answers", f"{answers:,}, all of the most tokens", {dtype: said}, ANSWERING)
    for name, in_words, utilisation in (
        ("benchmarks by likelihood", False, UTILISATION),
        ("benchmarks in words", True, ANSWERING),
    ):
        if specs := [one for one in sweep.unscored if one.in_words == in_words]:
            passed = sum(
                flops.forward(sizes, one.tokens, one.square_tokens, one.scored) for one in specs
            )
            amount = f"{_many(sum(one.tokens for one in specs))} tokens of lm-eval"
            yield phase(name, amount, {dtype: passed}, utilisation)
    if work.guards:
        read: dict[str, float] = defaultdict(float)
        for profile, judge in work.guards:
            length = policy(profile) + _conversation(sweep)
            read[judge.dtype] += work.judged * flops.forward(judge, length, length**2, 1)
        verdicts = work.judged * len(work.guards)
        yield phase("judging", f"{verdicts:,} conversations", read, UTILISATION)
    if group.machine.gpu:
        groups = sum(len(level) for level in work.plan.levels)
        model = weight_bytes(sizes, sweep.setup.model.dtype)
        times = groups + 1 + engines(group, work)
        hours = times * model / LOADING / 3600
        yield Phase(name="loading", amount=f"the base, {times} times", flops=0, hours=hours)


def policy(profile: str) -> int:
    """Tokens that a judge of that profile reads around a conversation."""
    return 0 if profile == "world" else POLICY


def _conversation(sweep: Sweep) -> float:
    """Tokens of a harmful prompt and its answer, at most."""
    harmful = next(iter(sweep.evals.values())).harmful
    prompts = sweep.setup.sets.asked(harmful)
    return sum(prompts) / len(prompts) + harmful.max_tokens


def _many(count: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * size:  # 999,600 is 1 M
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"


WORTH_S = 10.0
"""Of training, by the plan's estimate, for each worker: to begin, one takes some 4 CPU s."""


def trainers(sweep: Sweep, plan: Plan, most: int) -> int:
    """As many as were asked for, else up to ``most``: those that train for longer than they take
    to begin. Cores that none of them has are the engine's, which then is ready sooner."""
    execution = sweep.setup.execution
    if execution.groups_at_once:
        return execution.groups_at_once
    group = Group(sweep, machine_of(sweep.setup.options, execution))
    training = next(phases(group, Work(sweep, plan, group.sizes)))
    if not training.told:
        return max(1, most)
    return max(1, min(most, int(3600 * training.hours / execution.workers / WORTH_S)))
