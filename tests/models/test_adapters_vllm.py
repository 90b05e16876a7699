"""vLLM serves an exported slot: same greedy tokens as transformers with our slots.

vLLM leaves engine state behind in its process, so the engine runs in one of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from raycib.models.adapters import AdapterSlots, LoRAShape

VOCAB = 128
NEW_TOKENS = 12
PROMPTS = [[3, 17, 80, 5], [99, 4], [64, 64, 12, 7, 31, 90, 2]]
SLOTS = (
    LoRAShape(8, 16.0, ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")),
    LoRAShape(4, 6.0, ("q_proj", "v_proj")),
)

ENGINE = """
import json, sys
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

model, prompts, new_tokens, *adapters = json.loads(sys.argv[1])
llm = LLM(
    model, dtype="float32", enforce_eager=True, enable_lora=True, max_loras=2, max_lora_rank=8,
    max_model_len=32, max_num_seqs=8, skip_tokenizer_init=True, disable_log_stats=True,
)
greedy = SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True, detokenize=False)
requests = [None] + [LoRARequest(f"slot{i}", i, path) for i, path in enumerate(adapters, start=1)]
answers = [
    [
        list(output.outputs[0].token_ids)
        for output in llm.generate(
            [{"prompt_token_ids": p} for p in prompts], greedy, lora_request=request, use_tqdm=False
        )
    ]
    for request in requests
]
print("ANSWERS" + json.dumps(answers))
"""


def greedy_tokens(adapters: AdapterSlots, prompt: list[int]) -> tuple[list[int], float]:
    """Continuation, and the smallest lead of a chosen token's logit over the next one."""
    ids, lead = list(prompt), float("inf")
    for _ in range(NEW_TOKENS):
        best = adapters.model(torch.tensor([ids])).logits[0, -1].topk(2)
        lead = min(lead, float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    return ids[len(prompt) :], lead


@pytest.mark.real
@torch.no_grad()
def test_vllm_gives_an_exported_slots_greedy_tokens(tmp_path: Path):
    pytest.importorskip("vllm")
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,  # heads of 32, the smallest that vLLM's CPU attention takes
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "base")
    adapters = AdapterSlots(model, SLOTS)
    folders = []
    for slot in range(len(SLOTS)):
        generator = torch.Generator().manual_seed(slot)
        for parameter in adapters.parameters_of(slot).values():
            parameter.copy_(0.15 * torch.randn(parameter.shape, generator=generator))
        folders.append(tmp_path / f"slot{slot}")
        adapters.export(slot, folders[-1], base_model_name=str(tmp_path / "base"))

    expected, lead = [], float("inf")
    for context in (adapters.disabled(), adapters.route([(0, 1)]), adapters.route([(1, 1)])):
        with context:
            answers = [greedy_tokens(adapters, prompt) for prompt in PROMPTS]
        expected.append([answer for answer, _ in answers])
        lead = min(lead, *(lead for _, lead in answers))
    assert expected[0] != expected[1] != expected[2] != expected[0]
    assert lead > 1e-4  # no near-tie, which rounding could decide either way

    job = [str(tmp_path / "base"), PROMPTS, NEW_TOKENS, *map(str, folders)]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    done = subprocess.run(
        [sys.executable, "-c", ENGINE, json.dumps(job)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS")]
    assert json.loads(line.removeprefix("ANSWERS")) == expected
