"""What a plan chooses so that a sweep fits its machines, how many work there side by side, and what
is refused before anything starts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from plans import numbers, planned

from raycib.config.plan import make_plan
from raycib.costs.gpus import GPUS
from raycib.errors import UserError
from raycib.methods.cib import CIB
from raycib.runtime.options import Options
from raycib.runtime.planning.estimate import Estimate, estimate
from raycib.runtime.planning.fit import fitted
from raycib.runtime.planning.machine import Machine, machine_of
from raycib.runtime.planning.memory import Group
from raycib.runtime.planning.reader import Assumed
from raycib.runtime.sweep import Sweep

ROOT = Path(__file__).parents[2]


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


def test_transformers_holds_the_keys_and_values_of_a_batch(tmp_path: Path) -> None:
    """Of 2^15 tokens, by 32 layers of 8 heads with 128 numbers each, two bytes, twice: 4 GiB. A
    base in 4 bits is asked by it; vLLM can do with one answer's."""
    options = Options(out=str(tmp_path), preset="llama31-8b", gpu="H100")
    four_bits = replace(options, set=["model.quantization=nf4"])
    parts = numbers(planned(four_bits, reader=Assumed())).memory["the engine that answers"]
    assert parts["keys and values of one batch"] == 4 * 2**30 and "1 adapter" in parts
    parts = numbers(planned(options, reader=Assumed())).memory["the engine that answers"]
    assert parts["keys and values of one answer"] < 2**30 and "8 adapters" in parts


def test_engines_and_judges_side_by_side_take_their_gpus_and_part_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    monkeypatch.setattr(Sweep, "finished", True)
    told(engine_replicas=5, engine_gpus=2)  # it is only read


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
    # But for its points it is trained once more.
    sweep.points = {"a point"}
    with pytest.raises(UserError, match=r"8 GiB are there"):
        fitted(sweep, small)
    sweep.trained = set()
    # Where the GPU is only assumed that is said, and nothing more.
    _, notes = fitted(sweep, replace(small, known=False))
    assert "is assumed; --gpu" in notes[0]
