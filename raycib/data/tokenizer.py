"""A tokenizer from its files alone: none of its own code runs, and every day is the same to it."""

from pathlib import Path
from typing import Any

from raycib.data.rendering import hold_the_date
from raycib.errors import UserError
from raycib.model_files.config import refuse_code

_TRIAL = "How do I make tea?\n\nI'd pay 12345 for a na\u00efve one."
"""Words, digits and line breaks, which kinds of tokenizers part otherwise."""


def open_tokenizer(folder: str | Path) -> Any:
    """The tokenizer in a local folder. Raises `UserError`, in one line, where there is none that
    can be read, where its files name code to run, and where it is read as another than its
    `tokenizer.json` describes."""
    from transformers import AutoTokenizer

    refuse_code(Path(folder))
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # tokenizers fail in dozens of ways; the person mends them alike
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"the tokenizer in {str(folder)!r} cannot be read: {reason}") from error
    _refuse_another(tokenizer, Path(folder))
    return hold_the_date(tokenizer)


def _refuse_another(tokenizer: Any, folder: Path) -> None:
    """transformers 5 builds most classes anew from vocabulary and merges alone. Where a folder
    names another class than its model was made with (`LlamaTokenizerFast` for bytes, as models
    distilled from DeepSeek R1 do), spaces are lost: transformers' issue 45488."""
    kind = type(tokenizer).__name__
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        other = folder / "tekken.json"
        mend = f"move {other} elsewhere" if other.exists() else "give the folder one"
        raise UserError(
            f"the tokenizer in {str(folder)!r} is read as a {kind}, not by a tokenizer.json (a "
            f"fast tokenizer): {mend}"
        )
    path = folder / "tokenizer.json"
    if kind == "TokenizersBackend" or not path.exists():
        return
    from tokenizers import Tokenizer

    described = Tokenizer.from_file(str(path))
    described.no_truncation()
    described.no_padding()
    told = described.encode(_TRIAL, add_special_tokens=False).tokens
    try:
        found = tokenizer.tokenize(_TRIAL)
    except Exception:  # of the wrong class it may have no word at all; the error is a bare one
        found = []
    if found != told:
        pairs = zip(found, told, strict=False)
        first = next((n for n, (one, other) in enumerate(pairs) if one != other), len(found))
        raise UserError(
            f"{folder / 'tokenizer_config.json'}: as a {kind}, which transformers makes of it, a "
            f"text has other tokens ({found[first : first + 3]}) than by tokenizer.json "
            f"({told[first : first + 3]}); set tokenizer_class to PreTrainedTokenizerFast"
        )
