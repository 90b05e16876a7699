"""A decoder's norms, rotations and gated activations compiled by torch, each into one kernel.

They have no state, no hook and no adapter. Everything around them runs as before: products,
attention, hooks, layers that are computed twice. Compiled, an operation rounds otherwise.
"""

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from raycib.errors import UserError
from raycib.models.decoder import attention_blocks, decoder_layers, hidden_states
from raycib.models.gate import differ

ROTATION = "apply_rotary_pos_emb"
"""As transformers calls it in the file of an architecture."""
GATED = ("gate_proj", "up_proj", "down_proj", "act_fn")
"""Of an MLP that is down(act(gate(x)) * up(x))."""
VARIANTS = 32
"""Of one operation: with a gradient and without, one row or several, norms of states and of heads.
Further ones would run as they are."""


@torch.no_grad()
def compile_parts(model: Any) -> list[str]:
    """Compile what there is of them in a model, whose rows are right-padded; a line for what there
    is none of. Raises `UserError` where hidden states are others then."""
    from torch._dynamo import config as tracing  # dear, and seldom wanted
    from torch._inductor import config as compiling

    tracing.recompile_limit = max(VARIANTS, tracing.recompile_limit)
    compiling.compile_threads = 1  # others would be processes that load torch
    words = model.get_input_embeddings().num_embeddings
    ids = torch.arange(16, device=model.device).view(2, 8) % words
    before = hidden_states(model, ids).final_norm
    layers = decoder_layers(model)
    found = {
        "norms": [_norm(one) for one in model.get_decoder().modules()],
        "rotations": [_rotation(one) for one in attention_blocks(model)],
        "gated activations": [_gated(one, model) for layer in layers for one in layer.children()],
    }
    after = hidden_states(model, ids).final_norm
    if differ(after, before):
        raise UserError(
            f"{type(model).__name__} has other hidden states when parts of it are compiled: leave "
            "execution.compile out"
        )
    lacking = [what for what, done in found.items() if not any(done)]
    kind = type(model).__name__
    return [f"{kind}: no {' or '.join(lacking)} to compile"] if lacking else []


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True)


def _norm(module: nn.Module) -> bool:
    """Those of transformers; torch's own are one kernel as they are."""
    kind = type(module)
    if "norm" not in kind.__name__.lower() or kind.__module__.startswith("torch."):
        return False
    module.forward = _compiled(module.forward)
    return True


def _rotation(attention: nn.Module) -> bool:
    """The block reads the function among what its file defines: it alone is given another."""
    own: Any = getattr(attention.forward, "__func__", None)
    if own is None or ROTATION not in own.__code__.co_names:
        return False
    known = own.__globals__ | {ROTATION: _compiled(own.__globals__[ROTATION])}
    copy = FunctionType(own.__code__, known, own.__name__, own.__defaults__, own.__closure__)
    copy.__kwdefaults__ = own.__kwdefaults__
    attention.forward = MethodType(copy, attention)
    return True


class _Gated(nn.Module):
    """One an MLP, so that torch knows them for the same."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.act = act

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        return self.act(gate) * up


def _gated(block: Any, model: Any) -> bool:
    """Of an MLP that gives, to the last bit, what one built so gives."""
    if not all(hasattr(block, name) for name in GATED):
        return False
    both: Callable[[Tensor, Tensor], Tensor] = _Gated(block.act_fn)

    def forward(x: Tensor) -> Tensor:
        return block.down_proj(both(block.gate_proj(x), block.up_proj(x)))

    embedded = model.get_input_embeddings().weight[None, :3]
    if not torch.equal(block(embedded), forward(embedded)):
        return False
    both = _compiled(both)
    block.forward = forward
    return True
