"""From tokens to the residual stream, and from the residual stream to nats.

The head turns hidden states into nats per target; it has logits too, but a model whose targets are bytes would not. A
tied head owns no parameter: it is lent the table, so that nothing is aliased and nothing breaks when a model is moved.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from architectures.component import Component, Shape
from architectures.layers import TokenTable

# A CPU computes logits in pieces that stay in its cache: the head's forward and backward take 107 ms instead of 165 ms
# (2,048 tokens, width 128, vocabulary 4,096, one thread). A GPU computes them in one piece.
CACHED_LOGITS = 2**19


class TokenHead(nn.Module):
    """A linear map to the vocabulary, by its own table or by the one it is lent."""

    def __init__(self, shape: Shape, *, tied: bool) -> None:
        super().__init__()
        self.weight = None if tied else nn.Parameter(torch.empty(shape.vocabulary, shape.width))

    def logits(self, hidden: Tensor, table: Tensor) -> Tensor:
        """Map hidden states, (..., width), to (..., vocabulary)."""
        return functional.linear(hidden, table if self.weight is None else self.weight)

    def nats(self, hidden: Tensor, targets: Tensor, table: Tensor) -> Tensor:
        """Return the cross-entropy of every target in nats, float32 (batch, time), unweighted.

        Args:
            hidden: (batch, time, width).
            targets: int64 (batch, time).
            table: The embedding table, (vocabulary, width).
        """
        rows, row_targets = hidden.flatten(0, 1), targets.flatten()
        step = max(1, CACHED_LOGITS // table.shape[0]) if hidden.device.type == "cpu" else len(rows)
        pieces = [
            functional.cross_entropy(self.logits(some, table).float(), some_targets, reduction="none")
            for some, some_targets in zip(torch.split(rows, step), torch.split(row_targets, step), strict=True)
        ]
        return torch.cat(pieces).view(targets.shape)


class Table(Component):
    """One vector per token.

    Attributes:
        tied: Whether the head uses the same table (Press & Wolf 2017, arXiv:1608.05859).
    """

    kind: Literal["table"] = "table"
    tied: bool = True

    def build(self, shape: Shape) -> TokenTable:
        """Build the table, (vocabulary, width)."""
        return TokenTable(shape.vocabulary, shape.width)

    def build_head(self, shape: Shape) -> TokenHead:
        """Build the head."""
        return TokenHead(shape, tied=self.tied)


Embedding = Annotated[Table, Field(discriminator="kind")]
