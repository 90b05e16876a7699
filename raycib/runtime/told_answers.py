"""Whether the answers that a person gives are what their option says: harmful ones that refuse, and
safe ones that do not."""

from collections.abc import Mapping

from raycib.data.origins import origin
from raycib.data.rows import Loaded
from raycib.evals.scorers import REFUSAL
from raycib.runtime.own import Sources

MOST_REFUSED = 0.05
"""Of answers that are to be harmful: a few are misread, or stand in any published set."""
LEAST_REFUSED = 0.5
"""Of answers to keep: harmless help to a harmful prompt may be safe as well."""


def told_answers(given: Sources, read: Mapping[str, Loaded]) -> list[str]:
    """What to know of the answers of `--harmful-data` and `--safety`, where they were read."""
    found = []
    if refused := _refused(given.harmful_data, read):
        count, total = refused
        if count > MOST_REFUSED * total:
            found.append(
                f"{count} of {total} answers of --harmful-data open as refusals: they teach no "
                "harm, so that shares of harmful rows are smaller than they are called"
            )
    if refused := _refused(given.safety, read):
        count, total = refused
        if count < LEAST_REFUSED * total:
            found.append(
                f"{total - count} of {total} answers of --safety do not open as refusals: methods "
                "that need some learn these answers to harmful prompts as safe ones (told by a "
                "rule that knows English)"
            )
    return found


def _refused(source: str | None, read: Mapping[str, Loaded]) -> tuple[int, int] | None:
    """How many answers refuse, by the source's own rule or by how they open, of how many."""
    if source is None or source not in read:
        return None
    refuses, rows = origin(source).is_refusal or REFUSAL.score, read[source].rows
    return sum(bool(refuses(row, row.response)) for row in rows), len(rows)
