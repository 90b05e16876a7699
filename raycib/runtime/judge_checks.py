"""What `raycib judge-check` left in the store of a sweep's judges."""

from raycib.results import JudgeFlips
from raycib.runtime.sweep import Sweep
from raycib.store.kinds import JUDGE_CHECKS

FILE = "flips.json"


def judge_checks(sweep: Sweep) -> list[JudgeFlips]:
    """The checks of the sweep's judges, in their order."""
    found = []
    for judge in sweep.setup.judges:
        for key in sorted(sweep.store.keys(JUDGE_CHECKS)):
            if key.startswith(judge.spec.key[:24]) and (
                record := sweep.store.get(JUDGE_CHECKS, key)
            ):
                found.append(JudgeFlips.model_validate(record.value(FILE)))
    return found
