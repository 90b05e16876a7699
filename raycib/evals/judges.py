"""Judges: they read (prompt, answer) pairs and say harmful, not harmful, or nothing readable.

`GuardJudge` gives token ids to an engine of our own, so that no answer can forge a turn.
`ChatJudge` sends text to a foreign chat endpoint, where that cannot be promised. An answer whose
judging fails has no verdict; it is never counted as safe. One that the judge will not read has an
unreadable verdict, which says why.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from raycib.evals.chat_prompt import chat_messages
from raycib.evals.engine import Engine, GenerationRequest
from raycib.evals.judge_address import Address
from raycib.evals.judge_profile import Profile
from raycib.evals.judge_profiles import endpoint_profile
from raycib.evals.judge_prompt import Forged, JudgeInput, JudgePrompt
from raycib.evals.judge_reply import Malformed, Refused
from raycib.evals.verdict_forms import CUT_OFF, Verdict, together

HARMLESS = ("How do I boil an egg?", "Put it into boiling water for eight minutes, then cool it.")
"""A conversation that no judge refuses to read, unless it refuses them all."""

SAMPLED = "the endpoint takes no temperature: its verdicts are sampled"
SHORTENED = "the prompt lost its middle"

_SMALLEST_PART = 400
"""Characters of an answer that is not cut up any more for an endpoint."""

Pairs = Sequence[tuple[str, str]]
"""(prompt, answer) each."""
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

    def judge(
        self, pairs: Pairs, on_chunk: OnChunk | None = None, chunk_rows: int = 128
    ) -> list[Verdict]:
        """One verdict for each pair, in order; `on_chunk` hears of those that are known, also
        before this raises `JudgeUnavailable`."""
        ...


class JudgeHere(ABC):
    """A judge in this process, which reads `chunk_rows` pairs at a time."""

    def judge(
        self, pairs: Pairs, on_chunk: OnChunk | None = None, chunk_rows: int = 128
    ) -> list[Verdict]:
        """See `Judge`."""
        verdicts: list[Verdict] = []
        for start in range(0, len(pairs), chunk_rows):
            said = self.read(pairs[start : start + chunk_rows])
            if on_chunk is not None:
                on_chunk(list(range(start, start + len(said))), said)
            verdicts += said
        return verdicts

    @abstractmethod
    def read(self, pairs: Pairs) -> list[Verdict]:
        """One verdict for each pair."""


class GuardJudge(JudgeHere):
    """A guard model's engine in this process, asked greedily with lists of token ids."""

    def __init__(
        self, engine: Engine, prompt: JudgePrompt, profile: Profile, rows_at_once: int = 64
    ) -> None:
        """`prompt` makes inputs that leave the engine room for a verdict. At most `rows_at_once`
        of them are given to it together."""
        self.prompt = prompt
        self.profile = profile
        self._engine = engine
        self._rows_at_once = rows_at_once

    def read(self, pairs: Pairs) -> list[Verdict]:
        """Of answers that are too long, in parts; one with a forged turn is unreadable."""
        parts: list[list[Verdict]] = [[] for _ in pairs]
        asked: list[tuple[int, JudgeInput]] = []
        for row, pair in enumerate(pairs):
            try:
                asked += [(row, window) for window in self.prompt.windows(*pair)]
            except Forged as problem:
                parts[row] = [Verdict(None, (), str(problem), "a control token in its text")]
        for start in range(0, len(asked), self._rows_at_once):
            lot = asked[start : start + self._rows_at_once]
            requests = [
                GenerationRequest(str(row), window.ids, None, self.profile.tokens)
                for row, window in lot
            ]
            for (row, window), said in zip(lot, self._engine.answer(requests), strict=True):
                verdict = self.profile.read(said.text, said.finish_reason != "length")
                notes = (SHORTENED,) if window.cut else ()
                parts[row].append(replace(verdict, notes=(*verdict.notes, *notes)))
        return [together(one) for one in parts]


class ChatJudge:
    """A foreign OpenAI-compatible chat endpoint: a guard's, which is sent the conversation, or any
    other model's, which is told to judge it (see `raycib.evals.judge_profiles`).

    Text cannot be protected as ids can: known delimiters in prompt and answer are broken up, and
    such answers counted in reports (`raycib.runtime.judge.account`).
    """

    def __init__(
        self,
        url: str | Address,
        model: str | None = None,
        *,
        profile: Profile | None = None,
        in_flight: int = 16,
        **patience: Any,
    ) -> None:
        """With no `model`, the endpoint is asked for its only one; with no `profile`, the model's
        name tells it. `patience` is `Server`'s."""
        from raycib.evals.judge_endpoint import Endpoint  # httpx is slow to import

        self._endpoint = Endpoint(url, in_flight=in_flight, **patience)
        self.model = model or self._endpoint.only_model()
        self.profile = profile or endpoint_profile(self.model, None)
        self._newer_limit = self._no_temperature = False
        """What the endpoint has refused to take so far."""

    def judge(
        self, pairs: Pairs, on_chunk: OnChunk | None = None, chunk_rows: int = 128
    ) -> list[Verdict]:
        """See `Judge`."""

        async def ask(rows: list[int]) -> list[Verdict]:
            (row,) = rows
            return [together(await self._parts(*pairs[row]))]

        return self._endpoint.ask_all(len(pairs), 1, ask, on_chunk, chunk_rows)

    def try_out(self) -> Verdict:
        """The verdict on a harmless conversation. Raises `JudgeUnavailable` and `Refused`."""
        return self._endpoint.run(lambda: self._read_one(*HARMLESS))

    async def _parts(self, prompt: str, answer: str) -> list[Verdict]:
        """Verdicts on the parts of an answer that together cover it: one, or two halves with an
        overlap for each one that is longer than the judge takes."""
        try:
            return [await self._read_one(prompt, answer)]
        except Refused as problem:
            if problem.too_long and len(answer) >= 2 * _SMALLEST_PART:
                middle, overlap = len(answer) // 2, len(answer) // 8
                first = await self._parts(prompt, answer[: middle + overlap])
                return first + await self._parts(prompt, answer[middle - overlap :])
            await self._endpoint.excuse(problem, lambda: self._read_one(*HARMLESS))
            return [Verdict(None, (), str(problem), problem.why)]

    async def _read_one(self, prompt: str, answer: str) -> Verdict:
        """One conversation in the endpoint's dialect, which is learned from what it refuses."""
        messages, _ = chat_messages(prompt, answer, self.profile.asking)
        while True:
            limit = "max_completion_tokens" if self._newer_limit else "max_tokens"
            settings: dict[str, Any] = {limit: self.profile.tokens}
            if not self._no_temperature:
                settings["temperature"] = 0
            if told := self.profile.asking.settings:  # as vLLM and SGLang hand it to the template
                settings["chat_template_kwargs"] = dict(told)
            request = {"model": self.model, "messages": messages, **settings}
            try:
                verdict = await self._endpoint.post("/chat/completions", request, self._read)
            except Refused as problem:
                if problem.status not in (400, 422) or problem.too_long:
                    raise
                if "temperature" in settings and "temperature" in problem.about:
                    self._no_temperature = True
                elif limit == "max_tokens" and "max_tokens" in problem.about:
                    self._newer_limit = True
                else:
                    raise
                continue
            notes = () if "temperature" in settings else (SAMPLED,)
            return replace(verdict, notes=(*verdict.notes, *notes))

    def _read(self, reply: Any) -> Verdict:
        choices = _choices(reply)
        if not choices:
            return Verdict(None, (), "", "no choices in the reply")
        choice = choices[0]
        message, ended = choice.get("message"), choice.get("finish_reason")
        if not isinstance(message, dict) or ended == "error":
            raise Malformed("a choice without a message")
        text, refusal = _text(message.get("content")), message.get("refusal")
        if ended == "content_filter":
            return Verdict(None, (), text or "", "filtered by the judge's server")
        if isinstance(refusal, str) and refusal:
            return Verdict(None, (), refusal, "the judge declined")
        if text is None:
            return Verdict(None, (), "", CUT_OFF if ended == "length" else "no text")
        return self.profile.read(text, ended != "length")


def _choices(reply: Any) -> list[dict[str, Any]]:
    found = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(found, list) or not all(isinstance(choice, dict) for choice in found):
        raise Malformed("a reply without choices")
    return found


def _text(content: Any) -> str | None:
    """A message's text, which may come in parts; what is no text, such as thinking, is left out."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    parts = [part.get("text") for part in content
             if isinstance(part, dict) and part.get("type") in ("text", "output_text")]  # fmt: skip
    return "".join(part for part in parts if isinstance(part, str)) if parts else None
