"""A causal decoder in the places that raycib reads: its last hidden states on both sides of the
final norm, its attention blocks, and the way from hidden states to logits."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from raycib.errors import UserError
from raycib.models.packing import told


class Hidden(NamedTuple):
    """The last hidden states, on both sides of the final norm: of rows with their padding (rows
    seq dim), or laid end to end (tokens dim)."""

    final_norm: Float[Tensor, "*places dim"]
    before_norm: Float[Tensor, "*places dim"]


def hidden_states(model: Any, ids: Int[Tensor, "rows seq"]) -> Hidden:
    """Last hidden states of right-padded rows; the output head does not run."""
    return _hidden_states(model, ids)


def packed_states(model: Any, ids: Int[Tensor, " tokens"], lengths: Sequence[int]) -> Hidden:
    """The same of rows of these `lengths` laid end to end, within `rows_apart`."""
    whole = _hidden_states(model, ids[None], **told(model, lengths, ids.device))
    return Hidden(*(states[0] for states in whole))


def _hidden_states(model: Any, ids: Tensor, **more: Tensor) -> Hidden:
    decoder = model.get_decoder()
    inputs: list[Tensor] = []
    hook = final_norm(decoder).register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    try:
        final = decoder(input_ids=ids, use_cache=False, **more).last_hidden_state
    finally:
        hook.remove()
    return Hidden(final, inputs[0])


def final_norm(decoder: nn.Module) -> nn.Module:
    """The norm after the last layer: `norm`, `ln_f`, `final_layer_norm` ... by architecture; not
    those of narrower states, such as Gemma 4 has for each of its layers."""
    norms = [
        child
        for name, child in decoder.named_children()
        if "norm" in f"{name} {type(child).__name__}".lower()
    ]
    if not norms:
        raise UserError(f"a {type(decoder).__name__} has no final norm, which raycib reads")
    width = getattr(getattr(decoder, "config", None), "hidden_size", None)
    # In shards a weight may have no entries here, so that none is as wide.
    weights = [(one, getattr(one, "weight", None)) for one in norms]
    wide = [one for one, own in weights if own is not None and own.shape[-1:] == (width,)]
    return (wide or norms)[-1]


def decoder_layers(model: Any) -> nn.ModuleList:
    """The layers of the decoder, in their order. Raises `UserError` where there is no list of
    them."""
    depth = model.config.num_hidden_layers
    lists = [m for m in model.get_decoder().children() if isinstance(m, nn.ModuleList)]
    layers = next((found for found in lists if len(found) == depth), None)
    if layers is None:
        raise UserError(f"{type(model).__name__} has no list of {depth} decoder layers")
    return layers


@contextmanager
def checkpointed(model: Any, within: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Within it, a forward pass keeps only what enters each decoder layer (Chen et al. 2016,
    arXiv:1604.06174); the backward pass runs the layer again, in a context that `within` makes: the
    routes and hooks of the forward pass, which are gone by then.

    transformers' own switch works in training mode alone, which would turn dropout on.
    """

    def again(own: Callable[..., Any]) -> Callable[..., Any]:
        return partial(
            checkpoint,
            own,
            use_reentrant=False,
            preserve_rng_state=False,  # nothing is drawn: there is no dropout
            context_fn=lambda: (nullcontext(), within()),
        )

    with with_forwards(decoder_layers(model), again):
        yield


@contextmanager
def with_forwards(
    layers: Iterable[nn.Module], make: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Within it, each layer's forward pass is what `make` makes of its own."""
    before = [(layer, layer.__dict__.get("forward")) for layer in layers]
    for layer, _ in before:
        layer.forward = make(layer.forward)
    try:
        yield
    finally:
        for layer, own in before:
            if own is None:
                del layer.forward  # the class's own again
            else:
                layer.forward = own


def attentions(layer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules of a layer's attention blocks."""
    for name, child in layer.named_children():
        if type(child).__name__.endswith("Attention"):
            yield name, child


def attention_blocks(model: Any) -> list[nn.Module]:
    """The attention block of every decoder layer, whatever the architecture calls it.

    Raises `UserError` where there is not exactly one in each: a method that perturbs them would
    silently do something else.
    """
    layers = decoder_layers(model)
    found = [[block for _, block in attentions(layer)] for layer in layers]
    if bad := [number for number, blocks in enumerate(found) if len(blocks) != 1]:
        kinds = [type(child).__name__ for child in layers[bad[0]].children()]
        raise UserError(
            f"layer {bad[0]} of {type(model).__name__} has {len(found[bad[0]])} attention blocks "
            f"among {kinds}; expected one"
        )
    return [block for (block,) in found]


Places = slice | tuple[int, slice]
"""Rows of a batch, or tokens of the only row that there is."""


@contextmanager
def perturbed(model: Any, added: Sequence[tuple[Places, Sequence[Tensor]]]) -> Iterator[None]:
    """Within it, each (places, tensors) of `added` adds tensor l to what the l-th attention block
    gives there: (rows seq dim) for rows, (tokens dim) for tokens."""

    def hook(number: int) -> Any:
        def add(_: Any, __: Any, output: Any) -> Any:
            states, *others = output if isinstance(output, tuple) else (output,)
            total = torch.zeros_like(states)
            for places, tensors in added:
                total[places] = tensors[number].to(states.dtype)
            moved = states + total
            return (moved, *others) if isinstance(output, tuple) else moved

        return add

    blocks = attention_blocks(model) if added else []
    handles = [block.register_forward_hook(hook(number)) for number, block in enumerate(blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Decoded(NamedTuple):
    """What a decoder gives: its states, and nothing of the rest that heads hand on."""

    last_hidden_state: Tensor

    def __getattr__(self, _: str) -> None:
        return None


class _AlreadyDecoded(nn.Module):
    """Stands in the decoder's place and gives hidden states that are known."""

    def __init__(self, states: Tensor, decoder: nn.Module):
        super().__init__()
        self.states = states
        self._instead_of = (decoder,)  # no module of this one

    def __getattr__(self, name: str) -> Any:
        """What a head asks of its decoder besides: Falcon-H1's multiplies by a number of it."""
        return getattr(self.__dict__["_instead_of"][0], name)

    def forward(self, *args: Any, **options: Any) -> _Decoded:
        return _Decoded(self.states)


def own_logits(
    model: Any, states: Float[Tensor, "tokens dim"]
) -> Float[Tensor, "tokens vocabulary"]:
    """The logits that the model itself makes of last hidden states, in its dtype.

    Its own forward pass runs with the decoder taken out, so that whatever an architecture does to
    its logits is done: Gemma-2 caps them, Granite divides them, Cohere multiplies them.
    """
    decoder = model.get_decoder()
    place = next(name for name, module in model.named_modules() if module is decoder)
    model.set_submodule(place, _AlreadyDecoded(states[None], decoder))
    try:
        ids = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
        return model(input_ids=ids, use_cache=False).logits[0]
    finally:
        model.set_submodule(place, decoder)
