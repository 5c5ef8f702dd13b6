"""Ready architectures."""

from __future__ import annotations

from architectures.attention import MultiHead
from architectures.feedforward import Gelu
from architectures.positions import Rotary
from architectures.transformer import Architecture


def tiny() -> Architecture:
    """Return the quickstart's model: 0.56 million parameters, trains in seconds on one CPU core.

    Its GELU feed-forward of width 384 has exactly the parameters of a SwiGLU of width 256.
    """
    return Architecture(
        width=128,
        layers=2,
        context=128,
        vocabulary=2048,
        position=Rotary(),
        attention=MultiHead(heads=4),
        feed_forward=Gelu(width=384),
    )
