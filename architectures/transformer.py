"""The model that an `Architecture` builds: embedding, blocks, head, and what a forward pass takes and leaves.

Parameter names are roles (`blocks.3.attention.query.weight`), the same in every variant: they are the key by which
variants are paired. A model returns nats per target; logits only where it has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from architectures.attention import Cache, Pass
from architectures.backends import backend_named
from architectures.drawing import drop
from architectures.feedforward import FeedForwardModule
from architectures.heads import Head
from architectures.masks import Places
from architectures.positions import PositionModule
from architectures.thinking import Layout, ThinkingModule
from architectures.travel import DepthModule

if TYPE_CHECKING:
    from architectures.architecture import Architecture

SMALLEST = 1e-30  # stands for the weights of sequences that do not count at all, so that their mean is 0 and not nan


@dataclass(frozen=True)
class Batch:
    """One batch of sequences.

    Attributes:
        tokens: int64 (batch, time).
        targets: int64 (batch, time): the token that follows each token.
        weights: float32 (batch, time): how much each target counts; applied by the caller, never by the model.
        positions: int64 (time,) or (batch, time); None is the plain range 0, 1, 2, ...
        documents: int64 (batch, time): a position sees its own document only, whatever the numbers. None where every
            sequence is one document. Positions restart where `positions` says so, not by themselves.
        seen: bool (batch, time, time): which positions each may see at most, in evaluation without a cache by the
            backends "sdpa" and "reference" alone. It lays out sequences that begin alike as one tree.
    """

    tokens: Tensor
    targets: Tensor
    weights: Tensor
    positions: Tensor | None = None
    documents: Tensor | None = None
    seen: Tensor | None = None


@dataclass(frozen=True)
class Output:
    """What a forward pass leaves.

    Attributes:
        hidden: Hidden states after the last norm, (batch, time, width).
        exits: (weight, hidden states) of earlier exits that are trained too; see `travel.Travelled`.
        penalties: Further terms of the training loss, 0-dim and already weighted, by name.
    """

    hidden: Tensor
    exits: tuple[tuple[float, Tensor], ...] = ()
    penalties: Mapping[str, Tensor] = field(default_factory=dict)


class Block(nn.Module):
    """One layer: attention and feed-forward, joined to the residual stream as the architecture says."""

    def __init__(self, architecture: Architecture, layer: int) -> None:
        super().__init__()
        shape = architecture.shape(layer)
        dropout = architecture.dropout
        self.wiring, self.dropout = architecture.residual, dropout.residual
        self.hidden_dropout = dropout.feed_forward
        self.output_dropout = dropout.residual if dropout.feed_forward_output is None else dropout.feed_forward_output
        self.attention = architecture.attention.build(shape)
        self.feed_forward = architecture.feed_forward.build(shape)
        for name in self.wiring.norms:
            self.add_module(name, architecture.norm.build(shape))

    def forward(self, x: Tensor, current: Pass) -> Tensor:
        """Pass the residual stream x, (batch, time, width), through this layer."""
        norms = {name: cast(nn.Module, self._modules[name]) for name in self.wiring.norms}
        if self.hidden_dropout:
            cast(FeedForwardModule, self.feed_forward).dropout = self.hidden_dropout * current.dropping
        return self.wiring.connect(
            x,
            norms,
            lambda y: self._drop(self.attention(y, current), self.dropout * current.dropping),
            lambda y: self._drop(self.feed_forward(y), self.output_dropout * current.dropping),
        )

    def _drop(self, x: Tensor, rate: float) -> Tensor:
        return drop(x, rate) if self.training and rate else x


class Transformer(nn.Module):
    """A decoder-only Transformer (Vaswani et al. 2017, arXiv:1706.03762).

    Dropout is on in training mode and draws from torch's generator, which the caller seeds for every step.

    Attributes:
        backend: See `use_backend`.
        recompute: Whether what a block computes is forgotten and computed again in the backward pass, dropout included,
            so that memory grows with one block instead of all (arXiv:1604.06174). The result is the same, bit for bit.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        shape = architecture.shape()
        self.dropout, self.backend, self.recompute = architecture.dropout, "sdpa", False
        self.recomputes, self.reach = architecture.recomputes(), architecture.reach()
        self.embedding = architecture.embedding.build(shape)
        positions = architecture.thinking.extended(shape.context)
        self.position: PositionModule = architecture.position.build(replace(shape, context=positions))
        self.blocks = nn.ModuleList(Block(architecture, layer) for layer in range(architecture.layers))
        architecture.sharing.share(list(self.blocks))
        self.depth: DepthModule = architecture.depth.build(shape)
        self.thinking: ThinkingModule = architecture.thinking.build(shape)
        self.final_norm = architecture.norm.build(shape) if architecture.residual.final_norm else nn.Identity()
        self.head: Head = architecture.embedding.build_head(shape)

    def forward(
        self, batch: Batch, progress: Tensor | None = None, cache: Cache | None = None, exit: int | None = None
    ) -> Output:
        """Compute hidden states.

        Args:
            batch: The sequences; targets and weights are not looked at.
            progress: Share of training done, a 0-dim tensor from 0 to 1, for components that follow a schedule.
            cache: What `cache()` returned, for tokens that follow those of earlier calls with it. Positions that are
                not given go on where those ended. Hidden states are those of the new tokens.
            exit: How many blocks to pass through before the last norm, from 1; None is all of them.

        Raises:
            ValueError: if a cache is asked to keep gradients, positions or documents of some tokens only, or more
                tokens than the model can represent; for an exit that the model does not have; in training, if dropout
                follows a schedule and `progress` is None.
        """
        new = batch.tokens.shape[1]
        if cache is not None and cache.recomputes:
            batch = cache.whole(batch)
        layout = self.thinking.layout(batch.tokens.shape[1], batch.tokens)
        embedded = self.embedding(batch.tokens)
        current = self._begin(self._lay_out(batch, layout), cache, progress)
        x = embedded if layout is None else self.thinking.spread(embedded, layout)
        x = self.position.embed(x, current.positions)
        if self.training and (rate := self.dropout.embedding * current.dropping):
            x = drop(x, rate)

        def step(layer: int, x: Tensor, current: Pass) -> Tensor:
            held = current if cache is None else replace(current, cache=cache.layer(layer))
            if self.recompute and torch.is_grad_enabled():
                return cast(Tensor, checkpoint(self.blocks[layer], x, held, use_reentrant=False))
            return cast(Tensor, self.blocks[layer](x, held))

        travelled = self.depth(x, step, current, self._depth(exit), progress)
        exits = tuple((weight, self._leave(x, layout)) for weight, x in travelled.exits)
        penalties = dict(travelled.penalties)
        if self.training:
            penalties |= self.head.penalties(embedded, batch.tokens, self.embedding)
        hidden = self._leave(travelled.x, layout)
        return Output(hidden if cache is None else hidden[:, -new:], exits, penalties)

    def _depth(self, exit: int | None) -> int:
        if exit is not None and not 1 <= exit <= len(self.blocks):
            raise ValueError(f"exit: expected 1 to {len(self.blocks)} blocks, got {exit}")
        return len(self.blocks) if exit is None else exit

    def _lay_out(self, batch: Batch, layout: Layout | None) -> Batch:
        if layout is None:
            return batch
        if batch.positions is not None:
            raise ValueError("positions: expected the plain range, as extra positions stand between tokens, got others")
        if self.reach is not None and batch.tokens.shape[1] > self.reach:
            got = batch.tokens.shape[1]
            raise ValueError(f"tokens: expected at most the {self.reach} that have positions, got {got}")
        documents = None if batch.documents is None else batch.documents[:, layout.source]
        return replace(batch, tokens=batch.tokens[:, layout.source], documents=documents)

    def _leave(self, x: Tensor, layout: Layout | None) -> Tensor:
        return cast(Tensor, self.final_norm(x if layout is None else x[:, layout.read]))

    def _begin(self, batch: Batch, cache: Cache | None, progress: Tensor | None = None) -> Pass:
        positions = batch.positions
        if cache is None or cache.recomputes:
            places = Places(positions, positions, batch.documents, batch.documents, seen=batch.seen)
        else:
            start, time = cache.length, batch.tokens.shape[1]
            if positions is None and self.reach is not None and start + time > self.reach:
                raise ValueError(f"cache: expected at most {self.reach} tokens in all, got {start} and {time} more")
            places = cache.extend(time, positions, batch.documents)
            if positions is None and start:
                positions = torch.arange(start, start + time, device=batch.tokens.device)
        dropping = self.dropout.factor(progress) if self.training else 0.0
        dropout = self.dropout.attention * dropping
        return Pass(self.position, positions, dropout, self.backend, places, dropping=dropping)

    def cache(self) -> Cache:
        """Return an empty cache for `forward`; its `recomputes` says why it saves this model nothing, if so."""
        return Cache(len(self.blocks), self.recomputes)

    def logits(self, hidden: Tensor) -> Tensor:
        """Map hidden states, (..., width), to logits, (..., vocabulary).

        Raises:
            ValueError: for a model without logits, such as one that reads and writes bytes.
        """
        return self.head.logits(hidden, self.embedding)

    def nats(self, output: Output, batch: Batch) -> Tensor:
        """Return the cross-entropy of every target in nats, float32 (batch, time), unweighted."""
        return self.head.nats(output.hidden, batch.targets, self.embedding)

    def penalties(self, output: Output, batch: Batch, nats: Tensor) -> dict[str, Tensor]:
        """Return what training minimises beside the mean of nats, 0-dim and already weighted, by name.

        Args:
            output: Of a forward pass in training mode; in evaluation mode there is nothing.
            batch: What went in.
            nats: What `nats` returned for both.
        """
        penalties = dict(output.penalties)
        if output.exits:
            total = batch.weights.sum().clamp(min=SMALLEST)
            last = (nats * batch.weights).sum() / total
            costs = [
                weight * ((self.head.nats(hidden, batch.targets, self.embedding) * batch.weights).sum() / total - last)
                for weight, hidden in output.exits
            ]
            penalties["exits"] = torch.stack(costs).sum()
        return penalties

    def use_backend(self, name: str) -> None:
        """Compute attention by another backend; what is computed stays the same.

        Raises:
            ValueError: for an unknown backend.
        """
        backend_named(name)
        self.backend = name
