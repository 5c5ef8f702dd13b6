"""How a block joins attention, feed-forward and their norms to the residual stream.

A residual choice is wiring, not a module: it names the norms that a block owns and connects what it is given. It
promises to use every norm it names, so that no parameter is left without a gradient. A norm in front of a sublayer, or
behind it where there is none in front, is called after it (`attention_norm`); one more behind it is its `output_norm`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from architectures.component import Component

Sublayer = Callable[[Tensor], Tensor]


class PreNorm(Component):
    """x + f(norm(x)), and one norm after the last block (Xiong et al. 2020, arXiv:2002.04745)."""

    kind: Literal["pre_norm"] = "pre_norm"
    norms: ClassVar[tuple[str, ...]] = ("attention_norm", "feed_forward_norm")
    final_norm: ClassVar[bool] = True

    def connect(self, x: Tensor, norms: Mapping[str, Sublayer], attention: Sublayer, feed_forward: Sublayer) -> Tensor:
        """Pass the residual stream x, (batch, time, width), through one block."""
        x = x + attention(norms["attention_norm"](x))
        return x + feed_forward(norms["feed_forward_norm"](x))


class PostNorm(Component):
    """norm(x + f(x)), and no norm after the last block (Vaswani et al. 2017, arXiv:1706.03762)."""

    kind: Literal["post_norm"] = "post_norm"
    norms: ClassVar[tuple[str, ...]] = ("attention_norm", "feed_forward_norm")
    final_norm: ClassVar[bool] = False

    def connect(self, x: Tensor, norms: Mapping[str, Sublayer], attention: Sublayer, feed_forward: Sublayer) -> Tensor:
        """Pass the residual stream x, (batch, time, width), through one block."""
        x = norms["attention_norm"](x + attention(x))
        return norms["feed_forward_norm"](x + feed_forward(x))


class Sandwich(Component):
    """x + norm(f(norm(x))), and one norm after the last block (Ding et al. 2021, CogView, arXiv:2105.13290)."""

    kind: Literal["sandwich"] = "sandwich"
    norms: ClassVar[tuple[str, ...]] = (
        "attention_norm",
        "attention_output_norm",
        "feed_forward_norm",
        "feed_forward_output_norm",
    )
    final_norm: ClassVar[bool] = True

    def connect(self, x: Tensor, norms: Mapping[str, Sublayer], attention: Sublayer, feed_forward: Sublayer) -> Tensor:
        """Pass the residual stream x, (batch, time, width), through one block."""
        x = x + norms["attention_output_norm"](attention(norms["attention_norm"](x)))
        return x + norms["feed_forward_output_norm"](feed_forward(norms["feed_forward_norm"](x)))


class Parallel(Component):
    """x + attention(norm(x)) + feed_forward(norm(x)), and one norm after the last block.

    Both sublayers read the same norm, as in GPT-J and PaLM (arXiv:2204.02311, section 2); a block has one norm fewer.
    """

    kind: Literal["parallel"] = "parallel"
    norms: ClassVar[tuple[str, ...]] = ("attention_norm",)
    final_norm: ClassVar[bool] = True

    def connect(self, x: Tensor, norms: Mapping[str, Sublayer], attention: Sublayer, feed_forward: Sublayer) -> Tensor:
        """Pass the residual stream x, (batch, time, width), through one block."""
        normalised = norms["attention_norm"](x)
        return x + attention(normalised) + feed_forward(normalised)


Residual = Annotated[PreNorm | PostNorm | Sandwich | Parallel, Field(discriminator="kind")]
