"""Token ids of a text that goes on after another's."""

from typing import Any

from raycib.data.rendering import TemplateError, name_of


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text to which nothing is added."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def begins(whole: list[int], first: list[int]) -> bool:
    """Whether `whole` begins with `first`."""
    return whole[: len(first)] == first


def continued(tokenizer: Any, prompt: list[int], answer: str, whole: list[int]) -> list[int]:
    """Ids of `answer` that say, after those of the prompt, what the `whole` text's say: its own,
    where those of the prompt are its first.

    Some tokenizers put a space before any text; after a line break they put none.
    """
    if begins(whole, prompt):
        return whole[len(prompt) :]
    for lead in ("", "\n"):
        first, ids = ids_of(tokenizer, lead) if lead else [], ids_of(tokenizer, lead + answer)
        rest = ids[len(first) :]
        if begins(ids, first) and tokenizer.decode(prompt + rest) == tokenizer.decode(whole):
            return rest
    raise TemplateError(
        f"the answer {answer[:60]!r} begins within the last token of its prompt, and the tokenizer "
        "cannot begin it elsewhere: put a line break or a control token before answers in "
        f"{name_of(tokenizer)}"
    )
