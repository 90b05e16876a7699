"""An engine behind OpenAI's completions, for lists of token ids alone: how a guard is asked."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from raycib.evals.generate import Engine, GenerationRequest
from raycib.evals.judge_reply import Refused
from raycib.evals.judge_server import Server

T = TypeVar("T")


def complete(engine: Engine, asked: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A reply to each request, all answered together. One that holds a prompt which the engine
    cannot answer is refused as a whole."""
    replies: list[dict[str, Any]] = [{} for _ in asked]
    fit: list[GenerationRequest] = []
    for body, reply in zip(asked, replies, strict=True):
        lot = [
            GenerationRequest(str(k), tuple(ids), None, body["max_tokens"])
            for k, ids in enumerate(body["prompt"])
        ]
        try:
            engine.check(lot)
        except ValueError as problem:
            reply["refused"] = str(problem)
        else:
            reply["choices"] = [{"index": k} for k in range(len(lot))]
            fit += lot
    said = iter(engine.answer(fit))
    for choice in (choice for reply in replies for choice in reply.get("choices", ())):
        answer = next(said)
        choice |= {"text": answer.text, "finish_reason": answer.finish_reason}
    return replies


def accepted(reply: dict[str, Any]) -> dict[str, Any]:
    """A reply of `complete`. Raises `Refused` for a refusal."""
    if "refused" in reply:
        raise Refused(400, "context_length_exceeded", "", reply["refused"])
    return reply


class EngineHere(Server):
    """An engine in this process, which needs no patience."""

    def __init__(self, engine: Engine) -> None:
        super().__init__("this process", in_flight=1, tries=1)
        self._engine = engine

    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None, read: Callable[[Any], T]
    ) -> T:
        (reply,) = complete(self._engine, [body or {}])
        return read(accepted(reply))
