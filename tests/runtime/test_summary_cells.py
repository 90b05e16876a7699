"""What a summary says of cells before anything is trained: what each sees, takes and is called."""

import runpy
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from synthetic_sweep import LAMBDA_GRID, options_of

from raycib.config import About, Method
from raycib.report.frame import to_frame
from raycib.results import Cell, Results
from raycib.runtime.build import build_config
from raycib.runtime.summary import summarise
from raycib.runtime.sweep import Sweep
from raycib.studies.comparison import Comparison


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The comparison of all methods on the embedded world, over an empty store."""
    script = runpy.run_path(str(LAMBDA_GRID.parent / "method_comparison.py"))
    out = tmp_path_factory.mktemp("comparison")
    setup = build_config(options_of(out, seeds=1), Comparison(script["STRENGTHS"]))
    sweep = Sweep(setup, setup.runs_of(script["variants"](setup)))
    one, *others = sweep.stages
    failures = {one: "out of memory", others[-1]: "out of memory"}
    return summarise(sweep, ("comparison", ""), sweep.plan(1), failures, {"judge_calls": 3}, {})


def by_name(told: Results) -> dict[str, Cell]:
    return {cell.label or cell.method: cell for cell in told.cells}


def test_who_sees_safety_data_is_known_of_the_whole_chain(told: Results) -> None:
    """Of the last stage's rows, of the method's own, and of a stage before; Safe LoRA and Vaccine's
    perturbation read weights and the task's rows alone."""
    assert {name for name, cell in by_name(told).items() if cell.safety_data} == {
        "salora", "o_lora", "safety_mix", "sbr", "safegrad", "SaLoRA, LoRA's own start",
        "LoRA after safety data", "Vaccine on safety data, then LoRA",
    }  # fmt: skip


def test_steps_are_the_whole_chains_and_derived_cells_are_not_trained(told: Results) -> None:
    """3,200 rows once in batches of 16, half of them, four fifths; and after ten epochs of 70
    refusals, 5 steps each."""
    cells = by_name(told)
    steps = {
        cell.strength: cell.cost.steps for cell in told.cells if cell.method == "random_subset"
    }
    assert (cells["lora"].cost.steps, steps[0.5], steps[0.2]) == (200, 100, 160)
    assert cells["LoRA after safety data"].cost.steps == 250
    assert {cell.method for cell in told.cells if not cell.cost.trained} == {"safe_lora"}
    ranks = {name: cell.cost.rank for name, cell in cells.items()}
    assert (ranks["lora"], ranks["salora"], ranks["o_lora"]) == (8, 16, 16)


def test_plain_lora_of_another_kind_has_another_name(told: Results) -> None:
    """What all else is held against is one row."""
    assert [cell.label for cell in told.cells if cell.method == "lora"] == [None]
    variants = [cell.label for cell in told.cells if cell.method == "lora_variant"]
    assert len(variants) == 3 and all(variants)


def test_failures_and_what_the_run_did_are_counted(told: Results) -> None:
    """Two stages failed; no cell has scores."""
    counts, failed = told.counts, [cell.failed or "" for cell in told.cells]
    assert (counts.stages_failed, counts.cells_failed) == (2, len(told.cells))
    assert (counts.judge_calls, counts.engine_starts, counts.stages_trained) == (3, 0, 0)
    assert counts.stages_asked == counts.stages + counts.stages_shared
    assert sum(text == "out of memory" for text in failed) == 2
    assert all(text.startswith(("not finished", "out of memory")) for text in failed)


class Decayed(Method):
    """Its settings are called as the trainer's, the adapter's and a cell's own are."""

    about: ClassVar[About] = About("Decayed", "none", "lam: none", "none", "nothing", "none")
    kind: Literal["decayed"] = "decayed"
    lam: float = 1.0
    weight_decay: float = 0.5
    lora_rank: int = 3
    seed: int = 7


@pytest.mark.parametrize("name", ["weight_decay", "lora_rank", "seed"])
def test_a_methods_own_setting_is_not_lost_to_another_of_its_name(
    name: str, tmp_path: Path
) -> None:
    """Two cells that differ by it alone were two seeds of one row."""
    setup = build_config(options_of(tmp_path, seeds=1), Comparison(()))
    sweep = Sweep(setup, setup.runs_of([Decayed(), Decayed.at(1.0, **{name: 9})]))
    told = summarise(sweep, ("own", ""), sweep.plan(1), {}, {}, {})
    own = [cell.parameters[f"method_{name}"] for cell in told.cells]
    assert own == [getattr(Decayed(), name), 9]
    first, second = to_frame(told).to_dict("records")
    assert (first["seed"], second["seed"]) == (0, 0)
    assert (first["series"], second["series"]) == tuple(
        f"Decayed, method_{name} {value}" for value in own
    )
    assert (first["weight_decay"], first["lora_rank"]) == (0.0, 8), (
        "the trainer's and the adapter's"
    )
