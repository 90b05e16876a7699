"""A process that tries a guard's tokenizer and template: transformers brings torch along, which a
driver lacks.

Reads a `JudgeSpec` as JSON and writes one object with the `error` in one line, or "".
"""

import sys

from raycib.config import JudgeSpec
from raycib.errors import UserError
from raycib.runtime.judge import guard_prompt


def error_of(spec: JudgeSpec) -> str:
    """Why the guard cannot be asked; "" where it can."""
    try:
        guard_prompt(spec)
    except UserError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    import json

    print("\n" + json.dumps({"error": error_of(JudgeSpec.model_validate_json(sys.stdin.read()))}))
