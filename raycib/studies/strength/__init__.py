"""How the strength of one method acts: on safety, on the task, and on information (CIB paper, Table
3 and Figure 2)."""

from typing import TYPE_CHECKING

from raycib.results import Histories, Results, Samples
from raycib.runtime.study import Study

if TYPE_CHECKING:
    from raycib.report.report import Report


class Strength(Study):
    """One task, one method, several strengths."""

    name = "strength"
    options = frozenset({"harmful_ratio", "hrr_every"})

    def report(self, results: Results, samples: Samples, histories: Histories) -> "Report":
        """Table 3 and Figure 2."""
        from raycib.studies.strength.report import report

        return report(results, samples, histories)
