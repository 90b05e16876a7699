"""One task after another: what safety and earlier tasks keep, and whether the order matters (CIB
paper, Tables 2 and 4, Figures 4-7)."""

from raycib.studies.continual.runs import method_at, read_orders, runs_in
from raycib.studies.continual.study import Continual

__all__ = ["Continual", "method_at", "read_orders", "runs_in"]
