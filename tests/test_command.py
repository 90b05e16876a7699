"""The command line without a cluster: bad input is one line and exit code 2, a stop 130."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from programs import RAYCIB, SWEEP, Program, own_rows

from raycib import world
from raycib.runtime.options import Options


@pytest.fixture
def refused(program: Program, tmp_path: Path) -> Callable[..., str]:
    """Run the sweep and have it refuse its input; the line it says."""

    def run(*arguments: object) -> str:
        said = program(SWEEP, "--out", tmp_path / "out", *arguments).refusal
        assert not (tmp_path / "out").exists(), "a refused command writes nothing"
        return said

    return run


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
        (["--set", "trainer.betas=[1,2]"], "--set trainer.betas.0: Input should be less than 1"),
        (["--set", "lora.targets=[]"], "--set lora.targets"),
        (["--strengths", "inf"], "CIB.lam"),
        (["--strengths", ""], "--strengths is empty; give a value, or leave it out"),
        (["--model", ""], "--model is empty"),
        (["--out", ""], "--out is empty"),
        (["--set", "lora.targets=q_proj"], "--set lora.targets: Input should be a list in JSON"),
        (["--methods", "lora,kl"], "no cell of this sweep has lora; with --strengths 0"),
        (["--methods", "o_lora"], "no cell of this sweep has o_lora; it builds on an earlier"),
        (["--strengths", "5,5.0"], "5 comes twice"),
        (["--strengths", "1,0,-0"], "0 comes twice"),
        (["--strengths", "1,1.0000001"], "1 comes twice"),
        (["--strengths", "1" * 10_000], "cib cannot have inf"),
        (["--set", "cib.lamda=1"], "cib has no 'lamda'; it has kind, lam, temperature"),
        (
            ["--set", "cib.temperature=-0.2"],
            "--set cib.temperature: Input should be greater than 0",
        ),
        (["--set", "trainer.batch_size=0"], "--set trainer.batch_size"),
        (["--set", "trainer.batch_size=half"], "--set trainer.batch_size"),
        (["--set", "trainer.learning_rate=NaN"], "--set trainer.learning_rate"),
        (["--set", "lora.rank=1.5"], "--set lora.rank"),
        (["--set", "cib.kind=lora"], "--set cib.kind"),
        (["--set", "lora.rank=true"], "--set lora.rank=true: rank is no switch"),
        (["--set", "trainer.epochs=" + "[" * 100_000], "nested too deeply"),
        (["--set", "trainer.epochs=" + "9" * 100_000], "--set trainer.epochs"),
        (["--set", "trainer.learning_rate=1" + "0" * 400], "--set trainer.learning_rate"),
        (["--set", "trainer.schedule=" + "x" * 100_000], "--set trainer.schedule"),
        (["--set", "trainer.schedule=\udcff"], "--set 'trainer.schedule=\\udcff' holds a byte"),
        (["--set", "lora.rank=4", "--set", "lora.rank=4.0"], "lora.rank: it is set twice"),
        (["--preset", "x" * 100_000], "no preset"),
        (["--task", "rows\0.jsonl"], "--task 'rows\\x00.jsonl' holds a byte that is no text"),
        (["--judge-url", "http://\udcff"], "holds a byte that is no text"),
        (["--set", "optimizer.lr=1"], "a part of lora, case1, case2"),
        (["--set", "cib"], "write PART.NAME=VALUE"),
        (["--set", "execution.gpus=1"], "execution has no 'gpus'; it has workers, strategy, "),
        (["--set", "execution.micro_batch_tokens=0"], "--set execution.micro_batch_tokens"),
        (["--set", "execution.judge_cpus=Infinity"], "--set execution.judge_cpus"),
        (["--set", "execution.engine_gpus=-1"], "--set execution.engine_gpus"),
        (
            ["--set", "execution.attention=fast"],
            "--set execution.attention: Input should be 'eager'",
        ),
        (["--set", "execution.checkpoint_activations=7"], "--set execution.checkpoint_activations"),
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


ROW = json.dumps({"question": "how many ?", "answer": "two"}) + "\n"
MUTE = "".join(json.dumps({"question": f"how many, {n} ?", "answer": ""}) + "\n" for n in range(20))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.jsonl", None, "no data file at"),
        ("empty.jsonl", "", "has no rows"),
        ("empty.csv", "prompt,response\n", "has no rows"),
        ("empty.json", "[]", "has no rows"),
        ("rows.txt", "how many ? two", "give a .json, .jsonl, .csv"),
        ("cut.jsonl", ROW + '{"question": "how', "line 2 is not JSON"),
        ("cut.json", '[{"question": "how', "is not JSON"),
        ("deep.json", "[" * 100_000, "is not JSON"),
        ("number.json", "5", "not a list of rows"),
        ("object.json", '{"rows": 5}', "not a list of rows"),
        ("words.json", '["how", "many"]', "not named columns"),
        ("quote.csv", 'prompt,response\n"how many ?,two\n', "quote.csv"),
        ("columns.jsonl", '{"text": "how many ?"}', "no prompt in c"),
        ("mute.jsonl", MUTE, "without a response"),
        ("latin.csv", b"prompt,response\nna\xefve,yes\n", "is not UTF-8 text"),
        ("few.jsonl", ROW * 9, "a task needs at least 10"),
    ],
)
def test_a_data_file_that_holds_no_rows_is_refused(
    refused: Callable[..., str], tmp_path: Path, name: str, content: str | bytes | None, says: str
) -> None:
    task = tmp_path / name
    if content is not None:
        task.write_bytes(content if isinstance(content, bytes) else content.encode())
    said = refused(*own_rows(tmp_path, task))
    assert says in said
    assert name in said, "it says which file"


def test_harmful_prompts_of_ones_own_need_a_judge_that_can_read_them(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    assert "give --judge" in refused(*own_rows(tmp_path)[:4])


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
        (lambda model: (model / "config.json").write_text("{"), "config.json"),
        (lambda model: (model / "config.json").write_text("[]"), "config.json"),
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
    assert says in refused("--model", model, *own_rows(tmp_path))


@pytest.mark.parametrize(
    "out", ["/proc/raycib", "a-file", "a-file/below", "ftp://host/x", "x" * 300, "y\0", "~/x"]
)
def test_results_that_cannot_be_written_are_refused(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").write_text("mine")
    assert len(program(SWEEP, "--out", out).refusal) < 2500
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]
    assert (tmp_path / "a-file").read_text() == "mine"


def test_results_in_rays_copy_of_a_jobs_folder_are_refused(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `ray job submit --working-dir .` runs a sweep, the default `runs` is such a place; a
    plan is none, and a folder named from its root is another."""
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0a"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    said = program(SWEEP).refusal
    assert (
        said.startswith(f"error: --out {copy}/runs is in Ray's own copy") and "give --out" in said
    )
    assert not list(copy.iterdir())
    assert Options(dry_run=True).out == f"{copy}/runs"
    assert Options(out=str(tmp_path / "shared")).out == str(tmp_path / "shared")


@pytest.mark.parametrize("script", [SWEEP, RAYCIB])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_plain_text(program: Program, script: Path, option: str) -> None:
    ended = program(script, option)
    assert ended.code == 0
    assert ended.err == ""
    assert "Usage:" in ended.out
    assert ended.out.isascii()


@pytest.mark.parametrize("words", [[], ["world"], ["data"]])
def test_a_command_with_none_of_its_commands_shows_its_help(
    program: Program, words: list[str]
) -> None:
    ended = program(RAYCIB, *words)
    assert ended.code == 2
    assert ended.err.startswith("Usage: ")
    assert "\nCommands:\n" in ended.err
    assert "..." not in ended.err.partition("\nCommands:\n")[2], "each is said in a whole sentence"


def test_track_without_results_says_what_to_run(program: Program, tmp_path: Path) -> None:
    said = program(RAYCIB, "track", tmp_path).refusal
    assert said.startswith("error: no finished sweep in")
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


@pytest.mark.parametrize("what", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_command_says_so_and_by_its_code_what_did_it(
    tmp_path: Path, what: signal.Signals
) -> None:
    """Interrupted while it reads a model of 20 GB (of holes, which take no disk)."""
    model = copied_model(tmp_path / "model")
    hollow(model / "model.safetensors", 20 * 2**30)
    own = ["--model", model, *own_rows(tmp_path)]
    with subprocess.Popen(
        [sys.executable, SWEEP, "--out", tmp_path / "out", *own],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores SIGINT, one of nohup SIGHUP, and so would its children.
        preexec_fn=lambda: signal.signal(what, signal.SIG_DFL),
    ) as sweep:
        try:
            wait_for(lambda: opened(sweep.pid, model / "model.safetensors"), sweep)
            sweep.send_signal(what)
            _, err = sweep.communicate(timeout=60)
        finally:
            sweep.kill()
    assert sweep.returncode == 128 + what, err
    assert err == "stopped; run the same command again to go on\n"
    assert not (tmp_path / "out").exists()


INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
"""
AS_IT_IS_IMPORTED = """
class Finder:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            interrupt()
sys.meta_path.insert(0, Finder())
import runpy
runpy.run_path({program!r}, run_name="__main__")
"""
AS_A_LIBRARY_HIDES_IT = """
from raycib.console import run
def command(standalone_mode):
    try:
        interrupt()
    except KeyboardInterrupt as error:
        raise ModuleNotFoundError("Could not import module") from error
run(command)
"""
AS_AN_OBJECT_GOES = """
import time
from raycib.console import run
class Object:
    def __del__(self):
        interrupt()
def command(standalone_mode):
    Object()  # which lets no error out
    time.sleep(20)
    print("went on")
run(command)
"""
AS_IT_ENDS_RAY_TOO = """
from raycib.console import run, tell_lost
def command(standalone_mode):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        os._exit(tell_lost("the raylet is gone"))  # as what watches Ray does
run(command)
"""


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        *(
            (AS_IT_IS_IMPORTED.format(module=module, program=str(program)), (-signal.SIGINT, ""))
            for program, module in (
                (RAYCIB, "raycib.cli"),
                (SWEEP, "raycib.config.grid"),
                (SWEEP, "raycib.runtime.command"),
            )
        ),
        *(
            (code, (130, "stopped; run the same command again to go on\n"))
            for code in (AS_A_LIBRARY_HIDES_IT, AS_AN_OBJECT_GOES)
        ),
        (AS_IT_ENDS_RAY_TOO, (143, "stopped; run the same command again to go on\n")),
    ],
)
def test_an_interruption_is_told_as_one(code: str, ended: tuple[int, str]) -> None:
    """While modules of the program or of a sweep are imported, where a library makes another error
    of it, where Python lets none out, and where Ray ends by it as well."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED + code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (*ended, "")


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


DRAWS = """
from raycib.console import run
run(lambda standalone_mode: __import__("matplotlib.font_manager") and 0)
"""


def test_a_home_that_cannot_be_written_to_is_no_news() -> None:
    """Matplotlib has two lines on it, in every process that draws."""
    given = {name: value for name, value in os.environ.items() if name != "MPLCONFIGDIR"}
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        given[name] = os.devnull
    done = subprocess.run(
        [sys.executable, "-c", DRAWS], env=given, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
