"""Reading several sources at once, each at its share of the tokens.

Promises that at any point every source has been read its share to within one document, the longest there is, whatever
the lengths of documents and however the shares change; that each source is read in the shuffled order of the data seed,
no document again before all of that source were; and that all of it is a function of data, seed and budget.

What comes next is decided as in worst-case fair queueing (WF2Q, Bennett and Zhang, INFOCOM 1996). Think of all sources
as flowing at their shares at once. A document may be read once its beginning has flowed; of those that may, the one
that will have flowed first is read. Reading ahead is bounded by the first rule, lagging behind by the second, which
misses no deadline by more than the document that was under way (earliest deadline first).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from workbench.data.order import Lap, Stream, sort_keys
from workbench.data.ordering import Weighted
from workbench.data.prepared import TokenFile
from workbench.errors import DataError
from workbench.seeds import generator

GRID = 1024  # of a token: times are rounded to it, so that the last bits of a float decide nothing


@dataclass(frozen=True)
class Flow:
    """How much of every source has flowed when, in straight pieces of which the last never ends.

    That the last one is open matters: what comes is then a function of where it comes, not of how far one asks.

    Attributes:
        starts: Of the pieces, in tokens of all sources together, ascending, float64[pieces].
        flowed: Tokens of each source by then, float64[pieces, sources].
        shares: Of each source in a piece, float64[pieces, sources].
    """

    starts: np.ndarray
    flowed: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, order: Weighted, names: tuple[str, ...], budget: int) -> Flow:
        """Return the flow that an order declares; after the budget, the shares are those of its end."""
        knots, shares = order.shares(names)
        flowed = np.cumsum(np.diff(knots[:-1] * budget)[:, None] * shares[:-1], 0)
        return cls(knots[:-1] * budget, np.concatenate([np.zeros((1, len(names))), flowed]), shares)

    def by(self, time: float) -> np.ndarray:
        """Return how many tokens of each source have flowed by a time in the last piece, float64[sources]."""
        found: np.ndarray = self.flowed[-1] + (time - self.starts[-1]) * self.shares[-1]
        return found

    def begin(self, source: int, tokens: np.ndarray) -> np.ndarray:
        """Return until when no more than so many tokens of a source have flowed; inf where that is always so."""
        return self._when(source, tokens, np.searchsorted(self.flowed[:, source], tokens, side="right") - 1)

    def end(self, source: int, tokens: np.ndarray) -> np.ndarray:
        """Return from when on so many tokens of a source, 1 or more, have flowed; inf where they never do."""
        return self._when(source, tokens, np.searchsorted(self.flowed[:, source], tokens, side="left") - 1)

    def _when(self, source: int, tokens: np.ndarray, piece: np.ndarray) -> np.ndarray:
        share = self.shares[piece, source]
        with np.errstate(invalid="ignore", divide="ignore"):  # of a source that no longer flows
            found = self.starts[piece] + (tokens - self.flowed[piece, source]) / share
        return np.where(share > 0, np.rint(found * GRID) / GRID, inf)


def interleave(flow: Flow, lengths: list[np.ndarray], tokens: int) -> np.ndarray:
    """Return the source of every document read until `tokens` tokens are, uint8[documents read].

    Args:
        flow: Of the sources.
        lengths: Of each source the lengths of its documents, in the order in which they come; int64, enough of them.
        tokens: How many to read, the last document as a whole.
    """
    begins, ends, sizes = [], [], []
    for source, held in enumerate(lengths):
        read = np.concatenate([[0], np.cumsum(held)])
        begins.append(np.append(flow.begin(source, read[:-1]), inf).data)
        ends.append(np.append(flow.end(source, read[1:]), inf).data)
        sizes.append(held.data)
    sources, heads = range(len(lengths)), [0] * len(lengths)
    begin, end = [held[0] for held in begins], [held[0] for held in ends]
    found, time = bytearray(), 0
    while time < tokens:
        chosen, best, latest = -1, inf, time + 1 / GRID
        for source in sources:
            if begin[source] <= latest and (end[source] < best or chosen < 0):
                chosen, best = source, end[source]
        if chosen < 0:  # by rounding only: something has always begun to flow
            chosen = begin.index(min(begin))
        found.append(chosen)
        head = heads[chosen]
        time += sizes[chosen][head]
        heads[chosen] = head = head + 1
        begin[chosen], end[chosen] = begins[chosen][head], ends[chosen][head]
    return np.frombuffer(bytes(found), np.uint8)


class MixedStream(Stream):
    """The documents of several sources, interleaved at their shares of the tokens.

    Args:
        train: Tokenised documents.
        sources: The source of each, uint8[documents].
        names: Of the sources.
        order: Their shares.
        budget: Tokens of the training, over which shares change.
        seed: The data seed.
        rollback: Number of the rollback after which this order begins.

    Raises:
        DataError: if a source has a share and no documents, or there are no tokens at all.
    """

    def __init__(
        self,
        train: TokenFile,
        sources: np.ndarray,
        names: tuple[str, ...],
        order: Weighted,
        budget: int,
        seed: int,
        rollback: int = 0,
    ) -> None:
        super().__init__(train, seed, rollback)
        self._declared, self._sources, self._names, self._budget = order, sources, names, budget
        self._members = [np.flatnonzero(sources == number) for number in range(len(names))]
        self._longest = int(self._lengths.max())
        for name, members, tokens in zip(names, self._members, order.tokens(names, budget).values(), strict=True):
            if tokens and not len(members):
                raise DataError(
                    "a source has a share of the tokens and no documents to train on",
                    where=f"data.order.weights.{name}",
                    expected="one or more training documents",
                    got="none",
                    fix="give it more text, or the weight 0",
                )
        self._read: tuple[Lap, np.ndarray] | None = None

    def restarted(self, rollback: int) -> MixedStream:
        """Return the same shares of the same sources, each in the order that this rollback gives it."""
        return MixedStream(self._train, self._sources, self._names, self._declared, self._budget, self.seed, rollback)

    def lap(self, offset: int) -> Lap:
        """Return the stream from its beginning to the end of the budget, or beyond where `offset` lies there."""
        while self._read is None or offset >= self._read[0].ends[-1]:
            # the last target is one token later than the budget
            tokens = self._budget + 1 if self._read is None else 2 * int(self._read[0].ends[-1])
            self._read = self._interleaved(tokens)
        return self._read[0]

    def epoch_of(self, lap: Lap, place: int) -> int:
        """Return how often the document at `place` was read before."""
        self.lap(lap.start)
        assert self._read is not None  # noqa: S101 - a lap was made
        return int(self._read[1][place])

    def _interleaved(self, tokens: int) -> tuple[Lap, np.ndarray]:
        """Return documents of `tokens` tokens or just more, and how often each was read before."""
        until = tokens + 2 * self._longest
        flow = Flow.of(self._declared, self._names, self._budget)
        queues = [self._queue(members, needed) for members, needed in zip(self._members, flow.by(until), strict=True)]
        labels = interleave(flow, [self._lengths[documents] for documents, _ in queues], tokens)
        if self._declared.control:
            labels = self._scattered(labels, queues)
        order, epochs = np.empty(len(labels), np.int64), np.empty(len(labels), np.int32)
        for source, (documents, times) in enumerate(queues):
            here = labels == source
            count = int(here.sum())
            order[here], epochs[here] = documents[:count], times[:count]
        return Lap(0, 0, order, np.cumsum(self._lengths[order])), epochs

    def _queue(self, members: np.ndarray, flowed: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the documents of a source as they come, one more than can be read by then, and the epochs of each."""
        if not flowed:
            return np.empty(0, np.int64), np.empty(0, np.int32)
        whole = int(self._lengths[members].sum())
        epochs = int(flowed + 2 * self._longest) // whole + 1
        hashes = self._hashes[members]
        orders = [
            members[np.argsort(sort_keys(hashes, self.seed, epoch, self.rollback), kind="stable")]
            for epoch in range(epochs)
        ]
        return np.concatenate(orders), np.repeat(np.arange(epochs, dtype=np.int32), len(members))

    def _scattered(self, labels: np.ndarray, queues: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Draw at random when a source comes, among the documents that the budget reads."""
        lengths = np.empty(len(labels), np.int64)
        for source, (documents, _) in enumerate(queues):
            here = labels == source
            lengths[here] = self._lengths[documents[: int(here.sum())]]
        count = int(np.searchsorted(np.cumsum(lengths), self._budget + 1)) + 1
        name = f"rollback/{self.rollback}/data/control" if self.rollback else "data/control"
        drawn = generator(self.seed, name).permutation(labels[:count])
        return np.concatenate([drawn, labels[count:]])


def times_read(order: Weighted, tokens: dict[str, int], budget: int) -> dict[str, float]:
    """Return how often a budget of tokens reads every source.

    Args:
        order: The shares.
        tokens: Those to train on of every source, by its name.
        budget: Of the training.
    """
    wanted = order.tokens(tuple(tokens), budget)
    return {name: wanted[name] / held if held else 0.0 for name, held in tokens.items()}
