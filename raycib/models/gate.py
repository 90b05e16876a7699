"""Whether a loaded model is read here as it reads itself: tried once, on two short rows."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from raycib.errors import UserError
from raycib.model_files.packing import narrows, packs
from raycib.models.decoder import (
    attentions,
    decoder_layers,
    final_norm,
    hidden_states,
    own_logits,
    packed_states,
)
from raycib.models.last_layer import last_layer_at
from raycib.models.packing import rows_apart

TOKENS, SHARED = 8, 4
"""Tokens of a row, and how many of them both rows begin with."""
LOOSE = 0.02
"""Relative difference of hidden states up to which two passes over the same tokens are the same:
in bfloat16 each layer rounds by 2**-8, and experts may be summed in another order."""


def check_model(model: Any, source: str) -> None:
    """Raise `UserError` unless log-probabilities, hidden states and the final norm that raycib
    reads are the model's own, no token sees a later one (rows are padded on the right, without a
    mask), rows that may lie end to end do not see one another, and no token does after the last
    attention, where that may be left out."""
    ids = torch.arange(TOKENS, device=model.device).repeat(2, 1)
    ids[1, SHARED:] += TOKENS
    ids = ids % model.get_input_embeddings().num_embeddings
    _refuse(model, source, lambda: _misplaced(model) or _problem(model, ids))


def check_parts(model: Any, source: str) -> None:
    """Raise `UserError` where a model lacks a part that raycib reads. It needs no weights."""
    _refuse(model, source, lambda: _misplaced(model))


def _refuse(model: Any, source: str, find: Callable[[], str | None]) -> None:
    try:
        problem = find()
    except UserError as error:
        problem = str(error)
    except Exception as error:  # whatever an architecture that is built otherwise runs into
        problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if problem is not None:
        kind = model.config.model_type
        raise UserError(
            f"model {source!r} ({type(model).__name__}, model_type {kind!r}) cannot be read here: "
            f"{problem}; raycib needs a causal decoder with a head, as Llama is"
        )


def _misplaced(model: Any) -> str | None:
    if (decoder := model.get_decoder()) is model or model.get_output_embeddings() is None:
        return "it has no decoder with an output head"
    final_norm(decoder)
    if not any(any(attentions(layer)) for layer in decoder_layers(model)):
        return "none of its layers has attention"  # PEFT adapts no Mamba either
    return _foreign_window(model)


def _foreign_window(model: Any) -> str | None:
    """A window that the architecture's own code does not know. Its passes see every token, but what
    generates does not: both transformers' cache and vLLM go by config.json alone."""
    window = getattr(model.config, "sliding_window", None)
    known = "sliding_window" in inspect.getsource(sys.modules[type(model).__module__])
    if known or not window or window >= model.config.max_position_embeddings:
        return None
    return (
        f"config.json has a sliding_window of {window} tokens, which this architecture leaves out "
        "in training and engines would cut attention to: set it to null"
    )


@torch.no_grad()
def _problem(model: Any, ids: Tensor) -> str | None:
    seen: dict[str, Tensor] = {}
    decoder = model.get_decoder()
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if model.config.tie_word_embeddings and head.weight is not embeddings.weight:
        return "its head is tied to its embeddings by config.json, but is another (vLLM ties them)"
    with _outputs(seen, decoder=decoder, norm=final_norm(decoder)):
        logits = model(input_ids=ids, use_cache=False).logits
    states = seen["decoder"]
    if not torch.equal(seen["norm"], states):
        return "its last hidden states are not what its final norm gives"
    own = own_logits(model, states.flatten(0, 1)).view_as(logits)
    # The products are the same, summed perhaps in another order: float32 then differs by some of
    # its last places, bfloat16, which is summed in float32 and rounded once, by one.
    places = 16 if logits.dtype == torch.float32 else 1
    allowed = places * torch.finfo(logits.dtype).eps * logits.abs().max()
    if not (off := (own - logits).abs().max()) <= allowed:  # NaN is not allowed either
        return f"its logits differ from those read here by {off:.3g}"
    again = hidden_states(model, ids).final_norm
    if differ(again, states):
        return "its decoder alone gives other hidden states than within the model"
    if differ(states[0, :SHARED], states[1, :SHARED]):
        return "a token sees the ones after it"
    lengths = (TOKENS, TOKENS - 1)
    if packs(model.config.model_type):
        with rows_apart(model, lengths):
            packed = packed_states(model, ids.flatten()[:-1], lengths).final_norm
        pairs = zip(packed.split(lengths), states, strict=True)
        if any(differ(row, alone[: len(row)]) for row, alone in pairs):
            return "rows that lie end to end see one another"
    if narrows(model.config.model_type):
        places = torch.arange(1, ids.numel(), 3, device=ids.device)
        with last_layer_at(model, places, nullcontext):
            some = hidden_states(model, ids).final_norm[0]
        if differ(some, states.flatten(0, 1)[places]):
            return "tokens see one another after its last attention"
    return None


def differ(one: Tensor, other: Tensor) -> bool:
    """Whether states are others by more than rounding."""
    return not (one - other).float().norm() <= LOOSE * other.float().norm()


@contextmanager
def _outputs(seen: dict[str, Tensor], **modules: torch.nn.Module) -> Iterator[None]:
    """Within it, what each module gives is kept under its name."""

    def keep(name: str) -> Any:
        def hook(_: Any, __: Any, output: Any) -> None:
            seen[name] = output if isinstance(output, Tensor) else output[0]

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
