"""Tensors that plain values determine: computed once, and constants to a compiler.

Only for functions whose result depends on nothing but their arguments, and whose result nobody changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def constant(cached: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return a cached function as one that torch.compile calls once, while it traces, and takes the result as given.

    Traced into instead, it would be computed in every layer of every step, in pieces between which the graph breaks.
    """

    def held(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        return cached(*arguments, **named)

    # what torch.compiler.assume_constant_result does, which would load the compiler to do it
    held._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return held
