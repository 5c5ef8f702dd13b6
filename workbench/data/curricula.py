"""Reading documents by difficulty, epoch after epoch.

Promises that every epoch reads every document once; that ties fall as the data seed has it; and that a control reads
the documents that its curriculum does, in random order.
"""

from __future__ import annotations

import heapq
from functools import cached_property

import numpy as np

from workbench.data.order import Stream, sort_keys
from workbench.data.ordering import Curriculum
from workbench.data.prepared import TokenFile


class SortedStream(Stream):
    """The documents of `train` by difficulty.

    Args:
        train: Tokenised documents.
        difficulty: Of each, float64[documents].
        order: Which way, and how strictly.
        budget: Tokens of the training; which documents its last, incomplete epoch reads depends on it.
        seed: The data seed.
        rollback: Number of the rollback after which this order begins; it changes how ties fall, and controls.
    """

    def __init__(
        self, train: TokenFile, difficulty: np.ndarray, order: Curriculum, budget: int, seed: int, rollback: int = 0
    ) -> None:
        super().__init__(train, seed, rollback)
        self._declared, self._difficulty, self._budget = order, difficulty, budget

    def restarted(self, rollback: int) -> SortedStream:
        """Return the same documents by the same difficulty, with ties as this rollback has them."""
        return SortedStream(self._train, self._difficulty, self._declared, self._budget, self.seed, rollback)

    def arranged(self, epoch: int) -> np.ndarray:
        """Return the order of documents in an epoch, int64[documents]: first those that the budget reads of it."""
        keys = sort_keys(self._hashes, self.seed, epoch, self.rollback)
        shuffled = np.argsort(keys, kind="stable")
        left = self._budget + 1 - epoch * self.length  # the last target is one token later
        selecting = shuffled if self._declared.selection == "shuffled" else self._sorted(shuffled, keys)
        count = len(shuffled) if left >= self.length else self._covering(selecting, left)
        read, rest = selecting[:count], selecting[count:]
        if self._declared.control:
            read = read[np.argsort(keys[read], kind="stable")]
        elif self._declared.selection == "shuffled":
            read = self._sorted(read, keys)
        return np.concatenate([read, rest])

    def _covering(self, order: np.ndarray, tokens: int) -> int:
        """Return how many documents of an order hold so many tokens; none where nothing is to be read."""
        return int(np.searchsorted(np.cumsum(self._lengths[order]), tokens)) + 1 if tokens > 0 else 0

    def _sorted(self, documents: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Put documents, given in shuffled order, into the declared one."""
        by_difficulty: np.ndarray = documents[np.argsort(self._ranked[documents], kind="stable")]
        if self._declared.pacing is None:
            return by_difficulty
        return np.take(by_difficulty, paced(keys[by_difficulty], self._declared.pacing))

    @cached_property
    def _ranked(self) -> np.ndarray:
        return self._difficulty if self._declared.direction == "easy_first" else -self._difficulty


def paced(keys: np.ndarray, start: float) -> np.ndarray:
    """Return sorted documents in the order of their keys, as far as they are open; int64[documents].

    After the share p of the documents sqrt(p (1 - start^2) + start^2) of them are open, and always one more than have
    been read.

    Args:
        keys: uint64[documents], of documents from the first to open to the last.
        start: Share that is open at the beginning.
    """
    count = len(keys)
    places = np.arange(count)
    by_key = np.argsort(keys, kind="stable")
    ranks = np.empty(count, np.int64)
    ranks[by_key] = places
    opened = np.maximum(places + 1, (count * np.sqrt(places / count * (1 - start**2) + start**2)).astype(np.int64))
    waiting, found, done = ranks.tolist(), np.empty(count, np.int64), 0
    heap: list[int] = []
    for place, limit in enumerate(opened.tolist()):
        for rank in waiting[done:limit]:
            heapq.heappush(heap, rank)
        done = limit
        found[place] = heapq.heappop(heap)
    return np.take(by_key, found)
