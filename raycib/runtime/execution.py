"""How a sweep's work is spread and its base is held: what its settings say, with what a person
changed of it, and what does not go together."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from shutil import which
from typing import Any

from raycib.config import EngineName, ModelSpec
from raycib.config.presets import BaseFormat, Execution
from raycib.errors import UserError
from raycib.runtime.options import Options
from raycib.runtime.overrides import BASE, EXECUTION, changed
from raycib.runtime.study import Study

PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
"""What an implementation of attention needs installed."""
ON_CPU = ("eager", "sdpa")
"""Those that a CPU can train with."""


def execution_of(
    given: Execution, options: Options, overrides: Mapping[str, Mapping[str, Any]]
) -> Execution:
    """`UserError` for what contradicts itself, and for attention that cannot run here."""
    asked = dict(overrides.get(EXECUTION, {}))
    for name in ("workers", "group_size"):
        if (value := getattr(options, name)) is not None:
            if name in asked:
                option = name.replace("_", "-")
                raise UserError(
                    f"--set execution.{name}: --{option} is given too; give one of them"
                )
            asked[name] = value
    execution = changed(EXECUTION, given, asked)
    if "micro_batch_size" in asked and execution.micro_batch_tokens:
        raise UserError(
            "--set execution.micro_batch_size: here micro-batches are cut by tokens; set "
            "execution.micro_batch_tokens, or that one to null as well"
        )
    for name in ("workers", "engine_replicas", "judge_replicas"):
        if options.local and (getattr(execution, name) or 1) > 1:
            raise UserError(f"execution.{name} are Ray's; with --local there is this process alone")
    if execution.strategy != "replicated" and execution.workers == 1:
        raise UserError(
            f"execution.strategy {execution.strategy!r} lays the base over the workers of a group, "
            "and there is one: give --workers 2 or more, or leave the strategy out"
        )
    if execution.strategy == "zero3" and find_spec("deepspeed") is None:
        raise UserError(
            "execution.strategy 'zero3' needs DeepSpeed, which is not installed: "
            "pip install 'raycib[zero3]', or set fsdp2"
        )
    _check_attention(execution)
    _check_compiler(execution)
    for name in ("gpus_per_worker", "engine_gpus", "judge_gpus"):
        if (gpus := getattr(execution, name)) > 1 and gpus % 1:
            raise UserError(
                f"execution.{name} {gpus:g}: give a part of one GPU, or a whole number of them"
            )
    if execution.batch_invariant and (options.local or not execution.engine_gpus):
        raise UserError(
            "execution.batch_invariant is about vLLM's kernels on a GPU, and none answers here; "
            "leave it out"
        )
    return execution


def _check_attention(execution: Execution) -> None:
    name = execution.attention
    if name is None:
        return
    if not execution.gpus_per_worker and name not in ON_CPU:
        raise UserError(
            f"execution.attention {name!r} needs a GPU; here choose {' or '.join(ON_CPU)}"
        )
    package = PACKAGES.get(name)
    if package and find_spec(package) is None:
        raise UserError(
            f"execution.attention {name!r} needs the package {package}, which is not installed; "
            "install it, or choose sdpa"
        )


def _check_compiler(execution: Execution) -> None:
    """Of what torch writes: C++ on a CPU, and what calls its kernels on a GPU."""
    if execution.compile and execution.strategy != "replicated":
        raise UserError(
            "execution.compile is for a base that is whole on each worker: leave it out, or the "
            "strategy"
        )
    variable, usual = ("CC", "gcc") if execution.gpus_per_worker else ("CXX", "g++")
    compiler = os.environ.get(variable, usual)
    if execution.compile and which(compiler) is None:
        raise UserError(
            f"execution.compile needs the compiler {compiler!r}, which is not here; install it, "
            f"name another in {variable}, or leave the setting out"
        )


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
