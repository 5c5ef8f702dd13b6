"""From the log-probabilities of an item's choices to its scores.

Promises that ties are ties: of several choices that are equally likely each counts by its share, and none wins because
it stands first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np


def accuracy(scores: Sequence[float], truths: Collection[int]) -> float:
    """Return the share of true ones among the choices with the largest score: 1, 0, or between for a tie."""
    best = [number for number, score in enumerate(scores) if score == max(scores)]
    return sum(number in truths for number in best) / len(best)


def margin(log_probabilities: Sequence[float], truths: Collection[int]) -> float:
    """Return by how many nats the likeliest true choice is likelier than the likeliest other."""
    true = max(held for number, held in enumerate(log_probabilities) if number in truths)
    return true - max(held for number, held in enumerate(log_probabilities) if number not in truths)


def truth_log_probability(log_probabilities: Sequence[float], truths: Collection[int]) -> float:
    """Return the log-probability, in nats, that one of the true choices follows."""
    return float(np.logaddexp.reduce([log_probabilities[number] for number in truths]))


def truth_probability(log_probabilities: Sequence[float], truths: Collection[int]) -> float:
    """Return the probability of the true choices, where exactly one of the choices were to follow (a softmax).

    Of several truths this is the MC2 score of TruthfulQA (arXiv:2109.07958); of one, the probability of the correct
    choice (arXiv:2406.04391), which is smoother than accuracy where models are small.
    """
    held = np.exp(np.asarray(log_probabilities) - max(log_probabilities))
    return float(held[list(truths)].sum() / held.sum())
