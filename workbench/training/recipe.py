"""The recipe of a stage: how many tokens, in what batches, with which optimizer and schedule.

The budget is in tokens; steps follow from it. Every schedule is a plain function of progress and ends exactly where
it says.
"""

from __future__ import annotations

import math
from typing import Literal

from workbench.identity import Spec, setting


class AdamW(Spec):
    """AdamW (arXiv 1711.05101). Matrices decay, vectors (gains, biases) do not; the rule is by number of dimensions."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: float = setting(default=3e-3, effect="training", gt=0)
    betas: tuple[float, float] = setting(default=(0.9, 0.95), effect="training")
    epsilon: float = setting(default=1e-8, effect="training", gt=0)
    weight_decay: float = setting(default=0.1, effect="training", ge=0)


class Cosine(Spec):
    """Linear warmup, then half a cosine down to `floor` times the peak, reached at the last step (arXiv 1608.03983)."""

    kind: Literal["cosine"] = "cosine"
    warmup: float = setting(default=0.1, effect="training", ge=0, lt=1)
    floor: float = setting(default=0.1, effect="training", ge=0, le=1)

    def factor(self, step: int, steps: int) -> float:
        """Return the multiple of the peak learning rate at `step` of `steps` (0-based)."""
        rising = math.ceil(self.warmup * steps)
        if step < rising:
            return (step + 1) / rising
        progress = (step - rising) / max(1, steps - 1 - rising)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))


class Pretraining(Spec):
    """Next-token prediction on a stream of documents.

    Attributes:
        tokens: Budget; rounded up to whole steps.
        batch: Sequences per step, each of the architecture's context.
        clip: Global gradient norm above which gradients are scaled down.
        checkpoint_seconds: At most this much work is lost by a kill.
    """

    kind: Literal["pretraining"] = "pretraining"
    tokens: int = setting(default=204_800, effect="training", gt=0)
    batch: int = setting(default=8, effect="training", gt=0)
    optimizer: AdamW = AdamW()
    schedule: Cosine = Cosine()
    clip: float = setting(default=1.0, effect="training", gt=0)
    checkpoint_seconds: float = setting(default=20.0, effect="efficiency", gt=0)

    def steps(self, context: int) -> int:
        """Return the number of optimizer steps the budget buys at `context` tokens a sequence."""
        return math.ceil(self.tokens / (self.batch * context))


Stage = Pretraining
