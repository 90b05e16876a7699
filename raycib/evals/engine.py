"""What answers: what is asked of an engine, and what it gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raycib.config import EngineName
from raycib.data.chat import Encoded


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt, already rendered and tokenised."""

    id: str
    prompt_ids: tuple[int, ...]
    adapter: Path | None
    """Folder of a PEFT LoRA adapter; None asks the base model."""
    max_tokens: int


@dataclass(frozen=True)
class Answer:
    """What the model said."""

    id: str
    text: str
    """Decoded without special tokens."""
    token_ids: tuple[int, ...]
    """Generated ids; ends with the id that ended it where `finish_reason` is "stop"."""
    finish_reason: str
    """"stop" at the end of sequence or turn, "length" at `max_tokens` or the model's context."""


def refuse_unfit(requests: Sequence[GenerationRequest], max_model_len: int) -> None:
    """Raise ValueError where a prompt leaves no room to answer, FileNotFoundError where an
    adapter's folder is none."""
    for request in requests:
        if not 0 < len(request.prompt_ids) < max_model_len:
            raise ValueError(
                f"request {request.id}: a prompt of {len(request.prompt_ids)} tokens does not"
                f" fit max_model_len {max_model_len} with an answer; raise it"
            )
    for folder in {request.adapter for request in requests if request.adapter is not None}:
        if not (folder / "adapter_config.json").is_file():
            raise FileNotFoundError(f"no adapter_config.json in {folder}; is it a PEFT adapter?")


class Engine(Protocol):
    """Answers greedily for one base model and adapters of it."""

    name: EngineName
    max_model_len: int
    """Tokens of a prompt and its answer together."""

    def answer(self, requests: Sequence[GenerationRequest]) -> list[Answer]:
        """Answers in the order asked."""
        ...

    def alone(self, requests: Sequence[GenerationRequest]) -> list[Answer]:
        """The same, each in a batch of its own, with nothing kept of what was answered before."""
        ...

    def losses(self, rows: Sequence[tuple[Encoded, Path | None]]) -> list[float]:
        """Mean -log p, in nats, of each response's tokens after its prompt, under an adapter or
        the base (None). A row has fewer tokens than `max_model_len`."""
        ...

    def for_lm_eval(self, tokenizer: Any, adapter: Path | None) -> Any:
        """An `lm_eval.api.model.LM` that is the base model, or an adapter of it, until another is
        made. `tokenizer` is changed."""
        ...
