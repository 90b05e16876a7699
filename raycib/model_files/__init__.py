"""Where a model's files are, what they hash to, and which of them are refused. No torch here."""

import functools
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from raycib.config import MADE, TODAY, JudgeSpec, ModelSpec, Template
from raycib.errors import NotHere, UserError, line_of
from raycib.model_files.config import (
    check_special_ids,
    ends_elsewhere,
    is_plain,
    own_dtype,
    positions,
    read_config,
    read_json,
    refuse_code,
    refuse_other_kinds,
    vocabulary,
)
from raycib.model_files.packaged import PYPI, packaged_folder
from raycib.model_files.weights import INDEX, Stamp, check_fit, check_whole, stamp, weight_files
from raycib.offline import tried_once
from raycib.store import Store
from raycib.store.kinds import STAGES

TOKENIZER = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*",
    "additional_chat_templates/*", "vocab*", "merges.txt", "*.model", "*.tiktoken",
)  # fmt: skip
"""All that changes ids or templates, in the forms that transformers reads."""
WORDS = ("tokenizer.json", "*.model", "vocab*", "*.tiktoken")
"""Files of a tokenizer of which it needs one."""
FETCHED = ("config.json", "generation_config.json", "*.safetensors", INDEX, *TOKENIZER)
LEFT = ("consolidated*", "adapter_*")
"""Not fetched: the same weights for another library, and adapters beside a model."""
_WORLD = "world:"
"""Begins the name of a model that comes with raycib."""


def is_shipped(source: str) -> bool:
    """Whether a model is the embedded world's, whose settings a preset has."""
    return source.startswith(_WORLD)


def find(source: str) -> Path:
    """The local folder of a model: `world:NAME`, a folder, a hub id (`name@revision`), `pypi:NAME`,
    a model in a package, or `stage:KEY@STORE`, a model that a stage made.

    A hub id is looked up in the local cache and fetched into it unless `HF_HUB_OFFLINE` is set.
    Raises `UserError` where there is no such model.
    """
    if is_shipped(source):
        from raycib import world

        try:
            return world.folder(source.removeprefix(_WORLD))
        except KeyError as error:
            raise UserError(str(error.args[0])) from error
    if source.startswith(MADE):
        return _made(source)
    if source.startswith(PYPI):
        return packaged_folder(source.removeprefix(PYPI))
    try:
        folder = Path(source).expanduser()
        is_folder = folder.is_dir()
        has_config = is_folder and (folder / "config.json").is_file()
    except (OSError, RuntimeError) as error:  # a name too long, a folder of others, no such home
        raise UserError(f"no model at {source!r:.200}: {error}") from error
    if is_folder:
        if not has_config:
            raise UserError(
                f"model folder {source!r} has no config.json; give a Hugging Face model folder"
            )
        return folder.resolve()
    if source.startswith(("/", ".", "~")) or source.count("/") != 1:
        raise UserError(f"no model folder at {source!r}; give a folder or a hub id like org/name")
    from huggingface_hub import snapshot_download

    name, _, revision = source.partition("@")
    try:
        with tried_once():
            folder = snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=list(FETCHED),
                ignore_patterns=list(LEFT),
            )
        return Path(folder)
    except Exception as error:  # the hub client raises a dozen kinds; the user mends them alike
        raise NotHere(
            f"model {source!r} is neither a folder nor on the hub: {line_of(error)}; check the "
            "name and the network, or `hf auth login` where it wants a licence"
        ) from error


def _made(source: str) -> Path:
    key, _, root = source.removeprefix(MADE).partition("@")
    if not re.fullmatch("[0-9a-f]{64}", key) or not root:
        raise UserError(f"no model at {source!r:.200}; a stage's is named {MADE}KEY@STORE")
    record = Store(root).get(STAGES, key)
    if record is None:
        raise UserError(
            f"the model of stage {key[:12]} is not in {root}; it failed, or was removed"
        )
    return record.folder


def checked(source: str, trained: bool = True) -> Path:
    """The folder of the model at `source`, whose files are whole and fit each other, and name no
    code to run; a language model with plain weights where it is to be `trained` on. Raises
    `UserError` where not: whatever can be known before torch is loaded is said then."""
    folder = find(source)
    refuse_code(folder)
    config = read_config(folder)
    positions(config, folder / "config.json")
    if trained:
        refuse_other_kinds(folder, config)
    check_whole(folder)
    if is_plain(config):
        check_special_ids(folder, config)
        check_fit(folder, config)
        check_tokenizer(folder, config)
    return folder


def on_hub(source: str) -> bool:
    """Whether a model is named by what the hub calls it, and is not a folder here."""
    elsewhere = is_shipped(source) or source.startswith((MADE, "/", ".", "~"))
    return not elsewhere and source.count("/") == 1 and not Path(source).is_dir()


def file_digests(folder: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    """sha256 of each of the matching files, by name."""
    paths = sorted(matching(folder, patterns))
    return {str(path.relative_to(folder)): _digest(path, stamp(path)) for path in paths}


def fingerprint(folder: Path, patterns: tuple[str, ...]) -> str:
    """sha256 over names and contents of the matching files."""
    return _fingerprint(folder, matching(folder, patterns))


def weights_fingerprint(folder: Path) -> str:
    """sha256 over the configuration and the weight files, those that are loaded; and over
    generation_config.json where it names other ends of a text than config.json."""
    files = {folder / "config.json", *weight_files(folder)}
    if (folder / INDEX).exists():
        files.add(folder / INDEX)
    if ends_elsewhere(folder, read_json(folder / "config.json")):
        files.add(folder / "generation_config.json")
    return _fingerprint(folder, files)


def matching(folder: Path, patterns: tuple[str, ...]) -> set[Path]:
    """What a folder holds under these names, folders left out."""
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return {path for path in found if not path.is_dir()}


def _fingerprint(folder: Path, files: set[Path]) -> str:
    whole = hashlib.sha256()
    for path in sorted(files):
        content = _digest(path, stamp(path))
        whole.update(f"{path.relative_to(folder)} {content}\n".encode())
    return whole.hexdigest()


@functools.cache
def _digest(path: Path, _: Stamp) -> str:
    """A file is read once a process, for as long as it stays as it is."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_tokenizer(folder: Path, config: dict[str, Any]) -> None:
    """Raise `UserError` where the tokenizer's files are not there or cannot be read, or its words
    have ids that the model has no embeddings for (of tokens added later: `check_embedded`)."""
    if not matching(folder, WORDS):
        raise UserError(
            f"model folder {folder} has no tokenizer ({', '.join(WORDS)}); copy its files there"
        )
    for path in sorted(matching(folder, TOKENIZER)):
        stamp(path)
    path = folder / "tokenizer_config.json"
    longest = read_json(path).get("model_max_length") if path.exists() else None
    if longest is not None and not isinstance(longest, (int, float)):
        raise UserError(f"{path}: model_max_length is {longest!r:.40}; expected a number of tokens")
    path = folder / "tokenizer.json"
    size = vocabulary(config)
    if path.exists() and size is not None and (most := _largest_id(path, stamp(path))) >= size:
        raise UserError(
            f"{path} has the token id {most}, but {folder / 'config.json'} only {size} embeddings "
            "(vocab_size); is it the tokenizer of another model?"
        )


@functools.cache
def _largest_id(path: Path, _: Stamp) -> int:
    model = read_json(path).get("model")
    words = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(words, list):  # Unigram: pieces in the order of their ids
        return len(words) - 1
    ids = words.values() if isinstance(words, dict) else []
    return max((one for one in ids if type(one) is int), default=-1)


def check_embedded(folder: Path, ids: Iterable[int]) -> None:
    """Raise `UserError` where the template in `folder` writes ids that its model has no embeddings
    for: vLLM may read zeros there, without a word."""
    size, most = vocabulary(read_config(folder)), max(ids)
    if size is not None and most >= size:
        raise UserError(
            f"the chat template in {folder} writes the token of id {most}, but config.json has "
            f"{size} embeddings (vocab_size): it was added to the tokenizer alone; resize the "
            "model's embeddings and save it again, or give the template that it was made with"
        )


def verified(spec: ModelSpec | JudgeSpec) -> Path:
    """The folder of a spec, whose weights and tokenizer are still the ones that it names."""
    folder = find(spec.source)
    if spec.source.startswith(MADE):
        return folder  # known by what made it; the store has checked every byte
    for what, found, named in (
        ("weights", weights_fingerprint(folder), spec.weights),
        ("tokenizer", fingerprint(folder, TOKENIZER), spec.tokenizer),
    ):
        if found != named:
            raise UserError(
                f"the {what} of {spec.source!r} changed since the plan was made "
                f"({found[:12]} instead of {named[:12]}); start the sweep again"
            )
    return folder


def describe(source: str, dtype: str | None = None, template: Template = "own") -> ModelSpec:
    """The spec of the model at `source`, with the fingerprints of what is there now. Without a
    `dtype` it is the model's own."""
    folder = checked(source)
    config = read_config(folder)
    return ModelSpec(
        source=source,
        weights=weights_fingerprint(folder),
        tokenizer=fingerprint(folder, TOKENIZER),
        dtype=dtype or own_dtype(config),  # type: ignore[arg-type]
        template=template,
        day=_day_told(folder) if template == "own" else "",
        capped=config.get("attn_logit_softcapping") is not None,
    )


def _day_told(folder: Path) -> str:
    """What the chat template in `folder` is told where it asks for the date, else ""."""
    patterns = ("tokenizer_config.json", "chat_template*", "additional_chat_templates/*")
    files = (path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
    asks = any("strftime_now" in path.read_text(errors="replace") for path in files)
    return TODAY if asks else ""


def context_length(source: str, most: int = 4096) -> int:
    """Tokens that the model at `source` can take, at most `most`."""
    path = find(source) / "config.json"
    return min(most, positions(read_config(path.parent), path) or most)
