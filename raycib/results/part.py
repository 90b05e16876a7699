"""A part of the results: a typed piece of the file."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of the file."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    def given(self) -> dict[str, Any]:
        """The fields that it has, by name: what was never set stays absent."""
        return {name: value for name, value in self if name in self.model_fields_set}

    def plain(self) -> dict[str, Any]:
        """The same as plain JSON, as the file has it."""
        return self.model_dump(exclude_unset=True, by_alias=True, serialize_as_any=True)

    def but(self, **fields: Any) -> Self:
        """A copy with other values. Raises `ValueError` for one of a wrong type."""
        return type(self).model_validate(self.given() | fields)
