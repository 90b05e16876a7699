"""Which architectures keep rows apart that lie end to end. No torch here: a plan asks too."""

PACKED = {
    "cohere", "cohere2", "exaone4", "gemma", "gemma2", "gemma3_text", "gemma4_text", "glm4", "gpt2",
    "gpt_neox", "granite", "hyperclovax", "llama", "mistral", "mixtral", "olmo2", "olmo3", "phi",
    "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3",
}  # fmt: skip
"""By model_type: what mixes tokens in them is attention alone, which they leave to transformers'
interface. Each was tried (`tests/models/test_packing.py`); rows of others are padded."""


def packs(model_type: str) -> bool:
    """Whether rows of a model of this type may lie end to end."""
    return model_type in PACKED


def narrows(model_type: str) -> bool:
    """Whether the last layer of such a model may be computed for some of its tokens alone. GPT-2
    gives its states the shape of its rows, whatever they are; Gemma 4's layers have inputs beside
    the states."""
    return model_type in PACKED and model_type not in ("gpt2", "gemma4_text")
