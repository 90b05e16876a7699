"""A process that counts the tokens of rows: transformers brings torch along, which a driver lacks.

Reads one JSON object (`source`, `template`, `sets` of rows) and writes one as its last line.
"""

import faulthandler
import json
import sys

from raycib.data.chat_format import chat_format
from raycib.data.lengths import count_tokens
from raycib.data.rows import Row
from raycib.models import check_architecture, load_tokenizer

MINUTES_TO_LOAD = 5
"""A template may hang where no limit inside Python reaches it: the process ends itself then."""


def main() -> None:
    """Count; whatever stands in the way is told in one line of JSON."""
    try:
        asked = json.load(sys.stdin)
        check_architecture(asked["source"])  # here, where torch is, before anything starts
        faulthandler.dump_traceback_later(MINUTES_TO_LOAD * 60, exit=True)
        tokenizer = load_tokenizer(asked["source"], asked["template"])
        faulthandler.cancel_dump_traceback_later()
        found = [count_tokens(tokenizer, [Row(*row) for row in rows]) for rows in asked["sets"]]
        sets = [(one.end, one.rows) for one in found]
        print("\n" + json.dumps({"sets": sets, "notes": chat_format(tokenizer).notes}))
    except Exception as error:  # tokenizers fail in many ways, each for the person to mend
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        print("\n" + json.dumps({"error": kind + " ".join(str(error).split())}))


if __name__ == "__main__":
    main()
