"""What a study measures on every model while it is in memory, as data that knows how."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import BaseModel, BeforeValidator, PlainSerializer

from raycib.config.base import Feature, Spec
from raycib.config.data import RowsSpec
from raycib.errors import UserError


class InMemory(Protocol):
    """Models in memory, side by side, and what the aligned one makes of rows."""

    @property
    def adapters(self) -> Any:
        """The models' adapters on one base (`raycib.models.adapters.AdapterSlots`)."""
        ...

    def encode(self, rows: RowsSpec) -> list[Any]:
        """Rows as tokens (`raycib.data.chat.Encoded`), in their order."""
        ...

    def reference(self, rows: RowsSpec, features: tuple[Feature, ...]) -> Any:
        """The aligned model's representations of rows
        (`raycib.models.reference.ReferenceCache`)."""
        ...


class Measure(Spec):
    """A subclass says where its values are stored and how they are computed. It is imported by
    workers, so it stands in a module that they can import; torch is imported inside `measure`."""

    folder: ClassVar[str]
    """Of the store; never changed, since a store outlives the code that filled it."""
    file: ClassVar[str] = "values.json"

    def stored_key(self, model_id: str) -> str:
        """Of the values of a model (a stage's key, or the aligned model's). Raise a number in the
        key whenever the same model would give other values than before."""
        raise NotImplementedError

    @property
    def referred(self) -> tuple[tuple[RowsSpec, tuple[Feature, ...]], ...]:
        """Rows with what is read of the aligned model on them."""
        return ()

    def measure(self, models: InMemory, slots: Sequence[int]) -> Mapping[int, BaseModel]:
        """The values of the models in these adapter slots."""
        raise NotImplementedError


def _rebuilt(value: Any) -> Any:
    """A measure from its JSON, by the class that it names."""
    if not isinstance(value, Mapping):
        return value
    module, _, name = value["class"].partition(":")
    fields = {field: one for field, one in value.items() if field != "class"}
    try:
        own = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"the measure {value['class']} cannot be imported where it is needed ({error}); put "
            "its folder on PYTHONPATH"
        ) from error
    return own.model_validate(fields)


def _told(measure: Measure) -> dict[str, Any]:
    """A measure as JSON with the class that reads it again."""
    own = type(measure)
    module = own.__module__
    if module == "__main__":  # a worker has another; the script's folder is on its path
        module = Path(str(sys.modules["__main__"].__file__)).stem
    return {"class": f"{module}:{own.__name__}", **measure.model_dump(mode="json")}


AnyMeasure = Annotated[Measure, BeforeValidator(_rebuilt), PlainSerializer(_told)]
"""A measure of any class, which its JSON names; keys do not."""
