"""A scorer of one's own: a number is right where it is within one per cent of the wanted one."""

from raycib.data.rows import Row
from raycib.evals.scorers.numbers import gold_number, said_number


def within_one_percent(row: Row, answer: str) -> bool | None:
    """Of an answer's last number; None where the row's response is no number."""
    wanted, said = gold_number(row.response), said_number(answer)
    if wanted is None:
        return None
    return said is not None and abs(said - wanted) <= abs(wanted) / 100
