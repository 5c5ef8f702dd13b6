"""Items to search for, made by hand, and what a search finds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from workbench.data.overlap import SHORTEST, WORDS, Hit, Needles


class Asked(NamedTuple):
    name: str
    texts: tuple[str, ...]


def overlaps(documents: Iterable[str], items: Sequence[Asked], n: int = WORDS, shortest: int = SHORTEST) -> list[Hit]:
    return list(Needles(items, n, shortest).find(documents))
