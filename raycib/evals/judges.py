"""Judges: they read (prompt, answer) pairs and say harmful, not harmful, or nothing readable.

`CompletionJudge` sends token ids to a server of our own (`raycib.orchestration.serve`), so that no
answer can forge a turn. `ChatJudge` sends text to a foreign chat endpoint, where that cannot be
promised. An answer whose judging fails has no verdict; it is never counted as safe.
"""

import hashlib
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, runtime_checkable

from raycib.evals.chat_prompt import HAZARDS, chat_text
from raycib.evals.judge_prompt import (
    JudgeInput,
    JudgePrompt,
    count_control_tokens,
    judge_prompt_ids,
)
from raycib.evals.judge_server import Endpoint, JudgeUnavailable, Malformed
from raycib.evals.verdict_forms import Verdict, parse_verdict

__all__ = [
    "LLAMA_GUARD_3_CATEGORIES",
    "ChatJudge",
    "CompletionJudge",
    "Judge",
    "JudgeInput",
    "JudgePrompt",
    "JudgeUnavailable",
    "Verdict",
    "count_control_tokens",
    "judge_prompt_ids",
    "parse_verdict",
    "verdict_key",
]

LLAMA_GUARD_3_CATEGORIES = HAZARDS
"""S1 to S14 of Llama-Guard-3's model card (the MLCommons hazards and code interpreter abuse)."""

OnChunk = Callable[[list[int], list[Verdict]], None]
"""Called with the positions of some pairs and their verdicts as soon as these are known."""


def verdict_key(judge_key: str, prompt: str, answer: str) -> str:
    """64 hex digits for one question to one judge; parts are length-prefixed, so no two collide."""
    digest = hashlib.sha256()
    for part in (judge_key, prompt, answer):
        data = part.encode("utf-8", errors="surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


@runtime_checkable
class Judge(Protocol):
    """Reads conversations."""

    protected: bool
    """Whether no answer can put control tokens into the judge's prompt."""

    def judge(
        self,
        pairs: Sequence[tuple[str, str]],
        on_chunk: OnChunk | None = None,
        chunk_rows: int = 128,
    ) -> list[Verdict]:
        """One verdict for each (prompt, answer), in order. Raises JudgeUnavailable."""
        ...


class CompletionJudge:
    """A judge behind `{url}/v1/completions`, asked with lists of token ids, greedily."""

    protected = True

    def __init__(
        self,
        url: str,
        model: str,
        prompt: JudgePrompt,
        *,
        categories: Collection[str] = LLAMA_GUARD_3_CATEGORIES,
        max_tokens: int = 16,
        rows_a_request: int = 64,
        in_flight: int = 4,
        request_timeout_s: float = 120.0,
        tries: int = 8,
        patience_s: float = 300.0,
    ) -> None:
        """At most `rows_a_request` x `in_flight` answers are asked at once. A failed request is
        asked again, up to `tries` times and for `patience_s` seconds in all."""
        self.model = model
        self.prompt = prompt
        self.categories = categories
        self.max_tokens = max_tokens
        self._rows_a_request = rows_a_request
        self._endpoint = Endpoint(
            url,
            in_flight=in_flight,
            request_timeout_s=request_timeout_s,
            tries=tries,
            patience_s=patience_s,
        )
        self._counting = threading.Lock()
        self.cut_answers = 0
        """Conversations so far that were too long for the judge and lost their middle."""

    def judge(
        self,
        pairs: Sequence[tuple[str, str]],
        on_chunk: OnChunk | None = None,
        chunk_rows: int = 128,
    ) -> list[Verdict]:
        """One verdict for each pair. `on_chunk` has had every known one when this raises."""

        def ask(rows: list[int]) -> list[Verdict]:
            inputs = [self.prompt.render(*pairs[row]) for row in rows]
            request = {
                "model": self.model,
                "prompt": [list(i.ids) for i in inputs],
                "temperature": 0.0,
                "max_tokens": self.max_tokens,
            }
            verdicts = self._read(self._endpoint.post("/completions", request), len(rows))
            with self._counting:
                self.cut_answers += sum(bool(i.cut) for i in inputs)
            return verdicts

        return self._endpoint.ask_all(len(pairs), self._rows_a_request, ask, on_chunk, chunk_rows)

    def _read(self, reply: Any, rows: int) -> list[Verdict]:
        choices = {c["index"]: c for c in reply["choices"]}
        if len(reply["choices"]) != rows or set(choices) != set(range(rows)):
            raise Malformed(f"{len(reply['choices'])} choices for {rows} prompts")
        return [_verdict(choices[i], choices[i]["text"], self.categories) for i in range(rows)]


def _verdict(choice: Any, text: Any, categories: Collection[str]) -> Verdict:
    if not isinstance(text, str):
        raise Malformed(f"a verdict that is no text: {text!r:.80}")
    return parse_verdict(text, categories, complete=choice.get("finish_reason") != "length")


class ChatJudge:
    """A foreign OpenAI-compatible chat endpoint with a fixed instruction in Llama Guard's form.

    Text cannot be protected as ids can: known delimiters in prompt and answer are broken up and
    such answers counted, and reports should mark the column (`protected` is False).
    """

    protected = False

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        max_tokens: int = 16,
        in_flight: int = 16,
        request_timeout_s: float = 120.0,
        tries: int = 8,
        patience_s: float = 300.0,
    ) -> None:
        """`url` without "/v1". With no `model`, the endpoint is asked for its only one."""
        self._endpoint = Endpoint(
            url,
            in_flight=in_flight,
            request_timeout_s=request_timeout_s,
            tries=tries,
            patience_s=patience_s,
        )
        self.model = model or self._endpoint.only_model()
        self.max_tokens = max_tokens
        self.categories = LLAMA_GUARD_3_CATEGORIES
        self._counting = threading.Lock()
        self.defused_answers = 0
        """Conversations so far that contained control delimiters."""

    def judge(
        self,
        pairs: Sequence[tuple[str, str]],
        on_chunk: OnChunk | None = None,
        chunk_rows: int = 128,
    ) -> list[Verdict]:
        """One verdict for each pair. `on_chunk` has had every known one when this raises."""

        def ask(rows: list[int]) -> list[Verdict]:
            text, defused = chat_text(*pairs[rows[0]])
            request = {
                "model": self.model,
                "messages": [{"role": "user", "content": text}],
                "temperature": 0.0,
                "max_tokens": self.max_tokens,
            }
            reply = self._endpoint.post("/chat/completions", request)
            choice = reply["choices"][0]
            verdict = _verdict(choice, choice["message"]["content"], self.categories)
            with self._counting:
                self.defused_answers += bool(defused)
            return [verdict]

        return self._endpoint.ask_all(len(pairs), 1, ask, on_chunk, chunk_rows)
