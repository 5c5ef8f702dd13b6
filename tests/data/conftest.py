"""Small corpora for the tests of data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from workbench.data.corpora import Files
from workbench.data.prepared import Data
from workbench.data.tokenizer import BytePairs

STORIES = [f"Story {n}: the old ship sailed over {n} calm seas, and {n * n} sailors sang of home." for n in range(40)]


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., Files]:
    """Write a corpus of separated documents, forty stories unless told otherwise, and return its declaration."""

    def write(texts: list[str] | None = None, name: str = "corpus.txt") -> Files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n<|endoftext|>\n".join(texts or STORIES), encoding="utf-8")
        return Files(path=str(path))

    return write


@pytest.fixture
def data(corpus: Callable[..., Files]) -> Data:
    """Forty stories, a small vocabulary, a quarter held out."""
    return Data(corpus=corpus(), tokenizer=BytePairs(vocabulary=300), held_out=0.25)
