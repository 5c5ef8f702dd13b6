"""Rules of thumb about one document: its length, its words, its lines, what it repeats.

The rules and their thresholds are those of Gopher (arXiv:2112.11446, appendix A.1.1); lines that end in punctuation are
C4's (arXiv:1910.10683, section 2.2), there a rule about lines, here about their share. Whether a document is kept
depends on its text alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal

import numpy as np

from workbench.data.corpora import Document
from workbench.data.filters.decision import Decision, Rule
from workbench.identity import setting

STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
BULLETS = ("•", "-", "*", "‣", "●")
ELLIPSES = ("...", "…")
ENDINGS = (".", "!", "?", '"', "”", "’", "'", ":", ";")
WORDS = re.compile(r"\w+")
LONGEST = 10  # words in a sequence
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class Heuristics(Rule):
    """Drop documents that break a rule of thumb; the defaults are Gopher's, for English. A rule that is None is off.

    Words are what white space separates; lines are those that are not blank. The score of a document is how many rules
    it breaks.

    Attributes:
        least_words: Fewest words.
        most_words: Most words.
        shortest_mean: Shortest mean length of a word, in characters.
        longest_mean: Longest mean length of a word.
        symbols: Most `#` and ellipses, per word.
        bullets: Largest share of lines that begin with a bullet.
        ellipses: Largest share of lines that end in an ellipsis.
        alphabetic: Smallest share of words with a letter.
        stop_words: Fewest different ones of: the, be, to, of, and, that, have, with.
        closed_lines: Smallest share of lines that end in punctuation; off, as books are often broken within sentences.
        repeated_lines: Largest share of lines that stood in the document before.
        repeated_line_characters: Largest share of characters in such lines.
        commonest: Largest shares of characters in the commonest sequence of 2, 3 and 4 words.
        repeated: Largest shares of characters in sequences of 5, 6, 7, 8, 9 and 10 words that occur more than once.
    """

    kind: Literal["heuristics"] = "heuristics"
    least_words: int | None = setting(default=50, ge=0)
    most_words: int | None = setting(default=100_000, ge=1)
    shortest_mean: float | None = setting(default=3.0, ge=0)
    longest_mean: float | None = setting(default=10.0, gt=0)
    symbols: float | None = setting(default=0.1, ge=0)
    bullets: float | None = setting(default=0.9, ge=0, le=1)
    ellipses: float | None = setting(default=0.3, ge=0, le=1)
    alphabetic: float | None = setting(default=0.8, ge=0, le=1)
    stop_words: int | None = setting(default=2, ge=0, le=len(STOP_WORDS))
    closed_lines: float | None = setting(default=None, ge=0, le=1)
    repeated_lines: float | None = setting(default=0.3, ge=0, le=1)
    repeated_line_characters: float | None = setting(default=0.2, ge=0, le=1)
    commonest: tuple[float, float, float] | None = setting(default=(0.2, 0.18, 0.16))
    repeated: tuple[float, float, float, float, float, float] | None = setting(
        default=(0.15, 0.14, 0.13, 0.12, 0.11, 0.10)
    )

    def decide(self, documents: Sequence[Document]) -> Decision:
        """Keep documents that break no rule."""
        broken = tuple(self._broken(_Measured(document.text)) for document in documents)
        keep = np.array([not rules for rules in broken], dtype=bool)
        return Decision(keep, np.array([len(rules) for rules in broken], dtype=np.float64), broken)

    def _broken(self, measured: _Measured) -> tuple[str, ...]:
        least = (name for name, value in _LEAST.items() if _below(value(measured), getattr(self, name)))
        most = (name for name, value in _MOST.items() if _below(getattr(self, name), value(measured)))
        found = [*least, *most]
        if self.commonest and any(map(_below, self.commonest, map(measured.commonest, (2, 3, 4)))):
            found.append("commonest")
        if self.repeated and any(map(_below, self.repeated, map(measured.repeated, range(5, 11)))):
            found.append("repeated")
        return tuple(found)


def _below(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and one < other


class _Measured:
    """What the rules ask of a text, each counted once and only if it is asked for."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words = text.split()
        self.lines = [line.strip() for line in text.splitlines() if line.strip()]

    def per_line(self, holds: Callable[[str], bool]) -> float:
        return sum(map(holds, self.lines)) / max(len(self.lines), 1)

    @property
    def mean_word(self) -> float:
        return sum(map(len, self.words)) / max(len(self.words), 1)

    @property
    def symbols(self) -> float:
        return sum(self.text.count(symbol) for symbol in ("#", *ELLIPSES)) / max(len(self.words), 1)

    @property
    def alphabetic(self) -> float:
        letters = sum(word.isalpha() or any(map(str.isalpha, word)) for word in self.words)
        return letters / max(len(self.words), 1)

    @property
    def stop_words(self) -> int:
        return len(STOP_WORDS.intersection(WORDS.findall(self.text.lower())))

    @property
    def repeated_lines(self) -> float:
        return 1 - len(set(self.lines)) / max(len(self.lines), 1)

    @property
    def repeated_line_characters(self) -> float:
        again = sum(len(line) * (count - 1) for line, count in Counter(self.lines).items())
        return again / max(sum(map(len, self.lines)), 1)

    @cached_property
    def _lengths(self) -> np.ndarray:
        return np.array([len(word) for word in self.words], dtype=np.int64)

    @cached_property
    def _sequences(self) -> list[np.ndarray]:
        """Name every sequence of 1, 2, ... 10 words by a number, uint64[sequences] each; equal ones equally."""
        places: dict[str, int] = {}
        words = np.array([places.setdefault(word, len(places)) for word in self.words], dtype=np.uint64)
        named = [words]
        for size in range(2, LONGEST + 1):
            before = named[-1][: max(len(words) - size + 1, 0)]
            named.append((before ^ (before >> np.uint64(29))) * MULTIPLIER + words[size - 1 :])
        return named

    def _again(self, size: int) -> np.ndarray | None:
        """Return the sequences of `size` words; None where none occurs twice."""
        named = self._sequences[size - 1]
        ordered = np.sort(named)
        return named if (ordered[1:] == ordered[:-1]).any() else None

    def commonest(self, size: int) -> float:
        """Return the share of the words' characters that the commonest sequence of `size` words makes up."""
        named = self._again(size)
        if named is None:
            return 0.0  # the commonest of those that occur once is no repetition
        _, first, counts = np.unique(named, return_index=True, return_counts=True)
        starts = first[counts == counts.max()]
        longest = max(int(self._lengths[start : start + size].sum()) for start in starts)
        return longest * int(counts.max()) / int(self._lengths.sum())

    def repeated(self, size: int) -> float:
        """Return the share of the words' characters in sequences of `size` words that occur more than once."""
        named = self._again(size)
        if named is None:
            return 0.0
        _, places, counts = np.unique(named, return_inverse=True, return_counts=True)
        covered = np.zeros(len(self.words), dtype=bool)
        for start in np.flatnonzero(counts[places] > 1).tolist():
            covered[start : start + size] = True
        return int(self._lengths[covered].sum()) / int(self._lengths.sum())


_LEAST: dict[str, Callable[[_Measured], float]] = {
    "least_words": lambda measured: len(measured.words),
    "shortest_mean": lambda measured: measured.mean_word,
    "alphabetic": lambda measured: measured.alphabetic,
    "stop_words": lambda measured: measured.stop_words,
    "closed_lines": lambda measured: measured.per_line(lambda line: line.endswith(ENDINGS)),
}
_MOST: dict[str, Callable[[_Measured], float]] = {
    "most_words": lambda measured: len(measured.words),
    "longest_mean": lambda measured: measured.mean_word,
    "symbols": lambda measured: measured.symbols,
    "bullets": lambda measured: measured.per_line(lambda line: line.startswith(BULLETS)),
    "ellipses": lambda measured: measured.per_line(lambda line: line.endswith(ELLIPSES)),
    "repeated_lines": lambda measured: measured.repeated_lines,
    "repeated_line_characters": lambda measured: measured.repeated_line_characters,
}
