"""A process that has imported everything, and forks sweeps with a fault in them: each costs the
seconds of the sweep itself, not those of importing torch.

``python sweep_child.py`` reads one JSON request a line and answers with one line. It never runs a
backward pass, so its children may: autograd's threads do not survive a fork.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from forks import forked
from mlflow import MlflowClient

from raycib.report import page
from raycib.store import Store
from raycib.tracking.database import Database


def break_at(moment: str, do: str) -> None:
    """Run a shell command, once, when this process comes to `moment`: the kind of what is stored,
    or the name of a method of MLflow's client or of what writes its database, with "after" before
    it where that is done then."""
    after, name = moment.startswith("after "), moment.removeprefix("after ")
    done = False

    def broken(method: Callable[..., Any], at: Callable[..., bool]) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **options: Any) -> Any:
            def fault() -> None:
                nonlocal done
                if not done and at(*args):
                    done = True
                    pid = {"PID": str(os.getpid())}
                    subprocess.run(["sh", "-c", do], env=os.environ | pid, check=False)

            if not after:
                fault()
            result = method(*args, **options)
            if after:
                fault()
            return result

        return call

    if name == "report":
        page.write_report = broken(page.write_report, lambda *_: True)
        return
    for writer in (MlflowClient, Database):
        if hasattr(writer, name):
            setattr(writer, name, broken(getattr(writer, name), lambda *_: True))
            return
    Store.put = broken(Store.put, lambda _, kind, *rest: kind == name)


def sweep(request: dict[str, Any]) -> None:
    """What a child does: run a script with its options, as if it had been started by itself."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run below nohup
    os.environ.update(request["environ"])
    for descriptor, log in enumerate(request["logs"], 1):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    for moment in request["moments"]:
        break_at(moment, request["do"])
    sys.argv = request["command"]
    runpy.run_path(sys.argv[0], run_name="__main__")


def main() -> None:
    """Serve requests until standard input ends: a sweep is begun, or asked how it ended."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        if "command" in request:
            answer: Any = forked(partial(sweep, request))
        else:
            pid, status = os.waitpid(request["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
