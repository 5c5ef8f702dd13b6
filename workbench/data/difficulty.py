"""What makes a document difficult: one number for each, from its tokens alone.

Promises that a document's difficulty does not depend on seeds or machines; only `Rarity` depends on the other documents
of the corpus. The end_of_text after a document is no part of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from workbench.identity import Spec

TOKENS_AT_ONCE = 2**24  # at 8 bytes each: what measuring needs of memory


class Length(Spec):
    """Tokens of the document (arXiv:1903.09848, section 2.1)."""

    kind: Literal["length"] = "length"


class Rarity(Spec):
    """Mean over its tokens of -log of how often each comes in the training documents, in nats.

    arXiv:1903.09848, section 2.1, has the sum; the mean is not another name for the length.
    """

    kind: Literal["rarity"] = "rarity"


class Compression(Spec):
    """Bytes that zlib's deflate (level 6) leaves of every UTF-8 byte: low for text that repeats itself.

    Short documents leave more, as there is little to repeat. Builds of Python with another deflate (zlib-ng) leave
    slightly different sizes, by which documents of nearly the same difficulty may change places.
    """

    kind: Literal["compression"] = "compression"


Difficulty = Annotated[Length | Rarity | Compression, Field(discriminator="kind")]


def difficulty(
    by: Length | Rarity | Compression, tokens: np.ndarray, offsets: np.ndarray, spelling: Sequence[bytes]
) -> np.ndarray:
    """Return how difficult every document is, float64[documents]; 0 for one without a token.

    Args:
        by: What makes it so.
        tokens: Of all documents, one after the other, each followed by end_of_text; int[tokens].
        offsets: Document d is `tokens[offsets[d]:offsets[d + 1]]`; int64[documents + 1].
        spelling: The bytes that each id stands for.
    """
    if isinstance(by, Length):
        return np.diff(offsets) - 1.0
    measured = _rarity(tokens, offsets) if isinstance(by, Rarity) else _compression(tokens, offsets, spelling)
    return np.concatenate([np.empty(0), *measured])


def _rarity(tokens: np.ndarray, offsets: np.ndarray) -> Iterator[np.ndarray]:
    counts = np.zeros(0, np.int64)
    for first, last in _parts(offsets):
        held = np.bincount(tokens[offsets[first] : offsets[last]])
        counts, smaller = (held, counts) if len(held) > len(counts) else (counts, held)
        counts[: len(smaller)] += smaller
    ends = len(offsets) - 1
    if ends:
        counts[int(tokens[offsets[1] - 1])] -= ends  # end_of_text ends every document, and says nothing of any
    rarity = -np.log(np.maximum(counts, 1) / max(counts.sum(), 1))
    for first, last in _parts(offsets):
        costs = rarity[tokens[offsets[first] : offsets[last]]]
        begins, lengths = offsets[first:last] - offsets[first], np.diff(offsets[first : last + 1])
        costs[begins + lengths - 1] = 0
        yield np.add.reduceat(costs, begins) / np.maximum(lengths - 1, 1)


def _compression(tokens: np.ndarray, offsets: np.ndarray, spelling: Sequence[bytes]) -> Iterator[np.ndarray]:
    spelled = spelling.__getitem__
    for first, last in _parts(offsets):
        held = np.asarray(tokens[offsets[first] : offsets[last]]).tolist()
        found = np.zeros(last - first)
        for document in range(first, last):
            begin, end = offsets[document] - offsets[first], offsets[document + 1] - offsets[first]
            text = b"".join(map(spelled, held[begin:end]))  # end_of_text is spelled by no byte
            if text:
                packed = zlib.compressobj(6, wbits=-15)
                found[document - first] = (len(packed.compress(text)) + len(packed.flush())) / len(text)
        yield found


def _parts(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut the documents into runs of about `TOKENS_AT_ONCE` tokens, each at least one document: (first, last + 1)."""
    first, documents = 0, len(offsets) - 1
    while first < documents:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + TOKENS_AT_ONCE, side="right")) - 1)
        yield first, last
        first = last
