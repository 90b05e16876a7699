"""Presets say what the papers say, and mark what is ours."""

import pytest

from raycib.config.presets import PRESETS, UNSAID, preset
from raycib.data.sources import parse

OURS = ("world", "smollm2", "smollm2-full")
CIB = ("llama2-7b-chat", "llama31-8b", "qwen25-7b", "qwen3-4b")


@pytest.mark.parametrize("name", CIB)
def test_the_cib_papers_settings_are_one_for_its_models(name: str) -> None:
    """C.1, C.2, C.5."""
    found = preset(name)
    lora, trainer = found.lora, found.trainer
    assert (lora.rank, lora.alpha) == (32, 64)
    assert (trainer.learning_rate, trainer.batch_size, trainer.epochs) == (1e-4, 64, 1)
    assert (trainer.warmup_steps, trainer.max_grad_norm) == (50, 1)
    assert list(found.sequence) == ["dolly", "gsm8k", "medmcqa", "squad_v2"]
    assert (found.task, found.chat, found.sequence_chat) == ("dolly", "own", "chatml")
    assert found.judge == "meta-llama/Llama-Guard-3-8B"


def test_the_trade_offs_papers_adapter_has_its_parameters() -> None:
    """4.6.1: 8.4 million of Llama-2-7B's 32 layers of width 4096."""
    found = preset("llama2-7b-tradeoffs")
    lora = found.lora
    assert set(lora.targets) == {"q_proj", "v_proj"}
    assert len(lora.targets) * 32 * lora.rank * (4096 + 4096) == 8_388_608
    assert lora.alpha / lora.rank == 1
    for trainer in (found.trainer, found.alignment_trainer):
        assert (trainer.learning_rate, trainer.batch_size, trainer.epochs) == (1e-5, 16, 3)
    assert found.alignment
    assert parse(found.alignment).first == 20_000, "4.6.2"


def test_every_paper_leaves_something_open() -> None:
    for name, found in PRESETS.items():
        assert bool(found.paper) == bool(found.ours) == (name not in OURS), name
        if found.paper:
            assert UNSAID in found.ours.values()
            assert all(text.strip() for text in found.ours.values())


def test_all_have_the_nine_tasks_with_the_papers_rows() -> None:
    """CIB C.4 (all of Dolly and GSM8K), Trade-offs 4.6.2."""
    rows = {"dolly": None, "gsm8k": None, "medmcqa": 20_000, "squad_v2": 20_000, "orca": 20_000,
            "alpaca": 20_000, "alpaca_gpt4": 20_000, "commitpackft": 20_000,
            "open_platypus": 20_000}  # fmt: skip
    for name in (*CIB, "llama2-7b-tradeoffs"):
        tasks = preset(name).tasks
        assert tasks.keys() == rows.keys()
        for task, source in tasks.items():
            (*_, last) = ["", *parse(source.train).cuts]
            assert rows[task] is None or last == f"first-{rows[task]}"
            assert source.held_out != source.train
