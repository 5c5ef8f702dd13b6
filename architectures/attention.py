"""Attention: which heads there are, and one entry, `attend`, with interchangeable backends.

Masks and biases are descriptions. Each backend lowers them in its own way, or says why it cannot; a dense bias exists
only inside the lowering of a backend that needs one. A backend changes what attention costs, never what it computes:
every entry of `BACKENDS` is held to `reference` in forward and backward.

Refuses head counts that do not divide, an unknown backend, and a backend that objects to the case.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from architectures.component import Component, MisfitError, Shape
from architectures.layers import Linear

if TYPE_CHECKING:
    from architectures.positions import PositionModule


@dataclass(frozen=True)
class Mask:
    """Which keys a query may see: those at its own position or before it if causal, else all."""

    causal: bool = True


@dataclass(frozen=True)
class NoBias:
    """Nothing is added to the scores."""


@dataclass(frozen=True)
class LinearBias:
    """-slope * |query position - key position| is added to the scaled scores; one slope per query head."""

    slopes: tuple[float, ...]


Bias = NoBias | LinearBias


@dataclass(frozen=True)
class Case:
    """What attention is asked to do, as far as it decides whether a backend can do it.

    Attributes:
        mask: The mask.
        bias: The bias.
        device: Kind of device, "cpu" or "cuda".
        dtype: Of queries, keys and values.
        head_width: Width of one head.
        plain: Whether query and key positions are both 0, 1, 2, ...
    """

    mask: Mask
    bias: Bias
    device: str
    dtype: torch.dtype
    head_width: int
    plain: bool = True


@dataclass(frozen=True)
class Backend:
    """One way to compute attention.

    Attributes:
        compute: (q, k, v, mask, bias, q_positions, k_positions, dropout) to the mixed values.
        objection: Why this backend cannot do a case, or None if it can.
    """

    compute: Callable[[Tensor, Tensor, Tensor, Mask, Bias, Tensor | None, Tensor | None, float], Tensor]
    objection: Callable[[Case], str | None]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask,
    bias: Bias,
    q_positions: Tensor | None = None,
    k_positions: Tensor | None = None,
    dropout: float = 0.0,
    backend: str = "sdpa",
) -> Tensor:
    """Mix values by softmax(q k^T / sqrt(head_width) + bias), masked.

    Args:
        q: Queries, (batch, heads, time, head_width).
        k: Keys, (batch, key_value_heads, time, head_width); heads share them in consecutive groups.
        v: Values, shaped as the keys.
        mask: Which keys a query may see.
        bias: What is added to the scores.
        q_positions: int64 (time,); None is the plain range 0, 1, 2, ...
        k_positions: Likewise for the keys.
        dropout: Rate at which attention probabilities are dropped.
        backend: A key of `BACKENDS`.

    Returns:
        Mixed values, shaped and typed as q.

    Raises:
        ValueError: for an unknown backend, or one that objects to this case.
    """
    chosen = backend_named(backend)
    plain = q_positions is None and k_positions is None and q.shape[2] == k.shape[2]
    objection = chosen.objection(Case(mask, bias, q.device.type, q.dtype, q.shape[3], plain))
    if objection:
        raise ValueError(f"backend: expected one that supports this attention, got '{backend}': {objection}")
    return chosen.compute(q, k, v, mask, bias, q_positions, k_positions, dropout)


def backend_named(name: str) -> Backend:
    """Return an entry of `BACKENDS`.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got '{name}'")
    return BACKENDS[name]


def objections(case: Case) -> dict[str, str | None]:
    """Return, for every backend, why it cannot do the case, or None."""
    return {name: backend.objection(case) for name, backend in BACKENDS.items()}


def _attend_by_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Mask,
    bias: Bias,
    q_positions: Tensor | None,
    k_positions: Tensor | None,
    dropout: float,
) -> Tensor:
    with torch.autocast(q.device.type, enabled=False):
        group = q.shape[1] // k.shape[1]
        keys, values = (x.float().repeat_interleave(group, dim=1) for x in (k, v))
        scores = q.float() @ keys.transpose(2, 3) / q.shape[3] ** 0.5
        addend = _dense(mask, bias, q.shape[2], k.shape[2], q_positions, k_positions, torch.float32, q.device)
        probabilities = (scores if addend is None else scores + addend).softmax(dim=-1)
        return (functional.dropout(probabilities, dropout) @ values).to(q.dtype)


def _attend_by_sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Mask,
    bias: Bias,
    q_positions: Tensor | None,
    k_positions: Tensor | None,
    dropout: float,
) -> Tensor:
    grouped = q.shape[1] != k.shape[1]
    plain = q_positions is None and k_positions is None and q.shape[2] == k.shape[2]
    if plain and isinstance(bias, NoBias):
        return functional.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=mask.causal, enable_gqa=grouped
        )
    addend = _dense(mask, bias, q.shape[2], k.shape[2], q_positions, k_positions, q.dtype, q.device)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=addend, dropout_p=dropout, enable_gqa=grouped)


def _dense(
    mask: Mask,
    bias: Bias,
    queries: int,
    keys: int,
    q_positions: Tensor | None,
    k_positions: Tensor | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor | None:
    """Lower mask and bias to one addend, broadcastable to (batch, heads, queries, keys); None if there is nothing."""
    if not mask.causal and isinstance(bias, NoBias):
        return None
    if q_positions is None and k_positions is None:
        return _plain_dense(mask, bias, queries, keys, dtype, device)
    rows = torch.arange(queries, device=device) if q_positions is None else q_positions
    columns = torch.arange(keys, device=device) if k_positions is None else k_positions
    return _addend(mask, bias, rows, columns, dtype)


@functools.lru_cache(maxsize=4)
def _plain_dense(mask: Mask, bias: Bias, queries: int, keys: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Made once and shared by all layers and steps; outside inference_mode, so that a later backward pass may keep it.
    with torch.inference_mode(False):
        rows, columns = torch.arange(queries, device=device), torch.arange(keys, device=device)
        return _addend(mask, bias, rows, columns, dtype)


def _addend(mask: Mask, bias: Bias, rows: Tensor, columns: Tensor, dtype: torch.dtype) -> Tensor:
    distance = rows[:, None] - columns[None, :]
    addend = torch.zeros(1, 1, *distance.shape, device=distance.device)
    if isinstance(bias, LinearBias):
        slopes = torch.tensor(bias.slopes, device=distance.device)
        addend = -slopes[:, None, None] * distance.abs()[None, None]
    if mask.causal:
        addend = addend.masked_fill(distance < 0, float("-inf"))
    return addend.to(dtype)


def _no_objection(case: Case) -> str | None:
    return None


BACKENDS: dict[str, Backend] = {
    "reference": Backend(_attend_by_reference, _no_objection),
    "sdpa": Backend(_attend_by_sdpa, _no_objection),
}


@dataclass(frozen=True)
class Pass:
    """What one forward pass carries to the attention of every layer.

    Attributes:
        position: The model's position module, owned by the model and lent to the layers.
        positions: int64 (time,), or None for the plain range.
        dropout: Rate for attention probabilities, 0 in evaluation.
        backend: A key of `BACKENDS`.
    """

    position: PositionModule
    positions: Tensor | None
    dropout: float
    backend: str


class MultiHeadModule(nn.Module):
    """Projections to queries, keys and values, attention, and the projection back.

    The four stay separate parameters: fused, none of them would keep its noise when the number of heads changes.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.key_value_heads, self.head_width = shape.heads, shape.key_value_heads, shape.head_width
        self.mask = Mask(causal=True)
        self.query = Linear(shape.width, shape.heads * shape.head_width, bias=False)
        self.key = Linear(shape.width, shape.key_value_heads * shape.head_width, bias=False)
        self.value = Linear(shape.width, shape.key_value_heads * shape.head_width, bias=False)
        self.output = Linear(shape.heads * shape.head_width, shape.width, bias=False)

    def forward(self, x: Tensor, current: Pass) -> Tensor:
        """Mix information between positions of x, (batch, time, width)."""
        batch, time, _ = x.shape
        q = self.query(x).view(batch, time, self.heads, self.head_width).transpose(1, 2)
        k = self.key(x).view(batch, time, self.key_value_heads, self.head_width).transpose(1, 2)
        v = self.value(x).view(batch, time, self.key_value_heads, self.head_width).transpose(1, 2)
        q, k = current.position.rotate(q, k, current.positions, current.positions)
        mixed = attend(
            q,
            k,
            v,
            mask=self.mask,
            bias=current.position.bias(),
            q_positions=current.positions,
            k_positions=current.positions,
            dropout=current.dropout,
            backend=current.backend,
        )
        return self.output(mixed.transpose(1, 2).reshape(batch, time, -1))  # type: ignore[no-any-return]


class MultiHead(Component):
    """Multi-head, grouped-query (arXiv:2305.13245) and multi-query (arXiv:1911.02150) causal attention.

    Attributes:
        heads: Query heads; divides the width of the residual stream.
        key_value_heads: Number of key and value heads, each shared by heads / key_value_heads query heads. None is as
            many as heads, and the same number written out is turned into None: one model, one specification. (STLM's
            "group size" is heads / key_value_heads; TinyLlama's "query groups" is key_value_heads.)
    """

    kind: Literal["multi_head"] = "multi_head"
    heads: int = Field(gt=0)
    key_value_heads: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _divide_heads(self) -> Self:
        if self.key_value_heads is None:
            return self
        if self.heads % self.key_value_heads:
            raise ValueError(f"key_value_heads: expected a divisor of heads {self.heads}, got {self.key_value_heads}")
        if self.key_value_heads == self.heads:
            object.__setattr__(self, "key_value_heads", None)
        return self

    def check(self, shape: Shape) -> None:
        """Refuse a width that does not divide into heads."""
        if shape.width % self.heads:
            raise MisfitError(f"a divisor of width {shape.width}", self.heads, field="heads")

    def build(self, shape: Shape) -> nn.Module:
        """Build the attention of one layer."""
        return MultiHeadModule(shape)


Attention = Annotated[MultiHead, Field(discriminator="kind")]
