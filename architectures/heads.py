"""`Head`: what turns hidden states into nats per target, whatever the targets are made of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

# The bytes of every token, by id; empty for end_of_text and for ids that were never learned.
Spelling = Sequence[bytes]


class Head(nn.Module):
    """Turns hidden states into the cost of targets; the base of every head."""

    has_logits: ClassVar[bool] = True

    @abstractmethod
    def nats(self, hidden: Tensor, targets: Tensor, embedding: nn.Module) -> Tensor:
        """Return the cross-entropy of every target in nats, float32 (batch, time), unweighted.

        Args:
            hidden: (batch, time, width).
            targets: int64 (batch, time).
            embedding: The model's embedding, lent.
        """

    def logits(self, hidden: Tensor, embedding: nn.Module) -> Tensor:
        """Map hidden states, (..., width), to logits, (..., vocabulary).

        Raises:
            ValueError: for a head that has none.
        """
        raise ValueError(
            f"logits: expected a model over tokens (embedding: table), got {type(self).__name__}, which has none; "
            "use nats, which every model has"
        )

    def penalties(self, embedded: Tensor, tokens: Tensor, embedding: nn.Module) -> dict[str, Tensor]:
        """Return further terms of the training loss about the embedding itself, 0-dim and weighted, by name.

        Args:
            embedded: (batch, time, width), what the embedding made of `tokens`.
            tokens: int64 (batch, time).
            embedding: The model's embedding, lent.
        """
        return {}
