"""Which of several methods, or of several variants of one, keeps most safety (CIB paper, Table 1
and Figure 3)."""

from collections.abc import Iterable

from raycib.config.menu import menu
from raycib.results import Results
from raycib.runtime.study import Study
from raycib.runtime.sweep import Sweep
from raycib.runtime.sweep_config import SweepConfig


class Comparison(Study):
    """Several methods on one task."""

    name = "comparison"
    reported_by = "raycib.studies.comparison.report:report"
    options = frozenset({"budget", "harmful_ratio", "hrr_every"})

    def __init__(self, grid: Iterable[str] = ()) -> None:
        self.grid = tuple(grid)
        """Kinds of the methods that are compared unless a person names others."""

    def notes(self, setup: SweepConfig) -> list[str]:
        """Methods that the comparison lacks."""
        return ["left out: " + ", ".join(left)] if (left := self._left_out(setup)) else []

    def results(self, results: Results, sweep: Sweep) -> Results:
        """With the methods that the comparison lacks."""
        return results.but(left_out=self._left_out(sweep.setup))

    def _left_out(self, setup: SweepConfig) -> list[str]:
        """Methods for which there is no data or model, and the option that would bring them in."""
        kinds = setup.wanted if setup.options.methods else self.grid
        needs = {menu()[kind].about.name: setup.lacking(kind) for kind in kinds}
        return [f"{name} (give {' and '.join(them)})" for name, them in needs.items() if them]


class Ablation(Study):
    """Variants of one method on one task."""

    name = "ablation"
    options = frozenset({"harmful_ratio", "hrr_every"})
    reported_by = "raycib.studies.comparison.report:ablation"
