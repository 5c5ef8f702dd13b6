"""Predictions before the last block: at one exit for all tokens, or at the first exit that is sure.

Both wrap a trained model and look like a language model to evaluation: they are called with a batch, return nats per
target, and switch between training and evaluation. Every architecture has an exit after each of its blocks; LayerSkip
(`architectures.layerskip`) trains them.

Refuses an exit that the model does not have, and to measure confidence in a model without logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from architectures.transformer import Batch, Output, Transformer

# Rows of logits that are in memory together.
TOGETHER = 1024


class Wrapped:
    """What evaluation asks of a model beside its answers, passed on to the one that is wrapped."""

    def __init__(self, model: Transformer) -> None:
        """Wrap a model, shared and not copied."""
        self.model = model

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""
        return self.model.training

    def train(self, mode: bool = True) -> Self:
        """Switch the model between training and evaluation mode."""
        self.model.train(mode)
        return self


class AtExit(Wrapped):
    """A model read after its first `exit` blocks; at the last exit it is the model itself."""

    def __init__(self, model: Transformer, exit: int) -> None:
        """Wrap a model.

        Args:
            model: The model, shared and not copied.
            exit: Blocks to pass through, from 1.

        Raises:
            ValueError: for an exit that the model does not have.
        """
        if not 1 <= exit <= len(model.blocks):
            raise ValueError(f"exit: expected 1 to {len(model.blocks)} blocks, got {exit}")
        super().__init__(model)
        self.exit = exit

    def __call__(self, batch: Batch) -> Output:
        """Compute hidden states after the exit and the last norm."""
        output: Output = self.model(batch, exit=self.exit)
        return output

    def nats(self, output: Output, batch: Batch) -> Tensor:
        """Return the cross-entropy of every target in nats, float32 (batch, time), unweighted."""
        return self.model.nats(output, batch)

    def logits(self, hidden: Tensor) -> Tensor:
        """Map hidden states, (..., width), to logits, (..., vocabulary), where the model has them."""
        return self.model.logits(hidden)


@dataclass(frozen=True)
class Departures:
    """Where every token left a model.

    Attributes:
        hidden: Hidden states at the exit of each token, after the last norm, (batch, time, width).
        layers: int64 (batch, time): blocks before that exit.
    """

    hidden: Tensor
    layers: Tensor


class Confident(Wrapped):
    """A model that each token leaves at the first exit whose largest probability exceeds a threshold.

    Only what is predicted after a token changes: its keys and values in later blocks, which later tokens attend to, are
    those of the full depth. A generator that really stops early has to make them up (state propagation: Schuster et
    al. 2022, arXiv:2207.07061, section 3.2) and may be worse than what is measured here. The time it takes to find the
    largest probability at every exit is no part of `layers` either. Where a depth choice lets tokens skip blocks, the
    skipped ones count.

    One pass through the model is made per exit until every token has left.
    """

    def __init__(self, model: Transformer, threshold: float) -> None:
        """Wrap a model.

        Args:
            model: The model, shared and not copied.
            threshold: From 0, at which all leave at the first exit, to 1, at which none leaves early.

        Raises:
            ValueError: for a threshold that is no probability, or a model without logits.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold: expected a probability from 0 to 1, got {threshold}")
        if not model.head.has_logits:
            got = type(model.head).__name__
            raise ValueError(f"model: expected one with logits, whose largest probability is its confidence, got {got}")
        super().__init__(model)
        self.threshold = threshold

    def __call__(self, batch: Batch) -> Departures:
        """Find where every token leaves, and with which hidden states."""
        last = len(self.model.blocks)
        layers = torch.full_like(batch.tokens, last)
        inside = torch.ones_like(batch.tokens, dtype=torch.bool)
        left = None
        for exit in range(1, last):
            hidden = self.model(batch, exit=exit).hidden
            leaving = inside.clone()
            leaving[inside] = self._confidence(hidden[inside]) > self.threshold
            layers[leaving] = exit
            left = hidden if left is None else torch.where(inside[..., None], hidden, left)
            inside = inside & ~leaving
            if not inside.any():
                return Departures(left, layers)
        hidden = self.model(batch).hidden
        return Departures(hidden if left is None else torch.where(inside[..., None], hidden, left), layers)

    def nats(self, output: Departures, batch: Batch) -> Tensor:
        """Return the cross-entropy of every target at the exit of its token, in nats, float32 (batch, time)."""
        return self.model.nats(Output(output.hidden), batch)

    def layers(self, output: Departures, batch: Batch) -> Tensor:
        """Return the number of blocks that each token passed, float32 (batch, time)."""
        return output.layers.float()

    def _confidence(self, rows: Tensor) -> Tensor:
        """Return the largest probability after each of rows, (tokens, width)."""
        pieces = [self.model.logits(some).float() for some in torch.split(rows, TOGETHER)]
        return torch.cat([(logits.amax(-1) - logits.logsumexp(-1)).exp() for logits in pieces])
