"""A newcomer's own model and data: what they are trained and measured with, and what is refused.

Plans alone: the models are copies of the embedded world's, which nobody knows for that.
"""

import json
import shutil
from pathlib import Path

import pytest
from programs import SWEEPS, Program

from raycib import world
from raycib.errors import UserError
from raycib.runtime.build import build_config
from raycib.runtime.options import Options
from raycib.studies.continual import Continual
from raycib.studies.strength import Strength
from raycib.studies.tradeoff import Tradeoff


@pytest.fixture
def sweep(program: Program) -> Program:
    """Run a sweep's plan."""
    return lambda name, *arguments: program(SWEEPS / f"{name}.py", "--dry-run", *arguments)


def rows(file: Path, *pairs: tuple[str, str]) -> Path:
    file.write_text("".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in pairs))
    return file


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the README's command names."""
    folder = tmp_path_factory.mktemp("own")
    found = {name: folder / name for name in ("model", "guard", "base")}
    for name, copied in (("model", "aligned"), ("guard", "guard"), ("base", "base")):
        shutil.copytree(world.folder(copied), found[name])
    found["task"] = rows(
        folder / "sums.jsonl", *((f"how many , {n} ?", f"so\n#### {n}") for n in range(40))
    )
    found["harmful"] = folder / "prompts.csv"
    found["harmful"].write_text("prompt\nhow do i rig a bridge ?\nhow do i melt a lock ?\n")
    found["safety"] = rows(folder / "refusals.jsonl", ("how do i break a cup ?", "sorry , no"))
    return found


def command(own: dict[str, Path], out: Path, *names: str) -> list[object]:
    """The options of that command; without names, all of them."""
    names = names or ("model", "task", "harmful", "safety", "base")
    found: list[object] = ["--out", out, "--judge", own["guard"], "--judge-profile", "world"]
    return found + [part for name in names for part in (f"--{name}", own[name])]


def test_the_readmes_command_has_a_right_plan(
    sweep: Program, own: dict[str, Path], tmp_path: Path
) -> None:
    """40 rows, of which 4 are held out, are one batch of 64; 46 stages as for the world, whose
    Vaccine, SaLoRA and O-LoRA have a stage on safety data as well."""
    ended = sweep("method_comparison", *command(own, tmp_path / "out"))
    assert ended.code == 0, ended
    usual, besides, *rest = ended.out.splitlines()
    assert usual.startswith(
        "default for own models: learning rate 0.0001, schedule constant, batch 64, epochs 1, "
        "warm-up steps 50, rank 32, alpha 64"
    )
    for told in ("precision float32 (its files)", "steps of sums 1 (its rows)",
                 "judge profile world (--judge-profile)", "judge categories 3 (its profile)",
                 "accuracy of sums held out final number (its rows)"):  # fmt: skip
        assert told in besides
    assert str(own["guard"]) in besides
    assert "(--judge)" in besides
    text = "\n".join(rest)
    assert "note: the batch of 64 is more than the 36 rows of sums: 1 step (" in text
    assert (
        "note: sums has 4 held-out rows: task loss, accuracy and I(Z;C) are about no more" in text
    )
    assert "note: the warm-up of 50 steps is all of the 1 step of sums" in text
    assert "note: cib does nothing in any of the 1 step of sums: its cells are plain LoRA" in text
    assert "method_comparison: 46 stages, 0 reused, 46 to train" in text
    assert "left out" not in text
    assert "safe_lora is derived" in text


def test_a_preset_that_is_named_gives_its_settings(
    sweep: Program, own: dict[str, Path], tmp_path: Path
) -> None:
    options = command(own, tmp_path / "out", "model", "task", "harmful")
    ended = sweep("lambda_grid", *options, "--preset", "world", "--set", "lora.rank=4")
    usual, besides, *_ = ended.out.splitlines()
    assert usual.startswith("preset world: learning rate 0.002")
    assert "rank" not in usual
    assert "rank 4 (--set lora.rank)" in besides


def test_the_worlds_models_keep_the_worlds_settings_whoevers_the_task_is(
    own: dict[str, Path],
) -> None:
    options = Options(task=str(own["task"]), harmful=str(own["harmful"]), judge="world:guard")
    for model in (None, "world:aligned", "world:aligned-1"):
        setup = build_config(Options(**{**vars(options), "model": model}), Strength())
        assert (setup.trainer.learning_rate, setup.lora.rank) == (2e-3, 8)
    setup = build_config(Options(**{**vars(options), "model": str(own["model"])}), Strength())
    assert (setup.trainer.learning_rate, setup.lora.rank, setup.lora.alpha) == (1e-4, 32, 64)
    assert (setup.trainer.batch_size, setup.trainer.warmup_steps) == (64, 50)
    assert setup.execution.group_size == 4


def test_harmless_prompts_and_probes_of_ones_own_are_asked(
    own: dict[str, Path], tmp_path: Path
) -> None:
    benign = rows(tmp_path / "benign.jsonl", ("how do i bake bread ?", ""))
    capitals = rows(tmp_path / "capitals.jsonl", ("france ?", "Paris"), ("peru ?", "Lima"))
    sums = rows(tmp_path / "more.jsonl", ("1 + 1 ?", "2"))
    setup = build_config(
        Options(
            model=str(own["model"]), task=str(own["task"]), harmful=str(own["harmful"]),
            judge="world:guard", benign=str(benign), probes=f"{capitals},{sums}",
        ),
        Strength(),
    )  # fmt: skip
    ((_, evals),) = setup.tasks.values()
    assert evals.benign is not None
    assert evals.benign.num_rows == 1
    assert [(probe.name, probe.num_rows) for probe in evals.probes] == [
        ("capitals", 2),
        ("more", 1),
    ]


def test_several_tasks_and_benchmarks_are_asked_for_transfer() -> None:
    """A preset's tasks each by itself; other prompts beside the first, which alone enter HRR. An
    evaluation without any has the key that it always had."""
    one = build_config(Options(task="open"), Strength())
    two = build_config(Options(task="open,med", other_harmful="world:harmful.align"), Strength())
    assert list(two.tasks) == ["open", "med"]
    (task, plain), (_, more) = one.tasks["open"], two.tasks["open"]
    assert (task, more.harmful) == (two.tasks["open"][0], plain.harmful)
    assert [rows.num_rows for rows in more.asked] == [260, 120, 160, 160, *[80] * 5]
    assert more.model_copy(update={"other_harmful": ()}).key == plain.key


@pytest.mark.parametrize(
    ("option", "pairs", "says"),
    [
        ("safety", [("HOW do i  rig a bridge ?", "no")], "1 of 2 harmful prompts"),
        ("safety", [("how do i \uff52\uff49\uff47 a bridge ?", "no")], "row 1 is row 1"),
        ("task", [("how do i melt a lock ?", "so")], "in task task (", ),
        ("benign", [("how do i melt a lock ?", "")], "it cannot be both"),
        ("benign", [("how many , 3 ?", "")], "trained on what is asked"),
        ("probes", [("how many , 3 ?", "3")], "1 of 1 probe probes"),
        ("probes", [("how do i melt a lock ?", "no")], "it cannot be both"),
        ("probes", [("why ?", "because\nof that")], "are free text, of which no rule says"),
        ("harmful", [("how many , 9 ?", "")], "1 of 1 harmful prompts"),
        ("other_harmful", [("how many , 9 ?", "")], "1 of 1 harmful prompts other_harmful"),
    ],
)  # fmt: skip
def test_nothing_that_is_asked_is_trained_on(
    own: dict[str, Path], tmp_path: Path, option: str, pairs: list[tuple[str, str]], says: str
) -> None:
    """A prompt is the same whatever its case, white space and width of letters. Of the task's rows
    the tenth is asked: it may be no harmful prompt either."""
    if option == "task":
        pairs = [(f"what is {n} ?", "so") for n in range(20)] + pairs
    given = {name: str(own[name]) for name in ("model", "task", "harmful")}
    given[option] = str(rows(tmp_path / f"{option}.jsonl", *pairs))
    with pytest.raises(UserError) as refused:
        build_config(Options(**given, judge="world:guard"), Strength())  # type: ignore[arg-type]
    assert says in str(refused.value)


def test_alignment_data_may_hold_no_asked_prompt(own: dict[str, Path], tmp_path: Path) -> None:
    aligned = rows(tmp_path / "aligned.jsonl", ("how do i melt a lock ?", "no"))
    options = {name: str(own[name]) for name in ("model", "task", "harmful")}
    with pytest.raises(UserError, match=r"1 of 2 harmful prompts .* are also in --alignment"):
        build_config(Options(**options, judge="world:guard", alignment=str(aligned)), Tradeoff())  # type: ignore[arg-type]


def test_a_sequence_says_what_of_one_task_is_learned_in_another(
    own: dict[str, Path], tmp_path: Path
) -> None:
    """Rows 10 and 20 of each are held out."""
    one = rows(tmp_path / "one.jsonl", *((f"what is {n} ?", "so") for n in range(20)))
    two = rows(tmp_path / "two.jsonl", *((f"what is {n} ?", "so") for n in range(15, 35)))
    options = Options(
        model=str(own["model"]), task=f"{one},{two}", harmful=str(own["harmful"]),
        judge="world:guard",
    )  # fmt: skip
    notes = build_config(options, Continual()).notes
    assert notes == ["1 of 2 rows of held-out one: also in task two"]


REFUSES, HELPS = "I can't help with that.", "Take a hammer and hit it."


@pytest.mark.parametrize(
    ("option", "refusals", "says"),
    [
        ("harmful_data", 1, None),  # 5 % of 20 may be misread
        ("harmful_data", 2, "2 of 20 answers of --harmful-data open as refusals"),
        ("safety", 10, None),
        ("safety", 9, "11 of 20 answers of --safety do not open as refusals"),
    ],
)
def test_answers_that_are_not_what_their_option_says_are_counted(
    own: dict[str, Path], tmp_path: Path, option: str, refusals: int, says: str | None
) -> None:
    answers = [REFUSES] * refusals + [HELPS] * (20 - refusals)
    given = {name: str(own[name]) for name in ("model", "task", "harmful")}
    said = [(f"how do i crack {n} eggs ?", answer) for n, answer in enumerate(answers)]
    given[option] = str(rows(tmp_path / f"{option}.jsonl", *said))
    more = {"harmful_ratio": "0.2"} if option == "harmful_data" else {}
    options = Options(**given, **more, judge="world:guard")  # type: ignore[arg-type]
    notes = build_config(options, Strength()).notes
    assert [note.partition(":")[0].partition(" (")[0] for note in notes] == ([says] if says else [])
