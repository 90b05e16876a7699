"""One cell as a researcher writes it with TRL and PEFT, and nothing of ours."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

try:
    from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found]
except ImportError:
    raise SystemExit(
        "error: TRL is not installed: .venv/bin/python -m pip install -c constraints.txt "
        "-e '.[bench]'"
    ) from None
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def sft(
    model: Path,
    rows: Sequence[dict[str, str]],
    out: Path,
    *,
    batch: int,
    seed: int = 0,
    callbacks: Sequence[Any] = (),
    **settings: Any,
) -> Any:
    """A trainer of plain LoRA on the responses of rows, ready to train. Two defaults of TRL would
    slow it down here, and are off: bfloat16, and layers that are computed twice."""
    data = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": row["prompt"]}],
                "completion": [{"role": "assistant", "content": row["response"]}],
            }
            for row in rows
        ]
    )
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(model, dtype="float32"),
        SFTConfig(
            output_dir=str(out),
            per_device_train_batch_size=batch,
            seed=seed,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **{"lr_scheduler_type": "constant", "num_train_epochs": 1, "max_grad_norm": 1.0}
            | settings,
        ),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(
            r=8, lora_alpha=16, lora_dropout=0.0, target_modules=LINEARS, task_type="CAUSAL_LM"
        ),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def check_gradients(trainer: Any) -> None:
    """Every gradient that a run logged was there."""
    norms = [float(e["grad_norm"]) for e in trainer.state.log_history if "grad_norm" in e]
    assert norms and all(norm > 0 for norm in norms), f"TRL had no gradient: {norms}"
