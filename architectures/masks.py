"""What attention is asked to do: which keys a query sees, what is added to its scores, where both stand.

These are descriptions: every backend of `architectures.backends` lowers them in its own way, or says why it cannot.
`dense` is the lowering for backends that take one tensor that is added to the scores.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from architectures.constants import constant


@dataclass(frozen=True)
class Mask:
    """Which keys a query may see, by distance = position of the query - position of the key.

    Attributes:
        causal: Only keys at its own position or before it.
        window: Only keys at a distance (either way, if not causal) below this; 1 is the query's own position alone.
    """

    causal: bool = True
    window: int | None = None

    def at(self, keys: int) -> Mask:
        """Return the same mask for a plain range of keys, without a window that hides none of them."""
        return Mask(self.causal) if self.window is not None and self.window >= keys else self

    def visible(self, context: int) -> float:
        """Return how many keys a query sees, on average over the positions of a sequence of `context` tokens."""
        window = min(self.window or context, context)
        before = (window * (window + 1) / 2 + (context - window) * window) / context
        return before if self.causal else 2 * before - 1


@dataclass(frozen=True)
class NoBias:
    """Nothing is added to the scores."""


@dataclass(frozen=True)
class LinearBias:
    """-slope * |query position - key position| is added to the scaled scores; one slope per query head."""

    slopes: tuple[float, ...]


Bias = NoBias | LinearBias


@dataclass(frozen=True, eq=False)
class Places:
    """Where queries and keys stand. Positions decide causality, window and bias; documents hide each other.

    Attributes:
        q_positions: int64 (time,) or (batch, time). None is the end of the keys' plain range: with as many queries as
            keys that is 0, 1, 2, ..., with fewer they are the last ones.
        k_positions: Likewise for the keys; None is the plain range 0, 1, 2, ...
        q_documents: int64 (batch, time): a query sees keys of its own document only. None where all is one document.
        k_documents: Likewise for the keys.
        seen: bool (batch, queries, keys): what a query may see at most; it says which branch of a tree each stands in.
            None where all is one sequence.
        increasing: Whether queries are the keys and stand in order of position, gaps allowed: where order alone
            decides what is seen (`ordered`), they may be taken for a plain range.
        memo: What backends have lowered for these places, so that the layers of one forward pass share it.
    """

    q_positions: Tensor | None = None
    k_positions: Tensor | None = None
    q_documents: Tensor | None = None
    k_documents: Tensor | None = None
    increasing: bool = False
    seen: Tensor | None = None
    memo: dict[Any, Any] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether the keys are a plain range and the queries its end."""
        return self.q_positions is None and self.k_positions is None

    @property
    def documents(self) -> bool:
        """Whether there may be more than one document, or branch."""
        return self.q_documents is not None or self.seen is not None

    def rows(self, queries: int, keys: int, device: torch.device) -> Tensor:
        """Return the positions of the queries, spelt out."""
        return torch.arange(keys - queries, keys, device=device) if self.q_positions is None else self.q_positions

    def columns(self, keys: int, device: torch.device) -> Tensor:
        """Return the positions of the keys, spelt out."""
        return torch.arange(keys, device=device) if self.k_positions is None else self.k_positions

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` returned the first time it was called for this key."""
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]


@dataclass(frozen=True)
class Case:
    """What attention is asked to do, as far as it decides whether a backend can do it.

    Attributes:
        mask: The mask.
        bias: The bias.
        device: Kind of device, "cpu" or "cuda".
        dtype: Of queries, keys and values.
        head_width: Width of one head.
        plain: Whether the keys are a plain range 0, 1, 2, ... and the queries its end.
        documents: Whether documents hide each other.
        dropout: Whether attention probabilities are dropped.
        training: Whether a backward pass will follow.
    """

    mask: Mask
    bias: Bias
    device: str
    dtype: torch.dtype
    head_width: int
    plain: bool = True
    documents: bool = False
    dropout: bool = False
    training: bool = True


def ordered(mask: Mask, bias: Bias) -> bool:
    """Return whether the order of positions alone decides what is seen, and not how far apart they are."""
    return mask.causal and mask.window is None and isinstance(bias, NoBias)


def allowed(mask: Mask, distance: Tensor) -> Tensor | None:
    """Return where a key at this distance before the query may be seen; None if it always may."""
    if mask.window is None:
        return distance >= 0 if mask.causal else None
    near = distance.abs() < mask.window
    return near & (distance >= 0) if mask.causal else near


def dense(
    mask: Mask, bias: Bias, places: Places, queries: int, keys: int, dtype: torch.dtype, device: torch.device
) -> Tensor | None:
    """Lower everything to one addend, broadcastable to (batch, heads, queries, keys); None if there is nothing."""
    if not places.plain or places.documents:
        key = ("dense", mask, bias, queries, keys, dtype)
        return places.once(key, lambda: _addend(mask, bias, places, queries, keys, dtype, device))  # type: ignore[no-any-return]
    mask = mask.at(keys)
    hides = mask.window is not None or (mask.causal and queries > 1)  # the last query alone sees every key before it
    if not hides and isinstance(bias, NoBias):
        return None
    return _constant_dense(mask, bias, queries, keys, dtype, device)


@functools.lru_cache(maxsize=4)
def _plain_dense(mask: Mask, bias: Bias, queries: int, keys: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Made once and shared by all layers and steps; outside inference_mode, so that a later backward pass may keep it.
    with torch.inference_mode(False):
        return _addend(mask, bias, Places(), queries, keys, dtype, device)


_constant_dense = constant(_plain_dense)


def _addend(
    mask: Mask, bias: Bias, places: Places, queries: int, keys: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    rows, columns = places.rows(queries, keys, device), places.columns(keys, device)
    distance = rows[..., :, None] - columns[..., None, :]
    distance = distance[:, None] if distance.dim() == 3 else distance[None, None]
    addend = torch.zeros(1, 1, 1, 1, device=device)
    if isinstance(bias, LinearBias):
        slopes = torch.tensor(bias.slopes, device=device)
        addend = -slopes[:, None, None] * distance.abs()
    seen = allowed(mask, distance)
    if seen is not None:
        addend = torch.where(seen, addend, float("-inf"))
    if places.q_documents is not None and places.k_documents is not None:
        same = places.q_documents[:, None, :, None] == places.k_documents[:, None, None, :]
        addend = torch.where(same, addend, float("-inf"))
    if places.seen is not None:
        addend = torch.where(places.seen[:, None], addend, float("-inf"))
    return addend.to(dtype)
