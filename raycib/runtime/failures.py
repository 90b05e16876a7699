"""Why stages could not be finished, kept in the store until they are tried again."""

from raycib.runtime.sweep import Sweep
from raycib.store.kinds import FAILURES


def failed_before(sweep: Sweep) -> dict[str, str]:
    """Stages of this sweep that an earlier try could not finish, and why."""
    store = sweep.store
    found = (store.get(FAILURES, key) for key in store.keys(FAILURES))
    mine = sweep.alignment_stages | sweep.stages
    return {r.key: r.about["reason"] for r in found if r and r.key in mine}


def remember_failure(sweep: Sweep, key: str, reason: str, whole: str) -> None:
    """Keep why a stage failed, with its traceback in a file."""
    sweep.store.put_text(FAILURES, key, "traceback.txt", whole, {"reason": reason})


def forget_failures(sweep: Sweep) -> None:
    """Its stages are tried again."""
    for key in failed_before(sweep):
        sweep.store.discard(FAILURES, key)
