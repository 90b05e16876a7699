"""The architectures that raycib was tried on, as random models of a few thousand weights."""

from typing import Any

import torch
import transformers

WORDS = 48
LLAMA: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = LLAMA | {
    "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 8,
    "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24,
}  # fmt: skip
GPT = {"vocab_size": WORDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1} | {
    "eos_token_id": 2,
    "n_positions": 64,
}
HEADED = LLAMA | {"head_dim": 8}
TWO_KINDS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4}
READ: dict[str, dict[str, Any]] = {
    "Llama": LLAMA,
    "Qwen2": LLAMA,
    "Qwen3": HEADED,
    "Gemma": HEADED,
    "Gemma2": HEADED | {"final_logit_softcapping": 2.0, "attn_logit_softcapping": 0.2},
    "Gemma3Text": HEADED | {"final_logit_softcapping": 2.0},
    "Gemma4Text": HEADED
    | TWO_KINDS
    | {"global_head_dim": 8, "final_logit_softcapping": 2.0}
    | {"vocab_size_per_layer_input": WORDS, "hidden_size_per_layer_input": 8},
    "Mistral": LLAMA,
    "Granite": LLAMA | {"logits_scaling": 8.0},
    "Cohere": LLAMA | {"logit_scale": 0.0625},
    "Cohere2": LLAMA | {"logit_scale": 0.0625},
    "HyperCLOVAX": LLAMA | {"logits_scaling": 3.0},  # which it multiplies by, and Granite divides
    "Olmo2": LLAMA,
    "Olmo3": LLAMA | TWO_KINDS,
    "SmolLM3": LLAMA | {"no_rope_layers": [1, 0]},
    "Glm4": HEADED,
    "Exaone4": LLAMA | TWO_KINDS,
    "Phi": LLAMA,
    "Phi3": LLAMA,
    "GPTNeoX": LLAMA,
    "GPT2": GPT,
    "Falcon": LLAMA,
    "Mixtral": EXPERTS,
    "Qwen2Moe": EXPERTS,
    "Qwen3Moe": EXPERTS,
}
PADDED = {"FalconH1": HEADED | {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_ssm": 64}}
"""The same of those whose tokens see others outside of attention: states of a Mamba."""


def random_model(name: str, attention: str | None = None, **overrides: Any) -> Any:
    """A model of an architecture; its logits are of size 1 to 5."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        **((READ | PADDED).get(name, LLAMA) | overrides)
    )
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    return model.eval()
