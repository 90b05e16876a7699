"""`raycib track`: finished sweeps in MLflow, from what the store has of them."""

from pathlib import Path

from raycib.errors import UserError
from raycib.results import FILE, read_results
from raycib.runtime.summary import stored_histories, stored_times
from raycib.store import Store
from raycib.tracking import track


def track_all(out: Path, uri: str | None) -> int:
    """Show every finished sweep of a results folder in MLflow; how many it did not take. Raises
    `UserError` where there is none."""
    files = sorted(out.glob(f"*/{FILE}"))
    if not files:
        raise UserError(f"no finished sweep in {out}: run one of sweeps/*.py with --out {out}")
    store, missed = Store(out), 0
    for file in files:
        results = read_results(file)
        keys = [cell.key for cell in results.cells]
        curves, times = stored_histories(store, keys), stored_times(store, keys)
        link = track(results, curves, file.parent, uri, times=times)
        print(f"{results.sweep}: {link or 'MLflow was not reached'}")
        missed += link is None
    return missed
