"""The command line without a cluster: bad input is one line and exit code 2, a plan costs nothing.

Programs run inside this process, as `python sweeps/lambda_grid.py` would run them; those that must
be interrupted run for real.
"""

import json
import os
import runpy
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from raycib import world
from raycib.model_files import find, weights_fingerprint

ROOT = Path(__file__).parents[1]
SWEEP = ROOT / "sweeps" / "lambda_grid.py"
COMPARISON = ROOT / "sweeps" / "method_comparison.py"
RAYCIB = ROOT / "raycib" / "__main__.py"


class Ended(NamedTuple):
    """How a program ended."""

    code: int
    out: str
    err: str


Program = Callable[..., Ended]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Program:
    """Run a script of this repository with arguments."""

    def run(script: Path, *arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
        code = ended.value.code
        assert isinstance(code, int)
        return Ended(code, *capfd.readouterr())

    return run


@pytest.fixture
def refused(program: Program, tmp_path: Path) -> Callable[..., str]:
    """Run the sweep and have it refuse its input; the line it says."""

    def run(*arguments: object) -> str:
        out = tmp_path / "out"
        ended = program(SWEEP, "--out", out, *arguments)
        assert ended.code == 2, ended
        assert ended.out == ""
        assert ended.err.startswith("error: ")
        assert ended.err.count("\n") == 1, f"one line, not\n{ended.err}"
        assert not out.exists(), "a refused command writes nothing"
        return ended.err

    return run


def save(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--lambda", "5"], "No such option"),
        (["surplus"], "surplus"),
        (["--seeds", "many"], "Input should be a valid integer"),
        (["--seeds", "0"], "'--seeds': Input should be greater than or equal to 1"),
        (["--workers", "0"], "'--workers': Input should be greater than or equal to 1"),
        (["--group-size", "-1"], "'--group-size': Input should be greater than"),
        (["--max-length", "1"], "'--max-length': Input should be greater than"),
        (["--max-tokens", "0"], "'--max-tokens': Input should be greater than or equal to 1"),
        (["--preset", "moon"], "no preset 'moon'; there is world, llama31-8b, qwen25-7b"),
        (["--seeds", "1001"], "'--seeds': Input should be less than or equal to 1000"),
        (
            ["--strengths=-1"],
            "cib cannot have -1: Input should be greater than or equal to 0 (as CIB.lam)",
        ),
        (["--strengths", "0,much"], "give numbers like 0,1,5"),
        (["--strengths", "nan"], "nan is no number"),
        (["--strengths", "nan", "--methods", "lora"], "nan is no number"),
        (["--set", "trainer.betas=[1,2]"], "TrainerSpec.betas.0: Input should be less than 1"),
        (["--set", "lora.targets=[]"], "LoRASpec.targets"),
        (["--strengths", "inf"], "CIB.lam"),
        (["--strengths", ""], "give numbers like 0,1,5"),
        (["--strengths", "5,5.0"], "5 comes twice"),
        (["--strengths", "1,0,-0"], "0 comes twice"),
        (["--strengths", "1" * 10_000], "cib cannot have inf"),
        (["--set", "cib.lamda=1"], "cib has no 'lamda'; it has kind, lam, temperature"),
        (["--set", "cib.temperature=-0.2"], "CIB.temperature: Input should be greater than 0"),
        (["--set", "trainer.batch_size=0"], "TrainerSpec.batch_size"),
        (["--set", "trainer.batch_size=half"], "TrainerSpec.batch_size"),
        (["--set", "trainer.learning_rate=NaN"], "TrainerSpec.learning_rate"),
        (["--set", "lora.rank=1.5"], "LoRASpec.rank"),
        (["--set", "cib.kind=lora"], "CIB.kind"),
        (["--set", "lora.rank=true"], "rank is no switch"),
        (["--set", "trainer.epochs=" + "[" * 100_000], "nested too deeply"),
        (["--set", "trainer.epochs=" + "9" * 100_000], "TrainerSpec.epochs"),
        (["--set", "trainer.learning_rate=1" + "0" * 400], "TrainerSpec.learning_rate"),
        (["--set", "trainer.schedule=" + "x" * 100_000], "TrainerSpec.schedule"),
        (["--set", "trainer.schedule=\udcff"], "--set 'trainer.schedule=\\udcff' holds a byte"),
        (["--set", "lora.rank=4", "--set", "lora.rank=4.0"], "lora.rank: it is set twice"),
        (["--preset", "x" * 100_000], "no preset"),
        (["--task", "rows\0.jsonl"], "--task 'rows\\x00.jsonl' holds a byte that is no text"),
        (["--judge-url", "http://\udcff"], "holds a byte that is no text"),
        (["--set", "optimizer.lr=1"], "a part of lora, case1, case2"),
        (["--set", "cib"], "write PART.NAME=VALUE"),
        (["--set", "execution.gpus=1"], "execution has no 'gpus'; it has workers, strategy, "),
        (["--set", "execution.micro_batch_tokens=0"], "Execution.micro_batch_tokens"),
        (["--set", "execution.judge_cpus=Infinity"], "Execution.judge_cpus"),
        (["--set", "execution.engine_gpus=-1"], "Execution.engine_gpus"),
        (["--set", "execution.attention=fast"], "Execution.attention: Input should be 'eager'"),
        (["--set", "execution.checkpoint_activations=7"], "Execution.checkpoint_activations"),
        (["--set", "execution.workers=true"], "workers is no switch"),
        (["--methods", "vacine"], "no method 'vacine'; there is lora (LoRA), case1 (Case I)"),
        (["--base", "world:aligned"], "has the weights of the aligned model itself"),
        (["--safety", "world:harmful.test"], "rows without a response"),
        (["--model", "world:aligned"], "--model, --task and --harmful go together"),
        (["--task", "rows.jsonl"], "--model, --task and --harmful go together"),
        (["--judge", "world:nobody"], "nobody"),
        (["--judge", "/nowhere/guard"], "no model folder at '/nowhere/guard'"),
    ],
)
def test_a_wrong_option_is_refused(
    refused: Callable[..., str], arguments: list[str], says: str
) -> None:
    assert says in refused(*arguments)


ROW = {"question": "how many ?", "answer": "two"}
TASK = "".join(json.dumps({"question": f"how many, {n} ?", "answer": "two"}) + "\n"
               for n in range(20))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.jsonl", None, "no data file at"),
        ("empty.jsonl", "", "has no rows"),
        ("empty.csv", "prompt,response\n", "has no rows"),
        ("empty.json", "[]", "has no rows"),
        ("rows.txt", "how many ? two", "give a .json, .jsonl, .csv"),
        ("cut.jsonl", json.dumps(ROW) + '\n{"question": "how', "line 2 is not JSON"),
        ("cut.json", '[{"question": "how', "is not JSON"),
        ("deep.json", "[" * 100_000, "is not JSON"),
        ("number.json", "5", "not a list of rows"),
        ("object.json", '{"rows": 5}', "not a list of rows"),
        ("words.json", '["how", "many"]', "not named columns"),
        ("quote.csv", 'prompt,response\n"how many ?,two\n', "quote.csv"),
        ("columns.jsonl", '{"text": "how many ?"}', "no prompt in c"),
        ("mute.jsonl", TASK.replace("two", ""), "without a response"),
        ("latin.csv", b"prompt,response\nna\xefve,yes\n", "is not UTF-8 text"),
        ("few.jsonl", (json.dumps(ROW) + "\n") * 9, "a task needs at least 10"),
    ],
)
def test_a_data_file_that_holds_no_rows_is_refused(
    refused: Callable[..., str], tmp_path: Path, name: str, content: str | bytes | None, says: str
) -> None:
    task = tmp_path / name
    if content is not None:
        save(task, content)
    harmful = save(tmp_path / "harmful.jsonl", '{"prompt": "how do i harm ?"}')
    said = refused("--task", task, "--harmful", harmful, "--judge", "world:guard")
    assert says in said
    assert name in said, "it says which file"


def test_harmful_prompts_of_ones_own_need_a_judge_that_can_read_them(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    task = save(tmp_path / "task.jsonl", TASK)
    harmful = save(tmp_path / "harmful.jsonl", '{"prompt": "how do i harm ?"}')
    assert "give --judge" in refused("--task", task, "--harmful", harmful)


def copied_model(folder: Path) -> Path:
    return Path(shutil.copytree(world.folder("aligned"), folder))


def config_with(**fields: object) -> Callable[[Path], None]:
    def spoil(model: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | fields))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (shutil.rmtree, "no model folder at"),
        (lambda model: (model / "config.json").unlink(), "has no config.json"),
        (lambda model: save(model / "config.json", "{"), "config.json"),
        (lambda model: save(model / "config.json", "[]"), "config.json"),
        (lambda model: (model / "model.safetensors").unlink(), "has no *.safetensors"),
        (config_with(auto_map={"AutoModel": "evil.Model"}), "sets 'auto_map'"),
        (config_with(_attn_implementation_internal="x/y"), "sets '_attn_implementation_internal'"),
        (config_with(trust_remote_code=True), "sets 'trust_remote_code'"),
    ],
    ids=["gone", "no config", "cut config", "odd config", "no weights", "code", "kernel", "trust"],
)
def test_a_model_that_cannot_or_must_not_be_loaded_is_refused(
    refused: Callable[..., str], tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    model = copied_model(tmp_path / "model")
    spoil(model)
    task = save(tmp_path / "task.jsonl", TASK)
    harmful = save(tmp_path / "harmful.jsonl", '{"prompt": "how do i harm ?"}')
    options = ["--task", task, "--harmful", harmful, "--judge", "world:guard"]
    assert says in refused("--model", model, *options)


@pytest.mark.parametrize(
    "out", ["/proc/raycib", "a-file", "a-file/below", "ftp://host/x", "x" * 300, "y\0"]
)
def test_results_that_cannot_be_written_are_refused(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a-file", "mine")
    ended = program(SWEEP, "--out", out)
    assert ended.code == 2, ended
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert len(ended.err) < 2500
    assert ended.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]
    assert (tmp_path / "a-file").read_text() == "mine"


def test_a_dry_run_prints_the_plan_and_trains_nothing(program: Program, tmp_path: Path) -> None:
    ended = program(
        SWEEP, "--out", tmp_path / "out", "--dry-run", "--strengths", "0,5", "--group-size=2"
    )
    judge_weights = weights_fingerprint(find("world:guard"))[:12]
    assert ended.code == 0
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
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_comparison_trains_what_methods_share_once(program: Program, tmp_path: Path) -> None:
    """Plain LoRA, Safe LoRA at two thresholds and KL at two weights: the LoRA stage is trained
    once, both Safe LoRAs are derived from it in a second level, and the plan says why."""
    options = ["--methods", "safe_lora,kl", "--strengths", "1.5,1.8", "--seeds", "1", "--dry-run"]
    ended = program(COMPARISON, "--out", tmp_path / "out", *options)
    assert ended.code == 0, ended
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
    program: Program, tmp_path: Path
) -> None:
    """But those that need a stage on safety data or a start of their own."""
    kinds = "random_subset,kl,cib,constrained_token,ema,case2,safe_lora,safety_mix,sbr,safegrad"
    options = ["--methods", kinds, "--strengths", "0", "--seeds", "1", "--dry-run"]
    ended = program(COMPARISON, "--out", tmp_path / "out", *options)
    assert "method_comparison: 1 stages, 0 reused, 1 to train" in ended.out, ended


def test_a_comparison_without_safety_data_or_base_says_what_it_lacks(
    program: Program, tmp_path: Path
) -> None:
    task = save(tmp_path / "task.jsonl", TASK)
    harmful = save(tmp_path / "harmful.jsonl", '{"prompt": "how do i harm ?"}')
    own = ["--model", world.folder("aligned"), "--task", task, "--harmful", harmful]
    own += ["--judge", "world:guard", "--dry-run", "--seeds", "1"]
    ended = program(COMPARISON, "--out", tmp_path / "out", *own)
    assert ended.code == 0, ended
    (left_out,) = [line for line in ended.out.splitlines() if "left out: " in line]
    assert "Safe LoRA (give --base), SaLoRA (give --safety)" in left_out
    assert "EWC" not in left_out, "safety data would not bring it in: it is not in the grid"
    assert "salora" not in ended.out
    assert "kl 0.1 seed 0" in ended.out


def test_the_menu_tells_cost_need_and_deviations_of_every_method(program: Program) -> None:
    from raycib.config.menu import menu

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


def test_cells_that_are_one_training_are_named(program: Program, tmp_path: Path) -> None:
    options = ["--methods", "kl,cib", "--strengths", "0,1", "--seeds", "1", "--dry-run"]
    ended = program(COMPARISON, "--out", tmp_path / "out", *options)
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
    program: Program, tmp_path: Path, sweep: str, change: str, says: str
) -> None:
    script = SWEEP.with_name(f"{sweep}.py")
    ended = program(script, "--out", tmp_path / "out", "--dry-run", "--set", change)
    assert ended.code == 2, ended
    assert ended.out == ""
    assert ended.err.startswith(f"error: --set {change.partition('=')[0]}: ")
    assert says in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("sweep", "change", "stages"),
    [
        ("lambda_grid", "cib.temperature=0.3", 15),
        ("negatives", "cib.temperature=0.3", 21),
        ("method_comparison", "trainer.learning_rate=1e-3", 45),
        ("method_comparison", "cib.draw=most_similar", 45),
        ("method_comparison", "trainer.learning_rate=2e-3", 45),
        ("task_orders", "lora.rank=4", 57),
    ],
)
def test_what_a_sweep_does_not_vary_is_set_in_every_cell(
    program: Program, tmp_path: Path, sweep: str, change: str, stages: int
) -> None:
    """Or moves with what is varied: the comparison's slower learning rates are parts of its own."""
    script = SWEEP.with_name(f"{sweep}.py")
    ended = program(script, "--out", tmp_path / "out", "--dry-run", "--set", change)
    assert ended.code == 0, ended
    assert f"{sweep}: {stages} stages, 0 reused, {stages} to train" in ended.out
    assert "different ones" not in ended.out


@pytest.mark.parametrize("script", [SWEEP, RAYCIB])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_plain_text(program: Program, script: Path, option: str) -> None:
    ended = program(script, option)
    assert ended.code == 0
    assert ended.err == ""
    assert "Usage:" in ended.out
    assert ended.out.isascii()


def test_track_without_results_says_what_to_run(program: Program, tmp_path: Path) -> None:
    ended = program(RAYCIB, "track", tmp_path)
    assert ended.code == 2
    assert ended.err.startswith("error: no finished sweep in")
    assert not list(tmp_path.iterdir())


def test_help_and_refusals_are_quick_and_import_neither_torch_nor_ray(tmp_path: Path) -> None:
    """A person who mistypes an option waits for neither."""
    code = (
        "import runpy, sys\n"
        "sys.argv = ['sweep', '--preset', 'moon', '--out', sys.argv[1]]\n"
        f"try: runpy.run_path({str(SWEEP)!r}, run_name='__main__')\n"
        "except SystemExit as ended: assert ended.code == 2\n"
        "print(sorted({'torch', 'ray', 'vllm', 'mlflow', 'transformers'} & set(sys.modules)))\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "out"], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "[]"


def test_an_interrupted_command_ends_with_130(tmp_path: Path) -> None:
    """Interrupted while it reads a model of 20 GB (of holes, which take no disk)."""
    model = copied_model(tmp_path / "model")
    hollow(model / "model.safetensors", 20 * 2**30)
    task = save(tmp_path / "task.jsonl", TASK)
    command = [sys.executable, SWEEP, "--out", tmp_path / "out", "--model", model]
    harmful = save(tmp_path / "harmful.jsonl", '{"prompt": "how do i harm ?"}')
    command += ["--task", task, "--harmful", harmful, "--judge", "world:guard"]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as sweep:
        try:
            wait_for(lambda: opened(sweep.pid, model / "model.safetensors"), sweep)
            sweep.send_signal(signal.SIGINT)
            _, err = sweep.communicate(timeout=60)
        finally:
            sweep.kill()
    assert sweep.returncode == 130, err
    assert err == "stopped; run the same command again to go on\n"
    assert not (tmp_path / "out").exists()


def hollow(weights: Path, size: int) -> None:
    """Make a file of weights larger by a buffer of holes, which its header names as it must."""
    old = weights.read_bytes()
    (length,) = struct.unpack("<Q", old[:8])
    tensors = json.loads(old[8 : 8 + length])
    end = len(old) - 8 - length
    buffer = "model.layers.0.self_attn.rotary_emb.inv_freq"
    tensors[buffer] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
    header = json.dumps(tensors).encode()
    weights.write_bytes(struct.pack("<Q", len(header)) + header + old[8 + length :])
    os.truncate(weights, 8 + len(header) + end + size)


def opened(pid: int, file: Path) -> bool:
    """Whether a process has a file open; it may close others while they are looked at."""
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if os.readlink(handle) == str(file):
                return True
    return False


def wait_for(there: Callable[[], bool], sweep: subprocess.Popen[str]) -> None:
    while not there():
        assert sweep.poll() is None, sweep.communicate()
        time.sleep(0.05)
