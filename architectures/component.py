"""A component is a frozen specification that builds its own module.

Promises that a specification is checked when it is made, cannot change afterwards, and survives a trip through JSON.
Refuses unknown fields (a misspelt one would be a silent default), non-finite numbers, and a class derived from another
choice: pydantic would accept its instances but drop its added fields, and two different models would be taken for one.

Every field has an *effect*, declared as `json_schema_extra={"effect": ...}`:

    function         changes what the model computes (the default)
    initialisation   changes where its parameters start
    training         changes how it is trained, not what it computes
    efficiency       changes what it costs, never the result; no part of identity

A choice that as a whole only changes training, and is evaluated as the default of its axis, says so by
`effect: ClassVar[str] = "training"`; the contract suite holds it to that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from architectures.source import built_in, source_hash


@dataclass(frozen=True)
class Shape:
    """The sizes a component is built for.

    Attributes:
        width: Width of the residual stream.
        heads: Query heads.
        key_value_heads: Key and value heads; divides `heads`.
        head_width: Width of one head.
        layers: Blocks in the whole model.
        layer: Index of the block that is built, from 0.
        context: Tokens of a training sequence.
        vocabulary: Distinct tokens.
    """

    width: int
    heads: int
    key_value_heads: int
    head_width: int
    layers: int
    layer: int
    context: int
    vocabulary: int


class MisfitError(ValueError):
    """A component that does not fit the model around it."""

    def __init__(self, expected: str, got: object, field: str | None = None) -> None:
        self.expected, self.got, self.field = expected, got, field
        super().__init__(self.within(""))

    def within(self, path: str) -> str:
        """Word the mistake for a component that stands at `path`."""
        where = ".".join(part for part in (path, self.field) if part)
        return f"{where or 'component'}: expected {self.expected}, got {self.got}"


class Component(BaseModel):
    """Base of every specification: frozen, closed, comparable by value."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a class derived from a finished choice (one whose `kind` is set; a base leaves it to its choices)."""
        super().__pydantic_init_subclass__(**kwargs)
        for parent in cls.__mro__[1:]:
            kind = parent.model_fields.get("kind") if issubclass(parent, Component) else None
            if kind is not None and not kind.is_required():
                raise TypeError(
                    f"{cls.__name__}: expected a class derived from Component, got one derived from {parent.__name__}; "
                    "its added fields would be lost from the record. Copy the class and give it its own kind."
                )

    def vary(self, **changes: Any) -> Self:
        """Return this specification with some fields changed, validated again as a whole.

        Raises:
            pydantic.ValidationError: for an unknown field, or values that do not fit together.
        """
        return type(self).model_validate({name: getattr(self, name) for name in type(self).model_fields} | changes)

    def check(self, shape: Shape) -> None:
        """Refuse a shape this component cannot be built for; components with no such limit inherit this.

        Raises:
            MisfitError: with what was expected and what was got.
        """

    def source_hash(self) -> str | None:
        """Return the hash of the source of a user's own class, which belongs to its identity; None for one of ours."""
        return None if built_in(type(self)) else source_hash(type(self))


def effect_of(field: FieldInfo) -> str:
    """Return the declared effect of a field: "function" unless it says otherwise."""
    extra = field.json_schema_extra
    return str(extra.get("effect", "function")) if isinstance(extra, dict) else "function"
