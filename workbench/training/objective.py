"""What a training step minimises: the mean of nats, and terms beside it that a stage declares.

The loss that is recorded is always the weighted mean of nats, comparable over arms; a term says what it costs beside
that. `Objective` holds model and terms together: it is the one module that is compiled, sharded or replicated. A term
that needs logits is refused for a model that has none (`refuse_without_logits`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from architectures.architecture import Architecture
from architectures.transformer import SMALLEST, Batch, Output, Transformer
from workbench.errors import PlanError


@dataclass(frozen=True)
class Predicted:
    """What a model made of some sequences.

    Attributes:
        output: Of the forward pass.
        batch: What went in.
        nats: float32 (batch, time), unweighted.
        logits: (batch, time, vocabulary), where a term of this step needs them.
        places: See `feeding.Fed`.
        step: 0-based.
        progress: Share of training done, 0-dim.
    """

    output: Output
    batch: Batch
    nats: Tensor
    logits: Tensor | None
    places: Tensor | None
    step: int
    progress: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of `values`, (batch, time), each target weighted as it counts."""
        return (values * self.batch.weights).sum() / self.batch.weights.sum().clamp(min=SMALLEST)


class Term(ABC):
    """One part of what is minimised beside the mean of nats."""

    name: ClassVar[str]
    needs_logits: ClassVar[bool] = True

    def applies(self, step: int) -> bool:
        """Say whether the term is there in `step`, 0-based."""
        return True

    @abstractmethod
    def cost(self, predicted: Predicted) -> Tensor:
        """Return the cost beside the weighted mean of nats: 0-dim, already scaled, nats per target."""

    def told(self, predicted: Predicted) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cost, and what else is put on the learning curve: 0-dim means per target, by name."""
        return self.cost(predicted), {}


@dataclass(frozen=True)
class ZLoss(Term):
    """`weight` times the mean square of log Z, which keeps logits from drifting (arXiv:2204.02311, section 5)."""

    name: ClassVar[str] = "z_loss"
    weight: float

    def cost(self, predicted: Predicted) -> Tensor:
        """Return weight * mean(logsumexp(logits)^2)."""
        assert predicted.logits is not None  # noqa: S101 - `needs_logits`
        return self.weight * predicted.mean(predicted.logits.float().logsumexp(-1).square())


@dataclass(frozen=True)
class LabelSmoothing(Term):
    """The target is the truth with `share` of its probability spread over the vocabulary (arXiv:1512.00567, 7)."""

    name: ClassVar[str] = "label_smoothing"
    share: float

    def cost(self, predicted: Predicted) -> Tensor:
        """Return share * mean(cross-entropy with the uniform distribution - nats)."""
        assert predicted.logits is not None  # noqa: S101 - `needs_logits`
        logits = predicted.logits.float()
        uniform = logits.logsumexp(-1) - logits.mean(-1)
        return self.share * predicted.mean(uniform - predicted.nats)


class Objective(nn.Module):
    """A model with the terms it is trained by.

    Args:
        model: What is trained.
        terms: What is minimised beside the mean of nats.
    """

    def __init__(self, model: Transformer, terms: Sequence[Term] = ()) -> None:
        super().__init__()
        self.model, self.terms = model, tuple(terms)

    def forward(
        self, batch: Batch, progress: Tensor, places: Tensor | None = None, step: int = 0
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Return nats, float32 (batch, time); the cost of every penalty and term; and what terms saw beside it.

        Costs and what was seen are 0-dim, by name; what was seen carries no gradient.
        """
        output = self.model(batch, progress)
        terms = [term for term in self.terms if term.applies(step)]
        if any(term.needs_logits for term in terms):
            logits = self.model.logits(output.hidden)
            nats = _cross_entropy(logits, batch.targets)
        else:
            logits, nats = None, self.model.nats(output, batch)
        costs = self.model.penalties(output, batch, nats)
        predicted = Predicted(output, batch, nats, logits, places, step, progress)
        told = {term.name: term.told(predicted) for term in terms}
        seen = {name: value.detach() for _, also in told.values() for name, value in also.items()}
        return nats, costs | {name: cost for name, (cost, _) in told.items()}, seen


def refuse_without_logits(terms: Sequence[str], architecture: Architecture, where: str) -> None:
    """Refuse terms over the vocabulary for a model whose targets are bytes.

    Args:
        terms: Names of the declared terms that need logits.
        architecture: Of the arm.
        where: For the message.

    Raises:
        PlanError: naming term and embedding.
    """
    if terms and architecture.embedding.reads_bytes:
        raise PlanError(
            "a term of the loss needs logits over the vocabulary, and the model has none",
            where=where,
            expected="an embedding with logits, such as table",
            got=f"{', '.join(terms)} with embedding {architecture.embedding.kind}",
            fix="leave the term out, or use another embedding",
        )


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    flat = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return torch.Tensor.view(flat, targets.shape)
