"""Counting the tokens of rows: transformers brings torch along, which a driver lacks, so that this
is for a process of its own."""

import faulthandler
from typing import Any

from raycib.data.chat_format import chat_format
from raycib.data.lengths import count_tokens
from raycib.data.rows import Row
from raycib.errors import UserError
from raycib.models import check_architecture, load_tokenizer

MINUTES_TO_LOAD = 5
"""A template may hang where no limit inside Python reaches it: the process ends itself then."""


def counted(asked: dict[str, Any]) -> dict[str, Any]:
    """`sets` of (tokens that close an answer, lengths of each row) and `notes` on the template, for
    the `source` and `template` of a model and `sets` of rows, all plain JSON. Raises `UserError`,
    in one line."""
    try:
        check_architecture(asked["source"])  # here, where torch is, before anything starts
        # Its own stderr, by number: the one of the moment need not be a file.
        faulthandler.dump_traceback_later(MINUTES_TO_LOAD * 60, exit=True, file=2)
        tokenizer = load_tokenizer(asked["source"], asked["template"])
        faulthandler.cancel_dump_traceback_later()
        sets = [count_tokens(tokenizer, [Row(*row) for row in rows]) for rows in asked["sets"]]
        notes = chat_format(tokenizer).notes
        return {"sets": [(one.end, one.rows) for one in sets], "notes": notes}
    except Exception as error:  # tokenizers fail in many ways, each for the person to mend
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise UserError(kind + " ".join(str(error).split())) from error
