"""The frozen base model: loaded as its spec says, and run up to its last hidden states."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raycib.errors import UserError
from raycib.model_files import WEIGHTS, find, fingerprint
from raycib.spec import ModelSpec


class Hidden(NamedTuple):
    """The last hidden states, on both sides of the final norm."""

    final_norm: Float[Tensor, "rows seq dim"]
    before_norm: Float[Tensor, "rows seq dim"]


def load_tokenizer(source: str) -> Any:
    """The tokenizer of the model at `source`; it must have a chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(find(source), local_files_only=True)
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {source!r} has no chat template; "
            "add a chat_template to its tokenizer_config.json"
        )
    return tokenizer


def load_model(spec: ModelSpec, device: torch.device) -> Any:
    """The frozen base in evaluation mode (no dropout), weights checked against the spec."""
    from transformers import AutoModelForCausalLM

    folder = find(spec.source)
    if (found := fingerprint(folder, WEIGHTS)) != spec.weights:
        raise UserError(
            f"the weights of {spec.source!r} changed since the plan was made "
            f"({found[:12]} instead of {spec.weights[:12]}); start the sweep again"
        )
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
