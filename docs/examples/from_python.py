"""A sweep from Python, and a table of what it found.

python docs/examples/from_python.py
"""

from typing import Any

import pandas as pd

import raycib
from raycib.methods.cib import CIB


def two_strengths(**options: Any) -> pd.DataFrame:
    """Plain LoRA and CIB at λ = 5, in this process; one row a cell."""
    return raycib.sweep(
        [CIB(lam=lam) for lam in (0, 5)],
        name="two_strengths",
        question="Does CIB keep safety?",
        local=True,
        **options,
    )


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """HRR and refusals in %, and the task loss in nats: means over seeds by strength."""
    done = frame[frame["failed"].isna()]
    means = done.groupby("strength")[["hrr", "refusal_rate", "eval_loss"]].mean()
    return means.assign(hrr=100 * means["hrr"], refusal_rate=100 * means["refusal_rate"])


if __name__ == "__main__":
    two_strengths(out="runs/from_python", seeds=1)
    print(table(raycib.load("runs/from_python")))
