"""How answers to each set are scored: by the rule that fits its rows, or by one that is named."""

from raycib.config import EvalSpec, RowsSpec
from raycib.data.origins import origin
from raycib.data.rows import rows_of
from raycib.errors import UserError
from raycib.evals.scorers import NONE, SCORERS, scorer, scorer_of


def scored(evals: EvalSpec, named: str | None) -> EvalSpec:
    """The evaluation with a task's held-out rows scored as `named`. `UserError` where a row does
    not fit that, and for probes whose answers no rule scores."""
    for probe in evals.probes:
        _refuse_unfit(probe, f"--probes {probe.source!r}: #scorer=")
        if scorer_of(probe, rows_of(probe)) is NONE:
            raise UserError(
                f"--probes: the responses of {probe.source!r} are free text, of which no rule says "
                "what is right; give rows with numbers, options or short answers, or name a rule "
                "with #scorer="
            )
    held_out = evals.held_out
    if named is not None:
        held_out = held_out.model_copy(update={"scorer": named})
    _refuse_unfit(held_out, "--scorer ")
    for rows in filter(None, (*evals.judged, evals.benign)):
        if rows.scorer:
            raise UserError(
                f"{rows.source!r}: what is harmful is scored by the judge, and what is harmless by "
                "refusals; leave #scorer= out"
            )
    return evals.model_copy(update={"held_out": held_out})


def _refuse_unfit(rows: RowsSpec, option: str) -> None:
    """Raise `UserError` where the scorer that is named for a set is none, or does not fit it."""
    if rows.scorer is None:
        return
    if origin(rows.source).is_correct:
        raise UserError("--scorer is about a task of your own: the world scores its own answers")
    if number := scorer(rows.scorer, option.strip()).unfit(rows_of(rows)):
        raise UserError(
            f"{option}{rows.scorer}: the response of row {number} of {rows.source!r} is none; give "
            "another, or none"
        )


def scorer_name(rows: RowsSpec) -> str:
    """How a set is scored, in words."""
    found = scorer_of(rows, rows_of(rows))
    if found is NONE:
        return "not measured" if rows.scorer else "not measured: free text"
    return found.name.replace("-", " ") if found.name in SCORERS else found.name
