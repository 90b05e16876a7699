"""One process trains group after group: the base stays, and nothing of a group is left for the
next one."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from menu import METHODS

from raycib.config import LoRASpec, StageSpec, TrainerSpec
from raycib.config.plan import AdapterGroup, Job
from raycib.config.presets import Execution
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.models.adapters.peft_format import read_adapter
from raycib.runtime.leases import Outcome
from raycib.runtime.pieces import PREPARE, Jobs, Prepare, tasks_of
from raycib.runtime.worker import TrainWorker
from raycib.store import Store
from raycib.store.kinds import CHECKPOINTS, STAGES
from raycib.training.group import load, open_slot, shapes_of

CPU = torch.device("cpu")


def group(stages: list[StageSpec], name: str) -> AdapterGroup:
    return AdapterGroup(name=name, jobs=tuple(Job(stage=stage, evals=()) for stage in stages))


def worker(store: Store) -> TrainWorker:
    return TrainWorker(store, Execution(), lambda *_: None)


@pytest.fixture(scope="module")
def groups(tiny_folder: Path) -> list[AdapterGroup]:
    """CIB beside an average; a group of another rank and other targets; safety rows and
    surgery, which build on an adapter."""
    trainer = TrainerSpec(learning_rate=5e-3, batch_size=16, warmup_steps=2, epochs=1)
    other = LoRASpec(rank=2, alpha=8, targets=("q_proj", "v_proj"))

    def stage(name: str, **settings: object) -> StageSpec:
        return tiny.make_stage(tiny_folder, method=METHODS[name], trainer=trainer, **settings)

    chain = tiny.make_chain(tiny_folder, METHODS["safegrad"], stacked=True, trainer=trainer)
    return [
        group([stage("cib"), stage("ema")], "first"),
        group([stage("lora", lora=other), stage("cib, recent and current", lora=other)], "second"),
        *(group([one], f"chain-{number}") for number, one in enumerate(chain)),
    ]


def files(store: Store, groups: list[AdapterGroup]) -> list[dict[str, str]]:
    """sha256 of every file of every stage."""
    records = [store.get(STAGES, job.stage.key) for one in groups for job in one.jobs]
    assert all(records)
    return [record.files for record in records if record]


def test_a_process_that_stays_trains_the_same_bytes(groups: list[AdapterGroup], tmp_path: Path):
    fresh, staying = Store(tmp_path / "fresh"), Store(tmp_path / "staying")
    for one in groups:
        assert worker(fresh).do(one) == Outcome()
    stays = worker(staying)
    bases = set()
    for one in groups:
        assert stays.do(one) == Outcome()
        assert stays._loaded is not None
        bases.add(id(stays._loaded.adapters.model))
    assert files(staying, groups) == files(fresh, groups)
    assert len(bases) == 1, "the base was loaded once"


SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from raycib.config.plan import AdapterGroup
from raycib.config.presets import Execution
from raycib.runtime.worker import TrainWorker
from raycib.store import Store
group = AdapterGroup.model_validate_json(Path(sys.argv[1]).read_text())
has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (has + int(sys.argv[2]),) * 2)
done = TrainWorker(Store(sys.argv[3]), Execution(), lambda *_: None).do(group)
assert not done.failures and done.error is None, done
print(*done.notes, sep="\\n")
"""


def test_parts_of_a_base_may_be_compiled(tiny_folder: Path, tmp_path: Path):
    """Two adapters after 30 steps of rows end to end: up to rounding those without; and what is
    compiled stays in the worker."""
    trainer = TrainerSpec(learning_rate=5e-3, batch_size=8, warmup_steps=2, epochs=10)
    stages = [tiny.make_stage(tiny_folder, seed=seed, trainer=trainer) for seed in range(2)]
    assert stages[0].steps >= 30
    folders: list[list[Path]] = []
    for compiled in (False, True):
        execution = Execution(micro_batch_tokens=64, compile=compiled)
        store = Store(tmp_path / str(compiled))
        trains = TrainWorker(store, execution, lambda *_: None)
        assert trains.do(group(stages, "both")) == Outcome()
        assert trains._loaded is not None
        norm = trains._loaded.adapters.model.get_decoder().norm
        assert ("forward" in vars(norm)) == compiled
        found = [store.get(STAGES, stage.key) for stage in stages]
        folders.append([one.folder for one in found if one])
    for plain, other in zip(*folders, strict=True):
        own, compiled = (read_adapter(folder).factors for folder in (plain, other))
        moved = sum(float((own[n] - compiled[n]).square().sum()) for n in own) ** 0.5
        size = sum(float(one.square().sum()) for one in own.values()) ** 0.5
        assert 0 < moved < 1e-4 * size


def test_a_group_without_memory_is_split_until_it_fits_and_that_is_said(
    tiny_folder: Path, tmp_path: Path
):
    """In a process that may have as much again as nine adapters with gradients and Adam take; a
    step, with the checkpoint after it, holds some three times what its adapters do."""
    lora = LoRASpec(rank=8192, alpha=8192, targets=("up_proj", "down_proj"))
    own = 16 * lora.rank * 2 * 2 * (32 + 64)
    trainer = TrainerSpec(learning_rate=1e-4, batch_size=16, epochs=1)
    stages = [
        tiny.make_stage(tiny_folder, 16, seed=seed, lora=lora, trainer=trainer) for seed in range(5)
    ]
    (asked := tmp_path / "group").write_text(group(stages, "five").model_dump_json())
    program = [sys.executable, "-c", SHORT_OF_MEMORY, asked, str(9 * own), tmp_path / "store"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("no memory for 5 adapters at once: 3 and 2 were trained\n")
    store = Store(tmp_path / "store")
    assert all(store.get(STAGES, stage.key) for stage in stages)
    assert not store.keys(CHECKPOINTS)


def test_a_group_in_parts_is_the_group(tiny_folder: Path, tmp_path: Path):
    """As one comes back whose worker was ended for want of memory: the same bytes, and it is said.
    More parts than adapters are as many."""
    trainer = TrainerSpec(learning_rate=5e-3, batch_size=16, epochs=1)
    three = group(
        [tiny.make_stage(tiny_folder, seed=seed, trainer=trainer) for seed in range(3)], "three"
    )
    apart, stores = (
        Execution(slots_apart=True),
        [Store(tmp_path / name) for name in ("1", "2", "9")],
    )
    notes = [
        TrainWorker(store, apart, lambda *_: None).do(three, parts).notes
        for store, parts in zip(stores, (1, 2, 9), strict=True)
    ]
    said = "no memory for 3 adapters at once: "
    assert notes == [(), (f"{said}2 and 1 were trained",), (f"{said}1, 1 and 1 were trained",)]
    whole, *parted = (files(store, [three]) for store in stores)
    assert parted == [whole, whole]
    assert not any(store.keys(CHECKPOINTS) for store in stores)


def test_a_worker_imports_nothing_for_models_that_see(tmp_path: Path):
    """A second of every process, and 140 MB, and bitsandbytes another; who wants the packages has
    them."""
    code = (
        "import sys; import raycib.runtime.worker\n"
        "print({'sklearn', 'scipy', 'bitsandbytes', 'boto3'} & set(sys.modules))\n"
        "from sklearn.linear_model import LogisticRegression; import scipy.stats, boto3\n"
        "from peft.import_utils import is_bnb_4bit_available; assert is_bnb_4bit_available()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout == "set()\n", done.stderr
    assert done.returncode == 0, done.stderr


def test_slots_that_are_removed_leave_the_model_as_it_was(tiny_folder: Path):
    stage = tiny.make_stage(tiny_folder)
    adapters, ids = load([stage], CPU).adapters, torch.arange(12).view(2, 6)
    with torch.no_grad(), adapters.disabled():
        base = adapters.model(ids).logits
    with torch.no_grad():
        for parameter in adapters.parameters_of(0).values():
            parameter.fill_(0.1)
        moved = adapters.model(ids).logits
        adapters.remove()
        left = adapters.model(ids).logits
        AdapterSlots(adapters.model, [LoRAShape(2, 4, ("q_proj",))])
        zeros = adapters.model(ids).logits
    assert not torch.equal(moved, base), "the slot did something"
    assert torch.equal(left, base)
    assert torch.equal(zeros, base), "new slots hold zeros"


def test_groups_come_after_their_parents_and_rest_on_what_is_prepared(
    groups: list[AdapterGroup], tiny_folder: Path
):
    """The second of the chain comes after the first; a model that is made comes before all that
    is done with it, and one that is made of it is as well."""
    first = tiny.make_stage(tiny_folder, lora=None)
    second = tiny.make_stage(tiny_folder, lora=None, model=first.made_model("/store"))
    child = tiny.make_stage(tiny_folder, model=second.made_model("/store"))
    prepare = Prepare((), (), child.model, LoRASpec())
    made = {"first": group([first], "first"), "second": group([second], "second")}
    pieces = {PREPARE: prepare, "jobs": Jobs(()), **made, "child": group([child], "child")}
    found = {task.name: (task.after, task.needs) for task in tasks_of(pieces)}
    none, makers = frozenset[str](), frozenset(made)
    assert found == {
        PREPARE: (none, makers),
        "jobs": (none, makers),
        "first": (none, none),
        "second": (none, {"first"}),
        "child": (none, {"second", PREPARE}),
    }
    chain = {one.name: one for one in groups if one.name.startswith("chain")}
    assert [task.after for task in tasks_of(chain)] == [none, {"chain-0"}]


def test_a_stage_that_trains_all_weights_has_its_base_for_itself(tiny_folder: Path):
    whole, slot = tiny.make_stage(tiny_folder, lora=None), tiny.make_stage(tiny_folder)
    assert shapes_of([whole]) == []
    with pytest.raises(ValueError, match="cannot share a group"):
        shapes_of([whole, slot])


def test_slots_share_the_references_of_the_same_rows(tiny_folder: Path, tmp_path: Path):
    """At 8B with 15 slots each copy would be 160 MB of the GPU; nobody's are kept."""
    stages = [tiny.make_stage(tiny_folder, method=METHODS["cib"], seed=seed) for seed in (0, 1)]
    loaded, store = load(stages, CPU), Store(tmp_path)
    slots = [open_slot(number, stage, loaded, store) for number, stage in enumerate(stages)]
    assert slots[0].task.cache is slots[1].task.cache is not None
    assert len(loaded.caches) == 1
    slots.clear()
    assert len(loaded.caches) == 0
