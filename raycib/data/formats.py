"""Data sets whose prompt or answer is not a text in one column, as their authors describe them.

Each is known by its columns' names in small letters and gives the texts of a row by role, from
`read`'s columns; the roles are those of `raycib.data.columns`.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from raycib.data.tables import Number, shown
from raycib.data.texts import text_of, trimmed
from raycib.errors import UserError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MEDMCQA = ("opa", "opb", "opc", "opd")
LABELS = ("answerkey", "answer_idx", "answer_index", "answer")
"""Columns that name the right one of several options; the first that is there counts."""
UNANSWERABLE = "unanswerable"
SEVERAL = {"cop", "choices", "options"}
"""Columns of which one is in every row with several options."""
TELLING = {"answers", "old_contents", "behavior", *SEVERAL}
"""Columns of which one is in every row of a known data set."""


class Known(NamedTuple):
    """What the row of a known data set says."""

    texts: Mapping[str, Any] = MappingProxyType({})
    """What stands in a role; other roles are looked for as in any row."""
    read: tuple[str, ...] = ()
    """The columns that it comes from."""
    before: str = ""
    """What the prompt is about, said before it."""
    after: str = ""
    """What follows the prompt."""
    other_answers: tuple[str, ...] = ()
    """Further answers that are right."""
    did: str = ""
    """What was done, for the notes."""


class Choice(NamedTuple):
    """A question with several options."""

    options: tuple[tuple[str, Any], ...]
    """Label and text of each; the text is None where the row has none."""
    label: Any
    """As the row names the right one: a number, a label or a text; None where it does not."""
    read: tuple[str, ...]

    @property
    def number(self) -> int | None:
        """The right one's number, where it is named by one."""
        label = self.label
        if isinstance(label, str) and (label in dict(self.options) or not label.strip()):
            return None
        if isinstance(label, bool):
            return None
        try:
            number = float(label)
        except (TypeError, ValueError):
            return None
        return int(number) if number.is_integer() and number >= 0 else None


_COMMIT = ("prompt", "context", "response")


def known(entry: Mapping[str, Any]) -> Known | None:
    """A row of SQuAD, CommitPackFT, HarmBench or JailbreakBench by role; None for any other."""
    answers = entry.get("answers")
    if "question" in entry and isinstance(answers, dict) and isinstance(answers.get("text"), list):
        return _squad(entry, answers["text"])
    if {"old_contents", "new_contents", "message"} <= entry.keys():
        read = ("message", "old_contents", "new_contents")
        return Known(dict(zip(_COMMIT, map(entry.get, read), strict=True)), read)
    if "behavior" in entry and not entry.keys().isdisjoint({"goal", "contextstring"}):
        asked = "goal" if "goal" in entry else "behavior"  # which is a label beside a goal
        read = (asked, *({"contextstring"} & entry.keys()))
        context = text_of(entry.get("contextstring"), numbers=False)
        return Known({"prompt": entry[asked]}, read, before=context)
    return None


def _squad(entry: Mapping[str, Any], answers: list[Any]) -> Known:
    """SQuAD 2: a question on a text that may not hold the answer."""
    rule = f"If the text does not say, answer: {UNANSWERABLE}."
    first, *others = map(text_of, answers or [UNANSWERABLE])
    return Known(
        {"prompt": entry["question"], "response": first},
        ("question", "answers"),
        after=f" {rule}",
        other_answers=tuple(dict.fromkeys(text for text in others if text not in (first, ""))),
        did="" if answers else f"{UNANSWERABLE!r} as the response",
    )


def choice(entry: Mapping[str, Any]) -> Choice | None:
    """The options of a row of MedMCQA, or of one with `choices` or `options` (MMLU, ARC); None for
    any other."""
    if "question" in entry and {*MEDMCQA, "cop"} <= entry.keys():
        options = zip("ABCD", (entry[name] for name in MEDMCQA), strict=True)
        label = entry["cop"]
        if isinstance(label, str) and not isinstance(label, Number):
            label = label.strip().upper()
        return Choice(tuple(options), _missing(label), ("question", *MEDMCQA, "cop"))
    name = next((name for name in ("choices", "options") if entry.get(name)), None)
    if name is None or "question" not in entry:
        return None
    column = next((key for key in LABELS if entry.get(key) is not None), None)
    label = entry[column] if column else None
    read = ("question", name, *([column] if column else []))
    match entry[name]:
        case list(texts) if len(texts) <= len(LETTERS):
            return Choice(tuple(zip(LETTERS, texts, strict=False)), _missing(label), read)
        case {"text": list(texts), "label": list(labels)} if len(texts) == len(labels):
            options = zip(map(str, labels), texts, strict=True)
            return Choice(tuple(options), _missing(label), read)
        case dict(texts) if all(key in LETTERS for key in texts):
            return Choice(tuple(texts.items()), _missing(label), read)
        case other:
            raise UserError(
                f"column {name!r} is {shown(other)}, not a list of options; give them as a list, "
                f"or have it read as text with #context={name}"
            )


def _missing(label: Any) -> Any:
    """None for the labels of hidden answers: nothing, or -1."""
    if label is None or label != label or (not isinstance(label, bool) and str(label) in _HIDDEN):
        return None
    return label


_HIDDEN = {"", "-1", "-1.0"}


def first_label(choices: Iterable[Choice], where: str) -> int | None:
    """What the first option is numbered in a file, by all of its rows: 0 where a row says 0, 1
    where a row's number is its last option's plus one; None where none tells.

    Raises `UserError` where rows tell both.
    """
    zero = one = False
    for each in choices:
        zero |= each.number == 0
        one |= each.number == len(each.options)
    if zero and one:
        raise UserError(f"{where}: some rows number the first option 0 and some 1; mend them")
    return 0 if zero else 1 if one else None


def answered(each: Choice, first: int | None) -> Known:
    """The question with its options, and the right one as the answer (none where it is hidden);
    `first` is the number of the first one. Raises `UserError` for a label that names none."""
    labels = [label for label, _ in each.options]
    texts = [text_of(text) for _, text in each.options]
    lines = [f"{label}. {text}" for label, text in zip(labels, texts, strict=True)]
    asked = "".join(f"\n{line}" for line, text in zip(lines, texts, strict=True) if text)
    right = each.label
    if right is None:
        return Known({"response": None}, each.read, after=asked)
    index = -1
    if isinstance(right, str) and right in labels:
        index = labels.index(right)
    elif isinstance(right, str) and texts.count(trimmed(right)) == 1:
        index = texts.index(trimmed(right))
    elif each.number is not None and first is None:
        raise UserError(
            f"the right option is number {each.number}, and no row says whether the first is 0 or "
            "1; add #labels-from=0 or #labels-from=1"
        )
    elif each.number is not None:
        index = each.number - (first or 0)
    if not 0 <= index < len(texts) or not texts[index]:
        raise UserError(f"the right option is {shown(right)}, which none of them is")
    return Known({"response": lines[index]}, each.read, after=asked)
