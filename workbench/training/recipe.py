"""The recipe of a stage: how many tokens, in what batches, with which optimizer and schedule.

The budget is in tokens; steps follow from it. Optimizers and schedules are choices of their own (`optimizers`,
`schedules`). A stage after training costs no tokens: it changes the trained weights by a rule, and what it starts from
is trained once for all arms that share it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Tag, model_validator
from torch import nn

from architectures.posthoc import Scope, prune, quantise
from workbench.data.order import Stream
from workbench.data.prepared import Prepared
from workbench.identity import Spec, added, setting
from workbench.records import Seeds
from workbench.training.feeding import Feed, StreamFeed
from workbench.training.objective import LabelSmoothing, Term, ZLoss
from workbench.training.optimizers import AdamW, Lion, Muon, Optimizer
from workbench.training.pace import BatchWarmup, Pace, pace
from workbench.training.schedules import Constant, Cosine, InverseSquareRoot, Linear, Schedule, WarmupStableDecay

__all__ = [
    "AdamW", "BatchWarmup", "Constant", "Cosine", "Int8", "InverseSquareRoot", "Linear", "Lion", "Muon", "Optimizer",
    "PostHoc", "Pretraining", "Pruning", "Schedule", "Stage", "Training", "WarmupStableDecay",
]  # fmt: skip


class Training(Spec, ABC):
    """What every stage that trains declares.

    Attributes:
        tokens: Budget; rounded up to whole steps.
        batch: Sequences per step, each of the architecture's context.
        clip: Global gradient norm above which gradients are scaled down.
        checkpoint_seconds: At most this much work is lost by a kill.
        microbatch: Sequences that pass through the model at once; a step accumulates the gradients of as many passes
            as its batch takes. None is the whole batch.
        batch_warmup: How the batch grows at the beginning; None is the whole batch from the first step on.
        z_loss: Weight of the mean square of log Z beside the loss; PaLM's is 1e-4.
        label_smoothing: Share of a target's probability that is spread over the vocabulary.
    """

    kind: str
    tokens: int = setting(default=204_800, effect="training", gt=0)
    batch: int = setting(default=8, effect="training", gt=0)
    optimizer: Optimizer = AdamW()
    schedule: Schedule = Cosine()
    clip: float = setting(default=1.0, effect="training", gt=0)
    checkpoint_seconds: float = setting(default=20.0, effect="efficiency", gt=0)
    microbatch: int | None = added(None, effect="training", gt=0)
    batch_warmup: BatchWarmup | None = added(None, effect="training")
    z_loss: float = added(0.0, effect="training", ge=0)
    label_smoothing: float = added(0.0, effect="training", ge=0, lt=1)

    @model_validator(mode="after")
    def _parts_fit_in_the_batch(self) -> Self:
        if self.microbatch is not None and self.microbatch > self.batch:
            raise ValueError(f"microbatch: expected at most batch {self.batch}, got {self.microbatch}")
        if self.batch_warmup is not None and self.batch_warmup.start >= self.batch:
            raise ValueError(f"batch_warmup.start: expected below batch {self.batch}, got {self.batch_warmup.start}")
        return self

    def pace(self, context: int) -> Pace:
        """Return the steps that the budget buys at `context` tokens a sequence."""
        return pace(self.tokens, self.batch, context, self.batch_warmup)

    @abstractmethod
    def feed(self, prepared: Prepared, seeds: Seeds, context: int) -> Feed:
        """Return what the stage reads, given the data of the configuration and the seeds of the run."""

    def terms(self) -> tuple[Term, ...]:
        """Return what is minimised beside the mean of nats."""
        terms: list[Term] = []
        if self.z_loss:
            terms.append(ZLoss(self.z_loss))
        if self.label_smoothing:
            terms.append(LabelSmoothing(self.label_smoothing))
        return tuple(terms)


class Pretraining(Training):
    """Next-token prediction on a stream of documents."""

    kind: Literal["pretraining"] = "pretraining"

    def feed(self, prepared: Prepared, seeds: Seeds, context: int) -> Feed:
        """Return the windows of the training documents in the order of the data seed."""
        return StreamFeed(Stream(prepared.train, seeds.data), context)


class Pruning(Spec):
    """Weights of smallest magnitude are set to zero after training, in one shot (arXiv:1506.02626).

    Attributes:
        share: Of the weights, between 0 and 1.
        scope: "model" ranks the weights of all matrices together, "matrix" takes the share of each by itself.
        embeddings: Whether token table and head are pruned too, and not only attention and feed-forward.
    """

    kind: Literal["pruning"] = "pruning"
    share: float = setting(gt=0, lt=1)
    scope: Scope = setting(default="model")
    embeddings: bool = setting(default=False)

    def apply(self, model: nn.Module) -> None:
        """Prune a trained model where it stands."""
        prune(model, self.share, scope=self.scope, embeddings=self.embeddings)


class Int8(Spec):
    """Weights are rounded to eight bits after training, one symmetric scale per output (arXiv:2208.07339, sec. 2.1).

    Attributes:
        embeddings: Whether token table and head are quantised too, and not only attention and feed-forward.
    """

    kind: Literal["int8"] = "int8"
    embeddings: bool = setting(default=False)

    def apply(self, model: nn.Module) -> None:
        """Quantise a trained model where it stands."""
        quantise(model, embeddings=self.embeddings)


def _kind(value: Any) -> Any:
    return value.get("kind", "pretraining") if isinstance(value, dict) else getattr(value, "kind", None)


PostHoc = Pruning | Int8
Stage = Annotated[
    Annotated[Pretraining, Tag("pretraining")] | Annotated[Pruning, Tag("pruning")] | Annotated[Int8, Tag("int8")],
    Discriminator(_kind),
]
