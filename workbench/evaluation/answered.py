"""Bits per byte of held-out answers, each given its prompt.

Promises items that follow from the file of examples alone, none of which fine-tuning on that file has seen, and that an
answer is scored in the words of the template it is trained in, its end_of_text included. Leaves out examples that do
not fit the context, rather than truncate them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from workbench.data.answers import read_answers
from workbench.data.prepared import Prepared
from workbench.errors import DataError
from workbench.evaluation.asking import Asked
from workbench.evaluation.scoring import Answers, Score
from workbench.evaluation.tasks import HeldOutAnswers, View
from workbench.seeds import seed_for


class Answered(NamedTuple):
    """One example after an end_of_text, int64[tokens + 1]; which tokens are its answers, and their size in bytes."""

    name: str
    tokens: np.ndarray
    scored: np.ndarray
    size: int


def draw(task: HeldOutAnswers, prepared: Prepared, context: int) -> list[Answered]:
    """Return up to `items` held-out examples, drawn by a hash of what is said; each is named by its line.

    Raises:
        DataError: if the file of examples cannot be used, or no held-out one fits the context.
    """
    examples = read_answers(task.answers, prepared.tokenizer).held_out
    hashes = [row.tobytes().hex() for row in examples.hashes]
    order = sorted(range(len(hashes)), key=lambda row: seed_for(0, f"evaluation/answers/{hashes[row]}"))
    fitting = [row for row in order if examples.lengths[row] <= context]
    if not fitting:
        raise DataError(
            "no held-out example can be asked about",
            where="evaluation.tasks.answers",
            expected=f"at least one of at most {context} tokens",
            got=f"none among {len(order)} that are held out",
            fix="raise answers.held_out, give more examples, or use a longer context",
        )
    drawn = []
    for row in fitting[: task.items]:
        span = slice(examples.offsets[row], examples.offsets[row + 1])
        tokens = np.append(examples.end_of_text, examples.tokens[span])
        drawn.append(Answered(str(examples.lines[row]), tokens, examples.scored[span], int(examples.sizes[row])))
    return drawn


def ask(task: HeldOutAnswers, items: list[Answered], view: View, asked: Asked) -> list[Score]:
    """Ask a model about the answers."""
    return score(items, asked.measure(sequences(items), view))


def sequences(items: list[Answered]) -> list[np.ndarray]:
    """Return what goes through the model: every example."""
    return [item.tokens for item in items]


def score(items: list[Answered], answers: Answers) -> list[Score]:
    """Return the bits per byte of the answers of each example, weighted by their bytes."""
    return [
        Score(
            "answer_bits_per_byte",
            item.name,
            item.name,
            float(nats[item.scored].sum(dtype=np.float64)) / math.log(2) / item.size,
            float(item.size),
        )
        for item, nats in zip(items, answers["nats"], strict=True)
    ]
