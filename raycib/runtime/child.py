"""A question to a process of its own, which may import torch: a driver does not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from raycib.errors import UserError


def in_a_process(module: str, asked: dict[str, Any], failing: str) -> dict[str, Any]:
    """The JSON object that a module prints as its last line when it reads `asked` as JSON.

    Raises `UserError`, beginning with the words `failing`, where the process dies.
    """
    here = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-P", "-m", module],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UserError(f"{failing}: {last}") from None
