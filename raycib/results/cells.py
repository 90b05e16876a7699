"""The scores of models, and the cells that they are of."""

from collections.abc import Mapping, Sequence
from typing import Any

from raycib.metrics import Rate
from raycib.results.part import Part


class Scores(Part):
    """Of one model; None where something was not measured."""

    over_refusal: Rate | None = None
    hrr: Rate | None = None
    hrr_by_judge: Mapping[str, Rate | None] = {}
    """By the names of other judges."""
    hrr_on: Mapping[str, Rate | None] = {}
    """On further harmful prompts, by set."""
    hrr_rogan_gladen: Rate | None = None
    """Corrected by one error of the judge for all models, where people labelled answers."""
    hrr_prediction_powered: Rate | None = None
    """Corrected by the labels of this model's own answers."""
    refusal_rate: Rate | None = None
    incoherent_rate: Rate | None = None
    hrr_true: Rate | None = None
    judge_agreement: Rate | None = None
    accuracy: Rate | None = None
    f1: float | None = None
    has_answer: Rate | None = None
    no_answer: Rate | None = None
    f1_has_answer: float | None = None
    accuracies: Mapping[str, Rate | None] = {}
    """By task, where several are asked."""
    utility: float | None = None
    utility_by_probe: Mapping[str, Rate | None] = {}
    benchmarks: Mapping[str, Rate] = {}
    """Of lm-eval, by task, metric and filter: those that tables show."""
    benchmark_details: Mapping[str, Rate] = {}
    """All others."""
    benchmarks_mean: float | None = None
    """Of the shown ones that are shares."""
    at_limit: Mapping[str, int] = {}
    """By set, answers that ended at the limit of tokens; of how many by its name and `_n`."""
    eval_loss: float | None = None
    mutual_information: float | None = None
    mutual_information_last_prompt: float | None = None
    mutual_information_ceiling: float | None = None
    num_negatives: int | None = None
    cosine: float | None = None
    negative_cosine: float | None = None
    distance: float | None = None
    mutual_information_before: float | None = None
    mutual_information_last_prompt_before: float | None = None
    negative_cosine_before: float | None = None
    eval_loss_before: float | None = None


class Aligned(Part):
    """The model before fine-tuning."""

    scores: Scores | None = None


class Unaligned(Part):
    """The base that was aligned first."""

    name: str
    scores: Scores | None
    """How safe it is."""


class Cost(Part):
    """What a cell took."""

    steps: int | None = None
    """Of the optimiser, in the whole chain of stages."""
    rank: int | None = None
    """Of the exported adapter."""
    trained: bool | None = None
    """Whether it was; else it is derived from a trained adapter."""


class TaskData(Part):
    """The rows of a cell's task."""

    name: str = ""
    source: str = ""
    rows: int = 0
    digest: str = ""
    """sha256."""
    harmful_ratio: float = 0.0
    """Share of the rows that harmful ones replace."""
    without_harmful: str = ""
    """What the task is called without these."""


class Point(Part):
    """A model in the middle of its last stage's training."""

    step: int
    """Optimiser steps taken."""
    scores: Scores
    """Of its answers to harmful prompts."""


class Cell(Part):
    """A method at a strength with a seed."""

    key: str
    """Of its last stage."""
    adapter: str | None = None
    """sha256 of its weights."""
    method: str
    method_name: str | None = None
    label: str | None = None
    """What tables call it, where its method does not say all."""
    strength: float
    seed: int
    task: str
    model: str
    failed: str | None = None
    """Why it has no scores."""
    safety_data: bool = False
    """Whether it trains on refusals or on harmful prompts as well."""
    cost: Cost = Cost()
    parameters: Mapping[str, Any] = {}
    """Its last stage's settings: the method's, the adapter's as ``lora_...``, the trainer's. One of
    a method that is called as one of these, or as a field here, has ``method_`` before it."""
    scores: Scores | None = None
    points: Sequence[Point] = ()
    """From before the first step to the end."""
    points_apart: bool = False
    """Whether they are of another training of the stage, which ended with other last bits."""
    task_data: TaskData = TaskData()
    spec: Mapping[str, Any] = {}
    """The last stage's."""
