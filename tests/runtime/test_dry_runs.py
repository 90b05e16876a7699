"""What `--dry-run` says: stages that cells share are trained once, what a sweep varies cannot be
set; and the menu of methods."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from programs import RAYCIB, SWEEPS, Ended, Program, own_rows

from raycib import world
from raycib.config.menu import menu
from raycib.model_files import find, weights_fingerprint

Planned = Callable[..., Ended]


@pytest.fixture
def planned(program: Program, tmp_path: Path) -> Planned:
    """The plan of a sweep, by its name."""

    def run(sweep: str, *arguments: object, code: int = 0) -> Ended:
        place = ("--dry-run", "--out", tmp_path / "out")
        ended = program(SWEEPS / f"{sweep}.py", *place, *arguments)
        assert ended.code == code, ended
        return ended

    return run


def test_a_dry_run_prints_the_plan_and_trains_nothing(planned: Planned, tmp_path: Path) -> None:
    ended = planned("lambda_grid", "--strengths", "0,5", "--group-size=2")
    judge_weights = weights_fingerprint(find("world:guard"))[:12]
    assert ended.err == ""
    settings, besides, first, *lines = ended.out.splitlines()
    last = lines.index("models to question: 7")
    taken, lines = lines[last + 1 :], lines[:last]
    assert settings == (
        "preset world: learning rate 0.002, schedule constant, batch 16, epochs 1, warm-up steps "
        "20, rank 8, alpha 16, precision float32, tokens of a row 128, tokens of an answer 40, "
        f"answers by vLLM, judge world:guard {judge_weights}"
    )
    assert besides == (
        "besides: steps of open 200 (its rows), judge profile world (known by its files or name), "
        "judge categories 3 (its profile)"
    )
    assert first.startswith("lambda_grid: 6 stages, 0 reused, 6 to train, 0 failed before")
    sets, groups = lines[:-3], lines[-3:]
    assert sets[0] == "  open: 3200 rows, longest 30 of 128 tokens"
    assert "  harmful: 260 rows, longest 14 of 216 tokens, answers up to 40" in sets
    assert not [line for line in sets if "too long" in line], "the world's rows fit"
    assert all("2 slots x 200 steps" in group for group in groups)
    assert ended.out.count("cib 5 seed") == ended.out.count("lora 0 seed") == 3
    assert [line[:14].strip() for line in taken] == [
        "adapters", "tokens a row", "training", "references", "answers", "memory", "memory",
        "memory", *["core hours"] * 5, "disk", "assumed",
    ]  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_comparison_trains_what_methods_share_once(planned: Planned, tmp_path: Path) -> None:
    """Plain LoRA, Safe LoRA at two thresholds and KL at two weights: the LoRA stage is trained
    once, both Safe LoRAs are derived from it in a second level, and the plan says why."""
    options = ["--methods", "safe_lora,kl", "--strengths", "1.5,1.8", "--seeds", "1"]
    ended = planned("method_comparison", *options)
    assert "method_comparison: 5 stages, 0 reused, 5 to train" in ended.out
    assert "level 2 waits for level 1: safe_lora is derived from its parent's adapter" in ended.out
    first, second = (
        [line for line in ended.out.splitlines() if line.startswith(f"level {level}  pack-")]
        for level in (1, 2)
    )
    assert sum(line.count("lora 0 seed 0") for line in first) == 1
    assert sum(line.count("kl ") for line in first) == 2
    assert sum(line.count("safe_lora 1.") for line in second) == 2
    assert all(" 0 steps" in line for line in second)


def test_every_method_of_a_comparison_at_strength_zero_is_the_lora_stage(
    planned: Planned, tmp_path: Path
) -> None:
    """But those that need a stage on safety data or a start of their own."""
    kinds = "random_subset,kl,cib,constrained_token,ema,case2,safe_lora,safety_mix,sbr,safegrad"
    options = ["--methods", kinds, "--strengths", "0", "--seeds", "1"]
    ended = planned("method_comparison", *options)
    assert "method_comparison: 1 stage, 0 reused, 1 to train" in ended.out, ended
    assert " 1 slot x 200 steps: lora 0 seed 0" in ended.out
    assert not list(Path(tmp_path).rglob("method_comparison")), "a plan makes no folder"


def test_a_comparison_without_safety_data_or_base_says_what_it_lacks(
    planned: Planned, tmp_path: Path
) -> None:
    own = ["--model", world.folder("aligned"), *own_rows(tmp_path)]
    ended = planned("method_comparison", *own, "--seeds", "1")
    (left_out,) = [line for line in ended.out.splitlines() if "left out: " in line]
    assert "Safe LoRA (give --base), SaLoRA (give --safety)" in left_out
    assert "EWC" not in left_out, "safety data would not bring it in: it is not in the grid"
    assert "salora" not in ended.out
    assert "kl 0.1 seed 0" in ended.out
    ended = planned("method_comparison", *own, "--methods", "kl,safe_lora", code=2)
    assert "no cell of this sweep has safe_lora; it needs --base" in ended.err, "it was asked for"


def test_the_menu_tells_cost_need_and_deviations_of_every_method(program: Program) -> None:
    ended = program(RAYCIB, "methods", "--json")
    shown = json.loads(ended.out)
    assert list(shown) == list(menu())
    facts = {"name", "paper", "strength", "acts_by", "passes", "needs", "deviations"}
    facts |= {"about", "settings"}
    assert all(entry.keys() == facts and all(entry[f] for f in facts - {"settings"})
               for entry in shown.values())  # fmt: skip
    assert shown["cib"]["settings"]["lam"]["default"] == 5.0
    assert shown["safe_lora"]["settings"]["base"]["default"] == "required"
    assert shown["case2_ball"]["settings"]["epsilon"]["default"] == "inf"
    assert "Infinity" not in ended.out, "which no JSON parser but Python's would read"
    assert all(s["about"] for entry in shown.values() for s in entry["settings"].values())
    assert list(json.loads(program(RAYCIB, "methods", "sbr", "--json").out)) == ["sbr"]
    assert "no method 'sb'; there is lora (LoRA), " in program(RAYCIB, "methods", "sb").err


def test_cells_that_are_one_training_are_named(planned: Planned, tmp_path: Path) -> None:
    options = ["--methods", "kl,cib", "--strengths", "0,1", "--seeds", "1"]
    ended = planned("method_comparison", *options)
    assert "5 cells are 3 different ones: lora 0 seed 0 = kl 0 seed 0 = cib 0 seed 0" in ended.out


@pytest.mark.parametrize(
    ("sweep", "change", "says"),
    [
        ("lambda_grid", "cib.lam=3", "as the strength of cib; give --strengths 3"),
        ("negatives", "cib.lam=3", "give --strengths 3"),
        ("negatives", "cib.queue=recent", "varies it itself"),
        ("negatives", "cib.draw=hardest", "varies it itself"),
        ("negatives", "cib.num_negatives=8", "varies it itself"),
        ("cib_options", "cib.pooling=last_token", "varies it itself (mean_response, last_prompt"),
        ("cib_options", "cib.temperature=0.3", "varies it itself (0.2, 0.05, 1.0)"),
        ("epsilon_grid", "case2_ball.epsilon=2", "give --strengths 2"),
        ("epsilon_grid", "case1.lam=2", "give --strengths 2"),
        ("penalty_grid", "case1.lam=0.2", "give --strengths 0.2"),
        ("task_orders", "o_lora.lam=0.5", "give --strengths 0.5"),
        ("task_orders", "ema.decay=0.5", "no cell of this sweep uses ema"),
        ("method_comparison", "random_subset.fraction=0.75", "give --strengths 0.25"),
        ("method_comparison", "salora.init=default", "varies it itself"),
        ("lambda_grid", "kl.direction=reverse", "no cell of this sweep uses kl"),
    ],
)
def test_what_a_sweep_varies_cannot_be_set(
    planned: Planned, sweep: str, change: str, says: str
) -> None:
    said = planned(sweep, "--set", change, code=2).refusal
    assert said.startswith(f"error: --set {change.partition('=')[0]}: ")
    assert says in said


@pytest.mark.parametrize(
    ("sweep", "change", "stages"),
    [
        ("lambda_grid", "cib.temperature=0.3", 15),
        ("negatives", "cib.temperature=0.3", 21),
        ("method_comparison", "trainer.learning_rate=1e-3", 46),
        ("method_comparison", "cib.draw=most_similar", 46),
        ("method_comparison", "trainer.learning_rate=2e-3", 46),
        ("task_orders", "lora.rank=4", 57),
    ],
)
def test_what_a_sweep_does_not_vary_is_set_in_every_cell(
    planned: Planned, sweep: str, change: str, stages: int
) -> None:
    """Or moves with what is varied: the comparison's slower learning rates are parts of its own."""
    ended = planned(sweep, "--set", change)
    assert f"{sweep}: {stages} stages, 0 reused, {stages} to train" in ended.out
    assert "different ones" not in ended.out


def test_an_endpoint_is_shown_by_its_whole_name_and_what_told_how_to_ask_it(
    planned: Planned,
) -> None:
    judges = "some-model-of-2026-11@http://localhost:1/v1,llama-guard-3-8b@http://localhost:1/v1"
    ended = planned("lambda_grid", "--judge", judges, "--seeds=1")
    for said in (
        "/v1 some-model-of-2026-11 (--judge), judge profile instruct (no guard by its name)",
        "/v1 llama-guard-3-8b (--judge), judge 2 profile llama-guard-3 (known by its name)",
    ):
        assert said in ended.out, ended


def test_looks_that_no_training_is_long_enough_for_are_told(planned: Planned) -> None:
    options = ["lambda_grid", "--seeds=1", "--hrr-every"]
    assert "--hrr-every" not in planned(*options, 199).out
    said = "note: --hrr-every 200: open has 200 steps, so that no look is between"
    assert said in planned(*options, 200).out
