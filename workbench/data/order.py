"""The order in which training reads its documents: an endless stream of tokens, addressed by offset.

Promises that the token at an offset depends on the documents and the data seed alone, so that any step can be
recomputed and arms of different batch sizes read the same text; that no document repeats before all have been read; and
that removing documents leaves the others in their order, so that a filtered arm stays paired with its baseline.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from workbench.data.prepared import TokenFile
from workbench.errors import DataError
from workbench.seeds import seed_for


class Position(NamedTuple):
    """Where an offset of the stream lies: how often the data was read before, and the SHA-256 of the document."""

    epoch: int
    document: str


class Lap(NamedTuple):
    """A part of the stream, of whole documents.

    Attributes:
        start: Tokens before it.
        first: Documents before it.
        order: The document that comes k-th in it, int64[documents read].
        ends: Where the k-th ends, counted from its start; int64[documents read].
    """

    start: int
    first: int
    order: np.ndarray
    ends: np.ndarray


class _Spans(NamedTuple):
    """Parts of documents, one after the other; each int64[parts]."""

    numbers: np.ndarray  # documents of the stream before this one
    shifts: np.ndarray  # place in the token file less offset in the stream
    counts: np.ndarray  # tokens; 0 for a document without any


_NOTHING = _Spans(*(np.empty(0, np.int64),) * 3)


class Stream:
    """The documents of `train`, each followed by end_of_text, in the order that `seed` gives them, epoch after epoch.

    Args:
        train: Tokenised documents.
        seed: The data seed.
        rollback: Number of the rollback after which this order begins; 0 is the order of a run without any.

    Raises:
        DataError: if there are no tokens to read.
    """

    def __init__(self, train: TokenFile, seed: int, rollback: int = 0) -> None:
        self.seed, self.rollback, self._train = seed, rollback, train
        self.length = int(train.offsets[-1])
        if not self.length:
            raise DataError("there is nothing to train on", where="data.corpus", expected="tokens", got="0 documents")
        self._tokens = np.asarray(train.tokens)
        self._starts, self._lengths = train.offsets[:-1], np.diff(train.offsets)
        self._hashes = train.hashes
        self._epoch = lru_cache(maxsize=2)(self._lay_epoch)  # two: a batch may end one epoch and begin the next

    def read(self, offset: int, count: int) -> np.ndarray:
        """Return tokens `offset` to `offset + count` of the stream, int64[count]."""
        return self.tokens(self.places(offset, count))

    def tokens(self, places: np.ndarray) -> np.ndarray:
        """Return the tokens that lie at `places` of the token file, int64, in the same shape."""
        found: np.ndarray = self._tokens[places].astype(np.int64)
        return found

    def places(self, offset: int, count: int) -> np.ndarray:
        """Return where tokens `offset` to `offset + count` of the stream lie in the token file, int64[count]."""
        spans = self._spans(offset, count)
        return np.repeat(spans.shifts, spans.counts) + np.arange(offset, offset + count)

    def documents(self, offset: int, count: int) -> np.ndarray:
        """Return how many documents of the stream end before each of these tokens, int64[count].

        A document that is read again in another epoch is another one.
        """
        spans = self._spans(offset, count)
        return np.repeat(spans.numbers, spans.counts)

    def batch(self, offset: int, sequences: int, context: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (tokens, targets), both int64[sequences, context]: consecutive windows of the stream from `offset` on.

        Targets are the tokens one later, so that the next batch begins at `offset + sequences * context`.
        """
        window = self.read(offset, sequences * context + 1)
        return window[:-1].reshape(sequences, context), window[1:].reshape(sequences, context)

    def restarted(self, rollback: int) -> Stream:
        """Return the same documents in the order that rollback number `rollback` gives them."""
        return Stream(self._train, self.seed, rollback)

    def position(self, offset: int) -> Position:
        """Return the epoch and the document in which token `offset` of the stream lies."""
        lap = self.lap(offset)
        place = int(np.searchsorted(lap.ends, offset - lap.start, side="right"))
        return Position(self.epoch_of(lap, place), self._hashes[lap.order[place]].tobytes().hex())

    def lap(self, offset: int) -> Lap:
        """Return the part of the stream in which token `offset` lies: here an epoch."""
        return self._epoch(offset // self.length)

    def epoch_of(self, lap: Lap, place: int) -> int:
        """Return how often the document at `place` of a lap was read before."""
        return lap.start // self.length

    def arranged(self, epoch: int) -> np.ndarray:
        """Return the order of documents in an epoch, int64[documents]."""
        return np.argsort(sort_keys(self._hashes, self.seed, epoch, self.rollback), kind="stable")

    def _lay_epoch(self, epoch: int) -> Lap:
        order = self.arranged(epoch)
        return Lap(epoch * self.length, epoch * len(order), order, np.cumsum(self._lengths[order]))

    def _spans(self, offset: int, count: int) -> _Spans:
        """Cut tokens `offset` to `offset + count` of the stream into parts of documents."""
        parts = []
        while count:
            lap = self.lap(offset)
            taken = min(count, lap.start + int(lap.ends[-1]) - offset)
            parts.append(self._spans_within(lap, offset - lap.start, offset - lap.start + taken))
            offset, count = offset + taken, count - taken
        return _Spans(*(np.concatenate(held) for held in zip(*parts, strict=True))) if parts else _NOTHING

    def _spans_within(self, lap: Lap, start: int, stop: int) -> _Spans:
        first, last = np.searchsorted(lap.ends, [start, stop - 1], side="right")
        documents, ends = lap.order[first : last + 1], lap.ends[first : last + 1]
        begins = ends - self._lengths[documents]
        counts = np.minimum(ends, stop) - np.maximum(begins, start)
        return _Spans(np.arange(first, last + 1) + lap.first, self._starts[documents] - begins - lap.start, counts)


def sort_keys(hashes: np.ndarray, seed: int, epoch: int, rollback: int = 0) -> np.ndarray:
    """Return z(data seed, epoch, document hash), uint64[documents]: what an epoch's documents are sorted by.

    The first 128 bits of each hash (uint8[documents, 32]) are mixed with the 128-bit key of the stream `data/<epoch>`,
    or `rollback/<number>/data/<epoch>` after a rollback, by two rounds of the SplitMix64 finaliser (Steele, Lea and
    Flood 2014), for all documents at once.
    """
    name = f"rollback/{rollback}/data/{epoch}" if rollback else f"data/{epoch}"
    high_key, low_key = (np.uint64(part) for part in divmod(seed_for(seed, name), 2**64))
    low, high = np.ascontiguousarray(hashes[:, :16]).view("<u8").T
    return _mix(_mix(low ^ low_key) ^ high ^ high_key)


def _mix(bits: np.ndarray) -> np.ndarray:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return bits
