"""How the strength of one method acts: on safety, on the task, and on information (CIB paper, Table
3 and Figure 2)."""

from raycib.runtime.study import Study


class Strength(Study):
    """One task, one method, several strengths."""

    name = "strength"
    options = frozenset({"harmful_ratio", "hrr_every"})
    reported_by = "raycib.studies.strength.report:report"
