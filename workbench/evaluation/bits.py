"""Bits per byte of held-out documents, by strided windows.

Promises that every token of a passage is scored exactly once, the first from end_of_text, and that a passage's bytes
are those of its UTF-8 text, so that models with different tokenizers are asked the same. The weighted mean over
documents is the ratio of all bits to all bytes. Every view of a model is asked about the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from workbench.data.corpora import Document
from workbench.data.prepared import Prepared
from workbench.errors import DataError
from workbench.evaluation.asking import Asked
from workbench.evaluation.scoring import Answers, Score
from workbench.evaluation.tasks import BitsPerByte, View
from workbench.seeds import seed_for


class Window(NamedTuple):
    """Targets `start` to `stop` go through the model together; those from `scored` on count."""

    start: int
    stop: int
    scored: int


class Passage(NamedTuple):
    """The beginning of a held-out document.

    Attributes:
        name: Of the document.
        size: Bytes.
        tokens: After an end_of_text, int64[tokens + 1].
        windows: That cover it.
        source: Of a mixture; empty where there is none.
        beside: Whether it is asked about for its source only, and not in other views.
    """

    name: str
    size: int
    tokens: np.ndarray
    windows: tuple[Window, ...]
    source: str = ""
    beside: bool = False


def draw(task: BitsPerByte, prepared: Prepared, context: int) -> list[Passage]:
    """Return the passages that the task asks about: up to `documents` held-out ones, drawn by a hash of their text.

    Where the task asks about sources too, as many of each; those that are not among the former come after them.

    Raises:
        DataError: if the stride exceeds the context, which would leave tokens out, if no passage fills a longer
            context that the task asks about, or no document of a source is held out.
    """
    if task.stride and task.stride > context:
        raise DataError(
            "windows would leave tokens out",
            where="evaluation.tasks.bits_per_byte.stride",
            expected=f"at most the context, {context}",
            got=task.stride,
        )
    drawn = sorted(prepared.held_out, key=lambda document: seed_for(0, f"evaluation/bits_per_byte/{document.hash}"))
    total = len(drawn[: task.documents])
    drawn = drawn[:total] + _of_sources(task, drawn)
    texts = [_beginning(document, task.bytes_per_document) for document in drawn]
    passages: list[Passage] = []
    for document, text, tokens in zip(drawn, texts, prepared.tokenizer.encode_batch(texts), strict=True):
        sequence = prepared.tokenizer.begun(tokens)
        beside = len(passages) >= total
        passages.append(Passage(document.name, len(text.encode()), sequence, (), document.source, beside))
    _refuse_unfilled(task, passages[:total], context)
    return spread(task, passages, context)


def _of_sources(task: BitsPerByte, drawn: list[Document]) -> list[Document]:
    """Return the documents that are asked about for their source and not among the first that are drawn anyway."""
    found: list[Document] = []
    for source in task.sources:
        held = [document for document in drawn if document.source == source]
        if not held:
            raise DataError(
                "no document of a source is held out",
                where=f"evaluation.tasks.bits_per_byte.sources.{source}",
                expected="at least one held-out document",
                got=f"none of {len(drawn)} documents",
                fix="raise data.held_out, give this source more documents, or leave it out of the task",
            )
        found += held[: task.documents]
    known = {document.name for document in drawn[: task.documents]}
    return [document for document in found if document.name not in known]


def spread(task: BitsPerByte, passages: list[Passage], context: int) -> list[Passage]:
    """Return the same passages with windows of `context` tokens, be it the training context or a longer one."""
    stride = task.stride or max(1, context * 3 // 4)
    return [passage._replace(windows=tuple(cover(len(passage.tokens) - 1, context, stride))) for passage in passages]


def ask(task: BitsPerByte, passages: list[Passage], view: View, asked: Asked) -> list[Score]:
    """Ask a model about the passages of a view, in windows as long as its context."""
    meant = [one for one in passages if (not one.beside if view.source is None else one.source == view.source)]
    seen = spread(task, meant, asked.context * view.multiple)
    return score(seen, asked.measure(sequences(seen), view))


def sequences(passages: list[Passage]) -> list[np.ndarray]:
    """Return what goes through the model: the tokens of every window, after the one before it."""
    return [passage.tokens[window.start : window.stop + 1] for passage in passages for window in passage.windows]


def score(passages: list[Passage], answers: Answers) -> list[Score]:
    """Return the bits per byte of each passage, weighted by its bytes; its document is its cluster.

    Where tokens left the model early, also how many blocks they passed through on average.
    """
    totals = {name: _totals(passages, measured) for name, measured in answers.items()}
    scores = []
    for number, passage in enumerate(passages):
        bits, count = float(totals["nats"][number]) / math.log(2), len(passage.tokens) - 1
        values = {"bits_per_byte": bits / passage.size}
        if "layers" in totals:
            values["layers"] = float(totals["layers"][number]) / max(1, count)
        scores += [
            Score(name, passage.name, passage.name, value, float(passage.size)) for name, value in values.items()
        ]
    return scores


def _totals(passages: list[Passage], measured: Sequence[np.ndarray]) -> list[float]:
    """Add up what was measured over the tokens of each passage, each of them in the one window that scores it."""
    by_window = iter(measured)
    return [
        sum(float(next(by_window)[window.scored - window.start :].sum(dtype=np.float64)) for window in passage.windows)
        for passage in passages
    ]


def _refuse_unfilled(task: BitsPerByte, passages: list[Passage], context: int) -> None:
    longest = max((len(passage.tokens) - 1 for passage in passages), default=0)
    for multiple in task.contexts:
        if passages and longest < multiple * context:
            raise DataError(
                f"no passage fills {multiple} times the training context",
                where="evaluation.tasks.bits_per_byte.contexts",
                expected=f"a passage of at least {multiple * context} tokens",
                got=f"{longest} in the longest of {len(passages)}",
                fix=f"raise bytes_per_document, give longer documents, or leave {multiple} out",
            )


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
