"""A benchmark of lm-eval, EleutherAI's evaluation harness, known by all that it asks."""

from typing import Annotated, Any, ClassVar

from pydantic import NonNegativeInt, PositiveInt

from raycib.config.base import NOT_IDENTITY, Location, Spec, digest


class LmEvalSpec(Spec):
    """A task or a group of tasks, as lm-eval resolves it on this machine."""

    key_name: ClassVar[str] = "LmEvalSpec"
    name: Location
    """What its file calls it."""
    source: Location
    """Its name in lm-eval, or the path of a YAML file."""
    folder: Location
    """Where relative paths in a YAML file begin: lm-eval's working directory."""
    package: str
    """lm-eval's version: its code says what is asked and how it is scored."""
    version: str
    """The task's own, as its file has it."""
    config: str
    """sha256 over the resolved configuration of all its tasks and the code that they name; where
    the data lie is no part of it."""
    asked: str
    """sha256 over all requests, few-shot rows and chat template included, and the documents."""
    documents: PositiveInt
    shots: NonNegativeInt | None = None
    """Few-shot rows asked for; None: as many as the task has of itself."""
    limit: PositiveInt | None = None
    """Documents of each task, from the first; None: all."""
    chat: bool = False
    """Whether prompts go through the model's chat template; lm-eval's own default is not."""
    in_words: Annotated[bool, NOT_IDENTITY] = False
    """Whether the model has to generate; else texts that are given are scored by their
    likelihood."""
    sampled: Annotated[bool, NOT_IDENTITY] = False
    """Whether its tasks ask for answers that are drawn, so that another run gives others."""
    few_shot: Annotated[str, NOT_IDENTITY] = ""
    """Few-shot rows that its tasks have: a task's file may forbid what is asked for."""
    available: Annotated[NonNegativeInt, NOT_IDENTITY] = 0
    """Documents without the limit."""
    longest: Annotated[NonNegativeInt, NOT_IDENTITY] = 0
    """Tokens of a prompt with its answer, at most."""
    tokens: Annotated[NonNegativeInt, NOT_IDENTITY] = 0
    """Of all prompts and answers (generated ones of the most tokens) that go through a model."""
    square_tokens: Annotated[NonNegativeInt, NOT_IDENTITY] = 0
    """The sum of their squared lengths."""
    scored: Annotated[NonNegativeInt, NOT_IDENTITY] = 0
    """Tokens that go through the output head."""
    cut: Annotated[NonNegativeInt, NOT_IDENTITY] = 0
    """Requests longer than the model's context: lm-eval cuts their front off."""

    def stored_key(self, model_id: str, engine: str) -> str:
        """Of the scores of a model (a stage's key, or the aligned model's); `engine` is what
        generates answers, and plays no part where none are generated."""
        parts: dict[str, Any] = {"lm_eval": 1, "subject": model_id, "what": self.identity()}
        return digest(parts | ({"engine": engine} if self.in_words else {}))
