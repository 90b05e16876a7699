"""Resolving benchmarks of lm-eval: it and torch are not imported by a driver, so that this is for a
process of its own."""

from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

from raycib.errors import UserError
from raycib.evals.harness.tasks import (
    as_its_command,
    ask,
    asked_of,
    config_of,
    is_file,
    load,
    refuse_unsafe,
)


def resolved(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of the `LmEvalSpec` of each benchmark.

    `asked` are the `source` and `template` of the model, its `context`, `names` of benchmarks,
    `folder`, `shots`, `limit` and `chat`. Raises `UserError`, in one line.
    """
    from raycib.models import load_tokenizer

    tokenizer = load_tokenizer(asked["source"], asked["template"])
    found = []
    for name in asked["names"]:
        try:
            with as_its_command(asked["folder"]):
                found.append(_resolved(name, asked, tokenizer))
        except Exception as error:  # a task is a program, and its data are elsewhere
            raise UserError(f"--evals {name}: {_told(name, error)}") from error
    return found


def _resolved(name: str, asked: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    import lm_eval

    tasks = load(name, asked["shots"])
    refuse_unsafe(tasks)
    config = config_of(tasks)
    ask(tasks, asked["limit"], _written(tokenizer) if asked["chat"] else None)
    versions = {str(task.VERSION) for task in tasks["tasks"].values()}
    called = next(iter([*tasks["groups"], *tasks["tasks"]]))
    one_of_many = len(tasks["tasks"]) > 1 and not tasks["groups"]
    every = [one for task in tasks["tasks"].values() for one in task.instances]
    lengths = _lengths(every, tokenizer)
    passes = list(
        {_pass(one, length): length for one, length in zip(every, lengths, strict=True)}.values()
    )
    in_words = any(one.request_type == "generate_until" for one in every)
    return {
        "name": name if one_of_many else called,
        "source": name,
        "folder": asked["folder"],
        "package": lm_eval.__version__,
        "version": ", ".join(sorted(versions)),
        "config": config,
        "asked": asked_of(tasks),
        "documents": len({(one.task_name, one.doc_id) for one in every}),
        "shots": asked["shots"],
        "limit": asked["limit"],
        "chat": asked["chat"],
        "in_words": in_words,
        "sampled": any(_is_sampled(one) for one in every),
        "few_shot": ", ".join(
            str(n) for n in sorted({task.config.num_fewshot for task in tasks["tasks"].values()})
        ),
        "available": sum(len(task.eval_docs) for task in tasks["tasks"].values()),
        "longest": max(one.whole for one in lengths),
        "tokens": sum(one.whole for one in passes),
        "square_tokens": sum(one.whole**2 for one in passes),
        # Of given texts lm-eval computes the logits of all tokens.
        "scored": sum(one.answer if in_words else one.whole for one in passes),
        "cut": sum(one.whole > asked["context"] for one in lengths),
    }


class _Length(NamedTuple):
    """Of a request, in tokens."""

    whole: int
    """Prompt and answer."""
    answer: int


def _pass(request: Any, length: _Length) -> Any:
    """What is alike for requests that share a pass: answers of one token to one prompt do."""
    alone = request.request_type != "loglikelihood" or length.answer > 1
    return id(request) if alone else request.args[0]


def _written(tokenizer: Any) -> Any:
    """How lm-eval writes chats, with no model at hand."""
    from lm_eval.models.huggingface import HFLM

    from raycib.evals.harness.models import CHAT

    given: Any = SimpleNamespace(tokenizer=tokenizer, chat_template_args=CHAT)
    return partial(HFLM.apply_chat_template, given)


def _is_sampled(request: Any) -> bool:
    if request.request_type != "generate_until":
        return False
    settings = request.args[1]
    return bool(settings.get("do_sample") or settings.get("temperature"))


def _lengths(requests: list[Any], tokenizer: Any) -> list[_Length]:
    """Of each request, at most: prompt and answer are counted apart."""
    from raycib.evals.harness.models import most_tokens

    parts = sorted({str(text) for one in requests for text in one.args if isinstance(text, str)})
    counted = [len(ids) for ids in tokenizer(parts)["input_ids"]] if parts else []
    tokens = dict(zip(parts, counted, strict=True))

    def length(one: Any) -> _Length:
        prompt, *answer = one.args
        if one.request_type == "generate_until":
            said = most_tokens(answer[0])
        else:
            said = tokens[answer[0]] if answer else 0
        return _Length(tokens[prompt] + said, said)

    return [length(one) for one in requests]


def _told(name: str, error: Exception) -> str:
    said = " ".join(str(error).split())[:300]
    if isinstance(error, UserError):
        return said
    if isinstance(error, KeyError) and "is not a registered" in said:
        mend = "is that file there?" if is_file(name) else "lm-eval ls tasks lists what there is"
        return f"lm-eval has no such task; {mend}"
    if isinstance(error, ConnectionError) or "Hub" in said:
        return (
            f"its data are not on this machine and the hub is out of reach ({said}); run this "
            "command once with --dry-run where there is a network, or write a YAML with "
            "dataset_path: json"
        )
    return f"lm-eval cannot load it: {type(error).__name__}: {said}"
