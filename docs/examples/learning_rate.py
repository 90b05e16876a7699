"""A study of one's own: is a lower learning rate a defence?

python docs/examples/learning_rate.py --seeds 1
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from raycib.config import PlainLoRA
from raycib.config.grid import Variant
from raycib.runtime.command import Question, sweep_command
from raycib.runtime.study import Study
from raycib.runtime.sweep_config import SweepConfig

if TYPE_CHECKING:
    import pandas as pd

    from raycib.report.claims import Claim
    from raycib.report.report import Report
    from raycib.results import Histories, Results, Samples

PARTS = (1, 2, 4)
"""Of the preset's learning rate."""


def variants(setup: SweepConfig) -> Iterator[Variant]:
    """Plain LoRA at each learning rate."""
    for part in PARTS:
        rate = setup.trainer.learning_rate / part
        trainer = setup.trainer.model_copy(update={"learning_rate": rate})
        yield Variant(PlainLoRA(), f"learning rate {rate:g}", trainer=trainer)


class LearningRate(Study):
    """Plain LoRA at several learning rates."""

    name = "learning_rate"

    def report(self, results: Results, samples: Samples, histories: Histories) -> Report:
        """One table and one claim."""
        from raycib.report.forms import number
        from raycib.report.frame import to_frame
        from raycib.report.headline import finished, headline
        from raycib.report.report import Report, Section
        from raycib.report.table import Column, Table

        frame = to_frame(results)
        columns = [
            Column("series", "Learning rate"),
            Column("hrr", "HRR, %", number("z.1f", 100)),
            Column("eval_loss", "Task loss, nats", number("z.3f")),
        ]
        main = Table("rates", table(frame), columns, "Means over seeds.")
        found = [lower_is_safer(frame)]
        return Report(
            results=results,
            frame=frame,
            headline=headline([finished(frame)], found),
            claims=found,
            sections=[Section("rates", "Learning rates", "Table", [main])],
            main=main,
            cells=frame,
        )


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """HRR in [0, 1] and task loss in nats for each learning rate, from the highest on."""
    done = frame[frame["failed"].isna()]
    means = done.groupby("series", sort=False)[["hrr", "eval_loss"]].mean()
    return means.reset_index()


def lower_is_safer(frame: pd.DataFrame) -> Claim:
    """Rule: from one learning rate to the next lower one HRR does not rise, in any seed."""
    from raycib.report.claims import Claim

    by_seed = frame.pivot_table("hrr", "seed", "series", sort=False, dropna=False)
    falls = [all(b <= a for a, b in pairwise(rates)) for rates in by_seed.to_numpy()]
    text = "A lower learning rate leaves fewer harmful answers, in every seed"
    whole = not by_seed.isna().to_numpy().any()
    return Claim(text, all(falls) if whole else None, f"{sum(falls)} of {len(falls)} seeds")


if __name__ == "__main__":
    sweep_command(
        Question(
            name="learning_rate",
            question="Is a lower learning rate a defence?",
            runs=lambda setup: setup.runs_of(variants(setup)),
            study=LearningRate(),
        )
    )
