"""Pace: how many sequences every step of a stage reads, so that the budget of tokens is spent exactly once.

A step is addressed by the number of its first sequence and never by itself, so that arms with other batches read the
same text in the same order. Refuses a warmup that would shrink the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from workbench.identity import Spec, setting

CURVE_POINTS = 100


class BatchWarmup(Spec):
    """The batch grows over the first tokens of a run, as LokiLM's did over a tenth of its budget.

    Attributes:
        start: Sequences in the first step.
        share: Of the budget in tokens, after which the batch is whole.
        shape: "linear" in the tokens read; "doubling" keeps to start times powers of two, each for as many tokens.
    """

    start: int = setting(default=1, effect="training", gt=0)
    share: float = setting(default=0.1, effect="training", gt=0, le=1)
    shape: Literal["linear", "doubling"] = setting(default="linear", effect="training")

    def size(self, spent: float, batch: int) -> int:
        """Return the sequences of the step that begins after `spent` of the budget, a share from 0 to 1."""
        progress = spent / self.share
        if progress >= 1:
            return batch
        if self.shape == "linear":
            return self.start + math.floor((batch - self.start) * progress)
        doublings = math.ceil(math.log2(batch / self.start))
        return min(batch, self.start << math.floor(doublings * progress))


@dataclass(frozen=True)
class Pace:
    """The steps of one stage.

    Attributes:
        firsts: int64 (steps + 1,): the number of the first sequence of every step; the last entry is how many there
            are.
        context: Tokens per sequence.
    """

    firsts: np.ndarray
    context: int

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole stage."""
        return len(self.firsts) - 1

    @property
    def tokens(self) -> int:
        """Targets of the whole stage: the budget, rounded up to whole steps."""
        return int(self.firsts[-1]) * self.context

    def first(self, step: int) -> int:
        """Return the number of the first sequence of `step` (0-based); of `steps`, how many sequences there are."""
        return int(self.firsts[step])

    def size(self, step: int) -> int:
        """Return the sequences of `step`."""
        return int(self.firsts[step + 1] - self.firsts[step])


def curve_interval(steps: int) -> int:
    """Return how many steps lie between two points of the learning curve of a run."""
    return max(1, steps // CURVE_POINTS)


def pace(tokens: int, batch: int, context: int, warmup: BatchWarmup | None = None) -> Pace:
    """Return the steps that spend a budget of `tokens` at `batch` sequences of `context` tokens a step.

    With a warmup as many sequences are read as without one; the last step may be smaller for it.
    """
    steps = math.ceil(tokens / (batch * context))
    if warmup is None:
        return Pace(np.arange(steps + 1, dtype=np.int64) * batch, context)
    firsts, end = [0], steps * batch
    while (read := firsts[-1]) < end:
        firsts.append(min(end, read + warmup.size(read * context / tokens, batch)))
    return Pace(np.array(firsts, np.int64), context)
