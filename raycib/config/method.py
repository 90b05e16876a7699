"""What a method is: its settings, what it needs and reads, and what to know about it.

Its file in `raycib/methods` says the rest: what it changes about plain LoRA fine-tuning.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer

from raycib.config.base import Feature, Spec
from raycib.config.data import ModelSpec, TaskSpec

DECIMALS = 12
"""Of a strength that is one minus a setting: 1 - 0.7 is not 0.3 in binary."""


class About(NamedTuple):
    """What a person should know before choosing a method, and how figures draw it."""

    name: str
    paper: str
    strength: str
    """The field that sets the strength, what it is, and where its zero lies."""
    passes: str
    """What a step costs beyond LoRA's one forward and one backward pass."""
    needs: str
    """Data and models beyond the task's rows and the aligned model."""
    deviations: str
    """From the paper or its official code."""
    color: str = ""
    """Of its lines; "" takes one that no other method has."""
    mark: str = ""
    acts_by: str = ""
    """What its paper says that it acts by, and where it does."""
    mechanism: Mapping[str, Literal["higher", "lower"]] = {}
    """What of that is measured: scores of a model that have to be higher, or lower, than plain
    LoRA's (`distance`, `cosine`, `mutual_information` ...), or `opening`, how many answers to
    harmful prompts begin as before fine-tuning."""


class Source(NamedTuple):
    """Where the code of a method that is not raycib's own was found."""

    place: str
    """`my_methods.py:Anchor` or `package.module:Anchor`."""
    code: str
    """sha256 of the text of its module. What that imports is not covered."""
    text: str = ""
    """The module itself, where it is a file that other machines may lack."""


class Method(Spec):
    """A method's settings; each default below changes nothing about plain LoRA."""

    about: ClassVar[About]
    strength_field: ClassVar[str] = "lam"
    """The field that is the strength, where it is one as it stands."""
    zero: ClassVar[Mapping[str, Any]] = {}
    """The fields at which it is plain LoRA, where that is not the strength's field at 0."""
    derived: ClassVar[bool] = False
    """Whether its adapter is computed from its parent's, without any training."""
    starts_itself: ClassVar[bool] = False
    """Whether it chooses the adapter's start, so that it cannot go on from a parent's adapter."""
    bounds_whole_update: ClassVar[bool] = False
    """Whether it limits all that is added to the aligned model, so that nothing of it may be
    frozen."""
    stacked: ClassVar[bool] = False
    """Whether it is about an adapter trained on top of a frozen one; on its own it is LoRA."""
    perturbs_attention: ClassVar[bool] = False
    """Whether it needs an attention block in every layer."""
    source: ClassVar[Source | None] = None
    """Of a method that is not raycib's own; its code is part of every key."""
    kind: Any
    """What it is called on the command line and in keys: every method narrows it to a literal."""

    def build(self) -> Any:
        """What it changes about a stage: a `raycib.hooks.Hooks`, or None. Only here is torch
        imported."""
        raise NotImplementedError

    @classmethod
    def at(cls, strength: float, **others: Any) -> Self:
        """The method at a strength, with other settings by name."""
        return cls.model_validate({cls.strength_field: strength, **others})

    @property
    def strength(self) -> float:
        """What figures have on their axis; at 0 the method is plain LoRA (see `is_plain`)."""
        return float(getattr(self, self.strength_field))

    @property
    def is_plain(self) -> bool:
        """Whether these settings come to plain LoRA."""
        return self.strength == 0

    @property
    def features(self) -> tuple[Feature, ...]:
        """What its loss looks up of the aligned model on the task's rows."""
        return ()

    @property
    def safety_rows(self) -> TaskSpec | None:
        """Safety data that it uses: its field `safety`, if it has one."""
        return getattr(self, "safety", None)

    @property
    def safety_features(self) -> tuple[Feature, ...]:
        """What its loss looks up of the aligned model on the safety rows."""
        return ()

    def rows_trained(self, task_rows: int) -> int:
        """Rows of an epoch, of a task of `task_rows`."""
        return task_rows

    def extra_rows(self, rows_a_step: int) -> float:
        """Rows of an optimiser step that take a forward and a backward pass beyond the task's one:
        what a plan counts."""
        return 0

    def extra_bytes(self, adapted: int, own: int) -> int:
        """Bytes of a slot's memory beside an adapter of `own` weights in layers of `adapted`
        weights, and its optimiser: what a plan counts."""
        return 0

    def idle_steps(self, rows_a_step: int) -> float:
        """Optimiser steps at the beginning of a task in which it does nothing yet."""
        return 0

    def exported_rank(self, rank: int) -> int:
        """Rank of the adapter it exports, of trained factors of rank `rank`."""
        return rank

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> Mapping[str, Self]:
        """Settings that the invariances are checked at, by name: strong enough to matter within
        six steps of a small model, so that the claims are about the method."""
        needs = {"safety": safety, "base": base}
        fields = {name: value for name, value in needs.items() if name in cls.model_fields}
        return {"": cls.model_validate(fields)}

    def off(self) -> Self:
        """The same method at the strength that is plain LoRA."""
        return self.model_copy(update=self.zero or {self.strength_field: 0.0})

    def faint(self) -> Self | None:
        """The same method so weak that all it adds is lost in the rounding of float32, though all
        of its code runs; None where there is no such thing."""
        return self.model_copy(update={self.strength_field: 1e-30})

    def identity(self) -> dict[str, Any]:
        """As any spec's, and the code of a method that is not raycib's own: an edited loss is
        another method."""
        code = {"code": self.source.code} if self.source else {}
        return super().identity() | code

    @model_serializer(mode="wrap")
    def _with_its_source(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found = plain(self)
        if self.source:
            found |= {"custom": self.source.place, "code": self.source.code}
        return found


class PlainLoRA(Method):
    """Standard LoRA supervised fine-tuning: what every method is at strength zero."""

    about: ClassVar[About] = About(
        name="LoRA",
        paper="Hu et al. 2021, arXiv:2106.09685",
        strength="none",
        passes="none",
        needs="nothing",
        acts_by="nothing: what others are held against",
        deviations="none",
        color="#000000",
        mark="o",
    )
    kind: Literal["lora"] = "lora"

    @classmethod
    def at(cls, strength: float, **others: Any) -> Self:
        """It has no strength: whatever others are asked at, it stands beside them."""
        return cls.model_validate(others)

    @property
    def strength(self) -> float:
        """Always 0."""
        return 0.0

    def off(self) -> Self:
        """It is what others come to."""
        return self

    def faint(self) -> None:
        """It has no strength."""

    def build(self) -> None:
        """Nothing."""
