"""What every test runs under: one thread a process, no network, no progress bars, fixed seeds."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before torch and tqdm are imported. Two threads on two busy cores are many times slower.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

import hypothesis
import jaxtyping
import pytest
from jaxtyping._import_hook import JaxtypingTransformer
from programs import Program, runner
from session import NIGHTLY, Ask

hypothesis.settings.register_profile(
    "raycib",
    deadline=None,  # the machine is shared: a slow moment is not a failure
    derandomize=NIGHTLY == 1,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("raycib")

PACKAGE = Path(__file__).parents[1] / "raycib"
SHAPED = [
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
    for file in PACKAGE.rglob("*.py")
    if "from jaxtyping import" in file.read_text() and file.stem != "__init__"
]
_checked = JaxtypingTransformer.visit_FunctionDef


def _outermost(self: JaxtypingTransformer, node: ast.FunctionDef) -> ast.FunctionDef:
    """A function within another is made anew in every call of that, and its check with it: a
    millisecond each, a quarter of what training a tiny model takes."""
    within = isinstance(self._parents[-1], ast.FunctionDef)
    return node if within else _checked(self, node)


JaxtypingTransformer.visit_FunctionDef = _outermost
# What says the shapes of its tensors is held to them, in the first calls of each test.
jaxtyping.install_import_hook(SHAPED, "beartype.beartype")
import raycib.runtime  # noqa: E402, F401  before Ray, which reads then whether to ask for a token

HELD = 1000
"""Calls a test: some five steps. Later ones call the same; checks are a third of their time."""


class _FirstCalls(type(jaxtyping.config)):
    """Shapes are checked while calls are left."""

    left = HELD

    @property
    def jaxtyping_disable(self) -> bool:
        self.left -= 1
        return self.left < 0


jaxtyping.config.__class__ = _FirstCalls


MARKED = re.compile(r"mark\.(real|sweep|faults)\b")
ALONE = ("(real or sweep) and not faults", "faults")
"""How the Makefile asks for marked tests and no others."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Who wants marked tests alone imports no file without any: most of them, and ten seconds."""
    test = config.option.markexpr in ALONE and collection_path.suffix == ".py"
    return True if test and not MARKED.search(collection_path.read_text()) else None


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Who draws from torch's global generator draws the same in every test; shapes are held."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
    jaxtyping.config.left = HELD


@pytest.fixture(autouse=True)
def _counted_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are counted in this process: a new one for each, with its torch, costs seconds. One
    test has the process itself."""
    if (counts := sys.modules.get("raycib.runtime.token_counts")) and (
        "a_process_counts" not in request.fixturenames
    ):
        monkeypatch.setattr(counts, "_in_a_process", _counted)


def _counted(asked: Any) -> Any:
    from raycib.runtime.count_tokens import counted  # with torch, which many tests never need

    return counted(json.loads(json.dumps(asked)))


@pytest.fixture
def a_process_counts() -> None:
    """Tokens are counted in a process, as for a user."""


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Program:
    """Run a script of this repository with arguments, in this process."""
    return runner(monkeypatch, capfd)


@pytest.fixture
def no_mlflow_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow is told nothing by this process's environment."""
    for name in ("TRACKING_URI", "EXPERIMENT_NAME", "HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model, shared by all tests; `tiny.make_stage` adds its data."""
    import tiny

    folder = tmp_path_factory.mktemp("tiny")
    tiny.make_model(folder / "model")
    return folder


@pytest.fixture(scope="session")
def ask_trainer() -> Iterator[Ask]:
    """Ask a process that has imported everything to fork children that train; see
    `train_child.py`."""
    program = Path(__file__).parent / "support" / "train_child.py"
    with subprocess.Popen(
        [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin
        assert child.stdout
        to_child, from_child = child.stdin, child.stdout

        def ask(**request: Any) -> dict[str, Any]:
            to_child.write(json.dumps(request) + "\n")
            to_child.flush()
            answer = from_child.readline()
            assert answer, f"the trainer died of {request}; its traceback is above"
            return json.loads(answer)

        yield ask
        to_child.close()


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small sweep that nobody disturbed, with all it left behind; see `running.py`."""
    import running

    return running.make_reference(tmp_path_factory.mktemp("reference") / "out")


@pytest.fixture(scope="session")
def local_sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same sweep with `--local`, and what it printed; nobody changes it."""
    import running

    return running.make_local(tmp_path_factory.mktemp("local") / "out")


@pytest.fixture(scope="session")
def undisturbed_on_ray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small sweep of `faults.py`, undisturbed, on a Ray of its own."""
    import faults
    import running

    out = tmp_path_factory.mktemp("undisturbed-on-ray") / "out"
    running.run_sweep(out, *faults.SMALL)
    return out


@pytest.fixture(scope="session")
def connecting() -> Iterator[Any]:
    """How connecting to what is no Ray ends; see `no_cluster.py`."""
    import no_cluster

    with no_cluster.connecting() as ended:
        yield ended


@pytest.fixture(scope="session")
def cluster(connecting: Any) -> Iterator[Any]:
    """A Ray that was there before, for all tests that join one; see `ray_head.py`. Beside it
    `connecting` waits, until it is wanted. Its nodes' environment is full of secrets."""
    import ray_head
    import running

    with ray_head.head(**running.SECRETS) as started:
        yield started


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real ext4 of 16 MB (or, without loop devices, a tmpfs)."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    image.write_bytes(bytes(16 << 20))
    ext4 = ["mount", "-o", "loop", image, disk]
    tmpfs = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", disk]
    made = shutil.which("mkfs.ext4") and _runs(["mkfs.ext4", "-q", image]) and _runs(ext4)
    if not made and not _runs(tmpfs):
        pytest.skip("neither a loop ext4 nor a tmpfs can be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def _runs(command: list[Any]) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0
