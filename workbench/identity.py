"""What makes two things the same: a hash of resolved fields, as a chain.

A specification (`Spec`, or a component of `architectures`) is a frozen pydantic model. Every field has an *effect*,
"function" unless it says otherwise; fields whose effect is "efficiency" change the cost of a result and never the
result, and are no part of identity. A field added in a later version carries `neutral`, the value (as plain
JSON) that means "as if this field did not exist", and is left out of the hash at that value, so that old results keep
their names. A component from outside this project stands for the source that was loaded, too: edited, it is another.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1  # raised only when the meaning of a stored field changes


class Spec(BaseModel):
    """A frozen declaration of the user's; unknown fields are refused, so that a misspelt one cannot be ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def setting(default: Any = ..., *, effect: str = "function", **constraints: Any) -> Any:
    """Declare a field with its effect: "function", "initialisation", "training" or "efficiency"."""
    return Field(default, json_schema_extra={"effect": effect}, **constraints)


def added(default: Any, *, effect: str = "function", **constraints: Any) -> Any:
    """Declare a field that came later: at its default, in JSON, it is no part of identity."""
    return Field(default, json_schema_extra={"effect": effect, "neutral": default}, **constraints)


def canonical(value: Any) -> Any:
    """Reduce a specification to the plain JSON that identifies it: no efficiency fields, no neutral ones."""
    if isinstance(value, BaseModel):
        kept = {}
        for name, field in type(value).model_fields.items():
            extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            held = getattr(value, name)
            if extra.get("effect") == "efficiency" or ("neutral" in extra and canonical(held) == extra["neutral"]):
                continue
            kept[name] = canonical(held)
        source = source_of(value)
        return kept if source is None else kept | {"@source": source}  # no field can have such a name
    if isinstance(value, dict):
        return {str(key): canonical(held) for key, held in value.items()}
    if isinstance(value, tuple | list):
        return [canonical(held) for held in value]
    return value


def source_of(value: BaseModel) -> str | None:
    """Return the hash of the source of a user's own class, which it tells itself; None for one of ours."""
    told = getattr(type(value), "source_hash", None)  # of the class, as a field of that name must not hide it
    return None if told is None else told(value)


def sources(value: Any) -> dict[str, str]:
    """Return the source hash of every user's own class in a specification, by its kind."""
    if not isinstance(value, BaseModel):
        return {}
    source = source_of(value)
    found = {} if source is None else {str(getattr(value, "kind", type(value).__name__)): source}
    for name in type(value).model_fields:
        found |= sources(getattr(value, name))
    return found


def digest(*parts: Any) -> str:
    """Hash specifications and plain values to 32 hexadecimal digits (blake2b, 128 bits, canonical JSON)."""
    text = json.dumps([canonical(part) for part in parts], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten resolved fields to {dotted path: value}, efficiency fields included: what a diff compares."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, dict) and value:
        return {path: leaf for key, held in value.items() for path, leaf in leaves(held, f"{prefix}{key}.").items()}
    if isinstance(value, list | tuple) and value:
        return {path: leaf for key, held in enumerate(value) for path, leaf in leaves(held, f"{prefix}{key}.").items()}
    return {prefix.removesuffix("."): value}
