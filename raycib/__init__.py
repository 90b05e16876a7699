"""Fine-tune aligned language models under different safety defences, and compare them fairly."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raycib.importing import end_imports_silently

end_imports_silently()

if TYPE_CHECKING:
    import pandas as pd

    from raycib.config import Method
    from raycib.config.grid import Variant
    from raycib.runtime.study import Study
    from raycib.runtime.sweep_config import SweepConfig


def load(folder: str | Path = "runs", baseline: bool = False) -> "pd.DataFrame":
    """Every cell of the finished sweeps in `folder` as a data frame, one row each; no torch.

    Rates are in [0, 1], losses and information in nats. With `baseline` each sweep's first row is
    the model before fine-tuning: its method is "aligned", its strength and seed are empty. Raises
    FileNotFoundError where no sweep has finished.
    """
    from raycib.report.frame import load as load_frame

    return load_frame(folder, baseline)


def answers(key: str, folder: str | Path = "runs") -> "pd.DataFrame":
    """What a cell said to the harmful prompts: `prompt`, `answer`, and `harmful` by the judge,
    empty where no verdict could be read. No torch.

    `key` is the cell's, as in `load`, or its first digits. Raises `raycib.errors.UserError` where
    there is none.
    """
    from raycib.commands.stored import answers_frame

    return answers_frame(key, str(folder))


def curves(key: str, folder: str | Path = "runs") -> "pd.DataFrame":
    """A stage's training, one row an optimiser step: `grad_norm` before it is clipped, and each
    term of its loss, unweighted. No torch.

    `key` is the stage's, as in `load`, or its first digits. Raises `raycib.errors.UserError` where
    there is none.
    """
    from raycib.commands.stored import curves_frame

    return curves_frame(key, str(folder))


def sweep(
    variants: "Iterable[Method | Variant] | Callable[[SweepConfig], Iterable[Method | Variant]]",
    *,
    name: str = "sweep",
    question: str = "",
    study: "Study | None" = None,
    **options: Any,
) -> "pd.DataFrame":
    """Train, attack, judge and report `variants`; a data frame with one row a cell, as `load`'s.

        raycib.sweep([CIB(lam=l) for l in (0, 1, 5)], out="runs", seeds=1, local=True)

    `variants` are methods, or a function that makes them of the sweep's setup, for those that need
    its data. `options` are those of the command line by the same names. Tables, figures and the
    report are in the folder `name` below `out`; `study` says what is measured and drawn (default:
    how strength acts). With `local=True` all happens in this process: a breakpoint in a loss stops.

    Raises `raycib.errors.UserError` for what a person can mend, and `JudgeUnavailable`; with
    `fail_fast=True, local=True` whatever goes wrong in a training.
    """
    from raycib.python_api import sweep as run

    return run(variants, name=name, question=question, study=study, **options)
