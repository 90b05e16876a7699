"""A model folder of a GGUF file, for a process of its own. Quantised weights come out as bfloat16,
which is what they are trained from."""

import json
from pathlib import Path
from typing import Any


def unpack(asked: dict[str, str]) -> None:
    """Write weights, configuration and tokenizer of the model in a `file` into a `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file, folder = Path(asked["file"]), Path(asked["folder"])
    where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    model: Any = AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.float32, trust_remote_code=False
    )
    # It is no quantised model any more, and would be saved as one.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where, trust_remote_code=False).save_pretrained(folder)
    for name in ("config.json", "generation_config.json"):  # which version wrote it is no part
        path = folder / name
        told = json.loads(path.read_text())
        told.pop("transformers_version", None)
        path.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")
