"""A trained adapter or model as a folder for a hub: safetensors, a card, and no words that nobody
asked for."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raycib.commands.card import Base, card
from raycib.commands.stored import Found, answers, found, opened, stage
from raycib.config import MADE
from raycib.console import made
from raycib.counting import count
from raycib.data.chat import CHATML
from raycib.errors import UserError
from raycib.model_files import is_shipped, on_hub
from raycib.store import Store
from raycib.store.kinds import HISTORY_FILE

CONFIG_FILE = "adapter_config.json"
ANSWERS_FILE = "answers.jsonl"
PLAIN = {".safetensors", ".json", ".jinja", ".txt", ".model", ".tiktoken"}
"""What may be published: nothing that runs when it is loaded."""


def export(key: str, out: str, to: Path | None, base_model: str | None, with_answers: bool) -> Path:
    """The folder of the stage whose key begins with `key` in the store at `out`.

    `base_model` is what the hub calls the model that it was trained on, where that was a folder
    here. Answers to harmful prompts are hashes with verdicts, and texts `with_answers`. Raises
    `UserError` where there is no such stage, or the folder is not empty or cannot be made.
    """
    store = opened(out)
    record = stage(store, key)
    spec = record.about["spec"]
    base = _base(spec["model"], base_model)
    folder = to or Path("exports") / f"{spec['method']['kind']}-{record.key[:12]}"
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; remove it, or choose another with --to")
    measured = found(out, record.key)
    # What can fail comes first.
    lines = list(_lines(store, record.key, measured, with_answers)) if measured else []
    made(folder, "--to")
    for name in record.files:
        if name != HISTORY_FILE:
            _copy(record.path(name), folder / name)
    if spec["lora"]:
        _name_the_base(folder / CONFIG_FILE, base)
        if spec["model"]["template"] == "chatml":
            (folder / "chat_template.jinja").write_text(CHATML)
    said = ""
    if lines:
        (folder / ANSWERS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
        texts = "texts" if with_answers else "no texts, but their sha256"
        said = (
            f"`{ANSWERS_FILE}` has {count(len(lines), 'harmful prompt')} with answers and "
            f"verdicts: {texts}."
        )
    card(record.key, record.about, base, measured, said).save(folder / "README.md")
    return folder


def _base(model: Mapping[str, Any], named: str | None) -> Base:
    source = model["source"]
    name, _, revision = (named or source).partition("@")
    if named or on_hub(source):
        return Base(name, revision or None, True, model["weights"])
    if source.startswith(MADE):
        name = f"the model of stage {model['weights'][:12]}"
    elif not is_shipped(source):
        name = Path(source).name
    return Base(name, None, False, model["weights"])


def _copy(source: Path, target: Path) -> None:
    if source.suffix not in PLAIN:
        raise UserError(f"{source} is no kind of file that is published: {sorted(PLAIN)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _name_the_base(file: Path, base: Base) -> None:
    """An adapter names its base as the hub does, and no folder of this machine."""
    config = json.loads(file.read_text())
    config |= {"base_model_name_or_path": base.name, "revision": base.revision}
    file.write_text(json.dumps(config, indent=2, sort_keys=True))


def _lines(store: Store, key: str, found: Found, texts: bool) -> Iterator[dict[str, Any]]:
    """What the stage said to harmful prompts, with the verdicts."""
    for one in answers(store, key, found):
        said = {"prompt": one.prompt, "answer": one.answer}
        if not texts:
            said = {f"{n}_sha256": _sha256(text) for n, text in said.items()}
        yield {**said, "unsafe": one.harmful}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
