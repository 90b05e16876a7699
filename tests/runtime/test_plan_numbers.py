"""What a plan says a sweep will take: numbers by hand, on the embedded world and without any file;
and what does not fit is refused before anything starts."""

import json
import random
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raycib.config.plan import make_plan
from raycib.config.presets import PRESETS
from raycib.costs.gpus import GPUS, gpu_here
from raycib.costs.known import known_sizes
from raycib.data.stand_ins import ADVBENCH, DOLLY, stand_ins
from raycib.errors import UserError
from raycib.methods.cib import CIB
from raycib.methods.sbr import SBR
from raycib.methods.vaccine import Vaccine
from raycib.model_files.packing import packs
from raycib.runtime.build import build_config
from raycib.runtime.options import Options
from raycib.runtime.planning import machine
from raycib.runtime.planning.estimate import Estimate, estimate
from raycib.runtime.planning.fit import fitted
from raycib.runtime.planning.machine import Machine, machine_of
from raycib.runtime.planning.memory import Group
from raycib.runtime.planning.reader import Assumed
from raycib.runtime.planning.work import Work
from raycib.runtime.sweep import Sweep
from raycib.studies.strength import Strength
from raycib.training.micro_batches import count, deal

ROOT = Path(__file__).parents[2]


def planned(options: Options, *methods: object, reader: Assumed | None = None) -> Sweep:
    setup = build_config(replace(options, dry_run=True), Strength(), reader)
    return Sweep(setup, setup.runs_of(methods or [CIB(lam=0), CIB(lam=1)]))  # type: ignore[arg-type]


def numbers(sweep: Sweep) -> Estimate:
    where = machine_of(sweep.setup.options, sweep.setup.execution)
    execution, _ = fitted(sweep, where)
    sweep.setup = replace(sweep.setup, execution=execution)
    return estimate(sweep, sweep.plan(1), where)


def test_the_worlds_plan_is_what_a_hand_counts(tmp_path: Path) -> None:
    """Two strengths and three seeds: 6 stages of 3,200 rows in batches of 16, one of them shared by
    nothing; 7 models are asked 260 + 160 + 160 prompts and five times 80, 260 of them harmful."""
    sweep = planned(Options(out=str(tmp_path), seeds=3))
    told = numbers(sweep)
    assert (told.stages, told.to_train, told.steps) == (6, 6, 6 * 200)
    rows = sweep.setup.sets.used(next(iter(sweep.stages.values())).task)
    assert told.useful_tokens == 6 * sum(one.whole for one in rows)
    assert told.useful_tokens < told.computed_tokens < 1.3 * told.useful_tokens
    assert told.answers == 7 * (260 + 160 + 160 + 5 * 80)
    assert told.answer_tokens == 40 * told.answers
    assert told.judged == 7 * 260
    # CIB looks up 3,200 rows, and every model is compared with the aligned one on 160.
    assert told.reference_forwards == 3360
    assert told.targets == dict.fromkeys(told.targets, 3)
    assert len(told.targets) == 7
    # Adapters of rank 8 in float32: each of the three layers has four linears of width 96 and three
    # between that and the MLP's 176.
    sizes = Group(sweep, Machine(None, None, True)).sizes
    width, keys, inner = sizes.width, sizes.keys, sizes.inner
    a_layer = 2 * (width + sizes.queries) + 2 * (width + keys) + 3 * (width + inner)
    assert told.adapter_parameters == 3 * 8 * a_layer
    assert told.storage["adapters"] == 6 * 4 * told.adapter_parameters


@pytest.mark.parametrize("name", ["llama2-7b-chat", "llama31-8b", "qwen25-7b", "qwen3-4b"])
def test_every_papers_preset_has_a_plan_without_its_files_and_fits_80_gb(
    name: str, tmp_path: Path
) -> None:
    """No hub is within reach of a test. What is assumed is said."""
    options = Options(out=str(tmp_path), preset=name, gpu="H100", task="dolly", max_length=1024)
    told = numbers(planned(options, reader=Assumed()))
    assert any("published sizes" in one for one in told.assumed)
    assert any("dolly" in one for one in told.assumed)
    used = {what: sum(parts.values()) for what, parts in told.memory.items()}
    assert used.keys() == told.room.keys()
    assert all(used[what] <= (room or 0) for what, room in told.room.items())
    assert used["a group's worker"] > 10e9
    assert 0.1 < told.hours < 10
    assert told.dollars == pytest.approx(told.hours * 3.0)
    assert told.useful_tokens == told.computed_tokens


@pytest.mark.parametrize("kind", ["llama", "falcon"])
def test_padding_is_foretold_where_rows_do_not_lie_end_to_end(kind: str, tmp_path: Path) -> None:
    """By tokens the world's rows have none; of a model that would mix them they are padded."""
    budget = {"set": ["execution.micro_batch_tokens=4096"], "seeds": 1}
    sweep = planned(Options(out=str(tmp_path), **budget))
    group = Group(sweep, Machine(None, None, True))
    sizes = replace(group.sizes, packs=packs(kind))
    work = Work(sweep, sweep.plan(1), sizes)
    shares = {one.tokens.share for one in work.stages}
    assert shares == {1} if kind == "llama" else all(0.9 < share < 1 for share in shares)


def test_memory_has_room_for_the_safety_rows_of_all_slots_of_a_micro_batch(tmp_path: Path) -> None:
    """Four slots, whose steps of 16 rows all fit into one: each brings eight safety rows there."""
    changes = ["execution.micro_batch_tokens=8192"]
    sweep = planned(Options(out=str(tmp_path), set=changes, seeds=4), CIB(lam=1))
    safety = sweep.setup.safety
    assert safety is not None
    sweep = Sweep(sweep.setup, sweep.setup.runs_of([SBR(safety=safety)]))
    memory = Group(sweep, Machine(None, None, True)).memory(sweep.setup.execution)
    (layers,) = (name for name in memory.parts if name.startswith("layers of a micro-batch"))
    told = int(layers.split()[-2].replace(",", ""))
    task = next(iter(sweep.stages.values())).task
    rows, beside = ([one.whole for one in sweep.setup.sets.used(spec)] for spec in (task, safety))
    draw, most = random.Random(0), 0
    for _ in range(50):
        own = {slot: draw.sample(rows, 16) for slot in range(4)}
        more = {slot: draw.sample(beside, 8) for slot in range(4)}
        dealt = deal(own, more, 1, 16, 8192, packed=True)
        most = max(most, count(dealt, own, more, packed=True).largest)
    assert 0.3 * told < most <= told


def test_what_ran_out_of_memory_before_is_refused_with_what_fits(tmp_path: Path) -> None:
    """Four adapters with eight rows each as they are drawn: 192 GB of activations."""
    change = [
        "execution.micro_batch_tokens=null", "execution.micro_batch_size=8",
        "execution.checkpoint_activations=false",
    ]  # fmt: skip
    options = Options(
        out=str(tmp_path),
        preset="llama31-8b",
        gpu="H100",
        group_size=4,
        set=change,
        max_length=1024,
    )
    with pytest.raises(UserError) as refused:
        numbers(planned(options, reader=Assumed()))
    said = str(refused.value)
    assert "\n" not in said
    assert "layers of a micro-batch of 32,7" in said
    advice = said.partition("share of H100: ")[2].split()
    given = Options(out=str(tmp_path), preset="llama31-8b", gpu="H100", max_length=1024)
    slots = int(advice[advice.index("--group-size") + 1])
    changes = [text for text in advice if text.startswith("execution.")]
    numbers(planned(replace(given, group_size=slots, set=changes), reader=Assumed()))


def test_seven_billion_weights_are_trained_by_no_gpu_of_80_gb(tmp_path: Path) -> None:
    """16 bytes each in float32: 100 GiB of them. On 141 GB with the shortest micro-batches."""
    options = Options(out=str(tmp_path), preset="llama2-7b-tradeoffs", gpu="H100")
    sweep = planned(options, reader=Assumed())
    with pytest.raises(UserError, match=r"all weights with gradients and Adam 100 GiB"):
        fitted(sweep, machine_of(options, sweep.setup.execution))
    execution, _ = fitted(sweep, machine_of(replace(options, gpu="H200"), sweep.setup.execution))
    assert execution.micro_batch_tokens == 1024


def test_but_by_two_of_them(tmp_path: Path) -> None:
    """In shards each has half: 50 GiB, and what is gathered; 6.7 billion weights of 2 bytes, less
    the embeddings and the head, are 6.5 GiB on each while adapters are trained."""
    options = Options(
        out=str(tmp_path), preset="llama2-7b-tradeoffs", gpu="H100", workers=2,
        set=["execution.strategy=fsdp2"],
    )  # fmt: skip
    sweep = planned(options, reader=Assumed())
    where = machine_of(options, sweep.setup.execution)
    execution, _ = fitted(sweep, where)
    whole, group, reading = Group(sweep, where).needs(execution)
    assert "1 / 2 of all weights with gradients and Adam 50.2 GiB" in str(whole)
    assert "base, 1 / 2 of its layers 6.52 GiB" in str(group)
    assert reading.parts["base"] == 2 * 6_738_415_616 and reading.room is None, "no GPU's"


def test_what_nobody_chose_is_chosen_to_fit(tmp_path: Path) -> None:
    """On 24 GB layers are computed twice; on 8 GPUs none is idle."""
    options = Options(out=str(tmp_path), preset="llama31-8b", gpu="L4", seeds=1)
    sweep = planned(options, reader=Assumed())
    execution, notes = fitted(sweep, machine_of(options, sweep.setup.execution))
    assert execution.checkpoint_activations
    assert notes[0].startswith("chosen to fit into L4: groups of up to ")
    memory = Group(sweep, machine_of(options, execution)).memory(execution)
    assert memory.fits
    fifteen = planned(replace(options, gpu="H100", seeds=15), CIB(lam=1), reader=Assumed())
    execution, _ = fitted(fifteen, machine_of(fifteen.setup.options, execution))
    plan = make_plan(
        fifteen.runs, lambda _: False, lambda *_: False, 8, execution.group_size,
        execution.most_slots,
    )  # fmt: skip
    assert sorted(len(group.jobs) for group in plan.levels[0]) == [1, 2, 2, 2, 2, 2, 2, 2]


def test_a_bound_on_slots_makes_further_rounds_and_leaves_no_gpu_idle(tmp_path: Path) -> None:
    runs = planned(Options(out=str(tmp_path), seeds=20), CIB(lam=1)).runs
    plan = make_plan(runs, lambda _: False, lambda *_: False, 4, None, 3)
    assert [len(group.jobs) for group in plan.levels[0]] == [3, 3, 3, 3, 2, 2, 2, 2]


def test_answering_and_judging_have_a_part_of_a_gpu_or_several(tmp_path: Path) -> None:
    """Llama-3.1-8B and Llama-Guard-3-8B have 15 GiB of weights and 32 heads each: half of 80 GB
    holds either, a fifth of it neither, nor half of 24 GB; two of 24 GB hold an engine that is
    split, three cannot be dealt the heads."""
    sweep = planned(Options(out=str(tmp_path), preset="llama31-8b", gpu="H100"), reader=Assumed())
    setup, plan = sweep.setup, sweep.plan(1)

    def told(gpu: str, **share: float) -> Estimate:
        execution = setup.execution.model_copy(update=share)
        sweep.setup = replace(setup, execution=execution)
        where = machine_of(replace(setup.options, gpu=gpu), execution)
        return estimate(sweep, plan, where)

    half = told("H100", engine_gpus=0.5, judge_gpus=0.5)
    for what in ("the engine that answers", "the judge"):
        assert half.room[what] == int(0.5 * 0.9 * GPUS["H100"].memory)
        assert sum(half.memory[what].values()) < (half.room[what] or 0)
    for who, what in (("engine", "the engine that answers"), ("judge", "the judge")):
        with pytest.raises(UserError, match=f"{what}.*TOO LITTLE.*does not fit"):
            told("H100", **{f"{who}_gpus": 0.2})
        with pytest.raises(UserError, match=rf"{who}_gpus 3: .* has 32; give one of 1, 2, 4, 8"):
            told("H100", **{f"{who}_gpus": 3})
    sweep.trained = set(sweep.stages)  # training wants more than 24 GB
    plan = sweep.plan(1)
    with pytest.raises(UserError, match="TOO LITTLE"):
        told("L4", engine_gpus=0.5)
    two = told("L4", engine_gpus=2).room["the engine that answers"]
    assert two == int(2 * 0.9 * GPUS["L4"].memory)


def test_engines_and_judges_side_by_side_take_their_gpus_and_part_of_the_time(
    tmp_path: Path,
) -> None:
    """On eight GPUs sixteen models have eight engines, or four that are split over two, and 8,320
    conversations eight judges of nine that would be useful; three of each where three are asked
    for. Each engine loads the base, as a group and references do."""
    sweep = planned(Options(out=str(tmp_path), preset="llama31-8b", gpu="H100"), reader=Assumed())
    runs = sweep.setup.runs_of([CIB(lam=lam) for lam in (0, 1, 2, 5, 10)])
    sweep = Sweep(sweep.setup, runs)
    usual, plan = sweep.setup.execution, sweep.plan(1)
    (group,) = (group for level in plan.levels for group in level)
    assert len(group.jobs) == 15

    def told(**change: Any) -> dict[str, tuple[float, ...]]:
        execution = usual.model_copy(update=change)
        sweep.setup = replace(sweep.setup, execution=execution)
        eight = {"CPU": 64.0, "GPU": 8.0}
        gpu = GPUS["H100"]
        found = estimate(sweep, plan, Machine(gpu, int(0.9 * gpu.memory), True, eight))
        hours = {one.name: one.hours for one in found.phases}
        amount = next(one.amount for one in found.phases if one.name == "loading")
        parts = {"the engine that answers": "answers", "the judge": "judging"}
        services = {
            parts[one.name]: (one.replicas, one.gpus, round(hours[parts[one.name]] / one.hours, 6))
            for one in found.services
        }
        return services | {"loaded": (int(amount.split()[-2]),)}

    assert told() == {"answers": (8, 8, 8), "judging": (8, 8, 8), "loaded": (10,)}
    in_two = told(engine_gpus=2, judge_gpus=4)
    assert in_two == {"answers": (4, 8, 8), "judging": (2, 8, 8), "loaded": (6,)}
    three = told(engine_replicas=3, judge_replicas=2, engine_gpus=2)
    assert three == {"answers": (3, 6, 6), "judging": (2, 2, 2), "loaded": (5,)}
    assert told(engine_gpus=0.5)["answers"] == (1, 0.5, 1), "on a part of one, one"
    assert told(judge_starts_early=True)["answers"] == (1, 1, 1), "beside those who train, one"
    with pytest.raises(UserError, match=r"this machine is too small: the engine that answers, 5 t"):
        told(engine_replicas=5, engine_gpus=2)


def test_whether_one_gpu_has_room_for_all_is_said_with_the_shares(tmp_path: Path) -> None:
    """An H100 has not: 61.6, 17.4 and 16 GiB. An H200 of 118 GiB has, with 11, 6 and 3 twentieths,
    and a plan with these says so no more."""
    options = Options(out=str(tmp_path), preset="llama31-8b", gpu="H100")
    told = numbers(planned(options, reader=Assumed())).on_one_gpu
    assert told.startswith("who trains, answers and judges take turns: together ")
    found = numbers(planned(replace(options, gpu="H200"), reader=Assumed()))
    changes = found.on_one_gpu.split("--set ")[1:]
    shares = [float(one.split("=")[1]) for one in changes[:3]]
    assert sum(shares) == pytest.approx(1)
    room = 0.9 * GPUS["H200"].memory
    whats = ("a group's worker", "the engine that answers", "the judge")
    for what, share in zip(whats, shares, strict=True):
        assert sum(found.memory[what].values()) <= share * room
    again = planned(
        replace(options, gpu="H200", set=[c.strip() for c in changes]), reader=Assumed()
    )
    assert numbers(again).on_one_gpu == "" and again.setup.execution.judge_starts_early


def test_a_model_that_no_choice_makes_fit_is_refused_by_its_weights(tmp_path: Path) -> None:
    options = Options(out=str(tmp_path), preset="llama2-7b-chat", gpu="L4")
    sweep = planned(options, reader=Assumed())
    small = Machine(GPUS["L4"], 2**33, True)
    with pytest.raises(UserError, match=r"12\.6 GiB are weights, 8 GiB are there"):
        fitted(sweep, small)
    # What is trained needs no memory any more, however small the machine.
    sweep.trained = set(sweep.stages)
    assert fitted(sweep, small) == (sweep.setup.execution, [])
    sweep.trained = set()
    # Where the GPU is only assumed that is said, and nothing more.
    _, notes = fitted(sweep, replace(small, known=False))
    assert "is assumed; --gpu" in notes[0]


def test_extra_rows_cost_their_passes(tmp_path: Path) -> None:
    """Vaccine's three ascent steps are three more passes of the batch."""
    plain, vaccine = (
        numbers(planned(Options(out=str(tmp_path), seeds=1), method))
        for method in (CIB(lam=0), Vaccine(rho=0.1))
    )
    work = [next(one for one in told.phases if one.name == "training") for told in (plain, vaccine)]
    assert work[1].flops == pytest.approx(4 * work[0].flops)


def test_vaccine_keeps_what_it_adds_to_every_block_on_all_rows_of_a_step(tmp_path: Path) -> None:
    """And its gradient: two floats for each of 32 blocks, 4,096 places and a token of 64 rows."""
    options = Options(out=str(tmp_path), preset="llama31-8b", gpu="H200", seeds=1)
    kept = []
    for method in (CIB(lam=0), Vaccine(rho=0.1)):
        group = Group(planned(options, method, reader=Assumed()), Machine(GPUS["H200"], None, True))
        kept.append(group.memory(group.sweep.setup.execution).parts["what methods keep"])
        (stage,) = group.stages
    lengths = [one.whole for one in group.rows(stage)]
    tokens = 64 * sum(lengths) / len(lengths)
    assert kept[1] - kept[0] == pytest.approx(2 * 4 * 32 * 4096 * tokens)


def test_a_gpu_aligns_as_fast_as_it_is_in_that_precision(tmp_path: Path) -> None:
    """6 FLOPs a weight and token, at 67 and 989 TFLOP/s and 40 % of that; attention adds a little.
    In bfloat16 weights have 18 bytes."""
    options = Options(out=str(tmp_path), preset="llama2-7b-tradeoffs", gpu="H200", seeds=1)
    told = []
    for precision in ("float32", "bfloat16"):
        asked = replace(options, set=[f"alignment.precision={precision}"])
        sweep = planned(asked, CIB(lam=0), reader=Assumed())
        told.append((sweep, numbers(sweep)))
    (stage,) = told[0][0].alignment_stages.values()
    rows = told[0][0].setup.sets.used(stage.task)
    flops = 6 * 6.738e9 * 3 * sum(one.whole for one in rows)
    slower = flops / 0.4 / 3600 * (1 / 67e12 - 1 / 989e12)
    hours = [next(o.hours for o in one.phases if o.name == "training") for _, one in told]
    assert hours[0] - hours[1] == pytest.approx(slower, rel=0.1)
    weights = [one.memory["the worker that aligns the base"] for _, one in told]
    sizes = [one["all weights with gradients and Adam"] / 6_738_415_616 for one in weights]
    assert sizes == [16, 18]


def test_stand_ins_have_the_number_and_the_deciles_that_they_stand_for() -> None:
    rows = stand_ins("walledai/AdvBench:train")
    assert len(rows) == len({row.prompt for row in rows}) == 520
    said = sorted(len(row.response) // 4 for row in rows)
    assert [said[round(n * 519 / 10)] for n in range(11)] == list(ADVBENCH.responses)
    whole = stand_ins("databricks/databricks-dolly-15k:train")
    prompts = sorted(len(row.prompt) // 4 for row in whole)
    assert [prompts[round(n * 15010 / 10)] for n in range(11)] == list(DOLLY.prompts)


@pytest.mark.parametrize(
    ("source", "weights"),
    [
        ("meta-llama/Llama-2-7b-chat-hf", 6_738_415_616),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
        ("meta-llama/Llama-Guard-3-8B@main", 8_030_261_248),
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("Qwen/Qwen3-4B-Instruct-2507", 4_022_468_096),
    ],
)
def test_published_sizes_add_up_to_the_published_number_of_weights(source: str, weights: int):
    found = known_sizes(source)
    assert found is not None
    assert found.parameters == weights


def test_a_gpu_is_known_by_its_drivers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    told = ["NVIDIA H100 80GB HBM3, 81559 MiB", "NVIDIA L4, 23034 MiB"]
    monkeypatch.setattr("raycib.costs.gpus.gpus_here", lambda: told)
    found = gpu_here()
    assert found is not None
    assert (found.memory, found.peak) == (23034 * 2**20, 121e12)
    monkeypatch.setattr(machine, "gpu_here", lambda: None)
    execution = PRESETS["llama31-8b"].execution
    assert not machine_of(Options(), execution).known
    # A cluster's workers have other GPUs than its head.
    monkeypatch.setattr(machine, "gpu_here", lambda: found)
    assert machine_of(Options(), execution).gpu == found
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert not machine_of(Options(), execution).known
    assert machine_of(Options(gpu="L4"), execution).known
    assert machine_of(Options(), PRESETS["world"].execution).room is None
    with pytest.raises(UserError, match="there is B200, H200, H100"):
        machine_of(Options(gpu="H1000"), execution)


@pytest.fixture
def program(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `raycib` or a sweep's script."""

    def run(script: Path, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
        return int(str(ended.value.code)), *capfd.readouterr()

    return run


RAYCIB = ROOT / "raycib" / "__main__.py"


def test_the_command_is_the_sweeps_own_dry_run(program, tmp_path: Path) -> None:
    options = ["--out", tmp_path / "out", "--seeds", 1, "--strengths", "0,5"]
    code, text, err = program(RAYCIB, "plan", "lambda_grid", *options)
    assert (code, err) == (0, "")
    assert (code, text, err) == program(ROOT / "sweeps/lambda_grid.py", "--dry-run", *options)
    assert not (tmp_path / "out/stages").exists()


def test_a_plan_for_machines_is_one_object(program, tmp_path: Path) -> None:
    code, text, err = program(
        RAYCIB, "plan", "sweeps/lambda_grid.py", "--json", "--out", tmp_path, "--preset",
        "qwen3-4b", "--gpu", "A100", "--price-per-hour", "2",
    )  # fmt: skip
    assert (code, err) == (0, "")
    told = json.loads(text)
    assert Estimate.model_validate(told).machine == "A100"
    assert told["dollars"] == pytest.approx(2 * told["hours"])


def test_a_sweep_that_is_none_is_refused(program) -> None:
    with pytest.raises(UserError, match="--json is a plan's"):
        Options(json=True)
    code, text, err = program(RAYCIB, "plan", "lambda")
    assert (code, text) == (2, "")
    assert "no sweep at 'sweeps/lambda.py'" in err
    assert err.count("\n") == 1
