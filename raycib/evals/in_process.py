"""Greedy answers of one base model, under LoRA adapters, by transformers in this process.

They begin and end as vLLM's do (`raycib.evals.generate`): the same ids go in, the same ids end an
answer, and its text is decoded as a continuation of its prompt.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from torch.nn import functional as F
from transformers import GenerationConfig

from raycib.config import EngineName
from raycib.costs.memory import CACHED_TOKENS
from raycib.data.chat import Encoded
from raycib.evals.engine import Answer, GenerationRequest, refuse_unfit
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.models.adapters.peft_format import CONFIG_FILE
from raycib.models.device import ran_out

ROWS_AT_ONCE = 256


class InProcessGenerator:
    """A model in memory that answers, one adapter after the other."""

    name: EngineName = "transformers"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_model_len: int,
        targets: Sequence[tuple[str, ...]] = (),
        stop: Sequence[int] = (),
    ) -> None:
        """`max_model_len`: prompt and answer together, in tokens. `targets`: the sets of modules
        that adapters have. `stop`: ids that end an answer beside the model's own."""
        self.max_model_len = max_model_len
        self.tokenizer = tokenizer
        self.stop = list(stop)
        own = model.generation_config.eos_token_id
        known = [tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
        self._own_ends = {end for end in known if end is not None}
        model.get_output_embeddings().register_forward_pre_hook(_side_by_side)
        # Whatever else the model's files ask of generation (penalties, sampling) is left out.
        model.generation_config = GenerationConfig()
        distinct = {frozenset(chosen): chosen for chosen in targets}
        self._slots = {chosen: slot for slot, chosen in enumerate(distinct)}
        # Slots of zeros, under which an adapter of any rank is put when it is its turn.
        shapes = [LoRAShape(1, 1.0, chosen) for chosen in distinct.values()]
        self._adapters = AdapterSlots(model, shapes)

    @property
    def ends(self) -> set[int]:
        """Ids that end an answer."""
        return self._own_ends.union(self.stop)

    def answer(self, requests: Sequence[GenerationRequest]) -> list[Answer]:
        """Greedy answers in the order asked. Raises as `refuse_unfit` does."""
        refuse_unfit(requests, self.max_model_len)
        answers: dict[int, Answer] = {}
        for adapter in dict.fromkeys(request.adapter for request in requests):
            slot = None if adapter is None else self._put(adapter)
            mine = {n: one for n, one in enumerate(requests) if one.adapter == adapter}
            for places in _batches(mine):
                batch = [requests[n] for n in places]
                answers |= zip(places, self._answer_as_fits(batch, slot), strict=True)
        return [answers[n] for n in range(len(requests))]

    def alone(self, requests: Sequence[GenerationRequest]) -> list[Answer]:
        """As `Engine` says."""
        return [answer for request in requests for answer in self.answer([request])]

    @torch.inference_mode()
    def losses(self, rows: Sequence[tuple[Encoded, Path | None]]) -> list[float]:
        """As `Engine` says."""
        found: dict[int, float] = {}
        for adapter in dict.fromkeys(adapter for _, adapter in rows):
            slot = None if adapter is None else self._put(adapter)
            for n, row in ((n, row) for n, (row, under) in enumerate(rows) if under == adapter):
                ids = torch.tensor([[*row.prompt, *row.response]], device=self._model.device)
                with self._route(slot, 1):
                    logits = self._model(ids, use_cache=False).logits[0].float()
                place = len(row.prompt)
                loss = F.cross_entropy(logits[place - 1 : -1], ids[0, place:])
                found[n] = float(loss)
        return [found[n] for n in range(len(rows))]

    def for_lm_eval(self, tokenizer: Any, adapter: Path | None) -> Any:
        """As `Engine` says: lm-eval's transformers backend on this model. Answers end where the
        model's own files say."""
        from raycib.evals.harness.models import AdapterLM

        slot = None if adapter is None else self._put(adapter)
        return AdapterLM(self._adapters, tokenizer, slot, sorted(self._own_ends))

    def _put(self, folder: Path) -> int:
        """The slot that computes what the adapter in `folder` does, from now on."""
        slot = self._slots[targets_of(folder)]
        self._adapters.thaw(slot)
        self._adapters.freeze(slot, folder)
        return slot

    def _answer_as_fits(self, batch: Sequence[GenerationRequest], slot: int | None) -> list[Answer]:
        """One batch, or one half after the other where there is no memory for all of it."""
        try:
            return self._answer(batch, slot)
        except RuntimeError as error:
            if not ran_out(error) or len(batch) == 1:
                raise
        torch.cuda.empty_cache()  # out here, where no traceback holds what is in the way
        half = len(batch) // 2
        return [
            answer
            for part in (batch[:half], batch[half:])
            for answer in self._answer_as_fits(part, slot)
        ]

    @torch.inference_mode()
    def _answer(self, batch: Sequence[GenerationRequest], slot: int | None) -> list[Answer]:
        """One batch, whose prompts are padded on the left."""
        longest = max(len(request.prompt_ids) for request in batch)
        pad = min(self.ends, default=0)
        rows = [[pad] * (longest - len(r.prompt_ids)) + [*r.prompt_ids] for r in batch]
        seen = [[0] * (longest - len(r.prompt_ids)) + [1] * len(r.prompt_ids) for r in batch]
        ids, mask = (torch.tensor(part, device=self._model.device) for part in (rows, seen))
        with self._route(slot, len(batch)):
            found = self._model.generate(
                ids,
                attention_mask=mask,
                generation_config=GenerationConfig(
                    do_sample=False,
                    max_new_tokens=max(self._room(request) for request in batch),
                    eos_token_id=sorted(self.ends) or None,
                    pad_token_id=pad,
                ),
            )
        said = found[:, longest:].tolist()
        return [self._cut(request, row) for request, row in zip(batch, said, strict=True)]

    @property
    def _model(self) -> Any:
        return self._adapters.model

    def _route(self, slot: int | None, rows: int) -> AbstractContextManager[None]:
        """The base, or one adapter for all rows of a batch."""
        if slot is None:
            return self._adapters.disabled()
        return self._adapters.route([(slot, rows)])

    def _room(self, request: GenerationRequest) -> int:
        return min(request.max_tokens, self.max_model_len - len(request.prompt_ids))

    def _cut(self, request: GenerationRequest, ids: Sequence[int]) -> Answer:
        """An answer up to its end: the first id that ends it, or the last there is room for."""
        ids = ids[: self._room(request)]
        end = next((place for place, token in enumerate(ids) if token in self.ends), None)
        ended = end is not None
        said = tuple(ids if end is None else ids[: end + 1])
        text = continuation(self.tokenizer, request.prompt_ids, said[: len(said) - ended])
        return Answer(request.id, text, said, "stop" if ended else "length")


def _side_by_side(_: object, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    """The states of the prompts' last tokens, copied out of those of all tokens. As a view torch
    multiplies each row with the weights by itself where no gradient is wanted; in bfloat16, on a
    CPU, it copies the weights for every row: 14 GiB for 256 rows and 49,152 words."""
    (states,) = inputs
    return (states.contiguous(),)


def _batches(requests: Mapping[int, GenerationRequest]) -> Iterator[list[int]]:
    """Requests of like length together, few enough for their keys and values."""
    tokens = {n: len(one.prompt_ids) + one.max_tokens for n, one in requests.items()}
    batch: list[int] = []
    for n in sorted(tokens, key=lambda n: tokens[n]):
        if batch and ((len(batch) + 1) * tokens[n] > CACHED_TOKENS or len(batch) == ROWS_AT_ONCE):
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch


def targets_of(folder: Path) -> frozenset[str]:
    """The modules that a PEFT adapter names."""
    return frozenset(json.loads((folder / CONFIG_FILE).read_text())["target_modules"])


def continuation(tokenizer: Any, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """The text of `ids` without special tokens, as it goes on after a prompt's.

    A tokenizer's `decode` drops a space that begins its text; after a prompt it is part of it. What
    ends within a character is left out, as vLLM leaves it.
    """
    stream = DecodeStream(ids=list(prompt), skip_special_tokens=True)
    text = ""
    for token in ids:
        try:
            piece = stream.step(tokenizer.backend_tokenizer, token)
        except Exception as error:  # the class that it raises is the bare one
            if not str(error).startswith("Invalid prefix encountered"):
                raise
            # Bytes that are no text broke the stream: a new one goes on, as vLLM's does.
            stream = DecodeStream(skip_special_tokens=True)
            piece = stream.step(tokenizer.backend_tokenizer, token)
        text += piece or ""
    return text
