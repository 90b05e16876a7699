"""The frozen base model: loaded as its spec says, and run up to its last hidden states."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from raycib.data.chat import use_chatml
from raycib.data.chat_format import chat_format
from raycib.data.tokenizer import open_tokenizer
from raycib.errors import UserError
from raycib.model_files import find, verified
from raycib.spec import ModelSpec, Template

LOGITS_AT_ONCE = 2**26
"""Entries of the logits held at a time (256 MB in float32); more are recomputed in the backward
pass, a chunk of tokens after the other."""


class Hidden(NamedTuple):
    """The last hidden states, on both sides of the final norm."""

    final_norm: Float[Tensor, "rows seq dim"]
    before_norm: Float[Tensor, "rows seq dim"]


def load_tokenizer(source: str, template: Template = "own") -> Any:
    """The tokenizer of the model at `source`, with its own chat template, which it must have, or
    the unified one. Raises `UserError` for a tokenizer or a template that cannot be used."""
    tokenizer = open_tokenizer(find(source))
    if template == "chatml":
        use_chatml(tokenizer, source)
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {source!r} has no chat template; "
            "add a chat_template to its tokenizer_config.json"
        )
    chat_format(tokenizer)  # a template that cannot be used is refused before anything starts
    return tokenizer


def load_model(spec: ModelSpec, device: torch.device) -> Any:
    """The frozen base in evaluation mode (no dropout), weights checked against the spec."""
    from transformers import AutoModelForCausalLM

    folder = verified(spec)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, spec.dtype), local_files_only=True, use_safetensors=True
    )
    return model.to(device).eval().requires_grad_(False)


def hidden_states(model: Any, ids: Int[Tensor, "rows seq"]) -> Hidden:
    """Last hidden states of right-padded rows; the output head does not run."""
    decoder = model.get_decoder()
    inputs: list[Tensor] = []
    hook = decoder.norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    try:
        final = decoder(input_ids=ids, use_cache=False).last_hidden_state
    finally:
        hook.remove()
    return Hidden(final, inputs[0])


def attention_blocks(model: Any) -> list[torch.nn.Module]:
    """The attention block of every decoder layer, whatever the architecture calls it.

    Raises ValueError where there is not exactly one in each: a method that perturbs them would
    silently do something else.
    """
    layers = model.get_decoder().layers
    found = [
        [child for child in layer.children() if type(child).__name__.endswith("Attention")]
        for layer in layers
    ]
    if bad := [number for number, blocks in enumerate(found) if len(blocks) != 1]:
        kinds = [type(child).__name__ for child in layers[bad[0]].children()]
        raise ValueError(
            f"layer {bad[0]} of {type(model).__name__} has {len(found[bad[0]])} attention blocks "
            f"among {kinds}; expected one"
        )
    return [block for (block,) in found]


@contextmanager
def perturbed(model: Any, added: Sequence[tuple[slice, Sequence[Tensor]]]) -> Iterator[None]:
    """Within it, each (rows, tensors) of `added` adds tensor l (rows seq dim) to what the l-th
    attention block gives for those rows."""

    def hook(number: int) -> Any:
        def add(_: Any, __: Any, output: Any) -> Any:
            if not isinstance(output, tuple):
                raise TypeError(f"an attention block gave {type(output).__name__}, not a tuple")
            states, *others = output
            total = torch.zeros_like(states)
            for rows, tensors in added:
                total[rows] = tensors[number].to(states.dtype)
            return (states + total, *others)

        return add

    blocks = attention_blocks(model) if added else []
    handles = [block.register_forward_hook(hook(number)) for number, block in enumerate(blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def with_logits(
    model: Any, function: Callable[..., Tensor], *per_token: Tensor
) -> Float[Tensor, " tokens"]:
    """`function(head, *per_token)`, a value for each token, by chunks of tokens whose logits fit
    into memory at once. `head` gives the float32 logits of hidden states."""
    output: Any = model.get_output_embeddings()

    def head(states: Tensor) -> Tensor:
        return output(states).float()

    at_once = max(1, LOGITS_AT_ONCE // output.weight.shape[0])
    if len(per_token[0]) <= at_once:
        return function(head, *per_token)
    chunks = zip(*(values.split(at_once) for values in per_token), strict=True)
    return torch.cat([checkpoint(function, head, *part, use_reentrant=False) for part in chunks])  # type: ignore[misc]


def token_loss(
    model: Any, states: Float[Tensor, "tokens dim"], labels: Int[Tensor, " tokens"]
) -> Float[Tensor, " tokens"]:
    """-log p of each token, in nats; only tokens that are scored ever meet the output head."""

    def loss(head: Any, part: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(head(part), target, reduction="none")

    return with_logits(model, loss, states, labels)
