"""Who judged, what other judges say of the same answers, and what labels say of the first one."""

from collections.abc import Mapping, Sequence

from raycib.config.evals import REFUSAL_RULE
from raycib.metrics import Rate
from raycib.results.part import Part


class JudgeAccount(Part):
    """Who judged, and what a reader must know of the verdicts."""

    name: str = ""
    key: str = ""
    profile: str = ""
    protected: bool = False
    """Whether no answer can act on it as an instruction."""
    sanitised: int = 0
    """Conversations with text that was taken out before an endpoint saw them."""
    unread: Mapping[str, int] = {}
    """Conversations without a verdict, by why."""
    in_windows: int = 0
    """Conversations read in overlapping parts."""
    windows: int = 0
    """Readings in all."""
    unknown_categories: int = 0
    """Verdicts that name a category that it was not asked about."""
    notes: Mapping[str, int] = {}
    elsewhere: Sequence[str] = ()
    """Other addresses where some verdicts were given."""
    out_of_its_world: bool = False
    """Whether it is the embedded world's and what was asked is not of that world."""

    @property
    def by_rule(self) -> bool:
        """Whether no judge read the answers: the refusal rule knows no harm."""
        return self.profile == REFUSAL_RULE


class Flip(Part):
    """What an attack does to verdicts on answers whose harm is known. Attack "none": wrong verdicts
    without any; else verdicts that were right without it and are not under it."""

    attack: str
    missed: Rate
    """Of harmful answers: called safe."""
    alarms: Rate
    """Of harmless ones: called harmful."""


class JudgeFlips(Part):
    """A judge under attack."""

    judge: str
    answers: str
    """Where the answers and the truth about them come from."""
    flips: Sequence[Flip]


class Agreement(Part):
    """Of two judges: counts of conversations, and what follows of those that both read."""

    n: int
    """Read by both."""
    both_safe: int
    both_unsafe: int
    only_first_unsafe: int
    only_other_unsafe: int
    first_unread: int
    """By the first judge, whatever the other says."""
    other_unread: int
    agreement: float | None
    """Share of the ``n`` in which they say the same; None where n is 0."""
    kappa: float | None
    """Cohen's; None where it is not defined: both judges say the same of everything."""
    kappa_low: float | None
    kappa_high: float | None
    """Ends of the 95 % interval; None where there is no variance to make one of."""


class RowOrder(Part):
    """How far two judges put the rows of a setting into the same order."""

    setting: str = ""
    rows: int
    tau: float | None
    """Kendall's tau-b; None below two rows, or where a judge tells none apart."""
    swapped: int
    """Pairs of rows whose order is the other way round."""
    pairs: int


class OtherClaim(Part):
    """One of the first judge's claims under another."""

    claim: str
    first: bool | None
    """Whether it holds by the first judge; None where that cannot tell."""
    other: bool | None
    changes: bool
    evidence: str
    """By the other."""


class OtherJudge(Part):
    """What another judge says of the same answers."""

    name: str
    against: str
    """The first judge's name."""
    judge: JudgeAccount
    agreement: Agreement
    order: Sequence[RowOrder]
    claims: Sequence[OtherClaim]


class CorrectedRow(Part):
    """A harmful response rate, corrected for the judge's error."""

    method: str
    """The variant, or the model before fine-tuning."""
    cells: Sequence[str]
    """Their keys, or "aligned"."""
    labelled: int
    """Answers that have a label."""
    hrr: Rate
    """As judged; a mean over seeds. ``n`` counts prompts."""
    rogan_gladen: Rate | None = None
    """By one error for all rows; None where that is not supported."""
    prediction_powered: Rate | None = None
    """By the row's own labels; None where a verdict that occurs has none."""


class CorrectedDifference(Part):
    """A row's harmful response rate less another's, on the same prompts; in [-1, 1]. ``n`` counts
    prompts."""

    method: str
    against: str
    hrr: Rate
    """As judged."""
    rogan_gladen: Rate | None = None
    prediction_powered: Rate | None = None


class Correction(Part):
    """What labels say of the judge's error, and the rates that are corrected by it."""

    labels: str
    """Where they come from."""
    labelled: int
    """Distinct answers with a label."""
    sensitivity: Rate | None = None
    """Share of harmful answers that are judged harmful; ``n`` counts labels. None: not known."""
    specificity: Rate | None = None
    """Share of harmless answers that are judged safe."""
    same_error_p: float | None = None
    """Of one error for all rows; None where there is nothing to compare."""
    not_pooled: str = ""
    """Why no rate is corrected by one error for all."""
    rows: Sequence[CorrectedRow] = ()
    differences: Sequence[CorrectedDifference] = ()
    """Of each row to plain LoRA on the same model and task."""
