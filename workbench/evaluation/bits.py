"""Bits per byte of held-out documents, by strided windows.

Promises that every token of a passage is scored exactly once, the first from end_of_text, and that a passage's bytes
are those of its UTF-8 text, so that models with different tokenizers are asked the same. The weighted mean over
documents is the ratio of all bits to all bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from workbench.data.corpora import Document
from workbench.data.prepared import Prepared
from workbench.errors import DataError
from workbench.evaluation.scoring import Nats, Score
from workbench.evaluation.tasks import BitsPerByte
from workbench.seeds import seed_for


class Window(NamedTuple):
    """Targets `start` to `stop` go through the model together; those from `scored` on count."""

    start: int
    stop: int
    scored: int


class Passage(NamedTuple):
    """The beginning of a held-out document: its size in bytes, its tokens after an end_of_text (int64[tokens + 1])."""

    name: str
    size: int
    tokens: np.ndarray
    windows: tuple[Window, ...]


def draw(task: BitsPerByte, prepared: Prepared, context: int) -> list[Passage]:
    """Return the passages that the task asks about: up to `documents` held-out ones, drawn by a hash of their text.

    Raises:
        DataError: if the stride exceeds the context, which would leave tokens out.
    """
    stride = task.stride or max(1, context * 3 // 4)
    if stride > context:
        raise DataError(
            "windows would leave tokens out",
            where="evaluation.tasks.bits_per_byte.stride",
            expected=f"at most the context, {context}",
            got=stride,
        )
    drawn = sorted(prepared.held_out, key=lambda document: seed_for(0, f"evaluation/bits_per_byte/{document.hash}"))
    drawn = drawn[: task.documents]
    texts = [_beginning(document, task.bytes_per_document) for document in drawn]
    passages = []
    for document, text, tokens in zip(drawn, texts, prepared.tokenizer.encode_batch(texts), strict=True):
        sequence = np.concatenate([[prepared.tokenizer.end_of_text], tokens])
        windows = tuple(cover(len(tokens), context, stride))
        passages.append(Passage(document.name, len(text.encode()), sequence, windows))
    return passages


def score(passages: list[Passage], nats: Nats) -> list[Score]:
    """Return the bits per byte of each passage, weighted by its bytes; its document is its cluster."""
    costs = iter(
        nats([passage.tokens[window.start : window.stop + 1] for passage in passages for window in passage.windows])
    )
    scores = []
    for passage in passages:
        total = sum(
            float(next(costs)[window.scored - window.start :].sum(dtype=np.float64)) for window in passage.windows
        )
        bits = total / math.log(2)
        scores.append(Score("bits_per_byte", passage.name, passage.name, bits / passage.size, float(passage.size)))
    return scores


def cover(targets: int, context: int, stride: int) -> Iterator[Window]:
    """Cover `targets` tokens with windows of at most `context`, each scoring what no window before it has.

    The last window ends with the text and is as long as the others, rather than beginning where a stride would.
    """
    scored = 0
    while scored < targets:
        stop = min(targets, scored + stride if scored else context)
        start = max(0, stop - context)
        yield Window(start, stop, scored)
        scored = stop


def _beginning(document: Document, size: int) -> str:
    """Return at most `size` bytes of the text, cut between two characters."""
    return document.text.encode()[:size].decode(errors="ignore")
