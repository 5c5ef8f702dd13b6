"""What every kind of task has in common: its name, the views in which it is asked, and the metrics it leaves."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from workbench.identity import Spec


class Metric(NamedTuple):
    """How to read the values of one metric."""

    unit: str
    higher_is_better: bool


class View(NamedTuple):
    """One way of asking a trained model; without anything said, the whole model at its training context.

    Attributes:
        multiple: How many times the training context goes through the model together.
        exit: After how many blocks the prediction is read; None is all of them.
        confidence: Each token leaves at the first exit whose largest probability exceeds this; None is at the last.
        tokens: The model as it was after so many tokens of its last stage of training; None is as it is scored.
        source: Only held-out documents of this source of a mixture are asked about; None is any.
    """

    multiple: int = 1
    exit: int | None = None
    confidence: float | None = None
    tokens: int | None = None
    source: str | None = None

    @property
    def suffix(self) -> str:
        """What a metric's name ends with in this view: "@2x", "@exit=1", "@tokens=512", "@source=web", or nothing."""
        if self.source is not None:
            return f"@source={self.source}"
        if self.tokens is not None:
            return f"@tokens={self.tokens}"
        if self.exit is not None:
            return f"@exit={self.exit}"
        if self.confidence is not None:
            return f"@confidence={self.confidence:g}"
        return "" if self.multiple == 1 else f"@{self.multiple}x"

    def label(self, context: int) -> str:
        """Return what the scores call it: the context in tokens, the exit, or the confidence."""
        if self.exit is None and self.confidence is None and self.tokens is None and self.source is None:
            return f"context={context * self.multiple}"
        return self.suffix.removeprefix("@")


class Question(Spec):
    """What every kind of task has in common; each adds a `kind`, its `metrics` and what is asked."""

    metrics: ClassVar[dict[str, Metric]]
    kind: str

    @property
    def label(self) -> str:
        """What the scores call this task; everything that decides what its numbers mean has to be in it."""
        return self.kind

    @property
    def views(self) -> tuple[View, ...]:
        """The views in which it is asked, that of the training context first."""
        return (View(),)

    @property
    def produces(self) -> tuple[str, ...]:
        """The names of the metrics it leaves."""
        return tuple(self.metrics)

    def chance(self, metric: str) -> float | None:
        """Return what guessing scores on average; None where that depends on the items, or makes no sense."""
        return None

    @property
    def needs_logits(self) -> bool:
        """Whether it asks for the probability of every token, and not only for that of given text."""
        return False
