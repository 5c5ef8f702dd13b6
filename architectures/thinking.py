"""Extra positions between the tokens, in which a model computes before it must answer.

A thinking choice says how a sequence is laid out with such positions and what stands in them. The rest of the model
sees a longer sequence; predictions are read at one position per token, so that a model still returns nats per token,
and costs are told per token. An extra position belongs to the document of the token before it. Positions, and with
them the window of an attention, count every position, extra ones included.

Refuses a way of thinking that adds nothing at the training context.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from architectures.component import Component, MisfitError, Shape
from architectures.constants import constant
from architectures.layers import TokenTable


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a sequence of `time` stand among the positions of the longer one.

    Attributes:
        source: int64 (positions,): the token that a position holds, or the last one before it.
        read: int64 (time,): the position at which the prediction after each token is read.
        extra: bool (positions,): whether a position is no token.
    """

    source: Tensor
    read: Tensor
    extra: Tensor


class ThinkingModule(nn.Module):
    """No extra positions; the base of other ways."""

    def layout(self, time: int, like: Tensor) -> Layout | None:
        """Lay out a sequence of `time` tokens, on the device of `like`; None where nothing is added."""
        return None

    def spread(self, x: Tensor, layout: Layout) -> Tensor:
        """Put embedded tokens x, (batch, time, width), at their positions and fill the others."""
        return x[:, layout.source]


class NoThinking(Component):
    """Tokens only."""

    kind: Literal["none"] = "none"

    def build(self, shape: Shape) -> ThinkingModule:
        """Build the way of thinking."""
        return ThinkingModule()

    def extended(self, time: int) -> int:
        """Return how many positions a sequence of `time` tokens takes."""
        return time


class PauseTokensModule(ThinkingModule):
    """Extra positions after some tokens, at which the prediction after such a token is read.

    Attributes:
        pause: One row, what stands at every extra position; None where that is the token before, once more.
    """

    def __init__(self, shape: Shape, count: int, every: int, *, learned: bool, random: bool) -> None:
        super().__init__()
        self.count, self.every, self.random = count, every, random
        self.pause = TokenTable(1, shape.width) if learned else None

    def layout(self, time: int, like: Tensor) -> Layout | None:
        """Lay out a sequence of `time` tokens; in training, where places are random, by a draw for the whole batch."""
        if self.random and self.training:
            chosen = torch.randperm(time, device=like.device)[: time // self.every]
            return _laid_out(time, chosen, self.count)
        return _constant_regular(time, self.count, self.every, like.device)

    def spread(self, x: Tensor, layout: Layout) -> Tensor:
        """Put embedded tokens x, (batch, time, width), at their positions and fill the others."""
        spread = x[:, layout.source]
        if self.pause is None:
            return spread
        return torch.where(layout.extra[:, None], self.pause.weight.to(x.dtype), spread)


@functools.lru_cache(maxsize=16)
def _regular(time: int, count: int, every: int, device: torch.device) -> Layout:
    # Made under inference_mode, it could not be used by a later backward pass.
    with torch.inference_mode(False):
        return _laid_out(time, torch.arange(every - 1, max(time, every - 1), every, device=device), count)


_constant_regular = constant(_regular)


def _laid_out(time: int, chosen: Tensor, count: int) -> Layout:
    """Return the layout with `count` extra positions after each of the chosen tokens, int64 (places,), all distinct."""
    device = chosen.device
    sizes = torch.ones(time, dtype=torch.int64, device=device).index_fill(0, chosen, 1 + count)
    read = sizes.cumsum(0) - 1
    positions = time + count * len(chosen)
    source = torch.repeat_interleave(torch.arange(time, device=device), sizes, output_size=positions)
    own = read - sizes + 1
    extra = torch.ones(positions, dtype=torch.bool, device=device).index_fill(0, own, False)
    return Layout(source, read, extra)


class PauseTokens(Component):
    """Positions without a token of the text, to compute in before answering (Goyal et al. 2023, arXiv:2310.02226).

    After every `every`-th token of a sequence stand `count` extra positions. The prediction after such a token is read
    at the last of them, every other one at its token; nothing is predicted at an extra position otherwise.

    Attributes:
        count: Extra positions in one place.
        every: Tokens from one place to the next.
        content: What stands there: one trained vector, the same everywhere ("learned", the paper's pause token), or the
            embedding of the token before once more ("repeat"), the control that costs the same FLOPs and has no
            parameter.
        placement: Where training puts as many places: as evaluation does ("regular"), or after tokens drawn at random
            in every step, the same for the sequences of a batch ("random"; the paper pretrains so, with places drawn
            for every sequence). Evaluation is always regular.
    """

    kind: Literal["pause_tokens"] = "pause_tokens"
    count: int = Field(1, gt=0)
    every: int = Field(1, gt=0)
    content: Literal["learned", "repeat"] = "learned"
    placement: Literal["regular", "random"] = Field("regular", json_schema_extra={"effect": "training"})

    @model_validator(mode="after")
    def _random_has_a_choice(self) -> Self:
        if self.placement == "random" and self.every == 1:
            raise ValueError("placement: expected regular where every is 1, as all tokens are chosen, got random")
        return self

    @property
    def draws(self) -> bool:
        """Whether a training step draws random numbers."""
        return self.placement == "random"

    @property
    def longest(self) -> int:
        """The most extra positions that stand together."""
        return self.count

    def check(self, shape: Shape) -> None:
        """Refuse places so far apart that a training sequence has none."""
        if self.every > shape.context:
            raise MisfitError(f"at most the context {shape.context}", self.every, "every")

    def build(self, shape: Shape) -> ThinkingModule:
        """Build the way of thinking."""
        learned, random = self.content == "learned", self.placement == "random"
        return PauseTokensModule(shape, self.count, self.every, learned=learned, random=random)

    def extended(self, time: int) -> int:
        """Return how many positions a sequence of `time` tokens takes."""
        return time + self.count * (time // self.every)


Thinking = Annotated[NoThinking | PauseTokens, Field(discriminator="kind")]
