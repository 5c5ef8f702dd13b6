"""Distillation: in every k-th batch a student also learns from what teachers say comes next (arXiv:1503.02531).

Every objective replaces the cross-entropy with the truth by something that weighs in the cross-entropy with a
teacher's distribution, CE(p, q) = H(p) + KL(p || q), or its divergence. The recorded loss stays the cross-entropy with
the truth; the difference stands beside it on the learning curve as `distillation`, with `teacher_0_entropy`, with
`teacher_0_kept` (see `opinions`) and, where targets compete, with the share of targets that each wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from workbench.data.building import Report
from workbench.data.prepared import Prepared
from workbench.errors import PlanError
from workbench.identity import Spec, digest, setting
from workbench.records import Numerics
from workbench.training.feeding import Feed
from workbench.training.objective import Predicted, Term
from workbench.training.opinions import LAYOUT, Opinions, Statement
from workbench.training.pace import Pace
from workbench.training.teachers import Grown, Speaker, Teacher, load


class Minimum(Spec):
    """The least of the cross-entropies with the truth and with each teacher, as LokiLM trained (its section 2.3).

    Truth is a distribution without entropy, and CE(p, q) = H(p) + KL(p || q): a teacher wins where it is sure of what
    the student thinks too, so the least prefers teachers of low entropy, and the student's own opinion. The curve shows
    who wins and how much entropy each teacher has.

    Attributes:
        granularity: What competes: every target by itself, the mean of a sequence, or that of all sequences that pass
            through the model together.
    """

    kind: Literal["minimum"] = "minimum"
    granularity: Literal["token", "sequence", "batch"] = setting(default="token", effect="training")


class Mean(Spec):
    """truth * CE(truth) + (1 - truth) * the mean over teachers of CE(teacher).

    Attributes:
        truth: Weight of the truth.
    """

    kind: Literal["mean"] = "mean"
    truth: float = setting(default=0.5, effect="training", ge=0, lt=1)


class _Divergence(Spec):
    """What the two divergences declare.

    Attributes:
        weight: Of the divergence, at the beginning.
        end: Of the divergence at the end of training, linearly from `weight`; None stays at it. STLM's went from 0.8
            to 1.
        temperature: T; T^2 keeps the gradient's size.
    """

    weight: float = setting(default=0.5, effect="training", ge=0, le=1)
    end: float | None = setting(default=None, effect="training", ge=0, le=1)
    temperature: float = setting(default=1.0, effect="training", gt=0)

    def weighed(self, progress: Tensor) -> Tensor | float:
        """Return the weight after that share of training, 0-dim."""
        return self.weight if self.end is None else self.weight + (self.end - self.weight) * progress

    @model_validator(mode="after")
    def _something_is_weighed(self) -> Self:
        if not self.weight and not self.end:
            raise ValueError("weight: expected more than 0 at the beginning or the end, got 0")
        return self


class ForwardKL(_Divergence):
    """(1 - weight) * CE(truth) + weight * T^2 * KL(teacher || student), both at temperature T (arXiv:1503.02531).

    Covers all that a teacher finds possible. Several teachers count equally.
    """

    kind: Literal["forward_kl"] = "forward_kl"


class ReverseKL(_Divergence):
    """(1 - weight) * CE(truth) + weight * T^2 * KL(student || teacher), both at temperature T (arXiv:2306.08543).

    Avoids what a teacher finds impossible. Several teachers count equally.
    """

    kind: Literal["reverse_kl"] = "reverse_kl"


Target = Annotated[Minimum | Mean | ForwardKL | ReverseKL, Field(discriminator="kind")]


class Distillation(Spec):
    """Who teaches, how often, and what is minimised then.

    Attributes:
        teachers: One or several, all with the student's tokenizer.
        objective: What is minimised in a batch that is distilled.
        every: Of how many batches the last is distilled; LokiLM's 4 are batches 4, 8, 12 and so on. The others are
            trained on the truth alone.
        top: How many of the most probable next tokens are kept of what a teacher says (`opinions`).
    """

    teachers: tuple[Teacher, ...] = Field(min_length=1)
    objective: Target = Minimum()
    every: int = setting(default=1, effect="training", gt=0)
    top: int = setting(default=64, effect="training", gt=0)

    def applies(self, step: int) -> bool:
        """Say whether `step`, 0-based, is distilled."""
        return (step + 1) % self.every == 0


@dataclass(frozen=True)
class Distilled(Term):
    """What is minimised in distilled batches, less the mean of nats.

    Attributes:
        distillation: As declared.
        opinions: Of its teachers, in their order.
    """

    name: ClassVar[str] = "distillation"
    distillation: Distillation
    opinions: Sequence[Opinions]

    def applies(self, step: int) -> bool:
        """Say whether `step` is distilled."""
        return self.distillation.applies(step)

    def gather(self, runs: Iterable[tuple[Feed, Pace]]) -> None:
        """Ask the teachers about every document that a distilled batch of these runs reads, before they begin.

        Raises:
            StoreError: if the disk has no room for it.
        """
        documents = [self._documents(feed, pace) for feed, pace in runs]
        wanted = np.unique(np.concatenate(documents)) if documents else np.empty(0, np.int64)
        for one in self.opinions:
            one.gather(wanted)
            one.dismiss()

    def _documents(self, feed: Feed, pace: Pace) -> np.ndarray:
        read = [np.empty(0, np.int64)]
        for step in range(pace.steps):
            if self.applies(step):
                places = feed.sequences(pace.first(step), pace.size(step)).places
                assert places is not None  # noqa: S101 - the feeds of pretraining have them
                read.append(np.unique(self.opinions[0].documents(places.numpy())))
        return np.unique(np.concatenate(read))

    def cost(self, predicted: Predicted) -> Tensor:
        """Return the mean of what is minimised less the mean of nats."""
        return self.told(predicted)[0]

    def told(self, predicted: Predicted) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cost; the teachers' entropies, what was kept of them, and who wins, stand beside it."""
        assert predicted.places is not None  # noqa: S101 - the feeds of pretraining have them
        assert predicted.logits is not None  # noqa: S101 - `needs_logits`
        said = [one.at(predicted.places) for one in self.opinions]
        with torch.autocast(predicted.logits.device.type, enabled=False):  # sums over a vocabulary need all digits
            minimised, shares = _minimised(predicted, predicted.logits.float(), said, self.distillation.objective)
        seen = {f"teacher_{number}_entropy": predicted.mean(one.entropy()) for number, one in enumerate(said)}
        seen |= {f"teacher_{number}_kept": predicted.mean(one.kept()) for number, one in enumerate(said)}
        return predicted.mean(minimised - predicted.nats), seen | shares


def _minimised(
    predicted: Predicted, logits: Tensor, said: Sequence[Statement], objective: Target
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what a target costs, float32 (batch, time), and the shares that are won."""
    nats = predicted.nats
    if isinstance(objective, ForwardKL | ReverseKL):
        weight, temperature = objective.weighed(predicted.progress), objective.temperature
        divergence = forward_kl if isinstance(objective, ForwardKL) else reverse_kl
        apart = [divergence(logits / temperature, one.softened(temperature)) for one in said]
        return (1 - weight) * nats + weight * temperature**2 * torch.stack(apart).mean(0), {}
    targets = [cross_entropy(logits, one) for one in said]
    if isinstance(objective, Mean):
        return objective.truth * nats + (1 - objective.truth) * torch.stack(targets).mean(0), {}
    candidates = torch.stack([nats, *targets])
    winner = winners(candidates.detach(), predicted.batch.weights, objective.granularity)
    names = ["truth", *(f"teacher_{number}" for number in range(len(said)))]
    shares = {f"{name}_wins": predicted.mean((winner == number).float()) for number, name in enumerate(names)}
    return candidates.gather(0, winner[None])[0], shares


def winners(candidates: Tensor, weights: Tensor, granularity: Literal["token", "sequence", "batch"]) -> Tensor:
    """Return which of the candidates costs least, int64 (batch, time); the first of equal ones.

    Args:
        candidates: Cost of every target, (candidates, batch, time).
        weights: How much each target counts, (batch, time).
        granularity: Over what costs are averaged before they are compared.
    """
    if granularity == "token":
        return candidates.argmin(0)
    over = (1, 2) if granularity == "batch" else 2
    totals = (candidates * weights).sum(over, keepdim=True)  # the weight that divides is the same for all
    return totals.argmin(0).expand(weights.shape)


def cross_entropy(logits: Tensor, said: Statement) -> Tensor:
    """Return -sum_i p_i log q_i of distributions p that are `said` and q of `logits`, float32 (batch, time)."""
    return logits.logsumexp(-1) - said.expected(logits)


def forward_kl(logits: Tensor, said: Statement) -> Tensor:
    """Return KL(p || q), p being `said` and q of `logits`, (batch, time, vocabulary)."""
    return cross_entropy(logits, said) - said.entropy()


def reverse_kl(logits: Tensor, said: Statement) -> Tensor:
    """Return KL(q || p), p being `said` and q of `logits`, (batch, time, vocabulary)."""
    own = logits.log_softmax(-1)
    probable = own.exp()
    return (probable * own).sum(-1) - said.expected_logs(probable)


def distilled(
    distillation: Distillation,
    prepared: Prepared,
    cache: Path,
    numerics: Numerics,
    grow: Callable[[Grown], Path],
    report: Report = lambda line: None,
) -> Distilled:
    """Return the term of a stage that is distilled, with what its teachers have said so far.

    Args:
        distillation: As declared.
        prepared: What the student learns from.
        cache: Folder of all caches.
        numerics: Of the student; its teachers are asked under them too.
        grow: Trains a teacher, if that has not been done, and returns its folder.
        report: Told, in words, what is being done.

    Raises:
        PlanError: if whole batches compete, and devices share them.
    """
    objective = distillation.objective
    if isinstance(objective, Minimum) and objective.granularity == "batch" and numerics.devices > 1:
        raise PlanError(
            "whole batches cannot compete on several devices, each of which has a share of them",
            where="stages.0.distillation.objective.granularity",
            expected="token or sequence, or one device",
            got=f"batch on {numerics.devices} devices",
        )
    opinions = []
    for teacher in distillation.teachers:
        key = digest("opinions", LAYOUT, teacher, prepared.key, distillation.top, numerics)

        def speaker(teacher: Teacher = teacher) -> Speaker:
            return load(teacher, prepared, numerics, grow(teacher) if isinstance(teacher, Grown) else None)

        opinions.append(
            Opinions(
                cache / "teachers" / key,
                prepared.train,
                vocabulary=prepared.tokenizer.vocabulary,
                top=distillation.top,
                end_of_text=prepared.tokenizer.end_of_text,
                speaker=speaker,
                numerics=numerics,
                report=report,
            )
        )
    return Distilled(distillation, tuple(opinions))
