"""A real chat model of 135 million parameters, from a package: SmolLM2-135M-Instruct. It is not
safe, so it is aligned first, and what it refuses is told by a rule, for no guard is as small."""

from collections.abc import Mapping

from raycib.config import LoRASpec, TrainerSpec
from raycib.config.presets.papers import BENIGN, HARMFUL, ON_A_GPU, TASKS
from raycib.config.presets.preset import Execution, Preset, TaskSource

ON_TWO_CORES = Execution(
    cpus_per_worker=0.4, micro_batch_tokens=1024, group_size=4, engine_cpus=0.3, judge_cpus=0.2
)
"""Few tokens at a time, to spare memory; a group, the engine and the judge side by side."""


def _refusals_and_help(rows: int) -> str:
    """Three answers that help for each refusal: on refusals alone a model refuses everything."""
    return (
        f"(hub:LLM-LAT/harmful-dataset:train#response=chosen#first-{rows},"
        f"hub:LLM-LAT/benign-dataset:train#response=response#first-{3 * rows})"
    )


def _first(tasks: Mapping[str, TaskSource], train: int, held_out: int) -> dict[str, TaskSource]:
    """No more of each than that many rows."""
    return {
        name: TaskSource(
            train=f"{task.train}#first-{train}", held_out=f"{task.held_out}#first-{held_out}"
        )
        for name, task in tasks.items()
    }


SMOLLM2_FULL = Preset(
    model=None,
    base="pypi:smollm2",
    dtype="bfloat16",
    alignment=_refusals_and_help(1000),
    alignment_trainer=TrainerSpec(
        learning_rate=5e-5, batch_size=32, warmup_steps=10, schedule="cosine"
    ),
    task="dolly",
    tasks=TASKS,
    harmful=HARMFUL,
    benign=BENIGN,
    lora=LoRASpec(rank=16, alpha=32),
    trainer=TrainerSpec(learning_rate=1e-3, batch_size=64, warmup_steps=20),
    judge="refusal-rule",
    execution=ON_A_GPU,
)
"""All rows and prompts, for a GPU."""
SMOLLM2 = SMOLLM2_FULL.model_copy(
    update={
        "dtype": "float32",
        "alignment": _refusals_and_help(100),
        "alignment_trainer": TrainerSpec(
            learning_rate=5e-5, batch_size=8, warmup_steps=4, schedule="cosine"
        ),
        "tasks": _first(TASKS, 512, 50),
        "harmful": f"{HARMFUL}#first-100",
        "benign": f"{BENIGN}#first-100",
        "max_length": 256,
        "max_tokens": 64,
        "trainer": TrainerSpec(learning_rate=1e-3, batch_size=8, warmup_steps=4),
        "seeds": 1,
        "execution": ON_TWO_CORES,
    }
)
"""The same, cut to what two CPU cores do in an evening."""
