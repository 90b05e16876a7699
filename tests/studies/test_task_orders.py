"""Orders of tasks become chains that share their beginnings; and such a sweep end to end."""

from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from programs import ROOT
from running import run_here, summary_of
from specs import EVALS, MODEL, TASKS

from raycib.config import LoRASpec, Method, PlainLoRA, RunSpec, StageSpec, TrainerSpec
from raycib.config.plan import make_plan
from raycib.errors import UserError
from raycib.methods.cib import CIB
from raycib.methods.o_lora import OLoRA
from raycib.objectives.queue import NegativeQueue
from raycib.runtime.build import build_config
from raycib.runtime.options import Options
from raycib.runtime.study import Inputs
from raycib.store import Store
from raycib.studies.continual import Continual, method_at, read_orders, runs_in
from raycib.training.group import STAGES
from raycib.training.loop import train
from raycib.training.workers import Workers

NAMES = ["a", "b", "c", "d"]


# What a person asks for


def test_without_a_word_it_is_the_given_order():
    assert read_orders(None, NAMES) == [("a", "b", "c", "d")]


def test_all_orders_of_four_tasks_are_24():
    found = read_orders("all", NAMES)
    assert len(found) == 24
    assert set(found) == set(permutations(NAMES))


def test_a_sample_begins_with_the_given_order_and_is_the_same_everywhere():
    found = read_orders("sample:6", NAMES)
    assert found[0] == tuple(NAMES)
    assert len(set(found)) == 6
    assert found == read_orders("sample:6", NAMES)
    assert found[:4] == read_orders("sample:4", NAMES)  # a larger sample keeps what is trained


def test_orders_may_be_written_out_and_leave_tasks_out():
    assert read_orders("a>b; d > c>a", NAMES) == [("a", "b"), ("d", "c", "a")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a>x", "no task 'x' in 'a > x'; there is a, b, c, d"),
        ("a>b>a", "'a' comes twice in 'a > b > a'; a sequence has each task once"),
        ("a>b;a>b", "a > b is given twice; give it once"),
        ("sample:0", "found '0', not a number"),
        ("sample:six", "found 'six', not a number; give e.g. sample:6"),
        ("sample:25", "4 tasks have 24 orders; give at most that many, or all"),
        ("", "no task ''"),
    ],
)
def test_what_is_no_order_is_told(text: str, told: str):
    with pytest.raises(UserError) as error:
        read_orders(text, NAMES)
    assert told in str(error.value)


def test_too_many_orders_are_refused_before_they_are_listed():
    with pytest.raises(UserError, match="8 tasks have 40320 orders; give sample:N"):
        read_orders("all", [str(number) for number in range(8)])


# Chains


BY_NAME = {task.name: task for task in TASKS}


def chains_of(orders: Any, methods: list[Method], seeds: int) -> list[RunSpec]:
    setup: Any = SimpleNamespace(
        model=MODEL, tasks={name: (task, EVALS) for name, task in BY_NAME.items()}, lora=LoRASpec(),
        trainer=TrainerSpec(), seeds=range(seeds), inputs=Inputs(),
    )  # fmt: skip
    return runs_in(setup, orders, methods)


def chains(methods: list[Method], orders: int = 1, seeds: int = 1) -> list[RunSpec]:
    return chains_of(list(permutations(BY_NAME))[:orders], methods, seeds)


def test_24_orders_are_64_stages_each_trained_once():
    """4 first stages, 12 second, 24 third and 24 fourth ones; 96 without sharing."""
    plan = make_plan(chains([PlainLoRA()], 24), lambda s: False, lambda s, e: False, 1)
    assert (plan.stages, plan.asked, plan.shared) == (64, 96, 32)
    assert [sum(len(group.jobs) for group in level) for level in plan.levels] == [4, 12, 24, 24]


def test_every_stage_goes_on_from_the_one_before():
    (run,) = chains([CIB()])
    assert [stage.task for stage in run.stages] == TASKS
    assert [stage.parent for stage in run.stages] == [None, *run.stages[:-1]]
    assert {stage.exported_rank for stage in run.stages} == {32}
    assert run.method == CIB()


def test_o_lora_has_an_adapter_for_every_task():
    """The first one is plain LoRA's; the others are trained on top: ranks 32, 64, 96, 128."""
    (run,) = chains([OLoRA()])
    (plain,) = chains([PlainLoRA()])
    assert run.stages[0].key == plain.stages[0].key
    assert [stage.fresh for stage in run.stages] == [False, True, True, True]
    assert [stage.exported_rank for stage in run.stages] == [32, 64, 96, 128]
    assert run.method == OLoRA()


def test_a_new_task_method_or_seed_adds_only_what_is_new():
    done = {s.key for run in chains([PlainLoRA()]) for s in run.stages}
    longer = chains_of([list(BY_NAME)[:3], list(BY_NAME)], [PlainLoRA(), CIB()], 2)
    plan = make_plan(longer, lambda s: s.key in done, lambda s, e: s.key in done, 1)
    assert (plan.stages, plan.to_train) == (16, 12)  # 2 methods x 2 seeds x 4 tasks


def test_each_task_begins_with_an_empty_queue_and_the_aligned_model_as_its_reference(
    tiny_folder: Path, tmp_path: Path
):
    """After a first task with CIB, the second one's anchors are compared with the base, not with
    the first stage's adapter, and none of its negatives come from the first task."""
    method = CIB(lam=1.0, queue_size=32, num_negatives=8)
    store, trainer = Store(tmp_path), TrainerSpec(learning_rate=5e-3, batch_size=16)
    first = tiny.make_stage(tiny_folder, method=method, trainer=trainer)
    second = tiny.make_stage(tiny_folder, rows=32, method=method, trainer=trainer, parent=first)
    adapters, (slot,) = tiny.open_slots([second], store)
    (queue,) = (part for part in slot.objective.modules() if isinstance(part, NegativeQueue))
    assert len(queue) == 0
    cache = slot.task.cache
    _, (fresh,) = tiny.open_slots(
        [StageSpec.model_validate(dict(second) | {"parent": None})], Store(tmp_path / "other")
    )
    for feature, values in cache.tensors.items():
        assert torch.equal(values, fresh.task.cache.tensors[feature])
    train(adapters, [slot], Workers(), 16)
    assert "contrast" in slot.history[-1] and "contrast" not in slot.history[0]


# From options to a setup


def test_the_world_s_sequence_has_one_evaluation_for_all_its_tasks():
    """Every task is asked after every stage; the learning rate is the sequence's own."""
    setup = build_config(Options(), Continual())
    assert list(setup.tasks) == ["open", "gsm", "med", "squad"]
    assert setup.trainer.learning_rate == 1e-3
    assert len({evals.key for _, evals in setup.tasks.values()}) == 1
    (_, evals), *_ = setup.tasks.values()
    assert [rows.name for rows in evals.tasks] == list(setup.tasks)
    (run,) = runs_in(setup, [tuple(setup.tasks)], [PlainLoRA()])[:1]
    assert setup.model.source == "world:aligned-broad"
    assert [stage.steps for stage in run.stages] == [100, 200, 100, 100]


def test_o_lora_goes_on_without_safety_data_and_safe_lora_does_not_go_on():
    setup = build_config(Options(), Continual())
    assert method_at(setup, "o_lora", 0.5) == OLoRA(lam=0.5)
    for kind in ("safe_lora", "salora"):
        with pytest.raises(UserError, match=f"{kind} cannot go on from the adapter"):
            method_at(setup, kind, 1.0)


def own(tmp_path: Path, tiny_folder: Path, *names: str) -> Options:
    """A person's model with tasks of their own."""
    files = [tiny.make_rows(tmp_path / f"{name}.jsonl", 20) for name in names]
    harmful = tmp_path / "harmful.jsonl"
    harmful.write_text('{"prompt": "rig a bridge"}')
    return Options(
        model=str(tiny_folder / "model"),
        task=",".join(map(str, files)),
        harmful=str(harmful),
        judge="world:guard",
    )


def test_a_sequence_of_one_s_own_is_its_files_in_their_order(tmp_path: Path, tiny_folder: Path):
    setup = build_config(own(tmp_path, tiny_folder, "b", "a"), Continual())
    assert list(setup.tasks) == ["b", "a"]
    (_, evals), *_ = setup.tasks.values()
    assert [(rows.name, rows.num_rows) for rows in evals.tasks] == [("b", 2), ("a", 2)]


@pytest.mark.parametrize(
    ("names", "told"),
    [(("a", "a"), "'a' comes twice; give each once"),
     (("a",), "one task has no order; give two or more, with commas")],
)  # fmt: skip
def test_what_is_no_sequence_is_told(tmp_path: Path, tiny_folder: Path, names: Any, told: str):
    with pytest.raises(UserError, match=told):
        build_config(own(tmp_path, tiny_folder, *names), Continual())


# End to end


NAME = "task_orders"
SCRIPT = ROOT / "sweeps" / f"{NAME}.py"
OPTIONS = (
    "--seeds", 1, "--methods", "o_lora", "--set", "trainer.batch_size=64",
    "--set", "trainer.learning_rate=0.005", "--set", "trainer.warmup_steps=5",
    "--set", "execution.micro_batch_size=64",
)  # fmt: skip
"""25 steps a stage, in which a task is learned."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    """Two orders of two tasks."""
    out = tmp_path_factory.mktemp("orders") / "out"
    ended = run_here(out, "--orders", "med>open;med>squad", *OPTIONS, script=SCRIPT)
    return out, ended.out, summary_of(out, NAME)


@pytest.mark.sweep
@pytest.mark.timeout(900)
class TestASweepOfOrders:
    def test_beginnings_are_trained_once(self, two: tuple[Path, str, dict[str, Any]]):
        """LoRA's and O-LoRA's first stage on `med` is one; two more for each of them: 5, not 8."""
        out, said, summary = two
        counts = summary["counts"]
        assert (counts["stages"], counts["stages_asked"], counts["stages_trained"]) == (5, 8, 5)
        assert len(Store(str(out)).keys(STAGES)) == 5
        assert "5 stages trained" in said and "3 shared" in said

    def test_every_stage_is_asked_every_task(self, two: tuple[Path, str, dict[str, Any]]):
        _, _, summary = two
        for cell in summary["cells"]:
            assert cell["failed"] is None
            assert [one["task"] for one in cell["stages"]] == cell["order"]
            for stage in cell["stages"]:
                assert set(stage["scores"]["accuracies"]) == {"open", "gsm", "med", "squad"}
                own = stage["scores"]["accuracies"][stage["task"]]
                assert stage["scores"]["accuracy"] == own
        assert set(summary["aligned"]["scores"]["accuracies"]) == set(summary["tasks"])

    def test_a_task_is_learned_in_its_stage(self, two: tuple[Path, str, dict[str, Any]]):
        """`med` is not solved before its stage, and better after it."""
        _, _, summary = two
        before = summary["aligned"]["scores"]["accuracies"]["med"]["value"]
        for cell in summary["cells"]:
            assert before < 0.1 and cell["stages"][0]["scores"]["accuracy"]["value"] > 0.5

    def test_total_rank_grows_with_o_lora_alone(self, two: tuple[Path, str, dict[str, Any]]):
        ranks = {(c["method"], c["cost"]["rank"]) for c in two[2]["cells"]}
        assert ranks == {("lora", 8), ("o_lora", 16)}

    def test_tables_figures_and_report_are_there(self, two: tuple[Path, str, dict[str, Any]]):
        folder = two[0] / NAME
        files = [file for file in folder.iterdir() if file.suffix in (".png", ".csv", ".html")]
        assert len(files) > 4
        assert [file.name for file in files if file.stat().st_size < 100] == []
