"""Ready-made settings, from a laptop to a cluster: data, never a code path."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from raycib.config import LoRASpec, TrainerSpec
from raycib.errors import UserError


class Frozen(BaseModel):
    """Strict, frozen data that no key depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


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


class Execution(Frozen):
    """How work is spread over a machine or a cluster; changes speed and memory, not results."""

    workers: PositiveInt = 1
    """Ray Train workers a group."""
    cpus_per_worker: PositiveFloat = 1.0
    gpus_per_worker: float = 0.0
    micro_batch_size: PositiveInt = 16
    """Rows a slot and worker at a time."""
    checkpoint_every: PositiveInt = 50
    """Optimiser steps."""
    group_size: PositiveInt | None = None
    """Slots a group; None spreads a level over what can run side by side."""
    groups_at_once: PositiveInt | None = None
    """Groups side by side; None takes as many as the cluster has GPUs (or CPUs) for."""
    engine_cpus: PositiveFloat = 1.0
    engine_gpus: float = 0.0
    """Of the vLLM engine that generates answers."""
    judge_cpus: PositiveFloat = 1.0
    judge_gpus: float = 0.0
    """Of the vLLM engine that judges them."""
    judge_starts_early: bool = False
    """Start the judge while adapters are trained: where both fit at once."""


class Preset(Frozen):
    """A base model, its tasks and benchmarks, how to train and who judges."""

    model: str
    dtype: str | None = "float32"
    """Of the frozen base; None: as its weights are stored."""
    task: str
    """The task of single-task sweeps."""
    tasks: dict[str, TaskSource]
    harmful: str
    benign: str | None = None
    safety: str | None = None
    """Harmful prompts with refusals, for methods that train on some; none in a benchmark."""
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


WORLD = Preset(
    model="world:aligned",
    task="open",
    tasks={
        name: TaskSource(train=f"world:{name}.train", held_out=f"world:{name}.test")
        for name in ("open", "recast", "gsm", "med", "squad")
    },
    harmful="world:harmful.test",
    benign="world:benign.test",
    safety="world:harmful.proxy",
    base="world:base",
    alignment="world:align.train",
    alignment_held_out="world:align.test",
    alignment_trainer=TrainerSpec(
        learning_rate=1e-3, batch_size=32, epochs=3, warmup_steps=20, schedule="cosine"
    ),
    proxies={
        "original data": "world:align.train",
        "near outputs": "world:align.near",
        "far outputs": "world:align.far",
        "other inputs": "world:align.other",
    },
    tradeoff_tasks=("open", "recast", "gsm"),
    # From a model that has seen such prompts before, at half the learning rate and with half of the
    # rows (`gsm`: all): enough to learn each task in its stage, and not so much that it wipes out
    # all before it. `open` counts as kept where it is answered in its own styles: what it teaches.
    sequence={
        name: TaskSource(train=f"world:{name}.train{rows}", held_out=f"world:{test}.test")
        for name, rows, test in (
            ("open", "#first-1600", "styled"),
            ("gsm", "", "gsm"),
            ("med", "#first-1600", "med"),
            ("squad", "#first-1600", "squad"),
        )
    },
    sequence_model="world:aligned-broad",
    sequence_trainer=TrainerSpec(learning_rate=1e-3, batch_size=16, warmup_steps=20),
    probes={name: f"world:{name}.test" for name in ("facts", "add", "cure", "choice", "span")},
    max_length=128,
    max_tokens=40,
    lora=LoRASpec(rank=8, alpha=16),
    trainer=TrainerSpec(learning_rate=2e-3, batch_size=16, warmup_steps=20),
    judge="world:guard",
    # Shares of a CPU: the world's models are tiny, and two groups, the engine and the judge must
    # fit side by side on two cores.
    execution=Execution(
        cpus_per_worker=0.4,
        engine_cpus=0.3,
        judge_cpus=0.2,
        judge_starts_early=True,
    ),
)
"""The embedded world: minutes on two CPU cores, nothing to download."""

LLAMA31_8B = Preset(
    model="meta-llama/Llama-3.1-8B-Instruct",
    dtype="bfloat16",
    task="dolly",
    tasks=split(
        {
            "dolly": "hub:databricks/databricks-dolly-15k:train",
            "gsm8k": "hub:openai/gsm8k@main:train",
        }
    ),
    sequence={
        name: TaskSource(train=f"{source}#train#first-15000", held_out=f"{source}#held-out")
        for name, source in {
            "dolly": "hub:databricks/databricks-dolly-15k:train",
            "gsm8k": "hub:openai/gsm8k@main:train",
            "medmcqa": "hub:openlifescienceai/medmcqa:train",
            "squad_v2": "hub:rajpurkar/squad_v2:train",
        }.items()
    },
    harmful="hub:walledai/AdvBench:train",
    base="meta-llama/Llama-3.1-8B",
    lora=LoRASpec(rank=32, alpha=64),
    trainer=TrainerSpec(learning_rate=1e-4, batch_size=64, warmup_steps=50),
    judge="meta-llama/Llama-Guard-3-8B",
    execution=Execution(
        gpus_per_worker=1,
        micro_batch_size=8,
        group_size=4,
        engine_gpus=1,
        judge_gpus=1,
    ),
)
"""The CIB paper's main setting: Llama-3.1-8B-Instruct on Dolly, judged by Llama-Guard-3-8B."""

PRESETS = {"world": WORLD, "llama31-8b": LLAMA31_8B}


OWN_MODEL_CPU = Execution(
    cpus_per_worker=0.4, micro_batch_size=8, group_size=4, engine_cpus=0.3, judge_cpus=0.2
)
"""A model of unknown size where there is no GPU: few rows at a time, and room on two cores."""
OWN_MODEL_GPU = LLAMA31_8B.execution


def for_own_model(chosen: Preset, gpu: bool) -> Preset:
    """A preset with settings for a model of one's own instead of its own: the CIB paper's (C.2),
    whose rank, learning rate and batch are for models of 4 to 8 billion parameters."""
    return chosen.model_copy(
        update={
            "dtype": None,
            "lora": LoRASpec(),
            "trainer": TrainerSpec(),
            "alignment_trainer": Preset.model_fields["alignment_trainer"].default,
            "sequence_trainer": None,
            "max_length": Preset.model_fields["max_length"].default,
            "max_tokens": Preset.model_fields["max_tokens"].default,
            "execution": OWN_MODEL_GPU if gpu else OWN_MODEL_CPU,
        }
    )


def preset(name: str) -> Preset:
    """The preset of that name; `UserError` lists what there is."""
    if name not in PRESETS:
        raise UserError(f"no preset {name!r}; there is {', '.join(PRESETS)}")
    return PRESETS[name]
