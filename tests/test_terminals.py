"""Where what is printed goes: closed, gone, of few letters. It ends no command by a traceback."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from programs import SWEEP

PROGRAM = """
import os, signal, sys
from pathlib import Path
from raycib.console import make_app, run

def work():
    if sys.argv[0] == "wait":
        try:
            print("λ", flush=True)
            signal.pause()
        finally:
            os.kill(os.getpid(), signal.SIGHUP)  # again, as a shell tells its jobs
            print("cleaning up", flush=True)
            Path("clean").touch()
    print("λ", file=sys.stderr if sys.stdout.isatty() else sys.stdout)
    if sys.argv[0] == "hang-up":
        os.kill(os.getpid(), signal.SIGHUP)

app = make_app("")
app.command()(work)
what, *sys.argv = sys.argv
if sys.argv[0] == "wait":  # the tests themselves may run below nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
run(app)
"""


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, *words]


@pytest.mark.parametrize(("letters", "shown"), [("utf-8", "λ".encode()), ("ascii", b"?")])
def test_letters_that_a_terminal_lacks_are_question_marks(letters: str, shown: bytes) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": letters}
    said = subprocess.run(command("say"), capture_output=True, env=environment)
    assert (said.returncode, said.stdout) == (0, shown + b"\n"), said.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_end_no_command(closed: str) -> None:
    shell = ["bash", "-c", f'"$@" {closed}', "bash"]
    assert subprocess.run([*shell, *command("say")]).returncode == 0
    refused = subprocess.run([*shell, *command("say", "more")], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr


def test_a_closed_terminal_stops_a_command_in_order(tmp_path: Path) -> None:
    """It cleans up though the terminal refuses what it says by then, and it is told twice."""
    terminal, theirs = pty.openpty()
    own = ["setsid", "--ctty", *command("wait")]
    with subprocess.Popen(own, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path) as program:
        os.close(theirs)
        assert os.read(terminal, 2) == "λ".encode()
        os.close(terminal)
        assert program.wait(60) == 128 + signal.SIGHUP
    assert (tmp_path / "clean").exists()


def test_nohup_is_heeded(tmp_path: Path) -> None:
    assert subprocess.run(["nohup", *command("hang-up")], cwd=tmp_path).returncode == 0


GONE = "error: nobody reads what is printed: Broken pipe\n"
KEPT = "all results are kept: run the same command again\n"


@pytest.mark.parametrize(("options", "said"), [((), GONE + KEPT), (("--dry-run",), "")])
def test_a_sweep_whose_reader_is_gone_says_that_it_ends(
    options: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """A plan ends as anything does before `head`."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, SWEEP, "--local", "--seeds", "1", "--out", tmp_path / "out"]
    ended = subprocess.run([*command, *options], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, said)
