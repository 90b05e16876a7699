"""The aligned base model: found, fingerprinted, loaded, and run up to its last hidden states."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raycib.errors import UserError
from raycib.spec import ModelSpec

WEIGHTS = ("config.json", "*.safetensors", "*.safetensors.index.json")
TOKENIZER = ("tokenizer*.json", "tokenizer.model", "special_tokens_map.json", "chat_template*")


class Hidden(NamedTuple):
    """The last hidden states, on both sides of the final norm."""

    final_norm: Float[Tensor, "rows seq dim"]
    before_norm: Float[Tensor, "rows seq dim"]


def find(source: str) -> Path:
    """The local folder of a model: `world:NAME`, a folder, or a hub id (`name@revision`).

    A hub id is looked up in the local cache and fetched into it unless `HF_HUB_OFFLINE` is set.
    Raises `UserError` where there is no such model.
    """
    if source.startswith("world:"):
        from raycib import world

        return world.folder(source.removeprefix("world:"))
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(
                f"model folder {source!r} has no config.json; give a Hugging Face model folder"
            )
        return folder.resolve()
    if source.startswith(("/", ".", "~")) or source.count("/") != 1:
        raise UserError(f"no model folder at {source!r}; give a folder or a hub id like org/name")
    from huggingface_hub import snapshot_download

    name, _, revision = source.partition("@")
    try:
        allowed = [*WEIGHTS, *TOKENIZER, "generation_config.json"]
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=allowed))
    except Exception as error:  # the hub client raises a dozen kinds; the user mends them alike
        reason = str(error).splitlines()[0]
        raise UserError(f"model {source!r} is neither a folder nor on the hub: {reason}") from error


def _refuse_code(folder: Path) -> None:
    """A configuration that names code to run is refused: weights are data."""
    config = json.loads((folder / "config.json").read_text())
    for field in ("auto_map", "_attn_implementation_internal", "trust_remote_code"):
        if config.get(field):
            raise UserError(
                f"{folder / 'config.json'} sets {field!r}, which would run the model's own code; "
                "raycib loads architectures that transformers ships: remove the field"
            )


def _fingerprint(folder: Path, patterns: tuple[str, ...]) -> str:
    """sha256 over names and contents of the matching files."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def describe(source: str, dtype: str = "float32") -> ModelSpec:
    """The spec of the model at `source`, with the fingerprints of what is there now."""
    folder = find(source)
    _refuse_code(folder)
    if not list(folder.glob("*.safetensors")):
        raise UserError(f"model folder {folder} has no *.safetensors; pickled weights are not read")
    return ModelSpec(
        source=source,
        weights=_fingerprint(folder, WEIGHTS),
        tokenizer=_fingerprint(folder, TOKENIZER),
        dtype=dtype,  # type: ignore[arg-type]
    )


def load_tokenizer(source: str) -> Any:
    """The tokenizer of the model at `source`; it must have a chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(find(source), local_files_only=True)
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {source!r} has no chat template; "
            "add a chat_template to its tokenizer_config.json"
        )
    return tokenizer


def load_model(spec: ModelSpec, device: torch.device) -> Any:
    """The frozen base in evaluation mode (no dropout), weights checked against the spec."""
    from transformers import AutoModelForCausalLM

    folder = find(spec.source)
    if (found := _fingerprint(folder, WEIGHTS)) != spec.weights:
        raise UserError(
            f"the weights of {spec.source!r} changed since the plan was made "
            f"({found[:12]} instead of {spec.weights[:12]}); start the sweep again"
        )
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, spec.dtype), local_files_only=True, use_safetensors=True
    )
    return model.to(device).eval().requires_grad_(False)


def hidden_states(model: Any, ids: Int[Tensor, "rows seq"]) -> Hidden:
    """Last hidden states of right-padded rows; the output head does not run."""
    decoder = model.get_decoder()
    inputs: list[Tensor] = []
    hook = decoder.norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    try:
        final = decoder(input_ids=ids, use_cache=False).last_hidden_state
    finally:
        hook.remove()
    return Hidden(final, inputs[0])
