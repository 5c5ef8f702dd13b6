"""Token files: documents as tokens, one after the other, written once and mapped into memory.

Promises the tokens that encoding every document by itself gives, whatever is encoded at the same time, and memory for
no more than a few batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workbench.data.building import Pace, Report
from workbench.data.documents import Document
from workbench.data.shelves import size_of
from workbench.data.tokenizer import Tokenizer

ENCODED_AT_ONCE = 1_000_000  # characters: four such batches are in memory, each ten times as large as its text


@dataclass(frozen=True)
class TokenFile:
    """Tokenised documents, one after the other, each followed by end_of_text.

    Attributes:
        tokens: uint16[tokens] or uint32[tokens], memory-mapped.
        offsets: int64[documents + 1]; document d is `tokens[offsets[d]:offsets[d + 1]]`.
        hashes: SHA-256 of each document's text, uint8[documents, 32].
        sources: Which source of a mixture each document belongs to, uint8[documents]; None where there is no mixture.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    hashes: np.ndarray
    sources: np.ndarray | None = None


class Written(NamedTuple):
    """What was written, per document.

    Attributes:
        lengths: Tokens, end_of_text included, int64[documents].
        sizes: UTF-8 bytes of text, int64[documents].
        sources: Number of its source among those that were named, uint8[documents]; 0 where none was.
    """

    lengths: np.ndarray
    sizes: np.ndarray
    sources: np.ndarray


def write_tokens(
    folder: Path, documents: Sequence[Document], tokenizer: Tokenizer, sources: tuple[str, ...], report: Report
) -> Written:
    """Write tokens.bin, offsets.npy, hashes.npy and, where sources are named, sources.npy.

    Args:
        folder: Where.
        documents: Each is encoded by itself and followed by an end_of_text.
        tokenizer: With `width_of` its vocabulary per token.
        sources: Names of the sources of a mixture; nothing where there is none.
        report: Told how far it has got.
    """
    hashes, lengths, sizes, numbers = bytearray(), list[int](), list[int](), list[int]()
    known = {name: number for number, name in enumerate(sources)}
    pace = Pace(report, "encoded {} of the training text", total=size_of(documents))
    done = 0
    with open(folder / "tokens.bin", "wb") as handle:
        for batch, encoded in _encoded(documents, tokenizer):
            for document, tokens in zip(batch, encoded, strict=True):
                handle.write(tokens.data)
                lengths.append(len(tokens))
                sizes.append(len(document.text.encode()))
                hashes += bytes.fromhex(document.hash)
                numbers.append(known.get(document.source, 0))
                done += sizes[-1]
            pace.reached(done)
    pace.ended(done)
    written = Written(np.array(lengths, np.int64), np.array(sizes, np.int64), np.array(numbers, np.uint8))
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(written.lengths)]).astype(np.int64))
    np.save(folder / "hashes.npy", np.frombuffer(bytes(hashes), np.uint8).reshape(-1, 32))
    if sources:
        np.save(folder / "sources.npy", written.sources)
    return written


def read_tokens(folder: Path, tokens: int, vocabulary: int, *, sources: bool) -> TokenFile:
    """Map what `write_tokens` wrote into memory.

    Raises:
        OSError: if a file is missing.
        ValueError: if one is damaged.
    """
    width = width_of(vocabulary)
    found = np.empty(0, width)
    if tokens:
        found = np.memmap(folder / "tokens.bin", width, mode="r", shape=(tokens,))
    offsets, hashes = np.load(folder / "offsets.npy"), np.load(folder / "hashes.npy")
    return TokenFile(found, offsets, hashes, np.load(folder / "sources.npy") if sources else None)


def width_of(vocabulary: int) -> type[np.unsignedinteger[Any]]:
    """Return the type that holds a token: two bytes as long as they suffice."""
    return np.uint16 if vocabulary <= 2**16 else np.uint32


def _encoded(documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[tuple[list[Document], list[np.ndarray]]]:
    """Yield batches of documents with their tokens, in order; the next ones are encoded meanwhile."""

    def encode(batch: list[Document]) -> list[np.ndarray]:
        width, end = width_of(tokenizer.vocabulary), tokenizer.end_of_text
        encoded = tokenizer.encode_batch([document.text for document in batch])
        return [np.append(tokens, end).astype(width) for tokens in encoded]

    waiting: deque[tuple[list[Document], Future[list[np.ndarray]]]] = deque()
    # two threads: while one turns what the library found into arrays, the library encodes for the other
    with ThreadPoolExecutor(2) as pool:
        for batch in batches(documents):
            waiting.append((batch, pool.submit(encode, batch)))
            if len(waiting) > 2:
                ready, encoded = waiting.popleft()
                yield ready, encoded.result()
        for ready, encoded in waiting:
            yield ready, encoded.result()


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Cut documents into runs of about `ENCODED_AT_ONCE` characters."""
    held, size = list[Document](), 0
    for document in documents:
        held.append(document)
        size += len(document.text)
        if size >= ENCODED_AT_ONCE:
            yield held
            held, size = [], 0
    if held:
        yield held
