"""How the base is held, with what that rules out."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from raycib.config import EngineName, ModelSpec
from raycib.config.presets import BaseFormat, Execution
from raycib.errors import UserError
from raycib.runtime.options import Options
from raycib.runtime.overrides import BASE, changed
from raycib.runtime.study import Study


def base_format(
    options: Options,
    overrides: Mapping[str, Mapping[str, Any]],
    execution: Execution,
    study: Study,
) -> BaseFormat:
    """What a person asks for; `UserError` where something else that they ask for, or what is
    installed, does not go with it."""
    found = changed(BASE, BaseFormat(), dict(overrides.get(BASE, {})))
    if found.quantization is None:
        return found
    asked = f"--set {BASE}.quantization={found.quantization}"
    if find_spec("bitsandbytes") is None:
        raise UserError(
            f"{asked} needs bitsandbytes, which is not installed: pip install 'raycib[nf4]', or "
            "leave it out"
        )
    if study.differentiates_base:
        raise UserError(
            f"{asked}: a {study.name} study differentiates with respect to the base's own weights, "
            "and 4 bits have no gradient; leave it out"
        )
    if execution.strategy != "replicated":
        raise UserError(
            f"{asked}: execution.strategy {execution.strategy!r} lays a base over workers by rows "
            "of its weights, which 4 bits have not; leave one of the two out"
        )
    if execution.engine_gpus > 1:
        raise UserError(
            f"{asked}: transformers answers of a base in 4 bits, on one GPU: set "
            "execution.engine_gpus to 1 at most"
        )
    if execution.batch_invariant:
        raise UserError(
            f"{asked}: execution.batch_invariant is about vLLM's kernels, and of a base in 4 bits "
            "transformers answers; leave one of the two out"
        )
    return found


def engine_of(options: Options, model: ModelSpec) -> EngineName:
    """What generates answers. vLLM would quantise a base by itself, and multiply by what the bits
    stand for in kernels that round otherwise than training does."""
    return "transformers" if options.local or model.quantization else "vllm"
