"""Texts that filters can tell apart, the same on every machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.data.corpora import Document
from workbench.data.filters import QualityClassifier

SUBJECTS = ("the sea", "the moon", "a garden", "an engine", "the market", "a river", "the law", "a song")
WORDS = tuple(
    re.findall(
        r"\w+",
        "ship sail wind harbour tide salt star orbit crater dust rose soil bee seed steam piston wheel coal price coin "
        "trade grain bank flow stone fish court judge clause crime note chord verse drum the of and to with that",
    )
)


def passage(number: int, words: int = 90, width: int = 12) -> str:
    """Return a passage about one of a few subjects, the same for the same number."""
    drawn = hashlib.shake_256(str(number).encode()).digest(words)
    start = number % 4 * 8
    return " ".join(
        [
            f"Passage {number} about {SUBJECTS[number % 8]}.",
            *(WORDS[(start + byte % width) % 40] for byte in drawn),
        ]
    )


def documents(texts: Sequence[str], source: str = "") -> list[Document]:
    return [Document(str(place), text, source) for place, text in enumerate(texts)]


MANY = documents([passage(number) for number in range(120)])


PLAIN = (
    "It is a truth that a man of good fortune ought to be in want of a wife and of a house in the country. However "
    "little known his feelings may be on his first coming to such a place, this view is so well fixed in the minds of "
    "those who live near that he is held to be the property of some one or other of their daughters. We have walked."
)


def examples(folder: Path, **fields: Any) -> QualityClassifier:
    for name, remainder in (("good", 0), ("bad", 1)):
        texts = [passage(number) for number in range(200, 248) if number % 4 % 2 == remainder]
        (folder / f"{name}.txt").write_text("\n<|endoftext|>\n".join(texts))
    return QualityClassifier(good=str(folder / "good.txt"), bad=str(folder / "bad.txt"), **fields)
