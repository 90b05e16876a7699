"""The results of a sweep: what `summary.json` holds, for whoever writes it or reads it.

A study with more has subclasses of these models. A field that came after format 2 has a default,
and one that a reader does not know is kept as it is: it is a study's of somebody else, or a later
version's. Rates are in [0, 1], losses and information in nats.
"""

from raycib.results.cards import Card, CardPart, Check
from raycib.results.cells import Aligned, Cell, Cost, Point, Scores, TaskData, Unaligned
from raycib.results.judging import (
    Agreement,
    CorrectedDifference,
    CorrectedRow,
    Correction,
    Flip,
    JudgeAccount,
    JudgeFlips,
    OtherClaim,
    OtherJudge,
    RowOrder,
)
from raycib.results.measured import (
    AskedAlone,
    AskedBenchmark,
    EngineLosses,
    FileRead,
    Model,
    Planned,
    SetOfRows,
    Setting,
    TrainedTokens,
)
from raycib.results.part import Part
from raycib.results.sweep import (
    FILE,
    FORMAT,
    Counts,
    Histories,
    Results,
    Samples,
    as_text,
    folder_of,
    read_results,
    results_of,
)

__all__ = [
    "FILE", "FORMAT", "Agreement", "Aligned", "AskedAlone", "AskedBenchmark", "Card", "CardPart",
    "Cell", "Check", "CorrectedDifference", "CorrectedRow", "Correction", "Cost", "Counts",
    "EngineLosses", "FileRead", "Flip", "Histories", "JudgeAccount", "JudgeFlips", "Model",
    "OtherClaim", "OtherJudge", "Part", "Planned", "Point", "Results", "RowOrder", "Samples",
    "Scores", "SetOfRows", "Setting", "TaskData", "TrainedTokens", "Unaligned", "as_text",
    "folder_of", "read_results", "results_of",
]  # fmt: skip
