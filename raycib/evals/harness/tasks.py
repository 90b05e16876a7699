"""lm-eval's tasks, loaded as its own command loads them, and what they ask."""

import contextlib
import hashlib
import inspect
import io
import json
import logging
import os
import random
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

from raycib.errors import UserError

BOOTSTRAPS = 1000
"""Draws behind lm-eval's standard error of what is no mean (its own default is 100,000)."""
PLACES = ("dataset_path", "dataset_name", "dataset_kwargs", "task_alias")
"""Fields of a task's configuration that say where its data lie: they are known by content."""


@contextlib.contextmanager
def as_its_command(folder: str) -> Iterator[None]:
    """Within it, lm-eval is seeded as its command line is, reads relative paths from `folder`, and
    says nothing. Random states of this process are restored."""
    import datasets
    import numpy as np
    import torch
    from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

    before = random.getstate(), np.random.get_state()
    quiet = logging.getLogger("lm_eval")
    level = quiet.level
    silent = io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(contextlib.redirect_stdout(silent))
        stack.enter_context(contextlib.redirect_stderr(silent))
        random.seed(DEFAULT_RANDOM_SEED)
        np.random.seed(DEFAULT_OTHER_SEED)
        torch.manual_seed(DEFAULT_OTHER_SEED)
        os.environ.setdefault("DISABLE_MULTIPROC", "1")  # no forks of a process with an accelerator
        datasets.disable_progress_bars()
        quiet.setLevel(logging.ERROR)
        try:
            yield
        finally:
            quiet.setLevel(level)
            random.setstate(before[0])
            np.random.set_state(before[1])


@cache
def _index(whole: bool) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=whole)  # four seconds for all that it knows


def load(source: str, shots: int | None) -> Any:
    """The tasks and groups of a name or a YAML file (lm-eval's `TaskDict`), with `shots` few-shot
    rows where that is asked for and the task's file does not forbid it."""
    from lm_eval.defaults import DEFAULT_OTHER_SEED

    own = is_file(source)
    names_others = own and re.search(r"^group:", Path(source).read_text(), re.MULTILINE)
    found = _index(bool(names_others or not own)).load([source])
    for task in found["tasks"].values():
        given = task.get_config("num_fewshot")
        if given != 0 and (shots is not None or given is None):  # 0 in a file is never overruled
            task.set_config(key="num_fewshot", value=shots or 0)
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    return found


def is_file(source: str) -> bool:
    """Whether a benchmark is a file of one's own, not a name that lm-eval knows."""
    return source.endswith((".yaml", ".yml"))


def ask(found: Any, limit: int | None, chat: Callable[..., str] | None) -> None:
    """Make all requests of loaded tasks, as `lm_eval.evaluate` does. `chat` writes turns."""
    for task in found["tasks"].values():
        task.build_all_requests(
            limit=limit,
            rank=0,
            world_size=1,
            apply_chat_template=chat is not None,
            fewshot_as_multiturn=chat is not None,
            chat_template=chat,
        )


def refuse_unsafe(found: Any) -> None:
    """`UserError` for tasks that run what a model wrote, or show it pictures or sounds."""
    for name, task in found["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False):
            raise UserError(f"{name} runs code that a model wrote, which raycib does not")
        if getattr(task, "MULTIMODAL", False):
            raise UserError(f"{name} has pictures or sounds; raycib's models read text alone")


def config_of(found: Any) -> str:
    """sha256 over what tasks and groups are, without where their data lie. Take it before they are
    asked: lm-eval writes into its configurations."""
    from lm_eval.api.task import ConfigurableTask

    parts: dict[str, Any] = {}
    for name, task in sorted(found["tasks"].items()):
        fields = {k: v for k, v in vars(task.config).items() if k not in PLACES}
        metadata = dict(fields.get("metadata") or {})
        metadata.pop("config_source", None)
        own = None if type(task) is ConfigurableTask else _code(type(task))
        parts[name] = fields | {"metadata": metadata, "class": own}
    for name, group in sorted(found["groups"].items()):
        parts[f"group {name}"] = [group.child_names, group.aggregate_metric_list]
    return _hash(parts)


def asked_of(found: Any) -> str:
    """sha256 over all that tasks, once asked, ask a model, and the documents that score it."""
    return _hash(
        {
            name: [(one.request_type, one.args, one.doc) for one in task.instances]
            for name, task in sorted(found["tasks"].items())
        }
    )


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def _plain(value: Any) -> Any:
    """What JSON lacks: a function is known by its name and its file, data by their fields."""
    if callable(value):
        return _code(value)
    if hasattr(value, "__dataclass_fields__"):
        return vars(value)
    if isinstance(value, set):
        return sorted(value, key=str)
    return str(value)


def _code(value: Any) -> Any:
    inner = getattr(value, "func", None)  # a partial
    if inner is not None:
        return [_code(inner), value.args, value.keywords]
    file = inspect.getsourcefile(inspect.unwrap(value))
    name = getattr(value, "__qualname__", type(value).__name__)
    return [name, hashlib.sha256(Path(cast("str", file)).read_bytes()).hexdigest()]
