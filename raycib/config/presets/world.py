"""The embedded world: minutes on two CPU cores, nothing to download."""

from raycib.config import LoRASpec, TrainerSpec
from raycib.config.presets.preset import Execution, Preset, TaskSource

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
    harmful_data="world:harmful.answered",
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
