"""Pruning a vocabulary to fewer tokens, such that it stays a byte-pair encoding.

LokiLM's vocabulary is one of 100,000 tokens pruned to 32,000 (arXiv:2407.07370, section 2.1), "inspired by
TokenMonster". Deleting the rarest tokens as they come would leave tokens that can no longer be made. Here only leaves
are deleted, tokens of which no other is made, the least used first; whoever used a leaf then uses its two halves.

Promises that all bytes stay, that every token that stays can be made and is made of the same two halves, and that the
order of ranks stays; so that encoding stays lossless and gives each word the tokens it had, down to the last that
stays. The tokens a text will have are known without encoding it again, to about 0.2 %: halves of a deleted token may
join with others now.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Halves = Sequence[tuple[int, int] | None]


@dataclass(frozen=True)
class Pruned:
    """What is left.

    Attributes:
        kept: Ranks of the tokens that stay, ascending, int64[kept].
        extra: How many more tokens the counted text has than before, as far as it is known without encoding it.
    """

    kept: np.ndarray
    extra: int


def prune(counts: np.ndarray, halves: Halves, size: int, smoothing: float = 0.0) -> Pruned:
    """Delete the leaf that is used least until `size` tokens are left.

    Args:
        counts: How often each token stands in the text, int64[tokens], by rank.
        halves: The ranks of the two tokens that each is made of; None for a byte.
        size: At least the number of bytes.
        smoothing: Of what weight, in shares of all counted tokens, a prior is (see `prior`) beside the counts.

    Takes about a second for 100,000 tokens.
    """
    used = (counts + smoothing * counts.sum() * prior(len(halves))).tolist()
    lost, whole = counts.astype(np.int64).tolist(), np.ones(len(halves), bool)
    makes = [0] * len(halves)
    for pair in halves:
        for half in pair or ():
            makes[half] += 1
    leaves = [(used[rank], -rank) for rank, pair in enumerate(halves) if pair and not makes[rank]]
    heapq.heapify(leaves)
    extra = 0
    for _ in range(len(halves) - size):
        rank = -heapq.heappop(leaves)[1]
        whole[rank] = False
        extra += lost[rank]
        for half in halves[rank] or ():
            used[half] += used[rank]
            lost[half] += lost[rank]
            makes[half] -= 1
            if not makes[half] and halves[half]:
                heapq.heappush(leaves, (used[half], -half))
    return Pruned(np.flatnonzero(whole), extra)


def prior(tokens: int) -> np.ndarray:
    """Return how often a token is expected by its rank alone, float64[tokens], 1 in all: Zipf's law.

    A rank says how early a pair was joined, so how frequent it was in what the vocabulary was made from.
    """
    expected: np.ndarray = 1.0 / np.arange(1, tokens + 1)
    expected /= expected.sum()
    return expected
