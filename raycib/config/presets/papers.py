"""The models, tasks and settings of the two papers, as far as they state them.

What they leave open, and where we differ, stands in each preset's `ours`, and is printed and
reported with the settings.
"""

from raycib.config import LoRASpec, TrainerSpec
from raycib.config.presets.preset import UNSAID, Execution, Preset, TaskSource

ORCA = "hub:Open-Orca/OpenOrca/1M-GPT4-Augmented.parquet"
"""The answers by GPT-4, which are the ones that the Trade-offs paper names."""
ALPACA = "hub:tatsu-lab/alpaca:train"
ALPACA_GPT4 = "hub:vicgalle/alpaca-gpt4:train"


def _cut(source: str, rows: int) -> TaskSource:
    """That many rows to train on, and up to 500 others to ask."""
    return TaskSource(train=f"{source}#train#first-{rows}", held_out=f"{source}#held-out")


TASKS = {
    "dolly": TaskSource(
        train="hub:databricks/databricks-dolly-15k:train#train",
        held_out="hub:databricks/databricks-dolly-15k:train#held-out",
    ),
    "gsm8k": TaskSource(train="hub:openai/gsm8k@main:train", held_out="hub:openai/gsm8k@main:test"),
    "medmcqa": TaskSource(
        train="hub:openlifescienceai/medmcqa:train#first-20000",
        held_out="hub:openlifescienceai/medmcqa:validation#first-2000",
    ),
    "squad_v2": TaskSource(
        train="hub:rajpurkar/squad_v2:train#first-20000",
        held_out="hub:rajpurkar/squad_v2:validation#first-2000",
    ),
    # Of a million rows no more are read than are needed.
    "orca": _cut(f"{ORCA}#first-21000", 20000),
    "alpaca": _cut(ALPACA, 20000),
    "alpaca_gpt4": _cut(ALPACA_GPT4, 20000),
    "commitpackft": _cut("hub:bigcode/commitpackft/data/python/data.jsonl", 20000),
    "open_platypus": _cut("hub:garage-bAInd/Open-Platypus:train", 20000),
}
"""The papers' nine, with as many rows to train on as they had: CIB C.4, Trade-offs 4.6.2."""
HARMFUL = "hub:walledai/AdvBench:train"
BENIGN = "hub:walledai/XSTest:test#only=label:safe"
GUARD = "meta-llama/Llama-Guard-3-8B"
ON_A_GPU = Execution(
    gpus_per_worker=1,
    micro_batch_tokens=4096,
    engine_gpus=1,
    judge_gpus=1,
)
"""A model of some billion parameters."""

_CIB_OURS = {
    "schedule": UNSAID,
    "precision": "the paper has FP16",
    "tokens of a row": UNSAID,
    "tokens of an answer": UNSAID,
    "adapted layers": "all seven linears",
    "optimiser": "AdamW without weight decay, no dropout, loss on responses",
    "rows of medmcqa and squad_v2": "the first 20,000",
    "held-out rows": "of dolly every tenth, 500 at most; the test split of gsm8k; the first 2,000 "
    "of validation of medmcqa and squad_v2",
    "harmless prompts": "XSTest's 250 safe ones",
    "seeds": "3 for single tasks, as the paper has for sequences",
}


def _cib(source: str, base: str, **ours: str) -> Preset:
    """The CIB paper's settings, which are the same for its four models."""
    return Preset(
        paper="CIB paper (5.1, 5.2, C.1 to C.6)",
        ours=_CIB_OURS | ours,
        model=source,
        base=base,
        dtype="bfloat16",
        task="dolly",
        tasks=TASKS,
        sequence={name: TASKS[name] for name in ("dolly", "gsm8k", "medmcqa", "squad_v2")},
        sequence_chat="chatml",
        harmful=HARMFUL,
        benign=BENIGN,
        lora=LoRASpec(rank=32, alpha=64),
        trainer=TrainerSpec(learning_rate=1e-4, batch_size=64, warmup_steps=50),
        judge=GUARD,
        execution=ON_A_GPU,
    )


LLAMA31_8B = _cib("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B")
LLAMA2_7B_CHAT = _cib("meta-llama/Llama-2-7b-chat-hf", "meta-llama/Llama-2-7b-hf")
QWEN25_7B = _cib("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B")
QWEN3_4B = _cib(
    "Qwen/Qwen3-4B-Instruct-2507",
    "Qwen/Qwen3-4B-Base",
    model="Qwen3-4B-Instruct-2507: the paper's Qwen3-4B-Instruct may also be Qwen3-4B",
)

LLAMA2_7B_TRADEOFFS = Preset(
    paper="Trade-offs paper (2.4, 4.6)",
    ours={
        "schedule": "the paper says an initial learning rate, and no more",
        "warm-up steps": UNSAID,
        "precision": UNSAID,
        "tokens of a row": UNSAID,
        "tokens of an answer": UNSAID,
        "optimiser": "AdamW without weight decay, gradients clipped at norm 1, loss on responses",
        "chat template": "ChatML, for the base has none of its own",
        "rows": "the first 20,000 of each set; of OpenOrca those by GPT-4, of CommitPackFT Python",
        "tasks": "the paper does not say which task its proxies are compared on: open_platypus",
        "held-out rows": "every tenth, 500 at most",
        "harmful response rate": "not in the paper: AdvBench, and Llama-Guard-3-8B as the judge",
        "harmless prompts": "not in the paper: XSTest's 250 safe ones",
    },
    model=None,
    base="meta-llama/Llama-2-7b-hf",
    dtype="bfloat16",
    task="open_platypus",
    tasks=TASKS,
    chat="chatml",
    tradeoff_tasks=("open_platypus", "commitpackft", "alpaca"),
    alignment=f"{ORCA}#first-20000",
    alignment_trainer=TrainerSpec(learning_rate=1e-5, batch_size=16, epochs=3, warmup_steps=0),
    proxies={
        "original data": f"{ORCA}#first-20000",
        "Alpaca-GPT-4": f"{ALPACA_GPT4}#first-20000",
        "Alpaca": f"{ALPACA}#first-20000",
    },
    harmful=HARMFUL,
    benign=BENIGN,
    lora=LoRASpec(rank=16, alpha=16, targets=("q_proj", "v_proj")),
    trainer=TrainerSpec(learning_rate=1e-5, batch_size=16, epochs=3, warmup_steps=0),
    judge=GUARD,
    execution=ON_A_GPU,
)
"""Llama-2-7B, aligned on OpenOrca first, all of its weights."""
