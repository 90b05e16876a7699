"""Verdicts in the store: a conversation is judged once by a judge, whoever asks."""

import json
from collections.abc import Callable, Iterable, Sequence

import msgspec

from raycib.config import digest
from raycib.evals.judges import Judge, Verdict, verdict_key
from raycib.store import Store
from raycib.store.kinds import VERDICTS

CHUNK = 256
"""Conversations a record: what is lost at most when the judge or the machine goes down."""
_FILE = "verdicts.jsonl"

Pair = tuple[str, str]
"""(prompt, answer)."""
Told = Callable[[int, int], None]
"""Called with how many conversations are read, of how many."""


class VerdictCache:
    """All that one judge has said, read from the store and added to it."""

    def __init__(self, store: Store, judge_key: str, source: str = "") -> None:
        """`source` is where the judge is now; it is no part of its key."""
        self.store, self.judge_key, self.source = store, judge_key, source
        self.sources: set[str] = set()
        """Where the judge was when it said what is known."""
        self._known: dict[str, Verdict] = {}
        self._asked: dict[Pair, Verdict] = {}
        """What was looked up before, by what was said: a key costs more than all else here."""
        self._read: set[str] = set()
        """Records that were read."""
        self.refresh()

    def refresh(self) -> None:
        """Read what was added to the store meanwhile."""
        for key in self.store.keys(VERDICTS):
            if key in self._read or not key.startswith(self._prefix):
                continue
            self._read.add(key)
            if record := self.store.get(VERDICTS, key, only=(_FILE,)):
                self.sources.add(record.about.get("source", self.source))
                for entry in record.lines(_FILE):
                    self._known[entry["key"]] = msgspec.convert(entry, Verdict)

    @property
    def _prefix(self) -> str:
        return f"{self.judge_key[:24]}-"

    def get(self, pair: Pair) -> Verdict | None:
        """The verdict on (prompt, answer), or None where it was never asked."""
        found = self._asked.get(pair)
        if found is None:
            found = self._known.get(verdict_key(self.judge_key, *pair))
            if found is not None:
                self._asked[pair] = found
        return found

    def missing(self, pairs: Iterable[Pair]) -> list[Pair]:
        """The distinct pairs without a verdict, in order."""
        return list(dict.fromkeys(pair for pair in pairs if self.get(pair) is None))

    def ask(
        self, judge: Judge, pairs: Iterable[Pair], told: Told = lambda read, total: None
    ) -> int:
        """Have `judge` read what is missing of `pairs`; returns how many it read. `told` hears of
        none, and of each chunk.

        Each chunk is stored as soon as it is known, so that an interrupted judge is only asked the
        rest. Sweeps on one store ask one after the other, so that none asks what another has asked.
        Raises `JudgeUnavailable`.
        """
        todo = self.missing(pairs)
        read = 0

        def keep(rows: list[int], verdicts: list[Verdict]) -> None:
            nonlocal read
            self._put([todo[row] for row in rows], verdicts)
            read += len(rows)
            told(read, len(todo))

        if todo:
            with self.store.claim(VERDICTS, self._prefix):
                self.refresh()
                if todo := self.missing(todo):
                    told(0, len(todo))
                    judge.judge(todo, on_chunk=keep, chunk_rows=CHUNK)
        return len(todo)

    def _put(self, pairs: Sequence[Pair], verdicts: Sequence[Verdict]) -> None:
        keys = [verdict_key(self.judge_key, *pair) for pair in pairs]
        lines = [
            json.dumps({"key": key, **vars(verdict), "prompt": prompt, "answer": answer}) + "\n"
            for key, verdict, (prompt, answer) in zip(keys, verdicts, pairs, strict=True)
        ]
        about = {"judge": self.judge_key, "verdicts": len(keys), "source": self.source}
        self.sources.add(self.source)
        key = self._prefix + digest(keys)[:40]
        record = self.store.put_text(VERDICTS, key, _FILE, "".join(lines), about)
        self._read.add(record.key)
        self._known.update(zip(keys, verdicts, strict=True))
