"""From tokens to the residual stream, and from the residual stream to nats.

An embedding choice builds two modules: one turns tokens into vectors, the `Head` turns hidden states into nats per
target. A head may have logits over the vocabulary; one whose targets are bytes has none. A tied head owns no parameter:
it is lent the table, so that nothing is aliased and nothing breaks when a model is moved.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from architectures.bytes import Bytes
from architectures.component import Component, MisfitError, Shape
from architectures.cross_entropy import LinearCrossEntropy
from architectures.heads import Head
from architectures.layers import Linear, TokenTable

# A CPU computes logits in pieces that stay in its cache: forward and backward pass of the head take 77 ms, in one piece
# 86 ms, and in one piece by autograd 95 ms (2,048 tokens, width 128, vocabulary 4,096, one thread). Where so few rows
# would fit that every piece reads and writes the whole table for little, pieces are long instead: 0.84 s where ten rows
# at a time take 4.5 s (1,024 tokens, width 256, vocabulary 50,257). A GPU computes logits in one piece.
CACHED_LOGITS, FEWEST_ROWS, MANY_ROWS = 2**19, 128, 512


def rows_at_once(vocabulary: int) -> int:
    """Return how many rows of logits a CPU makes together."""
    fitting = CACHED_LOGITS // vocabulary
    return fitting if fitting >= FEWEST_ROWS else MANY_ROWS


class TokenHead(Head):
    """A linear map to the vocabulary, by its own table or by that of the embedding."""

    def __init__(self, shape: Shape, *, tied: bool) -> None:
        super().__init__()
        self.weight = None if tied else nn.Parameter(torch.empty(shape.vocabulary, shape.width))

    def logits(self, hidden: Tensor, embedding: nn.Module) -> Tensor:
        """Map hidden states, (..., width), to (..., vocabulary)."""
        return functional.linear(self.narrowed(hidden, embedding), self._table(embedding))

    def narrowed(self, hidden: Tensor, embedding: nn.Module) -> Tensor:
        """Return hidden states, (..., width), as the table takes them."""
        return hidden

    def _table(self, embedding: nn.Module) -> Tensor:
        return cast(Tensor, embedding.weight) if self.weight is None else self.weight

    def nats(self, hidden: Tensor, targets: Tensor, embedding: nn.Module) -> Tensor:
        """Return the cross-entropy of every target in nats, float32 (batch, time), unweighted."""
        rows, row_targets, table = hidden.flatten(0, 1), targets.flatten(), self._table(embedding)
        step = rows_at_once(len(table)) if hidden.device.type == "cpu" else len(rows)
        if _has_own_backward(rows, table):
            narrowed = self.narrowed(rows, embedding)
            nats: Tensor = LinearCrossEntropy.apply(narrowed, table, row_targets, step)  # type: ignore[no-untyped-call]
            return nats.view(targets.shape)
        pieces = [
            functional.cross_entropy(self.logits(some, embedding).float(), some_targets, reduction="none")
            for some, some_targets in zip(torch.split(rows, step), torch.split(row_targets, step), strict=True)
        ]
        return torch.cat(pieces).view(targets.shape)


def _has_own_backward(rows: Tensor, table: Tensor) -> bool:
    """Whether `LinearCrossEntropy` can train it: on a CPU, in float32, one model at a time, not compiled."""
    return (
        torch.is_grad_enabled()
        and rows.device.type == "cpu"
        and rows.dtype == table.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


class FactorisedTable(TokenTable):
    """A short vector per token, and one matrix that brings it to the model's width."""

    def __init__(self, shape: Shape, rank: int) -> None:
        super().__init__(shape.vocabulary, rank)
        self.up = Linear(rank, shape.width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Turn tokens, int64 (batch, time), into vectors, (batch, time, width)."""
        return cast(Tensor, self.up(super().forward(tokens)))


class FactorisedHead(TokenHead):
    """A linear map to the vocabulary of low rank, by its own two matrices or by those of the embedding."""

    def __init__(self, shape: Shape, rank: int, *, tied: bool) -> None:
        super().__init__(replace(shape, width=rank), tied=tied)
        self.down = None if tied else Linear(shape.width, rank, bias=False)

    def narrowed(self, hidden: Tensor, embedding: nn.Module) -> Tensor:
        """Map hidden states, (..., width), to the rank, (..., rank)."""
        return hidden @ cast(FactorisedTable, embedding).up.weight if self.down is None else self.down(hidden)


class Table(Component):
    """One vector per token.

    Attributes:
        tied: Whether the head uses the same table (Press & Wolf 2017, arXiv:1608.05859).
    """

    kind: Literal["table"] = "table"
    reads_bytes: ClassVar[bool] = False
    tied: bool = True

    def build(self, shape: Shape) -> nn.Module:
        """Build the table, (vocabulary, width)."""
        return TokenTable(shape.vocabulary, shape.width)

    def build_head(self, shape: Shape) -> Head:
        """Build the head."""
        return TokenHead(shape, tied=self.tied)

    def flops(self, shape: Shape) -> float:
        """Return the forward FLOPs of embedding and head per token: a lookup, and one matrix."""
        return 2.0 * shape.vocabulary * shape.width

    def kept(self, shape: Shape) -> tuple[float, float]:
        """Return what the backward pass keeps per token: activations, and float32 log-probabilities."""
        return 0.0, float(shape.vocabulary)


class Factorised(Component):
    """One short vector per token and a matrix to the model's width (ALBERT, Lan et al. 2020, arXiv:1909.11942, 3.1).

    Attributes:
        rank: Width of the short vectors, below that of the model.
        tied: Whether the head uses the same two matrices.
    """

    kind: Literal["factorised"] = "factorised"
    reads_bytes: ClassVar[bool] = False
    rank: int = Field(gt=0)
    tied: bool = True

    def check(self, shape: Shape) -> None:
        """Refuse a rank that is none: two matrices in place of one that says the same."""
        if self.rank >= shape.width:
            raise MisfitError(f"below width {shape.width}", self.rank, field="rank")

    def build(self, shape: Shape) -> nn.Module:
        """Build the two matrices."""
        return FactorisedTable(shape, self.rank)

    def build_head(self, shape: Shape) -> Head:
        """Build the head."""
        return FactorisedHead(shape, self.rank, tied=self.tied)

    def flops(self, shape: Shape) -> float:
        """Return the forward FLOPs of embedding and head per token: a lookup, and three matrices."""
        return 2.0 * self.rank * (2 * shape.width + shape.vocabulary)

    def kept(self, shape: Shape) -> tuple[float, float]:
        """Return what the backward pass keeps per token: activations, and float32 log-probabilities."""
        return 2.0 * self.rank, float(shape.vocabulary)


Embedding = Annotated[Table | Factorised | Bytes, Field(discriminator="kind")]
