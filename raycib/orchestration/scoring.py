"""How answers to each set are scored: by the rule that fits its rows, or by one that is named."""

from raycib.data.origins import origin
from raycib.data.rows import rows_of
from raycib.errors import UserError
from raycib.evals.capability import scorer_of
from raycib.evals.scorers import unfit
from raycib.spec import EvalSpec, RowsSpec, Scorer


def scored(evals: EvalSpec, named: Scorer | None) -> EvalSpec:
    """The evaluation with a task's held-out rows scored as `named`. `UserError` where a row does
    not fit that, and for probes whose answers no rule scores."""
    for probe in evals.probes:
        if scorer_of(probe, rows_of(probe)) == "none":
            raise UserError(
                f"--probes: the responses of {probe.source!r} are free text, of which no rule says "
                "what is right; give rows with numbers, options or short answers"
            )
    if named is None:
        return evals
    held_out = evals.held_out.model_copy(update={"scorer": named})
    if origin(held_out.source).is_correct:
        raise UserError("--scorer is about a task of your own: the world scores its own answers")
    if number := unfit(named, rows_of(held_out)):
        raise UserError(
            f"--scorer {named}: the response of row {number} of {held_out.source!r} is none; give "
            "another, or none"
        )
    return evals.model_copy(update={"held_out": held_out})


def scorer_name(spec: RowsSpec) -> str:
    """How a set is scored, in words."""
    scorer = scorer_of(spec, rows_of(spec))
    if scorer is None:
        return "the world's own rules"
    if scorer == "none":
        return "not measured" if spec.scorer else "not measured: free text"
    return scorer.replace("-", " ")
