"""Where a token stands: none, learned, sinusoidal, rotary, ALiBi.

A position choice acts through three hooks: `embed` adds to the residual stream, `rotate` turns queries and keys, `bias`
describes what is added to attention scores. `positions` are int64 indices, (time,) or (batch, time); None is the plain
range 0, 1, 2, ... Constants are computed, cached in float32 and never stored as buffers: a buffer follows the model
into bfloat16, where positions beyond 256 collide.

Sequences may be longer than those of training: all choices but `Learned` are defined for any position (`reach`); how
well they extrapolate is what an evaluation at 2 and 4 times the context asks. Refuses a learned table shorter than the
sequence; for rotary a head width, for sinusoidal a width that is odd or 2.
"""

from __future__ import annotations

import functools
import math
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from architectures.component import Component, MisfitError, Shape
from architectures.constants import constant
from architectures.masks import Bias, LinearBias, NoBias, Places


class PositionModule(nn.Module):
    """The three hooks, each doing nothing: a position choice overrides those through which it acts."""

    def embed(self, x: Tensor, positions: Tensor | None) -> Tensor:
        """Add positions to the residual stream x, (batch, time, width)."""
        return x

    def rotate(
        self, q: Tensor, k: Tensor, positions: Tensor | None, places: Places | None = None
    ) -> tuple[Tensor, Tensor]:
        """Turn queries and keys, (batch, heads, time, head_width), by their positions.

        Args:
            q: Queries.
            k: Keys, as many: those that stand where the queries do.
            positions: int64 (time,) or (batch, time); None is the plain range.
            places: Those of the forward pass, by which its layers share what they derive from the positions.
        """
        return q, k

    def bias(self) -> Bias:
        """Describe what is added to attention scores."""
        return NoBias()


class LearnedModule(PositionModule):
    """A trained vector per position."""

    def __init__(self, context: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(context, width))

    def embed(self, x: Tensor, positions: Tensor | None) -> Tensor:
        """Add the vectors of the positions to x, (batch, time, width).

        Raises:
            ValueError: for a plain range longer than the table.
        """
        if positions is not None:
            return x + self.weight[positions]
        if x.shape[1] > self.weight.shape[0]:
            raise ValueError(
                f"position: expected at most {self.weight.shape[0]} tokens, the rows of the learned table, "
                f"got {x.shape[1]}; evaluate at the training context, or choose rotary or ALiBi"
            )
        return x + self.weight[: x.shape[1]]


class SinusoidalModule(PositionModule):
    """Fixed sines and cosines, added to the embeddings as they are."""

    def __init__(self, base: float, amplitude: float = 1.0) -> None:
        super().__init__()
        self.base, self.amplitude = base, amplitude

    def embed(self, x: Tensor, positions: Tensor | None) -> Tensor:
        """Add sin at even and cos at odd indices to x, (batch, time, width)."""
        cosine, sine = _cosine_and_sine(x.shape[2], self.base, 1.0, x.shape[1], positions, x.device)
        waves = torch.stack((sine, cosine), dim=-1).flatten(-2)
        return x + (waves * self.amplitude).to(x.dtype)


class RotaryModule(PositionModule):
    """Rotation of query and key pairs by an angle proportional to the position."""

    def __init__(self, base: float, condense: float, interleaved: bool) -> None:
        super().__init__()
        self.base, self.condense, self.interleaved = base, condense, interleaved

    def rotate(
        self, q: Tensor, k: Tensor, positions: Tensor | None, places: Places | None = None
    ) -> tuple[Tensor, Tensor]:
        """Turn queries and keys, (batch, heads, time, head_width), by their positions."""
        key = "angles", self.base, self.condense, *q.shape[2:]
        cosine, sine = (places or Places()).once(key, lambda: self._angles(q, positions))
        # calling an autograd.Function takes time, so only where there is a backward pass
        turn = Rotation.apply if torch.is_grad_enabled() else _turn
        return turn(q, cosine, sine, self.interleaved), turn(k, cosine, sine, self.interleaved)

    def _angles(self, x: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        cosine, sine = _cosine_and_sine(x.shape[3], self.base, self.condense, x.shape[2], positions, x.device)
        # positions of each sequence are the same for all its heads
        return (cosine, sine) if cosine.dim() == 2 else (cosine[:, None], sine[:, None])


class AlibiModule(PositionModule):
    """Scores that fall off linearly with distance, at a slope of its own for every head."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.description = LinearBias(alibi_slopes(heads))

    def bias(self) -> Bias:
        """Describe the linear bias."""
        return self.description


class Rotation(torch.autograd.Function):
    """Rotation with its own backward: the inverse rotation, where autograd would fill and add zero tensors."""

    @staticmethod
    def forward(x: Tensor, cosine: Tensor, sine: Tensor, interleaved: bool) -> Tensor:
        """Turn the pairs of x, (..., time, head_width), by angles, (time, head_width / 2) or broadcastable."""
        return _turn(x, cosine, sine, interleaved)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, bool], output: Tensor) -> None:
        """Keep the angles."""
        _, cosine, sine, ctx.interleaved = inputs
        ctx.save_for_backward(cosine, sine)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """Turn the gradient back."""
        cosine, sine = ctx.saved_tensors
        turned = Rotation.apply(gradient, cosine, -sine, ctx.interleaved)  # type: ignore[no-untyped-call]
        return cast(Tensor, turned), None, None, None

    @staticmethod
    def vmap(
        info: Any, dims: tuple[int | None, ...], x: Tensor, cosine: Tensor, sine: Tensor, interleaved: bool
    ) -> tuple[Tensor, int]:
        """Turn models that are stacked: their dimension comes first, and angles of their own follow it."""
        stacked = x.unsqueeze(0) if dims[0] is None else x.movedim(dims[0], 0)
        angles = []
        for held, dim in ((cosine, dims[1]), (sine, dims[2])):
            first = held if dim is None else held.movedim(dim, 0)
            missing = 0 if dim is None else stacked.dim() - first.dim()
            angles.append(first.view(*first.shape[:1], *[1] * missing, *first.shape[1:]) if missing else first)
        if dims[0] is None:
            stacked = stacked.expand(info.batch_size, *x.shape)
        return cast(Tensor, Rotation.apply(stacked, *angles, interleaved)), 0  # type: ignore[no-untyped-call]


def _turn(x: Tensor, cosine: Tensor, sine: Tensor, interleaved: bool) -> Tensor:
    # one product and two sums in place: the result keeps the layout of x, and nothing is joined
    half = x.shape[-1] // 2
    evens, odds = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(half), slice(half, None))
    both = cosine.repeat_interleave(2, dim=-1) if interleaved else torch.cat((cosine, cosine), dim=-1)
    turned = x * both
    turned[..., evens].addcmul_(x[..., odds], sine, value=-1)
    turned[..., odds].addcmul_(x[..., evens], sine)
    return turned.to(x.dtype)


def _cosine_and_sine(
    width: int, base: float, condense: float, time: int, positions: Tensor | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return cos and sin of position / condense * base^(-2i / width), float32 ((batch,) time, width / 2)."""
    if positions is None:
        return _constant_cosine_and_sine(width, base, condense, time, device)
    angles = positions.double()[..., None] * _frequencies(width, base, condense).to(positions.device)
    return angles.cos().float(), angles.sin().float()


@functools.lru_cache(maxsize=16)
def _plain_cosine_and_sine(
    width: int, base: float, condense: float, time: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    # A table first needed under inference_mode must still be usable by a later backward pass.
    with torch.inference_mode(False), torch.device("cpu"):
        angles = torch.arange(time, dtype=torch.float64)[:, None] * _frequencies(width, base, condense)
        return angles.cos().float().to(device), angles.sin().float().to(device)


_constant_cosine_and_sine = constant(_plain_cosine_and_sine)


def _frequencies(width: int, base: float, condense: float) -> Tensor:
    return base ** (torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / -width) / condense


def alibi_slopes(heads: int) -> tuple[float, ...]:
    """Return the slope of every head (Press et al. 2022, arXiv:2108.12409, section 3 and its published code).

    For 2^k heads the geometric sequence 2^(-8/heads), 2^(-16/heads), ...; for other counts the slopes of the next
    smaller power of two, then every second slope of the next larger one.

    >>> alibi_slopes(4)
    (0.25, 0.0625, 0.015625, 0.00390625)
    """
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8 * (index + 1) / power) for index in range(power)]
    between = [2.0 ** (-8 * (index + 1) / (2 * power)) for index in range(0, 2 * power, 2)]
    return tuple(slopes + between[: heads - power])


def ntk_base(base: float, scale: float, head_width: int) -> float:
    """Return the rotary base that stretches the longest wavelength `scale` times and leaves the shortest alone.

    base * scale^(head_width / (head_width - 2)), "NTK-aware" scaling as given in YaRN (arXiv:2309.00071): unlike
    `condense`, it keeps neighbours apart, and a trained model can be evaluated with it at a longer context.

    Args:
        base: The base of training.
        scale: Evaluated context / context of training.
        head_width: Width of one head, above 2.

    Raises:
        ValueError: for a head width with a single wavelength, or a scale below 1.

    >>> round(ntk_base(10_000, 4, head_width=64))
    41829
    """
    if head_width <= 2 or scale < 1:
        raise ValueError(f"position.base: expected a head width above 2 and a scale >= 1, got {head_width} and {scale}")
    return float(base * scale ** (head_width / (head_width - 2)))


class NoPosition(Component):
    """No position at all: the causal mask alone tells order (Haviv et al. 2022, arXiv:2203.16634)."""

    kind: Literal["none"] = "none"

    def build(self, shape: Shape) -> PositionModule:
        """Build the hooks that do nothing."""
        return PositionModule()


class Learned(Component):
    """A trained table of `context` rows, added to the embeddings (GPT-2)."""

    kind: Literal["learned"] = "learned"

    def build(self, shape: Shape) -> PositionModule:
        """Build the table."""
        return LearnedModule(shape.context, shape.width)

    def reach(self, context: int) -> int | None:
        """Return the longest sequence that can be represented: the context of training."""
        return context


class Sinusoidal(Component):
    """sin and cos of position * base^(-2i / width), added to the embeddings (arXiv:1706.03762, section 3.5).

    Attributes:
        base: Wavelengths run from 2 pi to 2 pi * base.
        amplitude: Of the waves. At 1 they drown embeddings that start at a standard deviation of 0.02: the paper scales
            its embeddings up to about 1 (section 3.4), which an amplitude of 0.02 matches.
    """

    kind: Literal["sinusoidal"] = "sinusoidal"
    base: float = Field(10_000.0, gt=1)
    amplitude: float = Field(1.0, gt=0, json_schema_extra={"neutral": 1.0})

    def build(self, shape: Shape) -> PositionModule:
        """Build the sinusoids."""
        return SinusoidalModule(self.base, self.amplitude)

    def check(self, shape: Shape) -> None:
        """Refuse a width that sine and cosine cannot share, or in which the base means nothing."""
        if shape.width % 2:
            raise MisfitError("an even width of the residual stream", shape.width)
        if shape.width == 2:
            raise MisfitError("a width of at least 4: one wavelength has no base", shape.width)


class Rotary(Component):
    """Rotary positions (Su et al. 2021, arXiv:2104.09864).

    Attributes:
        base: Wavelengths run from 2 pi to 2 pi * base.
        layout: Which dimensions form a pair: i and i + head_width / 2 ("halves", Llama and GPT-NeoX), or 2i and 2i + 1
            ("interleaved", the paper and STLM).
        condense: Positions are divided by this before they turn anything: position interpolation (Chen et al. 2023,
            arXiv:2306.15595), TinyLlama's `condense_ratio`.
    """

    kind: Literal["rotary"] = "rotary"
    base: float = Field(10_000.0, gt=1)
    layout: Literal["halves", "interleaved"] = "halves"
    condense: float = Field(1.0, ge=1, json_schema_extra={"neutral": 1.0})

    def build(self, shape: Shape) -> PositionModule:
        """Build the rotation."""
        return RotaryModule(self.base, self.condense, interleaved=self.layout == "interleaved")

    def check(self, shape: Shape) -> None:
        """Refuse a head width that does not divide into pairs, or in which the base means nothing."""
        if shape.head_width % 2:
            raise MisfitError("an even head width", shape.head_width)
        if shape.head_width == 2:
            raise MisfitError("a head width of at least 4: one wavelength has no base", shape.head_width)


class Alibi(Component):
    """Attention with linear biases, the paper's slopes for any number of heads (arXiv:2108.12409)."""

    kind: Literal["alibi"] = "alibi"

    def build(self, shape: Shape) -> PositionModule:
        """Build the bias."""
        return AlibiModule(shape.heads)


Position = Annotated[NoPosition | Learned | Sinusoidal | Rotary | Alibi, Field(discriminator="kind")]
