"""Compressibility as a cheap score: text that repeats itself compresses far, noise hardly at all."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Sequence
from typing import Literal, Self

import numpy as np
from pydantic import model_validator

from workbench.data.corpora import Document
from workbench.data.filters.decision import Decision, Rule, decided, lowest
from workbench.identity import setting


class Compression(Rule):
    """Keep documents by the size of their compressed text over the size of their text, both in bytes.

    The view of language models as compressors is arXiv:2309.10668. Short texts compress less than long ones, so compare
    documents of about one length (`passages` of the data). Each document is compressed by itself: whether it is kept
    between bounds depends on its text alone.

    Attributes:
        compressor: "zlib" (a window of 32 kB, level 9) or "lzma" (slower, whole documents).
        low: Drop documents that compress to less than this share.
        high: Drop documents that compress to more than this share.
        middle: Keep this share of the documents, those nearest to the median ratio; instead of bounds.
    """

    kind: Literal["compression"] = "compression"
    compressor: Literal["zlib", "lzma"] = setting(default="zlib")
    low: float | None = setting(default=None, ge=0)
    high: float | None = setting(default=None, gt=0)
    middle: float | None = setting(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _bounds_or_a_share(self) -> Self:
        bounded = self.low is not None or self.high is not None
        if bounded == (self.middle is not None):
            raise ValueError("expected bounds (low, high or both) or middle, the share that is kept; one of the two")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"expected low below high, got {self.low:g} and {self.high:g}")
        return self

    def decide(self, documents: Sequence[Document]) -> Decision:
        """Keep documents whose ratio lies between the bounds, or nearest to the median."""
        ratio = np.array([self._ratio(document.text.encode()) for document in documents], dtype=np.float64)
        if self.middle is not None:
            from_median = np.abs(ratio - np.median(ratio)) if len(ratio) else ratio
            return decided(lowest(from_median, self.middle, documents), ratio, "far from the median ratio")
        low = np.zeros(len(ratio), dtype=bool) if self.low is None else ratio < self.low
        high = np.zeros(len(ratio), dtype=bool) if self.high is None else ratio > self.high
        reasons = [("ratio below low",) if one else ("ratio above high",) for one in low.tolist()]
        keep = ~(low | high)
        return Decision(
            keep, ratio, tuple(() if kept else why for kept, why in zip(keep.tolist(), reasons, strict=True))
        )

    def _ratio(self, raw: bytes) -> float:
        return len(_COMPRESSORS[self.compressor](raw)) / len(raw) if raw else 1.0


def _lzma(raw: bytes) -> bytes:
    dictionary = max(len(raw), 4096)  # no larger than the text: setting up the usual 8 MB takes longer than compressing
    return lzma.compress(
        raw, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": dictionary}]
    )


_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {"zlib": lambda raw: zlib.compress(raw, 9), "lzma": _lzma}
