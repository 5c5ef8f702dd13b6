"""Which blocks a token passes through, and how deep: conditional computation.

A depth choice builds what carries the residual stream through the blocks (`architectures.travel`). What it promises
about generation it says (`caches`), and whether it parts the tokens of a sequence, so that some do not see others in a
block (`parts`); one whose training draws random numbers says that too (`draws`).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from architectures.component import Component, Shape
from architectures.layerskip import LayerSkip
from architectures.mixture import MixtureOfDepths
from architectures.travel import DepthModule


class FullDepth(Component):
    """Every token passes through every block."""

    kind: Literal["full"] = "full"
    caches: ClassVar[bool] = True
    parts: ClassVar[bool] = False

    def build(self, shape: Shape) -> DepthModule:
        """Build the way through the blocks."""
        return DepthModule()

    def shares(self, layers: int, time: int, *, training: bool) -> list[float]:
        """Return, for every block, the share of tokens that pass through it.

        Args:
            layers: Blocks in the model.
            time: Positions of a sequence.
            training: Whether in training, on average over it, or in evaluation.
        """
        return [1.0] * layers

    def readings(self, layers: int, *, training: bool) -> float:
        """Return how many predictions are made per token: more than one where earlier exits are trained."""
        return 1.0

    def flops(self, shape: Shape) -> float:
        """Return the forward FLOPs per token of deciding who passes where."""
        return 0.0


Depth = Annotated[FullDepth | MixtureOfDepths | LayerSkip, Field(discriminator="kind")]
