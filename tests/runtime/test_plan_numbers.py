"""What a plan says a sweep takes: numbers by hand, on the embedded world and without any file."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from plans import numbers, planned
from programs import RAYCIB, SWEEP, Program

from raycib.config.presets import PRESETS
from raycib.costs.gpus import GPU, GPUS, gpu_here
from raycib.costs.known import known_sizes, published
from raycib.data.stand_ins import ADVBENCH, DOLLY, stand_ins
from raycib.errors import UserError
from raycib.methods.cib import CIB
from raycib.methods.sbr import SBR
from raycib.methods.vaccine import Vaccine
from raycib.model_files.packing import packs
from raycib.runtime.options import Options
from raycib.runtime.planning import machine
from raycib.runtime.planning.estimate import Estimate
from raycib.runtime.planning.machine import Machine, machine_of
from raycib.runtime.planning.memory import Group
from raycib.runtime.planning.reader import Assumed
from raycib.runtime.planning.text import lines
from raycib.runtime.planning.work import Work
from raycib.runtime.sweep import Sweep
from raycib.training.micro_batches import count, deal


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
    # between that and the MLP's 256.
    sizes = Group(sweep, Machine(None, None, True)).sizes
    width, keys, inner = sizes.width, sizes.keys, 256
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
    assert told.hours is not None and 0.1 < told.hours < 10
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


@pytest.mark.parametrize(
    ("slots", "change"),
    [(4, "tokens=8192"), (8, "tokens=1024"), (32, "size=2"), (32, "size=1")],
)
def test_memory_has_room_for_the_safety_rows_of_all_slots_of_a_micro_batch(
    slots: int, change: str, tmp_path: Path
) -> None:
    """Each slot's steps of 16 rows bring eight safety rows: all to the first micro-batch that it
    has a part in, or by rows one or two to each."""
    changes = [f"execution.micro_batch_{change}"]
    sweep = planned(Options(out=str(tmp_path), set=changes, seeds=slots), CIB(lam=1))
    size, tokens = (getattr(sweep.setup.execution, f"micro_batch_{n}") for n in ("size", "tokens"))
    safety = sweep.setup.safety
    assert safety is not None
    sweep = Sweep(sweep.setup, sweep.setup.runs_of([SBR(safety=safety)]))
    memory = Group(sweep, Machine(None, None, True)).memory(sweep.setup.execution)
    (layers,) = (name for name in memory.parts if name.startswith("layers of a micro-batch"))
    told = int(layers.split()[-2].replace(",", ""))
    task = next(iter(sweep.stages.values())).task
    rows, beside = ([one.whole for one in sweep.setup.sets.used(spec)] for spec in (task, safety))
    draw, most = random.Random(0), 0
    for _ in range(40):
        own = {slot: draw.sample(rows, 16) for slot in range(slots)}
        more = {slot: draw.sample(beside, 8) for slot in range(slots)}
        dealt = deal(own, more, 1, size, tokens, packed=tokens is not None)
        most = max(most, count(dealt, own, more, packed=tokens is not None).largest)
    assert 0.3 * told < most <= told


def test_attention_that_keeps_its_scores_needs_more_memory(tmp_path: Path) -> None:
    """By hand: of each token a float32 a head and token of the longest row, and what it attends
    with repeated for all heads, in the place of the logarithm of a sum a head."""
    sweep = planned(Options(out=str(tmp_path), seeds=1, set=["execution.micro_batch_size=4"]))
    group = Group(sweep, Machine(None, None, True))
    execution, sizes = sweep.setup.execution, group.sizes
    (plain, eager) = (
        next(size for name, size in group.memory(how).parts.items() if name.startswith("layers of"))
        for how in (execution, execution.model_copy(update={"attention": "eager"}))
    )
    beside = 2 * (sizes.queries - sizes.keys)
    a_token = 4 * (sizes.heads * group.longest + beside - sizes.heads)
    tokens = group.tokens(execution, group.slots(execution))
    assert eager - plain == tokens * len(sizes.layers) * a_token > 0


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


@pytest.mark.parametrize(
    ("source", "positions"),
    [
        ("Qwen/Qwen2.5-7B", 131072),
        ("Qwen/Qwen2.5-7B-Instruct@main", 32768),
        ("Qwen/Qwen3-4B", 40960),
        ("Qwen/Qwen3-4B-Base", 32768),
        ("Qwen/Qwen3-4B-Instruct-2507", 262144),
    ],
)
def test_variants_of_a_model_have_their_own_context(source: str, positions: int) -> None:
    """As published: a plan had one number for a model and what was made of it."""
    found = published(source)
    assert found is not None
    assert found.positions == positions


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
    with pytest.raises(UserError, match="there is B200, H200-NVL, H200, "):
        machine_of(Options(gpu="H1000"), execution)


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA H100 NVL", 835e12),
     ("NVIDIA A100-SXM4-40GB", 312e12), ("NVIDIA A10", 125e12), ("NVIDIA L40S", 362e12),
     ("NVIDIA L40", 0), ("NVIDIA A10G", 0), ("NVIDIA RTX A1000", 0), ("NVIDIA GH200 480GB", 0)],
)  # fmt: skip
def test_a_gpu_is_none_whose_name_begins_alike(
    name: str, peak: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An L40 has 181 TFLOP/s and an A10G 70: neither is an L4 or an A10."""
    monkeypatch.setattr("raycib.costs.gpus.gpus_here", lambda: [f"{name}, 24564 MiB"])
    found = gpu_here()
    assert found is not None and found.peak == peak


@pytest.mark.parametrize(
    ("limits", "least"),
    [([], None), (["max"], None), (["1073741824"], 2**30), ([None, "1073741824"], 2**30),
     ([None, "9223372036854771712"], None)],
)  # fmt: skip
def test_a_containers_memory_is_what_it_may_take(
    limits: list[str | None], least: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By either version of cgroups; without a limit, one has a word and the other a large
    number."""
    files = [tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes"]
    for file, limit in zip(files, limits, strict=False):
        if limit is not None:
            file.write_text(f"{limit}\n")
    monkeypatch.setattr(machine, "LIMITS", files)
    physical = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert machine.memory_here() == (least or physical)


def test_hours_of_a_gpu_that_is_not_known_are_not_said(tmp_path: Path) -> None:
    """Its peak is 0 here: no work would take any time, and cost nothing."""
    unknown = GPU("NVIDIA GeForce RTX 9999", 96e9, 0.0, 0.0)
    options = Options(out=str(tmp_path), preset="llama31-8b", task="dolly", max_length=1024,
                      price_per_hour=2.0)  # fmt: skip
    told = numbers(planned(options, reader=Assumed()), Machine(unknown, int(90e9), True))
    said = "\n".join(lines(told))
    assert told.hours is None and told.dollars is None and "dollars" not in said
    assert "?  training: " in said and "?  in all" in said
    assert "nothing of the time that an NVIDIA GeForce RTX 9999 takes" in said
    assert "of its peak" not in said


def test_the_command_is_the_sweeps_own_dry_run(program: Program, tmp_path: Path) -> None:
    options = ["--out", tmp_path / "out", "--seeds", 1, "--strengths", "0,5"]
    code, text, err = program(RAYCIB, "plan", "lambda_grid", *options)
    assert (code, err) == (0, "")
    assert (code, text, err) == program(SWEEP, "--dry-run", *options)
    assert not (tmp_path / "out/stages").exists()


def test_a_plan_for_machines_is_one_object(program: Program, tmp_path: Path) -> None:
    code, text, err = program(
        RAYCIB, "plan", "sweeps/lambda_grid.py", "--json", "--out", tmp_path, "--preset",
        "qwen3-4b", "--gpu", "A100", "--price-per-hour", "2",
    )  # fmt: skip
    assert (code, err) == (0, "")
    told = json.loads(text)
    assert Estimate.model_validate(told).machine == "A100"
    assert told["dollars"] == pytest.approx(2 * told["hours"])


def test_a_sweep_that_is_none_is_refused(program: Program) -> None:
    with pytest.raises(UserError, match="--json is a plan's"):
        Options(json=True)
    code, text, err = program(RAYCIB, "plan", "lambda")
    assert (code, text) == (2, "")
    assert "no sweep at 'sweeps/lambda.py'" in err
    assert err.count("\n") == 1
