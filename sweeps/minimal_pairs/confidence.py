"""A metric of one's own: any function from an item and the model's answer to a number."""

from __future__ import annotations

import math

from workbench.data.items import Item


def brier(item: Item, log_probabilities: tuple[float, ...]) -> float:
    """Return the squared distance between what a model holds likely and what is true: 0 is certain and right, 2 wrong.

    Args:
        item: Which of whose choices are true.
        log_probabilities: Of its choices, in nats.
    """
    most = max(log_probabilities)
    held = [math.exp(one - most) for one in log_probabilities]
    return math.fsum((one / sum(held) - (number in item.truths)) ** 2 for number, one in enumerate(held))
