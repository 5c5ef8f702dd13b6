"""Normalisation of the residual stream: LayerNorm, RMSNorm, or none.

Promises that gains start at 1 and biases at 0 whatever the initialisation, so that norms differ in form only. Both
share one default epsilon, that of TinyLlama and GPT-2 (STLM's RMSNorm has 1e-6): swapping the norm changes the norm and
nothing else.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from architectures.component import Component, Shape


class NormModule(nn.Module):
    """A norm over the last dimension, with a gain and, for LayerNorm, an optional bias."""

    def __init__(self, width: int, *, epsilon: float, centred: bool, bias: bool = False) -> None:
        super().__init__()
        self.epsilon, self.centred = epsilon, centred
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x, (..., width)."""
        if self.centred:
            return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)
        if x.device.type == "cpu":
            # calling an autograd.Function costs more than a short norm, so only where there is a backward pass
            norm = RootMeanSquare.apply if torch.is_grad_enabled() else RootMeanSquare.forward
            return cast(Tensor, norm(x, self.weight, self.epsilon)[0])
        return functional.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


class RootMeanSquare(torch.autograd.Function):
    """RMSNorm with its own backward, for CPUs, where torch has none: half the time (measured)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        """Return x, (..., width), normalised, and the scale, (..., 1), which the backward pass needs."""
        scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + epsilon)
        return (x * scale).mul_(weight).to(x.dtype), scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
        """Keep inputs and scale."""
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(inputs[0], inputs[1], output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
        """With n = x * scale: dx = scale * (g w - n mean(g w n)), dw = sum(g n)."""
        x, weight, scale = ctx.saved_tensors
        normal = x * scale
        product = gradient * normal
        shared = (product @ weight)[..., None] / x.shape[-1]
        of_x = (gradient * weight).sub_(normal.mul_(shared)).mul_(scale)
        return of_x, product.reshape(-1, x.shape[-1]).sum(0), None


class LayerNorm(Component):
    """(x - mean) / sqrt(variance + epsilon) * gain + bias (Ba et al. 2016, arXiv:1607.06450)."""

    kind: Literal["layer_norm"] = "layer_norm"
    epsilon: float = Field(1e-5, gt=0)
    bias: bool = True

    def build(self, shape: Shape) -> nn.Module:
        """Build one norm of the residual stream."""
        return NormModule(shape.width, epsilon=self.epsilon, centred=True, bias=self.bias)


class RMSNorm(Component):
    """x / sqrt(mean(x^2) + epsilon) * gain (Zhang & Sennrich 2019, arXiv:1910.07467)."""

    kind: Literal["rms_norm"] = "rms_norm"
    epsilon: float = Field(1e-5, gt=0)

    def build(self, shape: Shape) -> nn.Module:
        """Build one norm of the residual stream."""
        return NormModule(shape.width, epsilon=self.epsilon, centred=False)


class NoNorm(Component):
    """No normalisation: the control."""

    kind: Literal["none"] = "none"

    def build(self, shape: Shape) -> nn.Module:
        """Build the identity."""
        return nn.Identity()


Norm = Annotated[LayerNorm | RMSNorm | NoNorm, Field(discriminator="kind")]
