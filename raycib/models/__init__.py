"""The frozen base model, loaded as its spec says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from raycib.config import ModelSpec, Template
from raycib.data.chat import encode_prompt, use_chatml
from raycib.data.chat_format import chat_format
from raycib.data.tokenizer import open_tokenizer
from raycib.errors import UserError
from raycib.model_files import check_embedded, find, verified
from raycib.model_files.config import read_config
from raycib.models import lean_imports  # noqa: F401  before what imports transformers
from raycib.models.gate import check_model, check_parts
from raycib.models.quantized import held_in, unpack_when_read


def load_tokenizer(source: str, template: Template = "own") -> Any:
    """The tokenizer of the model at `source`, with its own chat template, which it must have, or
    the unified one. Raises `UserError` for a tokenizer or a template that cannot be used."""
    folder = find(source)
    tokenizer = open_tokenizer(folder)
    if template == "chatml":
        use_chatml(tokenizer, source)
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {source!r} has no chat template; give --chat chatml, or add a "
            "chat_template to its tokenizer_config.json"
        )
    end = chat_format(tokenizer).end  # a template that cannot be used is refused at once
    check_embedded(folder, [*encode_prompt(tokenizer, "a"), end])
    return tokenizer


def load_model(
    spec: ModelSpec,
    device: torch.device,
    attention: str | None = None,
    place: Callable[[Any], object] | None = None,
) -> Any:
    """The frozen base in evaluation mode (no dropout), weights checked against the spec;
    `attention` is an implementation by transformers' name, None its own choice, but for scores that
    a model caps. `place` brings it elsewhere than all of it to `device`.

    Raises `UserError` where its files do not hold exactly its weights, or where it is not read
    here as it reads itself (see `raycib.models.gate`).
    """
    from transformers import AutoModelForCausalLM

    folder = verified(spec)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            **held_in(spec.quantization, spec.dtype),
            dtype=getattr(torch, spec.dtype),
            attn_implementation=attention,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # to be told which, by the report
            output_loading_info=True,
            return_dict=True,
        )
    except Exception as error:  # a configuration can be wrong in a thousand ways
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"model {spec.source!r} cannot be loaded: {reason}") from error
    model, report = loaded
    if problem := _misfit(report):
        raise UserError(
            f"the weights of {spec.source!r} are not those of a {type(model).__name__} of this "
            f"config.json: {problem}; fetch or save the model again"
        )
    _refuse_other_class(folder, model)
    _cap_scores(model, spec.source, attention)
    if spec.quantization is not None:
        unpack_when_read(model)
    model.eval().requires_grad_(False)
    (place or (lambda whole: whole.to(device)))(model)
    check_model(model, spec.source)
    return model


def check_architecture(source: str) -> None:
    """Raise `UserError` where transformers makes no model of the configuration at `source`, or one
    that lacks a part that is read here; no weights are read, and no memory is taken for them."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = find(source)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # as above
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"model {source!r} cannot be loaded: {reason}") from error
    _refuse_other_class(folder, model)
    check_parts(model, source)


def _refuse_other_class(folder: Path, model: Any) -> None:
    """vLLM goes by the architecture that config.json names, transformers by the model's type."""
    named = read_config(folder).get("architectures") or [type(model).__name__]
    if named[0] != type(model).__name__:
        raise UserError(
            f"{folder / 'config.json'} is of {named[0]}, which vLLM would run, but its model_type "
            f"{model.config.model_type!r} is a {type(model).__name__}; correct one of them"
        )


def _cap_scores(model: Any, source: str, attention: str | None) -> None:
    """Have a model that caps its attention scores (Gemma 2) do so, as vLLM does. transformers
    chooses torch's SDPA for it, which has no cap and leaves it out without a word."""
    capped = getattr(model.config, "attn_logit_softcapping", None) is not None
    if not capped or model.config._attn_implementation != "sdpa":
        return
    if attention is not None:
        raise UserError(
            f"model {source!r} caps its attention scores, which execution.attention={attention} "
            "leaves out: leave it to the model, or set it to eager"
        )
    model.set_attn_implementation("eager")


def _misfit(report: dict[str, Any]) -> str | None:
    """What transformers could not place or find; tied weights and buffers that it knows to be
    harmless are not in its report."""
    shapes = [
        f"{name} is {list(found)} and not {list(expected)}"
        for name, found, expected in sorted(report["mismatched_keys"])
    ]
    for what, names in (
        ("missing", sorted(report["missing_keys"])),
        ("not part of it", sorted(report["unexpected_keys"])),
        ("of another shape", shapes),
        ("unreadable", sorted(report["error_msgs"])),
    ):
        if names:
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            return f"{what}: {', '.join(names[:2])}{more}"
    return None
