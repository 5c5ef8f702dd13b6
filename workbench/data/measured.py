"""What a tokenizer does to a text, measured on the text itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from workbench.data.tokenizer import Tokenizer
from workbench.errors import DataError


@dataclass(frozen=True)
class Measured:
    """A text under a tokenizer.

    Attributes:
        bytes: Of the text in UTF-8.
        tokens: Without end_of_text.
        distinct: How many different ones.
        lossless: Whether the tokens give the text back, byte for byte.
    """

    bytes: int
    tokens: int
    distinct: int
    lossless: bool

    @property
    def bytes_per_token(self) -> float:
        """Bytes that a token stands for on average; 0 for no text."""
        return self.bytes / max(self.tokens, 1)


def measure(tokenizer: Tokenizer, texts: Iterable[str]) -> Measured:
    """Measure a tokenizer on documents.

    Raises:
        DataError: if there is no text.
    """
    held = list(texts)
    encoded = tokenizer.encode_batch(held)
    size = sum(len(text.encode()) for text in held)
    if not size:
        raise DataError("there is no text to measure a tokenizer on", expected="at least one byte", got="none")
    lossless = all(tokenizer.decode(tokens) == text for tokens, text in zip(encoded, held, strict=True))
    return Measured(size, sum(map(len, encoded)), len(np.unique(np.concatenate(encoded))), lossless)
