"""Torch's own layers, born unset: where parameters start is the business of `initialisation`.

Torch's constructors draw from its global generator. On the meta device that draw has no effect, but it makes torch
import its compiler: two seconds at the start of every process, which these save.
"""

from __future__ import annotations

from torch import nn


class Linear(nn.Linear):
    """A linear layer that does not draw its first values."""

    def reset_parameters(self) -> None:
        """Leave the parameters unset."""


class TokenTable(nn.Embedding):
    """An embedding table that does not draw its first values."""

    def reset_parameters(self) -> None:
        """Leave the parameters unset."""
