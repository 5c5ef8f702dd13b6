"""An attention of one's own: a gate on what attention found, before it is projected back (arXiv:2505.06708).

    attention(x) = output(mixed * sigmoid(gate(x)))

This file is all there is to it. Nothing is registered; the sweep file beside it imports the class. Run this file to see
that the class keeps every promise the workbench relies on: `python gated_attention.py`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from architectures.attention import Pass
from architectures.backends import attend
from architectures.component import Component, MisfitError, Shape
from architectures.layers import Linear
from architectures.masks import Mask


class GatedAttentionModule(nn.Module):
    """Causal multi-head attention whose result is gated by what the position itself holds.

    Query, key, value and output are called as in the attention it is compared with: parameters of the same name and
    shape start from the same noise in both, so that the gate is all that differs between two runs of one seed.
    """

    def __init__(self, shape: Shape, mask: Mask, gates: int) -> None:
        super().__init__()
        self.heads, self.head_width, self.mask = shape.heads, shape.head_width, mask
        self.query = Linear(shape.width, shape.width, bias=False)
        self.key = Linear(shape.width, shape.width, bias=False)
        self.value = Linear(shape.width, shape.width, bias=False)
        self.gate = Linear(shape.width, gates, bias=False)
        self.output = Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor, current: Pass) -> Tensor:
        """Mix information between positions of x, (batch, time, width)."""
        q, k, v = (self._split(project(x)) for project in (self.query, self.key, self.value))
        q, k = current.position.rotate(q, k, current.positions, current.places)
        if current.cache is not None:  # generation: what earlier calls saw stands before it
            k, v = current.cache.keys.append(k), current.cache.values.append(v)
        mixed = attend(  # by whichever backend the plan chose
            q,
            k,
            v,
            mask=self.mask,
            bias=current.position.bias(),
            places=current.places,
            dropout=current.dropout,
            backend=current.backend,
        )
        gate = torch.sigmoid(self.gate(x)).view(*x.shape[:2], self.heads, -1)
        found: Tensor = self.output((mixed.transpose(1, 2) * gate).flatten(2))
        return found

    def _split(self, x: Tensor) -> Tensor:
        """Split (batch, time, width) into heads, (batch, heads, time, head_width)."""
        return x.view(*x.shape[:2], self.heads, self.head_width).transpose(1, 2)


class GatedAttention(Component):
    """Multi-head attention with a gate between 0 and 1 on its result.

    Attributes:
        heads: Heads; divides the width of the residual stream.
        gate: One gate per head, or one per element of every head.
    """

    kind: Literal["gated_attention:GatedAttention"] = "gated_attention:GatedAttention"  # this file, this class
    axis: ClassVar[str] = "attention"
    roles: ClassVar[dict[str, str]] = {"gate.weight": "projection"}  # how parameters start that no built-in has
    caches: ClassVar[bool] = True  # without it, generation computes everything again for every token
    key_value_heads: ClassVar[None] = None  # as many as heads
    mask: ClassVar[Mask] = Mask(causal=True)

    heads: int = Field(gt=0)
    gate: Literal["head", "element"] = "head"

    def check(self, shape: Shape) -> None:
        """Refuse a width that does not divide into heads."""
        if shape.width % self.heads:
            raise MisfitError(f"a divisor of width {shape.width}", self.heads, field="heads")

    def build(self, shape: Shape) -> nn.Module:
        """Build the attention of one layer."""
        return GatedAttentionModule(shape, self.mask, self.heads if self.gate == "head" else shape.width)


if __name__ == "__main__":
    from architectures.testing import check_component

    check_component(GatedAttention(heads=4))
