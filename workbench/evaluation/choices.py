"""Choices between a held-out sentence and a distractor made from it, by path probability.

Promises items that follow from the task and the corpus alone, a distractor of the same words, and ties that count half
(never a win for whichever came first). Leaves out sentences that do not fit the context, rather than truncate them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from workbench.data.corpora import Document
from workbench.data.prepared import Prepared
from workbench.evaluation.asking import Asked
from workbench.evaluation.scoring import Answers, Score
from workbench.evaluation.tasks import SwappedWords, View
from workbench.seeds import generator, seed_for

FEWEST_WORDS, MOST_WORDS = 6, 30


class Choice(NamedTuple):
    """A sentence and its distractor, each after an end_of_text, int64[tokens + 1]; the document is the cluster."""

    name: str
    document: str
    truth: np.ndarray
    distractor: np.ndarray


class _Sentence(NamedTuple):
    name: str
    document: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def stream(self) -> str:
        return f"evaluation/swapped_words/{hashlib.sha256(self.text.encode()).hexdigest()}"


def draw(task: SwappedWords, prepared: Prepared, context: int) -> list[Choice]:
    """Return up to `items` choices: sentences drawn by a hash of their text, a repeated sentence once."""
    distinct = {sentence.words: sentence for document in prepared.held_out for sentence in _sentences(document)}
    drawn = sorted(distinct.values(), key=lambda sentence: seed_for(0, sentence.stream))
    choices: list[Choice] = []
    while drawn and len(choices) < task.items:
        batch, drawn = drawn[: task.items], drawn[task.items :]
        texts = [text for sentence in batch for text in (sentence.text, _swap(sentence))]
        encoded = [prepared.tokenizer.begun(tokens) for tokens in prepared.tokenizer.encode_batch(texts)]
        for sentence, truth, distractor in zip(batch, encoded[::2], encoded[1::2], strict=True):
            if max(len(truth), len(distractor)) <= context + 1:
                choices.append(Choice(sentence.name, sentence.document, truth, distractor))
    return choices[: task.items]


def ask(task: SwappedWords, choices: list[Choice], view: View, asked: Asked) -> list[Score]:
    """Ask a model about the choices."""
    return score(choices, asked.measure(sequences(choices), view))


def sequences(choices: list[Choice]) -> list[np.ndarray]:
    """Return what goes through the model: sentence and distractor of every choice."""
    return [sequence for choice in choices for sequence in (choice.truth, choice.distractor)]


def score(choices: list[Choice], answers: Answers) -> list[Score]:
    """Return accuracy and margin (nats) of each choice."""
    totals = [float(cost.sum(dtype=np.float64)) for cost in answers["nats"]]
    scores = []
    for choice, truth, distractor in zip(choices, totals[::2], totals[1::2], strict=True):
        margin = distractor - truth
        scores.append(Score("accuracy", choice.name, choice.document, (np.sign(margin) + 1) / 2))
        scores.append(Score("margin", choice.name, choice.document, margin))
    return scores


def _sentences(document: Document) -> Iterator[_Sentence]:
    """Find sentences of 6 to 30 words in which two words can be swapped, white space normalised."""
    for number, text in enumerate(re.split(r"(?<=[.!?])\s+|\n\s*\n", document.text), start=1):
        words = tuple(text.split())
        whole = text[-1:] in (".", "!", "?") and not text[:1].islower()
        if whole and FEWEST_WORDS <= len(words) <= MOST_WORDS and _swappable(words):
            yield _Sentence(f"{document.name}#{number}", document.name, words)


def _swappable(words: tuple[str, ...]) -> list[int]:
    """Where a word and the next differ and are plain lower-case ones: capitals and commas would give the swap away."""
    plain = [word.isalpha() and word == word.lower() for word in words]
    return [k for k in range(1, len(words) - 2) if plain[k] and plain[k + 1] and words[k] != words[k + 1]]


def _swap(sentence: _Sentence) -> str:
    places = _swappable(sentence.words)
    place = places[generator(0, f"{sentence.stream}/position").integers(len(places))]
    words = list(sentence.words)
    words[place : place + 2] = words[place + 1], words[place]
    return " ".join(words)
