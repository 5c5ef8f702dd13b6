"""Mixture of depths: tokens that a router picks pass through a block, the others skip it (arXiv:2404.02258).

In training the router picks the best of a sequence, which no token can know about itself when it is generated. What is
evaluated is therefore a causal decision on the token alone, learned beside; how many pass is then up to the tokens.
Only those that pass are computed, in training and in evaluation.

Keys and values of a skipped block do not exist, so that there is no cache: generation recomputes. Refuses routing that
no block takes part in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from architectures.attention import Pass
from architectures.component import Component, MisfitError, Shape
from architectures.layers import Linear
from architectures.masks import Places
from architectures.travel import DepthModule, Step, Travelled


class PredictorModule(nn.Module):
    """A small feed-forward that predicts whether a token is among the best of its sequence."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.down = Linear(width, inner), Linear(inner, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (..., 1), of x, (..., width)."""
        return cast(Tensor, self.down(functional.silu(self.up(x))))


class MixtureOfDepthsModule(DepthModule):
    """Carries each token through the blocks whose router picks it, and through all blocks without one.

    Attributes:
        routers: By block index as text: width to one score, without bias.
        predictors: Likewise, what decides in evaluation; None where the routers do.
    """

    def __init__(self, specification: MixtureOfDepths, shape: Shape) -> None:
        super().__init__()
        self.specification = specification
        routed = [str(layer) for layer in specification.routed(shape.layers)]
        self.routers = nn.ModuleDict({layer: Linear(shape.width, 1, bias=False) for layer in routed})
        inner = predictor_width(shape.width)
        predicts = specification.router == "predictor"
        self.predictors = (
            nn.ModuleDict({layer: PredictorModule(shape.width, inner) for layer in routed}) if predicts else None
        )

    def forward(self, x: Tensor, step: Step, current: Pass, layers: int, progress: Tensor | None) -> Travelled:
        """Carry x, (batch, time, width), through the first `layers` blocks."""
        losses = []
        for layer in range(layers):
            if str(layer) not in self.routers:
                x = step(layer, x, current)
                continue
            scores, decisions = self.decide(layer, x)
            if self.training:
                picked = best(scores, self.specification.count(x.shape[1]))
                targets = torch.zeros_like(decisions).scatter(1, picked, 1.0)
                losses.append(functional.binary_cross_entropy_with_logits(decisions, targets))
                x = _routed(layer, x, step, current, scores, picked, None)
            else:
                picked, real = _deciding(decisions)
                x = _routed(layer, x, step, current, scores, picked, real) if picked.shape[1] else x
        loss = {"routing": self.specification.router_loss * torch.stack(losses).mean()} if losses else {}
        return Travelled(x, penalties=loss)

    def decide(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and decisions of a router on x, (batch, time, width).

        Returns:
            The score r of every token, and a logit that is above 0 where the token passes in evaluation; both float32
            (batch, time). A predictor's logit sends no gradient back to x.
        """
        # in float32 also where all else is not: equal scores have no order
        with torch.autocast(x.device.type, enabled=False):
            scores = self.routers[str(layer)](x.float()).squeeze(-1)
            if self.predictors is None:
                return scores, scores
            return scores, self.predictors[str(layer)](x.detach().float()).squeeze(-1)


def predictor_width(width: int) -> int:
    """Return the inner width of a predictor: a quarter of the model's (assumed; the paper says small)."""
    return max(1, width // 4)


def best(scores: Tensor, count: int) -> Tensor:
    """Return where the `count` highest scores of each sequence stand, int64 (batch, count), in order of time."""
    return scores.topk(count, dim=1, sorted=False).indices.sort(dim=1).values


def _deciding(decisions: Tensor) -> tuple[Tensor, Tensor]:
    """Return which tokens pass, in order of time, and which of them really do; the rest fill up short sequences."""
    passing = decisions > 0
    counts = passing.sum(dim=1)
    most = int(counts.max())
    picked = (~passing).to(torch.uint8).sort(dim=1, stable=True).indices[:, :most]
    return picked, torch.arange(most, device=decisions.device) < counts[:, None]


def _routed(
    layer: int, x: Tensor, step: Step, current: Pass, scores: Tensor, picked: Tensor, real: Tensor | None
) -> Tensor:
    """Pass picked tokens through a block, among themselves, and add score times what it changes (eq. 1)."""
    rows = picked[..., None].expand(-1, -1, x.shape[2])
    before = x.gather(1, rows)
    after = step(layer, before, _of_tokens(current, picked, real, x.shape[1]))
    change = (after - before) * scores.gather(1, picked)[..., None]
    if real is not None:
        change = change.masked_fill(~real[..., None], 0.0)
    return x.scatter_add(1, rows, change.to(x.dtype))


def _of_tokens(current: Pass, picked: Tensor, real: Tensor | None, time: int) -> Pass:
    """Return the pass of some tokens of every sequence, each at its own position.

    What fills up a sequence stands after all others, where a causal model does not see it.
    """
    plain = current.positions is None
    positions = picked
    if current.positions is not None:
        positions = current.positions.expand(len(picked), time).gather(1, picked)
    if real is not None:
        last = positions.amax() + 1 + torch.arange(picked.shape[1], device=picked.device)
        positions = torch.where(real, positions, last)
    documents = current.places.q_documents
    documents = None if documents is None else documents.gather(1, picked)
    places = Places(positions, positions, documents, documents, increasing=plain)
    return replace(current, positions=positions, places=places)


class MixtureOfDepths(Component):
    """A router per block picks the tokens that pass through it (Raposo et al. 2024, arXiv:2404.02258, eq. 1).

    With r = w x, a picked token leaves the block with x + r (block(x) - x), where the block sees picked tokens only;
    the others leave with x. Training picks the share `capacity` of each sequence with the highest r.

    Attributes:
        capacity: Share of the tokens of a sequence that pass in training; rounded, at least one token.
        every: Every so many blocks one is routed, counted from the first: 2 is every other one, the second first.
        router: What decides in evaluation (section 3.5). "auxiliary": r above 0, where a binary cross-entropy against
            what training picked moves the router itself to put them there. "predictor": a second, small network that
            learns the same and sends no gradient into the model.
        router_loss: Weight of that binary cross-entropy, averaged over tokens and routed blocks (assumed; the paper
            states none).
    """

    kind: Literal["mixture_of_depths"] = "mixture_of_depths"
    caches: ClassVar[bool] = False
    parts: ClassVar[bool] = True
    capacity: float = Field(0.125, gt=0, le=1, json_schema_extra={"effect": "training"})
    every: int = Field(2, gt=0)
    router: Literal["auxiliary", "predictor"] = "auxiliary"
    router_loss: float = Field(0.01, gt=0, json_schema_extra={"effect": "training"})

    def check(self, shape: Shape) -> None:
        """Refuse a model without a block that is routed."""
        if self.every > shape.layers:
            raise MisfitError(f"at most the {shape.layers} layers, or no block is routed", self.every, "every")

    def build(self, shape: Shape) -> DepthModule:
        """Build the way through the blocks."""
        return MixtureOfDepthsModule(self, shape)

    def routed(self, layers: int) -> range:
        """Return the blocks that have a router.

        >>> list(MixtureOfDepths(every=2).routed(5))
        [1, 3]
        """
        return range(self.every - 1, layers, self.every)

    def count(self, time: int) -> int:
        """Return how many tokens of a sequence of `time` pass through a routed block in training.

        >>> MixtureOfDepths(capacity=0.125).count(512), MixtureOfDepths(capacity=0.125).count(2)
        (64, 1)
        """
        return max(1, round(self.capacity * time))

    def shares(self, layers: int, time: int, *, training: bool) -> list[float]:
        """Return, for every block, the share of tokens that pass through it.

        Exact in training. In evaluation the tokens decide, and as many are meant to pass.
        """
        routed = self.routed(layers)
        return [self.count(time) / time if layer in routed else 1.0 for layer in range(layers)]

    def readings(self, layers: int, *, training: bool) -> float:
        """Return how many predictions are made per token."""
        return 1.0

    def flops(self, shape: Shape) -> float:
        """Return the forward FLOPs per token of routers and predictors."""
        inner = predictor_width(shape.width) if self.router == "predictor" else 0
        return 2.0 * len(self.routed(shape.layers)) * (shape.width + inner * (shape.width + 1))
