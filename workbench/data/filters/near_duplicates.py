"""Near duplicates: documents that share most of their word sequences, found by MinHash and locality-sensitive hashing.

Candidates come from `datasketch` (Broder 1997; Leskovec, Rajaraman and Ullman, chapter 3); each is verified by the
Jaccard similarity of the real sets of sequences, so that no document is dropped by a chance collision. Of documents
that hang together through near duplicates, however long the chain, the first of the corpus is kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from workbench.data.corpora import Document
from workbench.data.filters.decision import Decision, Rule, decided, needed, whole_seed
from workbench.identity import setting

RECALL = 0.995  # chance that a pair right at the threshold becomes a candidate; higher above it
REMEMBERED = 4096  # documents whose sequences are held for comparison
WORDS = re.compile(r"\w+")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class NearDuplicates(Rule):
    """Keep the first of every group of near duplicates.

    The score of a dropped document is its Jaccard similarity with the one that is kept in its place, which may be below
    the threshold where a chain leads from one to the other; it is NaN for documents that are kept.

    Attributes:
        threshold: Jaccard similarity, from 0 to 1, from which on two documents are near duplicates.
        sequence: Words in a sequence (5 as in Lee et al., arXiv:2107.06499), in lower case, without punctuation.
        unit: "words", or "characters" for text that does not separate words; a sequence is of these.
        permutations: Length of a signature. Longer ones compare fewer pairs that turn out not to be near duplicates.
        seed: Of the permutations.
    """

    kind: Literal["near_duplicates"] = "near_duplicates"
    threshold: float = setting(default=0.8, gt=0, le=1)
    sequence: int = setting(default=5, ge=1, le=100)
    unit: Literal["words", "characters"] = setting(default="words")
    permutations: int = setting(default=128, ge=8, le=1024)
    seed: int = setting(default=0)

    def decide(self, documents: Sequence[Document]) -> Decision:
        """Keep documents that no earlier document is joined to by near duplicates."""
        sequences = _Sequences(documents, self.unit, self.sequence)
        first, compared = self._groups(sequences, len(documents))
        beside = np.where(first == np.arange(len(documents)), -1, first)
        score = [np.nan if one < 0 else sequences.jaccard(place, int(one)) for place, one in enumerate(beside)]
        figures = {"groups": float(len(np.unique(first[beside >= 0]))), "pairs_compared": float(compared)}
        return decided(beside < 0, np.array(score, dtype=np.float64), "near duplicate", beside=beside, figures=figures)

    def bands(self) -> tuple[int, int]:
        """Return (bands, rows): the longest rows that still find a pair at the threshold with the promised chance."""
        rows = 1
        while self._found(rows + 1) >= RECALL:
            rows += 1
        return self.permutations // rows, rows

    def _found(self, rows: int) -> float:
        return 1 - (1 - self.threshold**rows) ** (self.permutations // rows) if rows <= self.permutations else 0.0

    def _groups(self, sequences: _Sequences, count: int) -> tuple[np.ndarray, int]:
        """Return the first document of each one's group, int64[documents], and how many pairs were compared."""
        minhash, lsh = needed("datasketch", "datasketch").MinHash, needed("datasketch", "datasketch").MinHashLSH
        empty = minhash(num_perm=self.permutations, seed=whole_seed(self.seed, "near_duplicates"), hashfunc=int)
        index = lsh(num_perm=self.permutations, params=self.bands())
        first, compared = list(range(count)), 0
        for place in range(count):
            signature: Any = empty.copy()
            signature.update_batch((sequences(place) >> np.uint64(32)).tolist())
            for candidate in sorted(index.query(signature)):
                one, other = _root(first, place), _root(first, candidate)
                if one != other:  # what hangs together already need not be compared
                    compared += 1
                    if sequences.jaccard(place, candidate) >= self.threshold:
                        first[max(one, other)] = min(one, other)
            index.insert(place, signature)
        return np.array([_root(first, place) for place in range(count)], dtype=np.int64), compared


def _root(first: list[int], place: int) -> int:
    while first[place] != place:
        first[place] = first[first[place]]
        place = first[place]
    return place


class _Sequences:
    """The distinct sequences of each document, named by 64-bit numbers: sorted uint64[sequences]."""

    def __init__(self, documents: Sequence[Document], unit: str, size: int) -> None:
        self._documents, self._unit, self._size = documents, unit, size
        self._named: dict[str, int] = {}
        self._remembered = lru_cache(maxsize=REMEMBERED)(self._of)

    def __call__(self, place: int) -> np.ndarray:
        return self._remembered(place)

    def jaccard(self, one: int, other: int) -> float:
        """Return the sequences that both documents have over those that either has."""
        here, there = self(one), self(other)
        shared = len(np.intersect1d(here, there, assume_unique=True))
        return shared / (len(here) + len(there) - shared)

    def _of(self, place: int) -> np.ndarray:
        text = self._documents[place].text.lower()
        units = (WORDS.findall(text) if self._unit == "words" else list(text)) or [text]
        named = np.array([self._name(unit) for unit in units], dtype=np.uint64)
        size = min(self._size, len(units))  # a shorter document is one sequence
        joined = np.zeros(len(units) - size + 1, dtype=np.uint64)
        for start in range(size):
            joined = (joined ^ (joined >> np.uint64(29))) * MULTIPLIER + named[start : start + len(joined)]
        return np.unique(joined)

    def _name(self, unit: str) -> int:
        known = self._named.get(unit)
        if known is None:
            known = int.from_bytes(hashlib.blake2b(unit.encode(), digest_size=8).digest(), "big")
            self._named[unit] = known
        return known
