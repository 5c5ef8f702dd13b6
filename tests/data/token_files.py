"""Token files in memory, for the tests of orders."""

from __future__ import annotations

import hashlib

import numpy as np

from workbench.data.token_files import TokenFile
from workbench.data.tokenizer import Tokenizer


def token_file(lengths: list[int], sources: list[int] | None = None) -> TokenFile:
    """Document d is d + 1, repeated, and a 0; its hash is that of its number."""
    documents = [[number + 1] * (length - 1) + [0] for number, length in enumerate(lengths)]
    hashes = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(len(lengths)))
    return TokenFile(
        tokens=np.array([token for document in documents for token in document], np.uint16),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        hashes=np.frombuffer(hashes, np.uint8).reshape(-1, 32),
        sources=None if sources is None else np.array(sources, np.uint8),
    )


def byte_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """Bytes of text that each id stands for, int64[vocabulary]."""
    return np.array([len(piece) for piece in tokenizer.spelling], np.int64)
