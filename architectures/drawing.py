"""Dropout, for one model or for a stack of them, each of which draws what it would draw alone.

Dropout draws from torch's generator, which the caller seeds for every step. Under `torch.vmap` over models each has a
stream of its own (`streams`), from which all its draws of the step come, in the order in which it would make them.
Refuses to draw for several models without their streams.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

_STREAMS: ContextVar[list[Tensor] | None] = ContextVar("streams", default=None)


def drop(x: Tensor, rate: float) -> Tensor:
    """Set elements of x, any shape, to 0 with probability `rate`, and scale the others by 1 / (1 - rate)."""
    if torch._C._functorch.is_batchedtensor(x):
        return cast(Tensor, _Dropped.apply(x, rate))  # type: ignore[no-untyped-call]
    return functional.dropout(x, rate)


def stream(device: str) -> Tensor:
    """Return where torch's generator of a device stands."""
    return torch.cuda.get_rng_state() if device == "cuda" else torch.get_rng_state()


@contextlib.contextmanager
def streams(states: Sequence[Tensor]) -> Iterator[None]:
    """Let the models of a stack draw from these streams, one each; torch's own generator stands anywhere afterwards."""
    token = _STREAMS.set(list(states))
    try:
        yield
    finally:
        _STREAMS.reset(token)


def each(models: int, device: str) -> Iterator[int]:
    """Yield the number of every model, whose stream is torch's generator until the next.

    Raises:
        RuntimeError: if the models have no streams.
    """
    held = _STREAMS.get()
    if held is None or len(held) != models:
        got = "none" if held is None else len(held)
        raise RuntimeError(f"streams: expected one for each of {models} models that draw together, got {got}")
    for model in range(models):
        (torch.cuda.set_rng_state if device == "cuda" else torch.set_rng_state)(held[model])
        yield model
        held[model] = stream(device)


class _Dropped(torch.autograd.Function):
    """Dropout of several models. What stands in `vmap` is recorded by autograd as usual."""

    @staticmethod
    def forward(*_: Any) -> Tensor:
        """Refuse to be called outside `vmap`."""
        raise RuntimeError("dropout of several models: expected a call within torch.vmap, got one outside")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep nothing."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None], x: Tensor, rate: float) -> tuple[Tensor, int]:
        """Return x, (models, ...), with elements dropped, and where the models stand."""
        rows = x.movedim(in_dims[0], 0)
        return torch.stack([functional.dropout(rows[model], rate) for model in each(len(rows), x.device.type)]), 0
