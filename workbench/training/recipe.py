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

from architectures.architecture import Architecture
from architectures.compute import Memory, memory
from architectures.posthoc import Scope, prune, quantise
from workbench.data.answers import Answers, read_answers
from workbench.data.ordering import Order
from workbench.data.prepared import Prepared
from workbench.data.streams import stream
from workbench.data.taught import taught
from workbench.errors import PlanError
from workbench.identity import Spec, added, setting
from workbench.records import Seeds
from workbench.training.answering import AnswersFeed, Loss
from workbench.training.checkpoints import kept_steps
from workbench.training.distillation import Distillation, Minimum
from workbench.training.feeding import Feed, Packing, StreamFeed, WholeFeed
from workbench.training.keeping import KeepBest
from workbench.training.objective import LabelSmoothing, Term, ZLoss
from workbench.training.optimizers import AdamW, Lion, Muon, Optimizer
from workbench.training.pace import BatchWarmup, Pace, curve_interval, pace
from workbench.training.probes import Probes
from workbench.training.rollback import Rollback
from workbench.training.schedules import Constant, Cosine, InverseSquareRoot, Linear, Schedule, WarmupStableDecay

__all__ = [
    "AdamW", "BatchWarmup", "Constant", "Cosine", "FineTuning", "Int8", "InverseSquareRoot", "KeepBest", "Linear",
    "Lion", "Muon", "Optimizer", "PostHoc", "Pretraining", "Pruning", "Rollback", "Schedule", "Stage", "Training",
    "WarmupStableDecay",
]  # fmt: skip


class Training(Spec, ABC):
    """What every stage that trains declares.

    Attributes:
        tokens: Budget; rounded up to whole steps.
        batch: Sequences per step, each of the architecture's context.
        clip: Global gradient norm above which gradients are scaled down.
        checkpoint_seconds: At most this much work is lost by a kill; more where writing a checkpoint takes so long that
            checkpoints would cost over 1 % of the run.
        microbatch: Sequences that pass through the model at once; a step accumulates the gradients of as many passes
            as its batch takes. None is the whole batch.
        batch_warmup: How the batch grows at the beginning; None is the whole batch from the first step on.
        z_loss: Weight of the mean square of log Z beside the loss; PaLM's is 1e-4.
        label_smoothing: Share of a target's probability that is spread over the vocabulary.
        rollback: When the run goes back from a spike of the loss; None is never, and a loss that is not finite ends it.
        keep: How many of the newest checkpoints are kept while the run is under way.
        checkpoints: How many weights are kept on the way for good, evenly spaced; the end is kept beside them.
        keep_best: Which weights are kept as the best beside those at the end; None is none.
        probes: What is looked at on the way, for the learning curve.
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
    rollback: Rollback | None = added(None, effect="training")
    keep: int = added(2, effect="efficiency", ge=1)
    checkpoints: int = added(0, effect="efficiency", ge=0)
    keep_best: KeepBest | None = added(None, effect="efficiency")
    probes: Probes = setting(default=Probes(), effect="efficiency")

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

    def kept_steps(self, pace: Pace) -> set[int]:
        """Return after which steps weights are kept on the way."""
        return kept_steps(self.checkpoints, pace.steps, curve_interval(pace.steps))

    def kept_tokens(self, context: int) -> tuple[int, ...]:
        """Return how many tokens were read where weights are kept on the way, in ascending order."""
        pace = self.pace(context)
        return tuple(pace.first(step) * context for step in sorted(self.kept_steps(pace)))

    def check(self, prepared: Prepared, context: int) -> str | None:
        """Refuse data of its own that the stage cannot use, before anything is trained; say what it reads, if any.

        Raises:
            DataError: naming what was expected and what was got.
        """
        return None

    @abstractmethod
    def feed(self, prepared: Prepared, seeds: Seeds, context: int) -> Feed:
        """Return what the stage reads, given the data of the configuration and the seeds of the run."""

    @property
    def packs(self) -> bool:
        """Whether a window holds several documents that are hidden from each other."""
        return False

    def memory(self, architecture: Architecture, precision: str) -> Memory:
        """Return what a step needs on its device, in bytes; `precision` is that of activations."""
        return memory(
            architecture,
            self.microbatch or self.batch,
            precision=precision,
            optimizer=self.optimizer.kind,
            moments=self.optimizer.moments,
        )

    def terms(self) -> tuple[Term, ...]:
        """Return what is minimised beside the mean of nats."""
        terms: list[Term] = []
        if self.z_loss:
            terms.append(ZLoss(self.z_loss))
        if self.label_smoothing:
            terms.append(LabelSmoothing(self.label_smoothing))
        return tuple(terms)


class Pretraining(Training):
    """Next-token prediction on a stream of documents.

    Attributes:
        packing: What a position sees of its window: "stream", all before it, as in GPT-3 (arXiv:2005.14165, appendix
            B); "documents", its own document only, as in Llama 3 (arXiv:2407.21783, section 3.2), at positions that
            begin with it. Both read the same windows of the same text. A document begins with the end_of_text before
            it, from which evaluation predicts its first token too; what a window cuts off begins anew in the next.
            "whole" is "documents" in other windows, which hold whole documents wherever one fits (`WholeFeed`).
        distillation: From whom the student learns beside the text; None is from nobody.
    """

    kind: Literal["pretraining"] = "pretraining"
    packing: Packing = added("stream", effect="training")
    distillation: Distillation | None = added(None, effect="training")

    @model_validator(mode="after")
    def _what_competes_passes_together(self) -> Self:
        objective = self.distillation.objective if self.distillation is not None else None
        if isinstance(objective, Minimum) and objective.granularity == "batch" and self.microbatch is not None:
            expected = "none where whole batches compete (distillation.objective.granularity)"
            raise ValueError(f"microbatch: expected {expected}, got {self.microbatch}")
        return self

    def feed(self, prepared: Prepared, seeds: Seeds, context: int) -> Feed:
        """Return the windows of the training documents in the order that the data declare."""
        if self.packing == "whole":
            return WholeFeed(prepared.train, seeds.data, context)
        return StreamFeed(stream(prepared, seeds.data, self.pace(context).tokens), context, self.packing)

    def check(self, prepared: Prepared, context: int) -> str | None:
        """Refuse data that cannot be read in their declared order."""
        stream(prepared, 0, self.pace(context).tokens)
        return None

    def refuse_order(self, order: Order, where: str) -> None:
        """Refuse an order of documents that this stage cannot keep; any stage can shuffle.

        Raises:
            PlanError: naming the field of the stage.
        """
        if order.kind == "shuffled":
            return
        if self.packing == "whole":
            raise PlanError(
                "an arm cannot pack whole documents in an order of their own",
                where=f"{where}.packing",
                expected=f'"stream" or "documents" where data.order is {order.kind}',
                got='"whole", which places the longest documents first and shuffles windows',
            )
        if order.kind == "curriculum" and self.rollback is not None:
            raise PlanError(
                "an arm cannot go back from a spike to other text of the same difficulty",
                where=f"{where}.rollback",
                expected="none where data.order is a curriculum, which has no other text there",
                got="a rollback",
                fix="leave rollback out of every arm",
            )

    @property
    def packs(self) -> bool:
        """Whether a window holds several documents that are hidden from each other."""
        return self.packing != "stream"


class FineTuning(Training):
    """Training on examples with answers, from the weights of the stage before (SFT, arXiv:2203.02155, section 3.5).

    The budget counts all positions of a window, prompts and padding included. Windows are filled with examples in the
    order of the data seed, none twice before all have been read. Where the data declare a decontamination, examples
    that overlap with its benchmarks are left out (`data.taught`).

    Attributes:
        answers: The examples.
        optimizer: By default at a tenth of pretraining's rate, as its weights are to be kept.
        loss: Whether only answers count (and the end_of_text after each), or everything.
        packing: What a window holds: several examples hidden from each other ("examples"), or one and padding
            ("none"), which every architecture can read.
    """

    kind: Literal["fine_tuning"] = "fine_tuning"
    answers: Answers
    optimizer: Optimizer = AdamW(learning_rate=3e-4)
    loss: Loss = setting(default="answer", effect="training")
    packing: Literal["examples", "none"] = setting(default="examples", effect="training")

    def feed(self, prepared: Prepared, seeds: Seeds, context: int) -> AnswersFeed:
        """Return windows of the examples that are not held out, in the order of the data seed."""
        training = taught(self.answers, prepared).examples
        return AnswersFeed(training, seeds.data, context, loss=self.loss, packed=self.packs)

    @property
    def packs(self) -> bool:
        """Whether a window holds several documents that are hidden from each other."""
        return self.packing != "none"

    def check(self, prepared: Prepared, context: int) -> str:
        """Refuse examples that cannot be used, and say what is read."""
        split, feed = read_answers(self.answers, prepared.tokenizer), self.feed(prepared, Seeds.all(0), context)
        pace = self.pace(context)
        found = taught(self.answers, prepared)
        epochs, used = pace.first(pace.steps) / feed.windows, len(found.examples.lengths) - feed.left_out
        fate = "left out" if found.left_out else "kept"
        shared = f", {found.overlapping:,} share words with a benchmark and are {fate}" if found.overlapping else ""
        return (
            f"fine-tuning for {epochs:.3g} epochs on {used:,} examples; {len(split.held_out.lengths):,} others are "
            f"held out, {split.repeated:,} repeat another, {feed.left_out:,} have no answer within the context of "
            f"{context:,} tokens, {feed.cut:,} are cut there{shared}"
        )


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
    Annotated[Pretraining, Tag("pretraining")]
    | Annotated[FineTuning, Tag("fine_tuning")]
    | Annotated[Pruning, Tag("pruning")]
    | Annotated[Int8, Tag("int8")],
    Discriminator(_kind),
]
