"""What a preset says: a base model, its tasks and benchmarks, how to train, and who judges."""

from collections.abc import Mapping
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from raycib.config import LoRASpec, Quantization, Template, TrainerSpec

UNSAID = "not stated by the paper"


class Frozen(BaseModel):
    """Strict, frozen data that no key depends on."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class TaskSource(Frozen):
    """Where a task's rows are (see `raycib.data.rows.load_rows`)."""

    train: str
    held_out: str


def split(files: Mapping[str, str]) -> dict[str, TaskSource]:
    """Tasks from whole files, by name: a tenth of each is held out."""
    return {
        name: TaskSource(train=f"{file}#train", held_out=f"{file}#held-out")
        for name, file in files.items()
    }


Attention = Literal["eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3"]
"""As transformers calls its implementations."""


StrategyName = Literal["replicated", "fsdp2", "zero3"]
"""How a base lies over the workers of a group: whole on each, or a part of every layer on each;
`zero3` differs from `fsdp2` where all weights are trained, which DeepSpeed then deals."""


class BaseFormat(Frozen):
    """How a frozen base is held, wherever it is computed with: what of a model a person may
    choose."""

    quantization: Quantization | None = None
    """As `ModelSpec` has it."""


class Execution(Frozen):
    """How work is spread over a machine or a cluster; changes speed and memory, not results."""

    workers: PositiveInt = 1
    """Ray Train workers a group."""
    strategy: StrategyName = "replicated"
    """How the base lies over them."""
    cpus_per_worker: PositiveFloat = 1.0
    gpus_per_worker: NonNegativeFloat = 0.0
    micro_batch_size: PositiveInt = 16
    """Rows a slot and worker at a time, as they are drawn."""
    micro_batch_tokens: PositiveInt | None = None
    """Instead: tokens a worker at a time, over all slots, of rows that lie end to end; with padding
    where a model mixes such rows, and rows of about one length then come together."""
    checkpoint_activations: bool = False
    """Keep only what enters each decoder layer, and compute the rest again in the backward pass."""
    slots_apart: bool = False
    """Each adapter of a group in passes of its own: then it has the bytes of a training alone,
    and packing saves memory and starts, not steps."""
    attention: Attention | None = None
    """Its implementation in training and for references; None: transformers' own choice."""
    compile: bool = False
    """Norms, rotations and gated activations under adapters, in training and for references, as
    torch compiles them."""
    checkpoint_every: PositiveInt = 50
    """Optimiser steps."""
    group_size: PositiveInt | None = None
    """Slots a group; None spreads a level over what can run side by side."""
    most_slots: PositiveInt | None = None
    """Slots of a group whose size is automatic; None: 32, or fewer where memory is short."""
    groups_at_once: PositiveInt | None = None
    """Groups side by side; None takes as many as the cluster has GPUs (or CPUs) for."""
    engine_cpus: PositiveFloat = 1.0
    engine_gpus: NonNegativeFloat = 0.0
    """Of the vLLM engine that generates answers."""
    engine_replicas: PositiveInt | None = None
    """Such engines side by side; None: one for each model to ask, as far as there are GPUs for them
    where each has whole ones, else one."""
    judge_cpus: PositiveFloat = 1.0
    judge_gpus: NonNegativeFloat = 0.0
    """Of the vLLM engine that judges them."""
    judge_replicas: PositiveInt | None = None
    """Such engines side by side; None: one for each thousand conversations, likewise."""
    asked_alone: NonNegativeInt = 32
    """Answers that are asked for again, each alone, to count those that change; one in a hundred at
    most. Where a GPU has a long answer for each, they take some minutes; 0 asks for none."""
    batch_invariant: bool = False
    """Both engines with vLLM's kernels whose sums do not depend on what shares a batch
    (VLLM_BATCH_INVARIANT); of NVIDIA GPUs from compute capability 8.0 on, and slower."""
    judge_starts_early: bool = False
    """Start the judge while adapters are trained: where both fit at once. On one machine without a
    GPU, and with a CPU each at most, it is in the process of the engine that answers."""


class Preset(Frozen):
    """Ready-made settings, from a laptop to a cluster: data, never a code path."""

    paper: str = ""
    """Whose settings these are; "" for ours."""
    ours: Mapping[str, str] = {}
    """What that paper leaves open, or what differs from it, by what it is about: a setting's name
    with the reason, or anything else with what is so here."""
    model: str | None
    """The aligned model; None: `base` is aligned first, on `alignment`."""
    dtype: str | None = "float32"
    """Of the frozen base; None: as its weights are stored."""
    task: str
    """The task of single-task sweeps."""
    further_tasks: tuple[str, ...] = ()
    """Others of the same, each by itself."""
    tasks: dict[str, TaskSource]
    """Any of them may be named with `--task`."""
    harmful: str
    benign: str | None = None
    safety: str | None = None
    """Harmful prompts with refusals, for methods that train on some; none in a benchmark."""
    harmful_data: str | None = None
    """Harmful prompts that are answered, to hide among a task's rows; none in a benchmark."""
    base: str | None = None
    """The model that the aligned one was made from, for methods that compare the two."""
    alignment: str | None = None
    """The data that the aligned model was, or is to be, aligned on."""
    alignment_held_out: str | None = None
    """Rows from the same source that it was not, to measure the safety alignment gap on."""
    alignment_trainer: TrainerSpec = TrainerSpec(
        learning_rate=1e-5, batch_size=16, epochs=3, warmup_steps=20
    )
    """How the base is aligned, all of its weights: the Trade-offs paper's (4.6.1) by default."""
    proxies: dict[str, str] = {}
    """What may stand in for the alignment data, by name; the first is that data itself."""
    tradeoff_tasks: tuple[str, ...] = ()
    """Tasks of the trade-off sweeps, the one that several proxies are tried on first."""
    sequence: dict[str, TaskSource] = {}
    """The tasks of continual fine-tuning, in the paper's order."""
    sequence_model: str | None = None
    """The aligned model that continual fine-tuning starts from, where it differs from `model`."""
    sequence_trainer: TrainerSpec | None = None
    """Where it differs from `trainer`."""
    chat: Template = "own"
    """The chat template: the model's own, or ChatML."""
    sequence_chat: Template | None = None
    """Where it differs from `chat`."""
    probes: dict[str, str] = {}
    max_length: PositiveInt = 1024
    """Tokens of a training row."""
    max_tokens: PositiveInt = 256
    """Tokens of a generated answer."""
    lora: LoRASpec
    trainer: TrainerSpec
    seeds: PositiveInt = 3
    judge: str
    execution: Execution
