"""A tokenizer from its files alone: none of its own code runs, and every day is the same to it."""

from pathlib import Path
from typing import Any

from raycib.data.rendering import hold_the_date
from raycib.errors import UserError
from raycib.model_files.config import refuse_code


def open_tokenizer(folder: str | Path) -> Any:
    """The tokenizer in a local folder. Raises `UserError`, in one line, where there is none that
    can be read, and where its files name code to run."""
    from transformers import AutoTokenizer

    refuse_code(Path(folder))
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # tokenizers fail in dozens of ways; the person mends them alike
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"the tokenizer in {str(folder)!r} cannot be read: {reason}") from error
    return hold_the_date(tokenizer)
