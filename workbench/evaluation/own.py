"""A user's own metric: a function from an item and what the model answered to a value.

Promises that the source of the function is part of what identifies the scores, as that of a user's own component is of
what identifies a model, and that a value which is no finite number is refused with the item that it was given. Never
imports a metric because a record names it.
"""

from __future__ import annotations

import importlib
import math
import traceback
from collections.abc import Callable
from typing import Any, cast

from pydantic import field_validator

from architectures.source import module_of, source_hash
from workbench.data.items import Item
from workbench.errors import DataError
from workbench.identity import Spec, setting

# Given an item, and the log-probability of every choice in nats or the text that was written, it returns a number.
Function = Callable[[Item, tuple[float, ...] | str], float]


class OwnMetric(Spec):
    """A metric of the user's, by the place of its function: `OwnMetric(function="my_metrics:brier")`.

    The function itself may be given instead, `OwnMetric(function=brier)`, from a module that lies beside the sweep
    file. It takes an item and the answer: a tuple of log-probabilities in nats, one for each choice, or the text that
    the model wrote; it returns a finite number.

    Attributes:
        function: "module:name" of a function at the top level of a module.
        name: What the scores call the metric; the function's name unless told.
    """

    function: str
    name: str = setting("", pattern=r"^\w*$")

    @field_validator("function", mode="before")
    @classmethod
    def _place_of(cls, value: Any) -> Any:
        return f"{module_of(value)}:{value.__qualname__}" if callable(value) else value

    @field_validator("function")
    @classmethod
    def _can_be_called(cls, value: str) -> str:
        module, _, name = value.partition(":")
        if not module or not name.isidentifier():
            raise ValueError(f'expected "module:function" at the top level of a module, got {value!r}')
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ImportError as error:
            raise ValueError(f"expected a module that can be imported, got {module!r}: {error}") from None
        if not callable(found):
            raise ValueError(f"expected a function '{name}' in module '{module}', got {type(found).__name__}")
        return value

    @property
    def metric(self) -> str:
        """What the scores call it."""
        return self.name or self.function.partition(":")[2]

    def source_hash(self) -> str:
        """Return the hash of the source of the function's module or package, which belongs to its identity."""
        return source_hash(cast(type, self.loaded()))

    def loaded(self) -> Function:
        """Return the function."""
        module, _, name = self.function.partition(":")
        return cast(Function, getattr(importlib.import_module(module), name))

    def value(self, item: Item, answer: tuple[float, ...] | str) -> float:
        """Return what the function says of an answer.

        Raises:
            DataError: if it raises an error, or returns something else than a finite number.
        """
        try:
            value = self.loaded()(item, answer)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            got = f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
            raise DataError("a metric of one's own fails", where=self._where(item), got=got) from error
        number = isinstance(value, int | float) or (hasattr(value, "dtype") and getattr(value, "shape", None) == ())
        if not number or not math.isfinite(value):
            got = repr(value)[:80]
            raise DataError(
                "a metric of one's own returns no number", where=self._where(item), expected="a finite float", got=got
            )
        return float(value)

    def _where(self, item: Item) -> str:
        return f"{self.function}, item {item.name}"
