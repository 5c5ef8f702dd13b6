"""Feed-forward layers: two-layer GELU and SwiGLU, and the width at which two choices cost the same.

`up` and `down` are the same role in every choice and carry the same name; `gate` exists only where something is gated.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from architectures.component import Component, Shape
from architectures.layers import Linear


class TwoLayerModule(nn.Module):
    """down(gelu(up(x)))."""

    def __init__(self, width: int, inner: int, *, bias: bool, approximation: str) -> None:
        super().__init__()
        self.approximation = approximation
        self.up = Linear(width, inner, bias=bias)
        self.down = Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position of x, (batch, time, width), by itself."""
        activated = functional.gelu(self.up(x), approximate=self.approximation)
        return self.down(activated)  # type: ignore[no-any-return]


class GatedModule(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, width: int, inner: int, *, bias: bool) -> None:
        super().__init__()
        self.gate = Linear(width, inner, bias=bias)
        self.up = Linear(width, inner, bias=bias)
        self.down = Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position of x, (batch, time, width), by itself."""
        return self.down(functional.silu(self.gate(x)) * self.up(x))  # type: ignore[no-any-return]


class Gelu(Component):
    """Two linear layers with a GELU between (Hendrycks & Gimpel 2016, arXiv:1606.08415).

    Attributes:
        width: Width between the two layers.
        bias: Whether both layers have a bias.
        approximation: "none" is exact; "tanh" is what GPT-2 computes.
    """

    kind: Literal["gelu"] = "gelu"
    width: int = Field(gt=0)
    bias: bool = False
    approximation: Literal["none", "tanh"] = "none"

    def build(self, shape: Shape) -> nn.Module:
        """Build the feed-forward of one layer."""
        return TwoLayerModule(shape.width, self.width, bias=self.bias, approximation=self.approximation)


class SwiGLU(Component):
    """A SiLU-gated linear unit, three matrices (Shazeer 2020, arXiv:2002.05202 eq. 6)."""

    kind: Literal["swiglu"] = "swiglu"
    width: int = Field(gt=0)
    bias: bool = False

    def build(self, shape: Shape) -> nn.Module:
        """Build the feed-forward of one layer."""
        return GatedModule(shape.width, self.width, bias=self.bias)


FeedForward = Annotated[Gelu | SwiGLU, Field(discriminator="kind")]


def matched_width(kind: type[Gelu] | type[SwiGLU], other: Gelu | SwiGLU, width: int) -> int:
    """Return the inner width at which a feed-forward of `kind` has exactly as many parameters as `other`.

    Args:
        kind: The class to be sized; its other fields keep their defaults, its bias is that of `other`.
        other: The feed-forward to be matched.
        width: Width of the residual stream.

    Raises:
        ValueError: if no whole width matches, with the two nearest.

    >>> matched_width(SwiGLU, Gelu(width=384), width=128)
    256
    """
    target = _count(other, width)
    first = _count(kind(width=1, bias=other.bias), width)
    step = _count(kind(width=2, bias=other.bias), width) - first
    steps, rest = divmod(target - first, step)
    if rest or steps < 0:
        raise ValueError(
            f"feed_forward.width: expected a whole width at which {kind.__name__} has {target:,} parameters, "
            f"got {first + steps * step:,} at width {steps + 1} and {first + (steps + 1) * step:,} at {steps + 2}"
        )
    return steps + 1


def _count(feed_forward: Gelu | SwiGLU, width: int) -> int:
    shape = Shape(width, heads=1, key_value_heads=1, head_width=width, layers=1, layer=0, context=1, vocabulary=1)
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in feed_forward.build(shape).parameters())
