"""All that a preset needs of the Hugging Face hub, into the cache of its own clients: a sweep then
runs without a network. What was fetched is kept in a manifest, and checked against it later."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from raycib.config import ModelSpec
from raycib.config.presets import Preset, preset
from raycib.console import made
from raycib.counting import count
from raycib.data.hub import file_of
from raycib.data.origins import parts_of
from raycib.data.rows import fingerprint as rows_fingerprint
from raycib.data.rows import load_rows
from raycib.data.sources import parse
from raycib.errors import UserError, line_of
from raycib.model_files import (
    FETCHED,
    LEFT,
    TOKENIZER,
    checked,
    file_digests,
    fingerprint,
    on_hub,
    weights_fingerprint,
)
from raycib.runtime.benchmarks import benchmarks_of
from raycib.runtime.options import Options
from raycib.runtime.row_sets import NO_LIMIT

HUB = "hub:"
DATA_FILES = ["*.json", "*.jsonl", "*.csv", "*.tsv", "*.parquet", "*.gz"]


class Needs(NamedTuple):
    """What a preset reads of the hub."""

    models: tuple[str, ...]
    sources: tuple[str, ...]
    """Of rows."""


class Repository(NamedTuple):
    """A model or a data set of the hub, before it is fetched."""

    name: str
    is_data: bool
    size: int
    """Bytes to fetch, at most: of some data sets a part is enough."""
    kept: int
    """Bytes that are here already."""
    licence: str
    closed: bool
    """Whether its licence has to be accepted first, by whoever has the token."""

    def __str__(self) -> str:
        kind = "data set" if self.is_data else "model"
        closed = "; accept its licence first" if self.closed else ""
        size = f"{self.size / 1e9:8.2f} GB" if self.size else "     here   "
        return f"{kind:9}{size}  {self.name} ({self.licence}{closed})"

    @property
    def page(self) -> str:
        """Where a person accepts the licence."""
        return f"https://huggingface.co/{'datasets/' * self.is_data}{self.name}"


def needs(chosen: Preset) -> Needs:
    """The models and rows of a preset's task, sequence and trade-off tasks, and its benchmarks."""
    models = (chosen.model, chosen.base, chosen.sequence_model, chosen.judge)
    tasks = [chosen.tasks[name] for name in (chosen.task, *chosen.tradeoff_tasks)]
    tasks += chosen.sequence.values()
    sources = [part for one in tasks for part in (one.train, one.held_out)]
    others = (chosen.harmful, chosen.benign, chosen.safety)
    sources += [*others, chosen.alignment, chosen.alignment_held_out]
    sources += [*chosen.proxies.values(), *chosen.probes.values()]
    sources = [part for one in sources if one for part in parts_of(one)]
    return Needs(
        tuple(dict.fromkeys(one for one in models if one and on_hub(one))),
        tuple(dict.fromkeys(one for one in sources if one.startswith(HUB))),
    )


def fetch(
    name: str, tell: Callable[[str], None], only_list: bool = False, evals: str | None = None
) -> Path | None:
    """Fetch what the preset `name` needs, and the documents of lm-eval's benchmarks `evals`; the
    manifest, None where it was only to be listed.

    `tell` is given a line for each model and data set: its size and licence, before anything is
    fetched. What is there already is not fetched again, and a broken download goes on. With
    `HF_HUB_OFFLINE` nothing is fetched and all is compared with the manifest. Raises `UserError`
    where a licence is not accepted, the disk is too small, or something is not as it was.
    """
    from huggingface_hub import constants

    chosen = preset(name)
    wanted = needs(chosen)
    if not wanted.models and not wanted.sources:
        raise UserError(f"preset {name!r} needs nothing of the hub: it comes with raycib")
    manifest = Path(constants.HF_HOME) / "raycib" / f"{name}.json"
    if not constants.HF_HUB_OFFLINE:
        there = list(_repositories(wanted))
        for one in there:
            tell(str(one))
        if evals:
            tell(f"lm-eval  size unknown  {evals}")
        total = sum(one.size for one in there)
        kept = sum(one.kept for one in there)
        tell(
            f"{total / 1e9:.2f} GB to fetch at most, {kept / 1e9:.2f} GB here, in "
            f"{constants.HF_HOME}"
        )
        if only_list:
            return None
        _refuse_closed(there)
        _refuse_a_small_disk(Path(constants.HF_HOME), total)
    found = _taken(wanted, tell)
    if evals:
        found["benchmarks"] = _documents(evals, chosen, tell)
    if constants.HF_HUB_OFFLINE:
        _compare(found, manifest)
        return manifest
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"preset": name, **found}, indent=1))
    return manifest


def _repositories(wanted: Needs) -> Iterator[Repository]:
    """What the hub says of everything that is wanted."""
    for source in wanted.models:
        name, _, revision = source.partition("@")
        yield _repository(name, revision or None, False, list(FETCHED))
    data: dict[str, list[str]] = {}
    for source in wanted.sources:
        name = parse(source).name.removeprefix(HUB)
        repository, file = file_of(name) or (name.partition(":")[0].partition("@")[0], None)
        data.setdefault(repository, []).extend([file] if file else DATA_FILES)
    for name, patterns in data.items():
        yield _repository(name, None, True, patterns)


def _repository(name: str, revision: str | None, is_data: bool, files: list[str]) -> Repository:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError
    from huggingface_hub.utils import filter_repo_objects

    kind, api = "dataset" if is_data else "model", HfApi()
    try:
        about: Any = api.repo_info(name, repo_type=kind, revision=revision, files_metadata=True)
        siblings = filter_repo_objects(
            about.siblings or [],
            allow_patterns=files,
            ignore_patterns=None if is_data else list(LEFT),
            key=lambda file: file.rfilename,
        )
        size = kept = 0
        for file in siblings:
            here = try_to_load_from_cache(name, file.rfilename, repo_type=kind, revision=about.sha)
            kept += (file.size or 0) * isinstance(here, str)
            size += (file.size or 0) * (not isinstance(here, str))
        closed = False
        if about.gated:
            try:
                api.auth_check(name, repo_type=kind)
            except GatedRepoError:
                closed = True
    except Exception as error:  # the hub client raises a dozen kinds; the user mends them alike
        raise UserError(
            f"the hub says nothing of {kind} {name!r}: {line_of(error)}; check the network, and "
            "HF_TOKEN"
        ) from error
    card = about.card_data
    return Repository(name, is_data, size, kept, str(card and card.get("license")), closed)


def _refuse_closed(there: list[Repository]) -> None:
    if closed := [one.page for one in there if one.closed]:
        raise UserError(
            f"accept the licences on {', '.join(closed)} and say who you are (`hf auth login`, or "
            "HF_TOKEN): nothing is fetched yet"
        )


def _refuse_a_small_disk(home: Path, size: int) -> None:
    if (free := shutil.disk_usage(made(home, "--to")).free) < size:
        raise UserError(
            f"{home} has {free / 1e9:.1f} GB free, of {size / 1e9:.1f} that may be needed; choose "
            "another folder with --to"
        )


def _taken(wanted: Needs, tell: Callable[[str], None]) -> dict[str, Any]:
    """All that is wanted, with its hashes: read as a sweep reads it, which fetches what lacks."""
    models, rows = {}, {}
    for source in wanted.models:
        folder = checked(source, trained=False)
        models[source] = {
            "commit": folder.name,
            "weights": weights_fingerprint(folder),
            "tokenizer": fingerprint(folder, TOKENIZER),
            "files": file_digests(folder, FETCHED),
        }
        tell(f"{source}: weights {models[source]['weights'][:12]}")
    for source in wanted.sources:
        found = load_rows(source)
        rows[source] = {"rows": len(found), "sha256": rows_fingerprint(found)}
        tell(f"{source}: {count(len(found), 'row')} {rows[source]['sha256'][:12]}")
    return {"models": models, "rows": rows}


def _documents(evals: str, chosen: Preset, tell: Callable[[str], None]) -> dict[str, Any]:
    """What lm-eval's benchmarks ask, which fetches their data."""
    source = chosen.model or str(chosen.base)
    model = ModelSpec(source=source, weights="", tokenizer="", template=chosen.chat)
    found = {}
    for one in benchmarks_of(Options(evals=evals), model, NO_LIMIT):
        found[one.name] = {"documents": one.documents, "sha256": one.asked}
        tell(f"{one.name}: {count(one.documents, 'document')} {one.asked[:12]}")
    return found


def _compare(found: dict[str, Any], manifest: Path) -> None:
    if not manifest.exists():
        raise UserError(f"no {manifest}: fetch the preset where there is a network")
    kept = json.loads(manifest.read_text())
    for kind, every in found.items():
        for source, one in every.items():
            if one != kept.get(kind, {}).get(source):
                raise UserError(f"{source} is not what {manifest} says was fetched: fetch it again")


def into(folder: Path) -> None:
    """Have the hub's clients keep everything in `folder`, before they are imported."""
    if taken := [one for one in ("HF_HUB_CACHE", "HF_DATASETS_CACHE") if one in os.environ]:
        raise UserError(f"--to {folder}: {taken[0]} says otherwise; unset it")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--to {folder} is no folder; name one, or a new one")
    os.environ["HF_HOME"] = str(folder.absolute())
