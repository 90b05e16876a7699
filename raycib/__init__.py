"""Fine-tune aligned language models under different safety defences, and compare them fairly."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def load(folder: str | Path = "runs") -> "pd.DataFrame":
    """Every cell of the finished sweeps in `folder` as a data frame, one row each; no torch.

    Rates are in [0, 1], losses and information in nats. Raises FileNotFoundError where no sweep
    has finished.
    """
    from raycib.analysis.frame import load as load_frame

    return load_frame(folder)
