"""Feeds: what a step reads, addressed by the number of its first sequence, so that any step can be recomputed.

A feed is a pure function of data and seed; it holds no position. After a rollback training goes on from the same feed
under another stream (`restarted`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from architectures.transformer import Batch
from workbench.data.order import Stream


@dataclass(frozen=True)
class Fed:
    """Some sequences.

    Attributes:
        batch: On the CPU until the loop places it.
        places: int64 (batch, time): where every token lies in the token file of the training documents, which is how
            what is known of a token beforehand (a teacher's opinion) is found. None where there is no such file.
    """

    batch: Batch
    places: Tensor | None = None

    def part(self, first: int, count: int) -> Fed:
        """Return `count` of the sequences, from `first` on."""
        rows = slice(first, first + count)
        batch = self.batch
        positions = batch.positions if batch.positions is None or batch.positions.dim() == 1 else batch.positions[rows]
        return Fed(
            Batch(
                batch.tokens[rows],
                batch.targets[rows],
                batch.weights[rows],
                positions,
                None if batch.documents is None else batch.documents[rows],
            ),
            None if self.places is None else self.places[rows],
        )

    def to(self, device: str) -> Fed:
        """Return the same on another device."""
        batch = self.batch
        moved = {name: getattr(batch, name) for name in ("tokens", "targets", "weights", "positions", "documents")}
        moved = {name: value if value is None else value.to(device) for name, value in moved.items()}
        return Fed(Batch(**moved), None if self.places is None else self.places.to(device))


class Feed(Protocol):
    """The sequences of a stage, in the order of its seeds."""

    def sequences(self, first: int, count: int) -> Fed:
        """Return sequences `first` to `first + count`, all of the model's context, on the CPU."""

    def restarted(self, number: int) -> Feed:
        """Return the same data in the order that rollback `number` (from 1) gives them; 0 is the first order."""


@dataclass(frozen=True)
class StreamFeed:
    """Consecutive windows of `context` tokens of a stream of documents; a target is the token one later."""

    stream: Stream
    context: int

    def sequences(self, first: int, count: int) -> Fed:
        """Return windows `first` to `first + count` of the stream; every target counts the same."""
        tokens, targets = self.stream.batch(first * self.context, count, self.context)
        weights = torch.ones(count, self.context)
        return Fed(Batch(torch.from_numpy(tokens), torch.from_numpy(targets), weights))

    def restarted(self, number: int) -> StreamFeed:
        """Return the windows of the stream that rollback `number` goes on with."""
        return replace(self, stream=self.stream.restarted(number))
