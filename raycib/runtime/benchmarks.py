"""`--evals`: benchmarks of lm-eval, resolved before anything starts."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from raycib.child import in_a_process
from raycib.config import LmEvalSpec, ModelSpec
from raycib.counting import count
from raycib.data.sources import several
from raycib.errors import UserError
from raycib.results import AskedBenchmark
from raycib.runtime.options import Options


def benchmarks_of(options: Options, model: ModelSpec, context: int) -> tuple[LmEvalSpec, ...]:
    """The benchmarks that `options` name, asked of a model that takes `context` tokens.

    Raises `UserError` where lm-eval is not installed or does not know one, where its data are out
    of reach, and for options about benchmarks where there are none.
    """
    if options.evals is None:
        for name in ("eval_limit", "eval_shots", "eval_chat"):
            if getattr(options, name):
                raise UserError(
                    f"--{name.replace('_', '-')} is about benchmarks of lm-eval; give some with "
                    "--evals, or leave it out"
                )
        return ()
    if find_spec("lm_eval") is None:
        raise UserError("--evals needs lm-eval, which is not here: pip install 'raycib[lm-eval]'")
    names = [_place(name.strip()) for name in several(options.evals)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--evals {options.evals!r}: {twice[0]!r} comes twice; give each once")
    asked = {
        "source": model.source,
        "template": model.template,
        "context": context,
        "names": names,
        "folder": os.getcwd(),
        "shots": options.eval_shots,
        "limit": options.eval_limit,
        "chat": options.eval_chat,
    }
    failing = f"--evals {options.evals!r}: lm-eval does not start"
    found = in_a_process("raycib.runtime.read_benchmarks:resolved", asked, failing)
    specs = tuple(LmEvalSpec(**one) for one in found)
    called = [one.name for one in specs]
    if twice := [name for name in called if called.count(name) > 1]:
        raise UserError(f"--evals {options.evals!r}: two are called {twice[0]!r}; rename one")
    return specs


def _place(name: str) -> str:
    """A file of one's own by its whole path: workers are in other folders."""
    if not name.endswith((".yaml", ".yml")):
        return name
    file = Path(name).expanduser().absolute()
    if not file.is_file():
        raise UserError(f"--evals: there is no file {name!r}; check its path")
    return str(file)


def told(specs: Sequence[LmEvalSpec]) -> list[AskedBenchmark]:
    """What a reader must know of each benchmark."""
    return [
        AskedBenchmark(
            benchmark=one.name,
            version=one.version,
            documents=one.documents,
            of=one.available,
            few_shot=one.few_shot,
            prompts="the chat template" if one.chat else "plain text",
            by=_by(one),
            longer_than_the_context=one.cut,
            scored_by=f"lm-eval {one.package}",
        )
        for one in specs
    ]


def _by(spec: LmEvalSpec) -> str:
    if spec.sampled:
        return "answers drawn at random, as the task asks"
    return "generated answers" if spec.in_words else "likelihoods of given answers"


def lines(specs: Sequence[LmEvalSpec]) -> list[str]:
    """The same in a line each, for people."""
    found = []
    for one, words in zip(specs, told(specs), strict=True):
        cut = f", {count(one.cut, 'request')} cut in front, longer than the context" * bool(one.cut)
        found.append(
            f"benchmark {one.name}: lm-eval {one.package}, version {one.version}, {one.documents} "
            f"of {count(one.available, 'document')}, few-shot {words.few_shot}, {words.prompts}, "
            f"{words.by}{cut}"
        )
    return found
