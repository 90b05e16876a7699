"""Where a model's files are, what they hash to, and which of them are refused. No torch here."""

import hashlib
import json
from pathlib import Path
from typing import Any

from raycib.errors import UserError
from raycib.spec import MADE, ModelSpec, Template
from raycib.store import Store

WEIGHTS = ("config.json", "*.safetensors", "*.safetensors.index.json")
TOKENIZER = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*",
    "additional_chat_templates/*", "vocab*", "merges.txt", "*.model", "*.tiktoken", "tekken.json",
)  # fmt: skip
"""All that changes ids or templates, in the forms that transformers reads."""


def find(source: str) -> Path:
    """The local folder of a model: `world:NAME`, a folder, a hub id (`name@revision`), or
    `stage:KEY@STORE`, a model that a stage made.

    A hub id is looked up in the local cache and fetched into it unless `HF_HUB_OFFLINE` is set.
    Raises `UserError` where there is no such model.
    """
    if source.startswith("world:"):
        from raycib import world

        try:
            return world.folder(source.removeprefix("world:"))
        except KeyError as error:
            raise UserError(str(error.args[0])) from error
    if source.startswith(MADE):
        return _made(source)
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


def _made(source: str) -> Path:
    key, _, root = source.removeprefix(MADE).partition("@")
    record = Store(root).get("stages", key)
    if record is None:
        raise UserError(
            f"the model of stage {key[:12]} is not in {root}; it failed, or was removed"
        )
    return record.folder


def refuse_code(folder: Path) -> None:
    """A configuration that names code to run is refused: weights and tokenizers are data."""
    for name in ("config.json", "tokenizer_config.json"):
        config = _config(folder / name) if (folder / name).exists() else {}
        for field in ("auto_map", "_attn_implementation_internal", "trust_remote_code"):
            if config.get(field):
                raise UserError(
                    f"{folder / name} sets {field!r}, which would run the model's own code; "
                    "raycib loads what transformers ships: remove the field"
                )


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no object; is it a Hugging Face model?")
    return config


def fingerprint(folder: Path, patterns: tuple[str, ...]) -> str:
    """sha256 over names and contents of the matching files."""
    files = sorted(
        {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    )
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(folder)} {content}\n".encode())
    return whole.hexdigest()


def verified(spec: ModelSpec) -> Path:
    """The folder of a spec, whose weights are still the ones that it names."""
    folder = find(spec.source)
    if spec.source.startswith(MADE):
        return folder  # known by what made it; the store has checked every byte
    if (found := fingerprint(folder, WEIGHTS)) != spec.weights:
        raise UserError(
            f"the weights of {spec.source!r} changed since the plan was made "
            f"({found[:12]} instead of {spec.weights[:12]}); start the sweep again"
        )
    return folder


def describe(source: str, dtype: str = "float32", template: Template = "own") -> ModelSpec:
    """The spec of the model at `source`, with the fingerprints of what is there now."""
    folder = find(source)
    refuse_code(folder)
    if not list(folder.glob("*.safetensors")):
        raise UserError(f"model folder {folder} has no *.safetensors; pickled weights are not read")
    return ModelSpec(
        source=source,
        weights=fingerprint(folder, WEIGHTS),
        tokenizer=fingerprint(folder, TOKENIZER),
        dtype=dtype,  # type: ignore[arg-type]
        template=template,
    )


def context_length(source: str, most: int = 4096) -> int:
    """Tokens that the model at `source` can take, at most `most`."""
    config = _config(find(source) / "config.json")
    return min(most, int(config.get("max_position_embeddings", most)))
