"""The Trade-offs paper: how far safety and capability are from their best, and whether its theorems
tell."""

from raycib.studies.tradeoff.inputs import case1_variants, inputs_of
from raycib.studies.tradeoff.study import Tradeoff

__all__ = ["Tradeoff", "case1_variants", "inputs_of"]
