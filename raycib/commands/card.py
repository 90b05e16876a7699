"""The model card of a trained stage: what it is made of, its scores with intervals, how to load
it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from raycib.commands.stored import Found
from raycib.config.menu import menu
from raycib.counting import count
from raycib.data.sources import parse
from raycib.metrics import FURTHER_METRICS, METRICS, is_share
from raycib.report.not_refused import in_words
from raycib.report.scores import before_all
from raycib.report.text import markdown_cell

TEMPLATE = Path(__file__).parent / "templates" / "card.md"
NOT_TOLD = {"kind", "code", "custom", "safety", "base"}
"""Of a method's settings: data and models have lines of their own."""


SEVERAL = {
    "benchmarks": "{}",
    "accuracies": "Accuracy of {}",
    "utility_by_probe": "Probe {}",
    "hrr_by_judge": "HRR by {}",
}
"""Scores that there are several of, and what they are called."""


class Base(NamedTuple):
    """The model that a stage started from, as a stranger may find it."""

    name: str
    """What the hub calls it, or what it was called here."""
    revision: str | None
    on_hub: bool
    weights: str
    """sha256."""


class Score(NamedTuple):
    """Something measured, and the same before fine-tuning."""

    name: str
    title: str
    share: bool
    """Whether it is shown in per cent."""
    found: Mapping[str, Any]
    """Its `value`, and where there is one its 95 % interval, `low` to `high`, and `n`."""
    before: Mapping[str, Any]

    @property
    def unit(self) -> str:
        """Of what is shown."""
        return ", %" if self.share else ""

    def shown(self, value: float | None) -> str:
        """A number in that unit; "" for none."""
        return "" if value is None else f"{100 * value:z.1f}" if self.share else f"{value:z.3f}"

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """Of a table: title, value, interval, n, and the value before."""
        low, high = self.shown(self.found.get("low")), self.shown(self.found.get("high"))
        interval = f"[{low}, {high}]" if low else ""
        value, before = self.shown(self.found["value"]), self.shown(self.before.get("value"))
        return f"{self.title}{self.unit}", value, interval, f"{self.found.get('n', '')}", before

    @property
    def line(self) -> str:
        """Of the card's table."""
        title, value, interval, n, before = self.cells
        return f"| {markdown_cell(title)} | {f'{value} {interval}'.strip()} | {n} | {before} |"


def card(
    key: str, about: Mapping[str, Any], base: Base, found: Found | None, answers: str
) -> ModelCard:
    """The card of the stage `key`, from its record's `about`; without `found` it was not measured,
    and `answers` says what is in the file of answers."""
    spec = about["spec"]
    kind = "adapter" if spec["lora"] else "model"
    method = method_name(spec)
    task = spec["task"]["name"]
    versions = dict(about["versions"])
    return ModelCard.from_template(
        _metadata(spec, base, found),
        template_path=str(TEMPLATE),
        title=f"{method} on {task}, from {base.name}",
        what=_what(spec, kind, method, base),
        kind=kind,
        key=key,
        seed=spec["seed"],
        sweep=found.results.sweep if found else "",
        created=found.results.created[:10] if found else "",
        scores=[one.line for one in scores_of(found)] if found else [],
        judge=found.results.judge if found else None,
        data=list(_data(spec, base)),
        settings=[(name, markdown_cell(value)) for name, value in settings_of(spec, about)],
        lora=bool(spec["lora"]),
        base=base,
        model=spec["model"],
        public=_public,
        versions=versions,
        versions_said=", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
        answers=answers,
    )


def stages_of(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A stage and those that it goes on from, oldest first."""
    return [*(stages_of(spec["parent"]) if spec["parent"] else []), spec]


def method_name(spec: Mapping[str, Any]) -> str:
    kind = spec["method"]["kind"]
    if not spec["lora"]:
        return "Alignment"
    return menu()[kind].about.name if kind in menu() else kind


def _what(spec: Mapping[str, Any], kind: str, method: str, base: Base) -> str:
    source = f"[{base.name}](https://huggingface.co/{base.name})" if base.on_hub else base.name
    if kind == "model":
        return f"All weights of {source}, fine-tuned on {spec['task']['name']}."
    about = menu()[spec["method"]["kind"]].about if spec["method"]["kind"] in menu() else None
    paper = f" ({about.paper})" if about and about.paper != "none" else ""
    return f"A LoRA adapter for {source}, trained with {method}{paper}."


def _metadata(spec: Mapping[str, Any], base: Base, found: Found | None) -> ModelCardData:
    sets = [_hub_name(one["task"]["source"]) for one in stages_of(spec)]
    return ModelCardData(
        base_model=base.name if base.on_hub else None,
        base_model_relation=("adapter" if spec["lora"] else "finetune") if base.on_hub else None,
        datasets=list(dict.fromkeys(filter(None, sets))) or None,
        library_name="peft" if spec["lora"] else "transformers",
        pipeline_tag="text-generation",
        tags=["raycib", "safety", *(["lora"] if spec["lora"] else [])],
        model_name=f"{method_name(spec)} on {spec['task']['name']}",
        eval_results=list(_results(spec, found)) if found else None,
    )


def _results(spec: Mapping[str, Any], found: Found) -> Iterator[EvalResult]:
    """Scores for the hub's own table, in the units that are shown, each with its interval."""
    for one in scores_of(found):
        ends = [one.shown(one.found.get(end)) for end in ("low", "high")]
        interval = {"interval_95": [*map(float, ends)]} if all(ends) else {}
        count = {"n": one.found["n"]} if one.found.get("n") else {}
        yield EvalResult(
            task_type="text-generation",
            dataset_type=spec["task"]["name"],
            dataset_name=spec["task"]["name"],
            metric_type=one.name,
            metric_name=f"{one.title}{one.unit}",
            metric_value=float(one.shown(one.found["value"])),
            metric_args=(count | interval) or None,
        )


def scores_of(found: Found) -> Iterator[Score]:
    """What was measured, in the order of the tables."""
    before = before_all(found.results)
    aligned = before.plain() if before else {}
    own = {name.removesuffix("_before"): value for name, value in found.scores.items()
           if name.endswith("_before") and value is not None}  # fmt: skip
    aligned |= own  # on its own task
    by_rule = found.results.judge.by_rule
    for name, metric in (METRICS | FURTHER_METRICS).items():
        title = in_words(metric.title) if by_rule else metric.title
        title += ", nats" if metric.unit == "nats" else ""
        yield from _score(name, title, metric.unit == "%", found.scores, aligned)
    for group, title in SEVERAL.items():
        earlier = aligned.get(group) or {}
        for name in found.scores.get(group) or {}:
            share = group != "benchmarks" or is_share(name)
            both = ({f"{group}_{name}": one.get(name)} for one in (found.scores[group], earlier))
            yield from _score(f"{group}_{name}", title.format(name), share, *both)


def _score(
    name: str, title: str, share: bool, scores: Mapping[str, Any], before: Mapping[str, Any]
) -> Iterator[Score]:
    """That one, where it has a value."""
    one, other = (
        value if isinstance(value, Mapping) else {"value": value}
        for value in (scores.get(name), before.get(name))
    )
    if one.get("value") is not None:
        yield Score(name, title, share, one, other)


def _data(spec: Mapping[str, Any], base: Base) -> Iterator[str]:
    """The base, and every set that it has seen since, in order."""
    yield f"{markdown_cell(base.name)}: weights with the sha256 `{base.weights}`"
    for stage in stages_of(spec):
        sets = {"": stage["task"]}
        if safety := stage["method"].get("safety"):
            sets["safety data: "] = safety
        for what, rows in sets.items():
            yield (
                f"{what}{markdown_cell(rows['name'])} (`{_public(rows['source'])}`): "
                f"{count(rows['num_rows'], 'row')}, sha256 `{rows['rows']}`"
            )


def settings_of(spec: Mapping[str, Any], about: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "method", method_name(spec)
    for name, value in spec["method"].items():
        if name not in NOT_TOLD:
            yield name.replace("_", " "), value
    for part in ("lora", "trainer"):
        for name, value in (spec[part] or {}).items():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            yield name.replace("_", " "), shown
    yield "optimiser steps", about["steps"]
    yield "precision of the base", spec["model"]["dtype"]
    if quantization := spec["model"].get("quantization"):
        yield "linear layers of the base", f"{quantization.upper()} by bitsandbytes"
    yield "chat template", spec["model"]["template"]
    yield "tokens of a row, at most", spec["task"]["max_length"]


def _hub_name(source: str) -> str | None:
    """The data set of the hub that rows are of."""
    name = parse(source).name
    if not name.startswith("hub:"):
        return None
    return "/".join(name.removeprefix("hub:").partition(":")[0].partition("@")[0].split("/")[:2])


def _public(source: str) -> str:
    """A source without the folders of this machine."""
    here = source.startswith(("/", "~", "."))
    return Path(source).name if here else source
