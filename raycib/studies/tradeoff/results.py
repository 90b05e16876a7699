"""What a trade-off study adds to the results of a sweep; gaps and losses in nats per answer."""

from raycib.results import Part, Results, Scores
from raycib.studies.tradeoff.theory import Theory


class Mean(Part):
    """A mean over rows with Student's 95 % interval, which one row has not."""

    value: float
    low: float | None
    high: float | None
    se: float | None
    """Standard error."""
    n: int
    """Rows."""


class GapScores(Scores):
    """Of one model, with both gaps and the alignment tax."""

    alignment_gap: Mean
    """Against the aligned model: Eq. 19."""
    alignment_nll: Mean
    capability_gap: Mean | None = None
    """Against plain LoRA: Eq. 20."""
    capability_nll: Mean
    max_nll: float
    """The largest of a row."""
    alignment_gap_exact: Mean | None = None
    """Against the entropy of the data, where that is known."""
    capability_gap_exact: Mean | None = None
    tax: float
    """This and what follows: see ``AlignmentTax``."""
    tax_bound: float
    information_zy: float
    conditional_information: float
    label_entropy: float
    tax_se: float
    tax_slack_se: float
    tax_n: float
    tax_labels: float


class TradeoffResults(Results):
    """With what the theorems need."""

    theory: Theory | None = None
