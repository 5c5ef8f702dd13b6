"""Feed-forward layers: two layers or gated, any activation, and the width at which two choices cost the same.

`up` and `down` are the same role in every choice and carry the same name; `gate` exists only where something is gated.
Dropout of the hidden activations (`Dropout.feed_forward`) reaches every module that derives from `FeedForwardModule`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from architectures.component import Component, Shape
from architectures.drawing import drop
from architectures.layers import Linear

Activation = Callable[[Tensor], Tensor]


class FeedForwardModule(nn.Module):
    """A feed-forward that can drop its hidden activations before `down`; `Block` sets the rate."""

    down: nn.Linear
    dropout: float = 0.0

    def leave(self, hidden: Tensor) -> Tensor:
        """Map hidden activations, (..., inner), back to the width of the residual stream."""
        if self.training and self.dropout:
            hidden = drop(hidden, self.dropout)
        return self.down(hidden)  # type: ignore[no-any-return]


class TwoLayerModule(FeedForwardModule):
    """down(activation(up(x)))."""

    def __init__(self, width: int, inner: int, activation: Activation, *, bias: bool) -> None:
        super().__init__()
        self.activation = activation
        self.up = Linear(width, inner, bias=bias)
        self.down = Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position of x, (batch, time, width), by itself."""
        return self.leave(self.activation(self.up(x)))


class GatedModule(FeedForwardModule):
    """down(activation(gate(x)) * up(x))."""

    def __init__(self, width: int, inner: int, activation: Activation, *, bias: bool) -> None:
        super().__init__()
        self.activation = activation
        self.gate = Linear(width, inner, bias=bias)
        self.up = Linear(width, inner, bias=bias)
        self.down = Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position of x, (batch, time, width), by itself."""
        gate, up = self.activation(self.gate(x)), self.up(x)
        # a backward pass wants the activation as it is; without one its memory is free
        return self.leave(gate * up if torch.is_grad_enabled() else gate.mul_(up))


class Plain(Component):
    """A feed-forward of two matrices; a choice adds its `kind`, its activation and whatever else it has.

    Attributes:
        width: Width between the two matrices.
        bias: Whether both have a bias.
    """

    kind: str
    drops_hidden: ClassVar[bool] = True
    width: int = Field(gt=0)
    bias: bool = False

    @abstractmethod
    def activation(self, x: Tensor) -> Tensor:
        """Return what is done to each hidden value of x, any shape."""

    def build(self, shape: Shape) -> nn.Module:
        """Build the feed-forward of one layer."""
        return TwoLayerModule(shape.width, self.width, self.activation, bias=self.bias)


class Gated(Component):
    """A feed-forward of three matrices; a choice adds its `kind` and the activation of its gate.

    Attributes:
        width: Width between the matrices.
        bias: Whether all three have a bias.
    """

    kind: str
    drops_hidden: ClassVar[bool] = True
    width: int = Field(gt=0)
    bias: bool = False

    @abstractmethod
    def activation(self, x: Tensor) -> Tensor:
        """Return what is done to each value x of the gate, any shape."""

    def build(self, shape: Shape) -> nn.Module:
        """Build the feed-forward of one layer."""
        return GatedModule(shape.width, self.width, self.activation, bias=self.bias)


class Gelu(Plain):
    """Two linear layers with a GELU between (Hendrycks & Gimpel 2016, arXiv:1606.08415).

    Attributes:
        approximation: "none" is exact; "tanh" is what GPT-2 computes.
    """

    kind: Literal["gelu"] = "gelu"
    approximation: Literal["none", "tanh"] = "none"

    def activation(self, x: Tensor) -> Tensor:
        """Return x Phi(x), elementwise, where Phi is the normal distribution function."""
        return functional.gelu(x, approximate=self.approximation)


class ReLU(Plain):
    """Two linear layers with a ReLU between (Vaswani et al. 2017, arXiv:1706.03762 eq. 2)."""

    kind: Literal["relu"] = "relu"

    def activation(self, x: Tensor) -> Tensor:
        """Return max(x, 0), elementwise."""
        return functional.relu(x)


class LeakyReLU(Plain):
    """Two linear layers with a leaky ReLU between (Maas et al. 2013, section 2).

    Attributes:
        slope: What negative values are multiplied by.
    """

    kind: Literal["leaky_relu"] = "leaky_relu"
    slope: float = Field(0.01, gt=0, lt=1)

    def activation(self, x: Tensor) -> Tensor:
        """Return x where positive, else slope * x, elementwise."""
        return functional.leaky_relu(x, negative_slope=self.slope)


class SiLU(Plain):
    """Two linear layers with a SiLU between (arXiv:1606.08415, section 2)."""

    kind: Literal["silu"] = "silu"

    def activation(self, x: Tensor) -> Tensor:
        """Return x * sigmoid(x), elementwise."""
        return functional.silu(x)


class SquaredReLU(Plain):
    """Two linear layers with a squared ReLU between (Primer, So et al. 2021, arXiv:2109.08668)."""

    kind: Literal["squared_relu"] = "squared_relu"

    def activation(self, x: Tensor) -> Tensor:
        """Return max(x, 0)^2, elementwise."""
        return functional.relu(x).square()


class Tanh(Plain):
    """Two linear layers with a hyperbolic tangent between, one of the activations of STLM's public code."""

    kind: Literal["tanh"] = "tanh"

    def activation(self, x: Tensor) -> Tensor:
        """Return tanh(x), elementwise."""
        return torch.tanh(x)


class Sigmoid(Plain):
    """Two linear layers with a logistic sigmoid between, one of the activations of STLM's public code."""

    kind: Literal["sigmoid"] = "sigmoid"

    def activation(self, x: Tensor) -> Tensor:
        """Return 1 / (1 + exp(-x)), elementwise."""
        return torch.sigmoid(x)


class SwiGLU(Gated):
    """A SiLU-gated linear unit (Shazeer 2020, arXiv:2002.05202 eq. 6)."""

    kind: Literal["swiglu"] = "swiglu"

    def activation(self, x: Tensor) -> Tensor:
        """Return x * sigmoid(x), elementwise."""
        return functional.silu(x)


class GEGLU(Gated):
    """A GELU-gated linear unit, exact GELU (arXiv:2002.05202 eq. 6)."""

    kind: Literal["geglu"] = "geglu"

    def activation(self, x: Tensor) -> Tensor:
        """Return x Phi(x), elementwise, where Phi is the normal distribution function."""
        return functional.gelu(x)


class ReGLU(Gated):
    """A ReLU-gated linear unit (arXiv:2002.05202 eq. 6)."""

    kind: Literal["reglu"] = "reglu"

    def activation(self, x: Tensor) -> Tensor:
        """Return max(x, 0), elementwise."""
        return functional.relu(x)


TwoMatrices = Gelu | ReLU | LeakyReLU | SiLU | SquaredReLU | Tanh | Sigmoid
ThreeMatrices = SwiGLU | GEGLU | ReGLU
FeedForward = Annotated[TwoMatrices | ThreeMatrices, Field(discriminator="kind")]


def width_of_ratio(ratio: float, width: int, multiple: int = 1) -> int:
    """Return the inner width that is `ratio` times the width of the residual stream, rounded up to a multiple.

    Two thirds of a two-layer ratio make a gated unit of about the same size (arXiv:2002.05202, section 2).

    Args:
        ratio: Inner width per width of the residual stream; GPT-2 has 4, Llama 8 / 3.
        width: Width of the residual stream.
        multiple: What the result is a multiple of; Llama rounds to 256.

    Raises:
        ValueError: for a ratio, width or multiple that is not positive.

    >>> width_of_ratio(4, 512), width_of_ratio(8 / 3, 768, multiple=256)
    (2048, 2048)
    """
    if not (ratio > 0 and width > 0 and multiple > 0):
        raise ValueError(f"feed_forward.width: expected positive numbers, got {ratio} x {width}, multiple {multiple}")
    # A third is not a binary fraction: 8 / 3 * 768 must not be rounded up past 2048.
    return math.ceil(round(ratio * width / multiple, 9)) * multiple


def matched_width(kind: type[Component], other: Component, width: int) -> int:
    """Return the inner width at which a feed-forward of `kind` has exactly as many parameters as `other`.

    Args:
        kind: The class to be sized; its other fields keep their defaults, its bias is that of `other` if both have one.
        other: The feed-forward to be matched.
        width: Width of the residual stream.

    Raises:
        ValueError: if no whole width matches, with the two nearest.

    >>> matched_width(SwiGLU, Gelu(width=384), width=128)
    256
    """
    shared = {"bias": getattr(other, "bias", False)} if "bias" in kind.model_fields else {}
    target = _count(other, width)
    first, second = (_count(kind.model_validate({"width": inner, **shared}), width) for inner in (1, 2))
    steps, rest = divmod(target - first, second - first)
    if steps < 0:
        smallest = f"got {first:,} at width 1, its smallest"
        raise ValueError(f"feed_forward.width: expected {kind.__name__} to have {target:,} parameters, {smallest}")
    if rest:
        below, above = (first + step * (second - first) for step in (steps, steps + 1))
        raise ValueError(
            f"feed_forward.width: expected a whole width at which {kind.__name__} has {target:,} parameters, "
            f"got {below:,} at width {steps + 1} and {above:,} at {steps + 2}"
        )
    return steps + 1


def _count(feed_forward: Component, width: int) -> int:
    shape = Shape(width, heads=1, key_value_heads=1, head_width=width, layers=1, layer=0, context=1, vocabulary=1)
    with torch.device("meta"):
        module: nn.Module = feed_forward.build(shape)  # type: ignore[attr-defined]
    return sum(parameter.numel() for parameter in module.parameters())
