"""A question to a process of its own, which may import torch: a driver does not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from raycib.errors import UserError


def in_a_process(function: str, asked: dict[str, Any], failing: str) -> Any:
    """What a function ("module:name") makes of `asked`; both are plain JSON.

    Raises `UserError`: what the function raises, or, beginning with the words `failing`, where the
    process dies.
    """
    here = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__, function],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    try:
        error, made = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UserError(f"{failing}: {last}") from None
    if error:
        raise UserError(error)
    return made


if __name__ == "__main__":
    try:
        answer = None, resolve_name(sys.argv[1])(json.load(sys.stdin))
    except UserError as error:
        answer = str(error), None
    print("\n" + json.dumps(answer))
