"""Sweeps as programs of their own: started, watched, killed, and never left behind.

Whatever a sweep starts is known by its files: Ray gives every process a log in the folder of the
session, so a process that has a file open below that folder is ours, orphan or not.
"""

import io
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from programs import ROOT, SWEEP, Ended

NAME = "lambda_grid"
SMALL = (
    "--seeds",
    "1",
    "--strengths",
    "0,5",
    "--group-size",
    "1",
    "--set",
    "trainer.batch_size=32",
)
"""Two stages of 100 steps, each a group of its own, with a checkpoint after 50."""
PLANTED = "planted0secret" + "0of0nobody"  # no copy of this file has it whole
SECRETS = dict.fromkeys(
    (
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
        "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "ANTHROPIC_API_KEY",
        "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "WANDB_API_KEY", "GOOGLE_API_KEY",
    ),
    PLANTED,
)  # fmt: skip
"""What a person's environment may hold, and nobody else may see."""
PATIENCE_S = 600
"""Of a whole sweep, on a machine with other things to do."""


WITHOUT = """
import importlib.abc, runpy, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "vllm"):
            raise ModuleNotFoundError(f"{name} is not installed here")
sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script as if Ray and vLLM were not installed."""


def environment(temp: Path) -> dict[str, str]:
    """Of a program with a Ray of its own below `temp`, out of reach of anybody else's settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "MLFLOW_", "RAYCIB_", "OPENAI_"))
    }
    return kept | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_TMPDIR": str(temp),
        "TMPDIR": str(temp),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # or others on a busy machine leave it nothing
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }


class Running:
    """A program that was started, in a process group of its own."""

    def __init__(self, command: list[str], temp: Path, log: Path, **environ: str) -> None:
        self.temp = temp
        self._log = log.with_suffix(".out"), log.with_suffix(".err")
        with self._log[0].open("w") as out, self._log[1].open("w") as err:
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=err,
                env=environment(temp) | environ,
                cwd=ROOT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """Everything printed so far."""
        return "".join(log.read_text() for log in self._log)

    def wait(self, seconds: float = PATIENCE_S) -> Ended:
        """How it ended; it is killed and the test fails where it takes longer."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.clean()
            raise AssertionError(f"not done after {seconds:.0f} s:\n{self.said}") from None
        return Ended(code, *(log.read_text() for log in self._log))

    def until(self, there: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
        """What `there` returns, once it is true while the program runs."""
        deadline = time.monotonic() + seconds
        while not (found := there()):
            assert self.process.poll() is None, f"ended too soon:\n{self.said}"
            assert time.monotonic() < deadline, f"nothing after {seconds:.0f} s:\n{self.said}"
            time.sleep(0.02)
        return found

    def processes(self) -> dict[int, str]:
        """Titles of the program's processes, by id."""
        return {pid: title(pid) for pid in holders(self.temp)[0] | {self.process.pid}}

    def kill(self) -> None:
        """SIGKILL to the program itself, nobody else."""
        self.process.kill()
        self.process.wait()

    def clean(self) -> None:
        """Nothing of it is left."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in holders(self.temp)[0]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def ray_folder() -> Iterator[Path]:
    """A folder for a Ray of one's own. Its name is short: sockets live in it, and their paths have
    107 bytes. Nothing that lived in it survives."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    try:
        yield folder
    finally:
        for pid in holders(folder)[0]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def sweep(out: Path, *arguments: object, script: Path = SWEEP, **environ: str) -> Iterator[Running]:
    """A sweep under way; all of it is gone afterwards."""
    with ray_folder() as temp:
        command = [sys.executable, str(script), "--out", str(out), *map(str, arguments)]
        running = Running(command, temp, out.with_name(f"{out.name}-{temp.name}"), **environ)
        try:
            yield running
        finally:
            running.clean()


def run_sweep(out: Path, *arguments: object, code: int = 0, script: Path = SWEEP) -> Ended:
    """A sweep from start to end."""
    with sweep(out, *arguments, script=script) as running:
        ended = running.wait()
    assert ended.code == code, f"exit code {ended.code}\n{ended.out}\n{ended.err}"
    return ended


def program(temp: Path, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, whose sweeps have nobody's settings."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, env=environment(temp), cwd=ROOT, capture_output=True, text=True, timeout=600,
        **options,
    )  # fmt: skip


def make_local(out: Path) -> tuple[Path, str]:
    """`SMALL` in one process that has neither Ray nor vLLM: its results, and what it printed."""
    done = program(out.parent, "-c", WITHOUT, SWEEP, "--local", "--out", out, *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


def run_here(out: Path, *arguments: object, code: int = 0, script: Path = SWEEP) -> Ended:
    """A sweep with `--local` from start to end, in this very process: no Ray, Serve and vLLM."""
    out_said, err_said = io.StringIO(), io.StringIO()
    command = [str(script), "--local", "--out", str(out), *map(str, arguments)]
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(out_said),
        redirect_stderr(err_said),
    ):
        patch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
    found = Ended(int(ended.value.code or 0), out_said.getvalue(), err_said.getvalue())
    assert found.code == code, f"exit code {found.code}\n{found.out}\n{found.err}"
    return found


def summary_of(out: Path, name: str = NAME) -> dict[str, Any]:
    """What the last finished run below `out` wrote."""
    return json.loads((out / name / "summary.json").read_text())


def adapters(out: Path) -> dict[str, bytes]:
    """Weights of the stored adapters, by stage."""
    files = (out / "stages").glob("*/adapter_model.safetensors")
    return {file.parent.name: file.read_bytes() for file in files}


def scores(out: Path) -> dict[str, Any]:
    """Scores of the cells, by stage."""
    return {cell["key"]: cell["scores"] for cell in summary_of(out)["cells"]}


def verdicts(out: Path) -> list[str]:
    """Keys of the stored verdicts."""
    files = (out / "verdicts").glob("*/verdicts.jsonl")
    return [json.loads(x)["key"] for file in files for x in file.read_text().splitlines()]


def title(pid: int) -> str:
    """What a process calls itself, or "" where it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return ""


def holders(folder: Path) -> tuple[set[int], dict[str, int]]:
    """Processes with a file open below `folder`, and those with a socket, by its inode."""
    pids: set[int] = set()
    sockets: dict[str, int] = {}
    below = f"{folder}/"
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        opened = []
        with suppress(OSError):
            opened = os.listdir(entry / "fd")
        targets = []
        for handle in opened:
            with suppress(OSError):
                targets.append(os.readlink(entry / "fd" / handle))
        if any(target.startswith(below) for target in targets):
            pids.add(int(entry.name))
            found = (target[8:-1] for target in targets if target.startswith("socket:["))
            sockets |= dict.fromkeys(found, int(entry.name))
    return pids, sockets


def listening() -> dict[str, str]:
    """Addresses of listening TCP sockets of this machine as the kernel writes them, by inode."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                found[fields[9]] = fields[1]
    return found


def elsewhere(addresses: dict[str, str]) -> dict[str, str]:
    """Those that are not on loopback."""
    loopback = ("0100007F", "0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F")
    return {a: who for a, who in addresses.items() if a.rpartition(":")[0] not in loopback}


def memory(pid: int) -> int:
    """Proportional share of memory in bytes: pages that processes share are counted once."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def has_torch(pid: int) -> bool:
    """Whether a process has torch's library in its memory."""
    with suppress(OSError):
        return "libtorch_cpu" in Path(f"/proc/{pid}/maps").read_text()
    return False


class Watcher:
    """Looks at a running program now and then, until closed."""

    def __init__(self, running: Running, every_s: float = 1.0) -> None:
        self.most_memory = 0
        self.torch: set[int] = set()
        """Processes that have loaded torch."""
        self.addresses: dict[str, str] = {}
        """Of sockets that listened, each with the title of its process."""
        self.titles: set[str] = set()
        """Command lines of all processes, which any user of the machine can read."""
        self.folder = running.temp
        self._running, self._every = running, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(self._every):
            pids, sockets = holders(self._running.temp)
            pids.add(self._running.process.pid)
            self.most_memory = max(self.most_memory, sum(map(memory, pids)))
            self.titles |= set(map(title, pids))
            self.torch |= set(filter(has_torch, pids))
            for inode, address in listening().items():
                # A process that ended since has no title any more; it keeps the one it had.
                if inode in sockets and (name := title(sockets[inode])):
                    self.addresses[address] = name


class Reference(NamedTuple):
    """An undisturbed sweep of `SMALL`, in an environment full of secrets."""

    out: Path
    ended: Ended
    seconds: float
    watcher: Watcher
    leaks: list[str]
    """Where a secret stood: files, command lines, what was printed."""
    driver: int
    """Its process."""
    left: list[str]
    """What stands in the folder of temporary files."""


def files_with(text: str, *folders: Path) -> list[str]:
    """Files below some folders that hold `text`."""
    found = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return [str(file) for file in found if text.encode() in file.read_bytes()]


def make_reference(out: Path) -> Reference:
    """Run it once, watched."""
    began = time.monotonic()
    with sweep(out, *SMALL, **SECRETS) as running, Watcher(running) as watcher:
        ended = running.wait()
        leaks = files_with(PLANTED, out, running.temp)
        left = [str(one.relative_to(running.temp)) for one in running.temp.glob("**/*")]
    leaks += [line for line in (*watcher.titles, ended.out, ended.err) if PLANTED in line]
    assert ended.code == 0, f"exit code {ended.code}\n{ended.out}\n{ended.err}"
    seconds = time.monotonic() - began
    return Reference(out, ended, seconds, watcher, leaks, running.process.pid, left)
