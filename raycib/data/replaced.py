"""Harmful rows among a task's: what fine-tuning on poisoned data is trained on.

As in the literature on harmful fine-tuning (Vaccine, arXiv:2402.01109; Lisa, arXiv:2405.18641) the
number n of rows stays what it is, and a share p of them is harmful: p n rows are other ones.
"""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from raycib.errors import UserError

T = TypeVar("T")


def replaced(rows: Sequence[T], others: Sequence[T], share: float, seed: int) -> list[T]:
    """`rows` of which a `share`, to the nearest whole row, is replaced by some of `others`.

    Which are replaced and by which is drawn, without replacement, by the seed; with a larger share
    the same ones are replaced by the same ones, and more. Raises `UserError` where that is no row,
    or more than there are `others`.
    """
    if not 0 < share <= 1:
        raise UserError(f"a share of {share:g} of the rows is none; give more than 0 and at most 1")
    count = round(share * len(rows))
    if not count:
        raise UserError(
            f"{100 * share:g} % of {len(rows)} rows is not one row; give a larger share"
        )
    if count > len(others):
        raise UserError(
            f"{100 * share:g} % of {len(rows)} rows are {count} harmful rows, and there are "
            f"{len(others)}; give more of them, or a share of at most {len(others) / len(rows):.2g}"
        )
    found = list(rows)
    places, chosen = _order(found, "places", seed)[:count], _order(others, "rows", seed)[:count]
    for place, other in zip(places, chosen, strict=True):
        found[place] = others[other]
    return found


def _order(rows: Sequence[T], what: str, seed: int) -> list[int]:
    order = list(range(len(rows)))
    Random(f"raycib replaced {what} {seed}").shuffle(order)
    return order
