"""From the named columns of a table to rows: which column is what, and what is left out.

A role that two columns of a row could have is refused, never chosen by chance; what no role has is
listed as not read.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from raycib.counting import count
from raycib.data.conversations import Conversation, conversation
from raycib.data.formats import (
    SEVERAL,
    TELLING,
    Choice,
    Known,
    answered,
    choice,
    first_label,
    known,
)
from raycib.data.sources import Source
from raycib.data.tables import Table, listed, shown
from raycib.data.texts import text_of, trimmed
from raycib.errors import UserError

TEXTS = {
    "prompt": ("prompt", "instruction", "question", "goal", "behavior", "instructions"),
    "context": ("input", "context", "inputs"),
    "response": ("response", "output", "answer", "completion"),
    "system": ("system", "system_prompt", "system_message"),
}
ROLES = {
    **TEXTS,
    "messages": ("messages", "conversations", "conversation"),
    "history": ("history", "chat_history", "conversation_history"),
    "image": ("image", "images", "imagefilename", "audio"),
}
"""Names of columns in small letters, by what they hold."""
_WRITTEN_TURNS = re.compile(r"""\[\s*\{\s*['"](role|content|from|value)['"]\s*:""")
_NAMES = {name for names in ROLES.values() for name in names}


class Row(NamedTuple):
    """One prompt and its response ("" where none is known)."""

    prompt: str
    response: str
    system: str = ""
    """What a system turn before the prompt says; "" where there is none."""
    other_answers: tuple[str, ...] = ()
    """Further responses that are as right, such as SQuAD's."""


class Shape(NamedTuple):
    """What the columns of an entry are, by their names alone."""

    columns: dict[str, tuple[str, ...]]
    """Columns that could have a role, by role."""
    original: dict[str, str]
    """As the file writes a name, by its normal form."""


def normal(name: str) -> str:
    """A column's name as data sets vary it: "System Prompt" is system_prompt."""
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def find_column(wanted: str, names: Iterable[str], where: str) -> str:
    """The column that a person means; `UserError` where there is none."""
    names = list(names)
    found = [name for name in names if name == wanted]
    found = found or [name for name in names if normal(name) == normal(wanted)]
    if len(found) != 1:
        raise UserError(f"{where} has no column {shown(wanted)}; it has {listed(names)}")
    return found[0]


class Columns:
    """Reads the entries of one table as rows, and counts what it makes of their columns."""

    def __init__(self, table: Table, source: Source) -> None:
        self.table = table
        self.names = table.names
        self.chosen = {
            role: (find_column(name, self.names, table.where),) if name else ()
            for role, name in source.columns.items()
        }
        self.by_name = not {"prompt", "response", "context"} & self.chosen.keys()
        """Whether a known data set is known by its columns, or the person names them."""
        self.labels_from = source.labels_from
        if self.by_name and SEVERAL & {*map(normal, self.names)} and self.labels_from is None:
            self.labels_from = first_label(self._choices(), table.where)
        self.looked: set[str] = set()
        """Columns that were looked into."""
        self.unread: set[str] = set()
        """Parts of turns that no role has."""
        self.taken: Counter[tuple[str, str]] = Counter()
        """Rows by role and column."""
        self.did: Counter[str] = Counter()
        """Rows by what was done with them."""
        self._shapes: dict[tuple[str, ...], Shape] = {}

    def rows(self) -> Iterator[Row]:
        """Every entry as a row; `UserError` with row, line and column for one that is none."""
        for index, entry in enumerate(self.table.entries):
            try:
                row = self._row(entry, self._shape(entry))
                "".join((*row[:3], *row.other_answers)).encode()
            except UnicodeEncodeError as error:
                raise UserError(
                    f"{self.table.place(index)}: half of a character that JSON writes as two "
                    f"({error.object[error.start]!r}), which no tokenizer reads; remove it"
                ) from error
            except UserError as error:
                raise UserError(f"{self.table.place(index)}: {error}") from error
            yield row

    def notes(self) -> list[str]:
        """What was made of the columns, in words."""
        roles: dict[str, list[str]] = {}
        for role, name in self.taken:
            roles.setdefault(role, []).append(name)
        found = [", ".join(f"{role} from {listed(names)}" for role, names in roles.items())]
        found += [f"{what}: {count(n, 'row')}" for what, n in self.did.items() if n]
        if unread := (self.names.keys() - self.looked) | self.unread:
            found.append(f"not read: {listed(unread)}")
        return [note for note in found if note]

    def _choices(self) -> Iterator[Choice]:
        for index, entry in enumerate(self.table.entries):
            try:
                found = choice({normal(name): value for name, value in entry.items()})
            except UserError as error:
                raise UserError(f"{self.table.place(index)}: {error}") from error
            if found:
                yield found

    def _shape(self, entry: dict[str, Any]) -> Shape:
        names = tuple(entry)
        if names not in self._shapes:
            original = {normal(name): name for name in names}
            for name in names:
                if (one := normal(name)) in _NAMES and original[one] != name:
                    raise UserError(
                        f"columns {listed([name, original[one]])} have one name; rename one"
                    )
            columns = {
                role: tuple(original[name] for name in named if name in original)
                for role, named in ROLES.items()
            }
            for role, chosen in self.chosen.items():
                columns[role] = tuple(name for name in chosen if name in names)
            self._shapes[names] = Shape(columns, original)
        return self._shapes[names]

    def _row(self, entry: dict[str, Any], shape: Shape) -> Row:
        for role in ("history", "image"):
            if self._filled(role, entry, shape):
                raise UserError(f"{listed(shape.columns[role])}: a row cannot hold {role}")
        special = self._special(entry, shape)
        values = {
            role: ("", special.texts[role])
            if role in special.texts
            else self._pick(role, entry, shape)
            for role in TEXTS
        }
        spoken = self._spoken(entry, shape, values)
        texts = {role: self._text(role, *values[role]) for role in TEXTS}
        if spoken:
            texts = self._agreed(texts, spoken)
        if not texts["prompt"]:
            if shape.columns["prompt"]:
                raise UserError(
                    f"no text in the column of the prompt, {listed(shape.columns['prompt'])}; "
                    "mend or remove the row, or choose with #prompt=COLUMN"
                )
            raise UserError(
                f"no prompt in columns {listed(entry)}; name one of them {TEXTS['prompt']}, or "
                "choose with #prompt=COLUMN"
            )
        prompt = texts["prompt"] + special.after
        if special.before:  # as HarmBench's own direct request
            prompt = f"{special.before}\n\n---\n\n{prompt}"
        if texts["context"]:
            prompt = f"{prompt}\n\n{texts['context']}"
        self.did["context joined to the prompt"] += bool(special.before or texts["context"])
        self.did["system prompt"] += bool(texts["system"])
        self.did[special.did] += bool(special.did)
        return Row(prompt, texts["response"], texts["system"], special.other_answers)

    def _special(self, entry: dict[str, Any], shape: Shape) -> Known:
        """What the row of a known data set says."""
        found = None
        if self.by_name and not TELLING.isdisjoint(shape.original):
            named = {name: entry[column] for name, column in shape.original.items()}
            found = known(named)
            if found is None and (several := choice(named)):
                found = answered(several, self.labels_from)
        if found is None:
            return Known()
        read = [shape.original[name] for name in found.read]
        self.looked.update(read)
        self.did[f"of a known form, from {listed(read)}"] += 1
        return found

    def _filled(self, role: str, entry: dict[str, Any], shape: Shape) -> list[str]:
        if not (names := shape.columns[role]):
            return []
        self.looked.update(names)
        return [name for name in names if not _nothing(entry[name], lists=role not in TEXTS)]

    def _pick(self, role: str, entry: dict[str, Any], shape: Shape) -> tuple[str, Any]:
        """The column that has a role in an entry, and its value."""
        filled = self._filled(role, entry, shape)
        if len(filled) > 1:
            raise UserError(
                f"{listed(filled)} could each be the {role}; choose with #{role}=COLUMN"
            )
        for name in filled:
            self.taken[role, name] += 1
            return name, entry[name]
        return "", None

    def _text(self, role: str, column: str, value: Any) -> str:
        try:
            text = text_of(value, numbers=role == "response")
            if _WRITTEN_TURNS.match(text):  # a CSV file of chats would be asked letter by letter
                raise UserError("a list of turns written as text; save the file as JSONL")
        except UserError as error:
            where = listed([column or role])
            raise UserError(
                f"column {where}: {error}; mend it, or choose with #{role}=COLUMN"
            ) from error
        self.did["number as the response"] += bool(text) and type(value) is not str
        return text

    def _spoken(
        self, entry: dict[str, Any], shape: Shape, values: dict[str, tuple[str, Any]]
    ) -> Conversation | None:
        """What a list of turns says: in `messages`, or in place of prompt and response, which are
        then taken out of `values`."""
        asked, said = values["prompt"][1], values["response"][1]
        name, turns = "", None
        if isinstance(asked, list):
            name, turns = values["prompt"][0], asked
            values["prompt"] = ("", None)
        if isinstance(said, list) and said and isinstance(said[0], dict):
            name = name or values["response"][0]
            turns = [*(turns or [{"role": "user", "content": asked}]), *said]
            values["response"] = ("", None)
        if turns is None and "prompt" not in self.chosen:
            name, turns = self._pick("messages", entry, shape)
        if turns is None:
            return None
        try:
            spoken = conversation(turns)
        except UserError as error:
            raise UserError(f"column {listed([name])}: {error}") from error
        self.unread |= {f"{name}.{part}" for part in spoken.unread}
        return spoken

    def _agreed(self, texts: dict[str, str], spoken: Conversation) -> dict[str, str]:
        """The texts of a conversation, and of the columns beside it where they say no other."""
        both = {role: getattr(spoken, role, "") for role in TEXTS}
        for role, text in texts.items():
            if text and both[role] and trimmed(text) != both[role]:
                raise UserError(f"column and turns have another {role}; choose with #{role}=COLUMN")
        return {role: both[role] or text for role, text in texts.items()}


def _nothing(value: Any, lists: bool) -> bool:
    """Null, NaN or white space; an empty list too, where lists belong."""
    if isinstance(value, str):
        return not value.strip() or (lists and value.strip() == "[]")
    if isinstance(value, list | dict):
        return lists and not value
    return value is None or value != value
