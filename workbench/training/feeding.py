"""Feeds: what a step reads, addressed by the number of its first sequence, so that any step can be recomputed.

A feed is a pure function of data and seed; it holds no position. After a rollback training goes on from the same feed
under another stream (`restarted`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from architectures.architecture import Architecture
from architectures.transformer import Batch
from workbench.data.order import Stream, sort_keys
from workbench.data.prepared import TokenFile
from workbench.errors import PlanError
from workbench.seeds import generator
from workbench.training.windows import Windows, best_fit, laid_out


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
        moved = {name: value if value is None else _placed(value, device) for name, value in moved.items()}
        return Fed(Batch(**moved), None if self.places is None else _placed(self.places, device))


def _placed(value: Tensor, device: str) -> Tensor:
    if value.is_cpu and torch.device(device).type == "cuda":
        # from pinned memory a copy queues behind what is computed, and the next step can be read meanwhile
        return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)


class Feed(Protocol):
    """The sequences of a stage, in the order of its seeds."""

    def sequences(self, first: int, count: int) -> Fed:
        """Return sequences `first` to `first + count`, all of the model's context, on the CPU."""

    def restarted(self, number: int) -> Feed:
        """Return the same data in the order that rollback `number` (from 1) gives them; 0 is the first order."""


Packing = Literal["stream", "documents", "whole"]


@dataclass(frozen=True)
class StreamFeed:
    """Consecutive windows of `context` tokens of a stream of documents; a target is the token one later.

    Attributes:
        stream: The documents in their order.
        context: Tokens of a window.
        packing: What a position of a window sees: all before it ("stream"), or its own document only ("documents").
    """

    stream: Stream
    context: int
    packing: Literal["stream", "documents"] = "stream"

    def sequences(self, first: int, count: int) -> Fed:
        """Return windows `first` to `first + count` of the stream; every target counts the same."""
        shape, offset = (count, self.context), first * self.context
        places = self.stream.places(offset, count * self.context + 1)
        read = torch.from_numpy(self.stream.tokens(places))
        documents = positions = None
        if self.packing == "documents":
            # of the target: end_of_text begins the document that it predicts, as it does in evaluation
            numbers = self.stream.documents(offset + 1, count * self.context).reshape(shape)
            documents, positions = torch.from_numpy(numbers), torch.from_numpy(restarting(numbers))
        batch = Batch(read[:-1].view(shape), read[1:].view(shape), torch.ones(shape), positions, documents)
        return Fed(batch, torch.from_numpy(places[:-1].reshape(shape)))

    def restarted(self, number: int) -> StreamFeed:
        """Return the windows of the stream that rollback `number` goes on with."""
        return replace(self, stream=self.stream.restarted(number))


class WholeFeed:
    """Windows of whole documents, none cut that fits a window: best-fit packing (arXiv:2404.10830, section 3).

    A document longer than a window is cut to windows and a rest; these pieces are placed, the largest first and those
    of equal size in the order of the data seed, each in the fullest window that has room. Windows are then shuffled.
    Positions see their own piece only; what no piece fits in is padding and does not count.

    Args:
        train: Tokenised documents.
        seed: The data seed.
        context: Tokens of a window.
        rollback: Number of the rollback after which this order begins.
    """

    def __init__(self, train: TokenFile, seed: int, context: int, rollback: int = 0) -> None:
        self.seed, self.context, self.rollback, self._train = seed, context, rollback, train
        lengths = np.diff(train.offsets)
        counts = -(-lengths // context)
        self._documents = np.repeat(np.arange(len(lengths)), counts)
        self._parts = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        self._begins = train.offsets[:-1][self._documents] + self._parts * context
        self._sizes = np.minimum(context, train.offsets[1:][self._documents] - self._begins)
        self._windows = Windows(self._pack)

    def sequences(self, first: int, count: int) -> Fed:
        """Return windows `first` to `first + count`."""
        held = [self._windows.at(number)[1] for number in range(first, first + count)]
        places, numbers = laid_out([(self._begins[rows], self._sizes[rows]) for rows in held], self.context)
        # before the first document stands the end_of_text that ends the last: -1 is the last token of the file
        before, tokens = np.where(places >= 0, places - 1, -1), self._train.tokens
        read, wanted = (torch.from_numpy(np.asarray(tokens[at]).astype(np.int64)) for at in (before, places))
        batch = Batch(
            read,
            wanted,
            torch.from_numpy(places >= 0).float(),
            torch.from_numpy(restarting(numbers)),
            torch.from_numpy(numbers),
        )
        return Fed(batch, torch.from_numpy(before % len(tokens)))

    def restarted(self, number: int) -> WholeFeed:
        """Return the same documents, packed in the order that rollback `number` gives them."""
        return WholeFeed(self._train, self.seed, self.context, number)

    def _pack(self, epoch: int) -> list[np.ndarray]:
        keys = sort_keys(self._train.hashes, self.seed, epoch, self.rollback)[self._documents]
        order = np.lexsort((self._parts, keys, -self._sizes))
        window = best_fit(self._sizes[order], self.context)
        name = f"rollback/{self.rollback}/windows/{epoch}" if self.rollback else f"windows/{epoch}"
        shuffled = generator(self.seed, name).permutation(window.max() + 1)[window]
        return np.split(order[np.argsort(shuffled, kind="stable")], np.cumsum(np.bincount(shuffled))[:-1])


def refuse_packing(architecture: Architecture, where: str) -> None:
    """Refuse windows of several documents for a model in which a document would not be as if it stood alone.

    Raises:
        PlanError: naming the component.
    """
    if (reason := architecture.unpacked()) is not None:
        raise PlanError(
            "an arm cannot train on documents that are hidden from each other",
            where=f"{where}.packing",
            expected="an architecture in which a document in a window is as if it stood alone",
            got=reason,
            fix='choose packing="stream" (in fine-tuning "none") for every arm, or compare other architectures',
        )


def restarting(documents: np.ndarray) -> np.ndarray:
    """Return positions that begin at 0 in every sequence and with every document of it, int64 (batch, time).

    >>> restarting(np.array([[4, 4, 4, 5, 5, 6]]))
    array([[0, 1, 2, 0, 1, 0]])
    """
    time = np.arange(documents.shape[1])
    begins = np.where(documents != np.roll(documents, 1, axis=1), time, 0)  # in column 0 either is 0
    return time - np.maximum.accumulate(begins, axis=1)
