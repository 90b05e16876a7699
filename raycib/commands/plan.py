"""A sweep's plan: the sweep's own file, run for that alone."""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from raycib.errors import UserError


def plan(sweep: str, options: Sequence[str]) -> None:
    """Run the file of a sweep, or the one of that name in `sweeps/`, as `python FILE --dry-run`
    would: its own folder is looked in, and its exit code ends this program. Raises `UserError`
    where there is no such file."""
    file = Path(sweep) if sweep.endswith(".py") else Path("sweeps") / f"{sweep}.py"
    if not file.is_file():
        there = sorted(one.stem for one in Path("sweeps").glob("*.py"))
        known = f"; sweeps/ has {', '.join(there)}" if there else ""
        raise UserError(f"no sweep at {str(file)!r}{known}: give a file like sweeps/lambda_grid.py")
    sys.argv = [str(file), "--dry-run", *options]
    sys.path.insert(0, str(file.parent.absolute()))
    runpy.run_path(str(file), run_name="__main__")
