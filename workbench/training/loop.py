"""The one training loop: a stage, a feed of sequences and named seeds in, trained weights and a learning curve out.

Same specification, seeds and numerics give the same bytes of weights, whether the run was interrupted or not. A loss
or a gradient that stops being finite ends the run as diverged, which is an outcome and no error.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import torch

from architectures.architecture import Architecture
from architectures.heads import Spelling
from architectures.initialisation import initialise
from architectures.transformer import Transformer
from workbench.errors import StoreError
from workbench.records import Costs, Numerics, Seeds, Status, curve_table
from workbench.seeds import seed_for, standard_normal
from workbench.training.checkpoints import load_checkpoint, load_final, save_checkpoint, save_final
from workbench.training.feeding import Fed, Feed
from workbench.training.numerics import autocast
from workbench.training.objective import Objective, Term
from workbench.training.optimizers import make_optimizer, set_rates
from workbench.training.pace import Pace
from workbench.training.recipe import Training

CURVE_POINTS = 100


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is written and the next start goes on from there."""


@dataclass(frozen=True)
class Trained:
    """What training left: the model (weights as trained), how it ended, its curve and its costs."""

    model: Transformer
    status: Status
    reason: str | None
    curve: pa.Table
    costs: Costs


@dataclass(frozen=True)
class Step:
    """News of a run in progress, for a progress bar."""

    step: int
    steps: int
    loss: float
    tokens_per_second: float


@dataclass(frozen=True)
class Job:
    """What one training run is made of.

    Attributes:
        architecture: What is built.
        stage: Budget, batches, optimizer, schedule, and what is minimised.
        feed: The sequences in the data order of these seeds.
        seeds: Streams for initialisation and dropout; the data seed is the feed's.
        numerics: Device, precision, attention backend; the process must have been settled to them.
        folder: Checkpoints and the final weights.
        spelling: The bytes of every token; only a model that reads bytes asks for them.
        parent: Folder of the trained model this stage starts from; None starts from noise.
        terms: What is minimised beside the stage's own terms, such as agreement with a teacher.
        data: Key of the prepared data, and with it of the tokenizer; kept with the weights.
    """

    architecture: Architecture
    stage: Training
    feed: Feed
    seeds: Seeds
    numerics: Numerics
    folder: Path
    spelling: Spelling | None = None
    parent: Path | None = None
    terms: Sequence[Term] = ()
    data: str | None = None

    @property
    def pace(self) -> Pace:
        """The steps of the run."""
        return self.stage.pace(self.architecture.context)


def train(
    job: Job, *, watch: Callable[[Step], None] = lambda step: None, stop: Callable[[], bool] = lambda: False
) -> Trained:
    """Train one model, or take up where its last checkpoint stands, or load it where it has been trained before.

    Args:
        job: What to train, on what, and where its checkpoints lie.
        watch: Called at every point that is put on the curve.
        stop: Asked after every step; when true a checkpoint is written and `Interrupted` raised.

    Raises:
        StoreError: if the parent is not trained, or weights are damaged.
    """
    model = build(job.architecture, job.seeds, job.numerics, job.spelling)
    summary = load_final(job.folder, model)
    if summary is not None:
        curve = curve_table(summary["curve"])
        return Trained(model, Status(summary["status"]), summary["reason"], curve, Costs(**summary["costs"]))
    if job.parent is not None and load_final(job.parent, model) is None:
        raise StoreError("a stage has nothing to start from", where=job.parent, expected="trained weights", got="none")
    run = _Run(job, model, watch, stop)
    reason = run.go()
    status, progress = Status.DIVERGED if reason else Status.FINISHED, run.progress
    tokens = run.pace.first(progress.step) * run.pace.context
    costs = Costs(
        training_seconds=progress.seconds,
        tokens=tokens,
        tokens_per_second=tokens / max(progress.seconds, 1e-9),
        peak_memory_bytes=peak_memory(job.numerics),
    )
    described = {
        "status": status,
        "reason": reason,
        "curve": progress.curve,
        "costs": costs.model_dump(),
        "architecture": job.architecture.model_dump(mode="json"),
        "data": job.data,
    }
    save_final(job.folder, model, described)
    return Trained(model, status, reason, curve_table(progress.curve), costs)


def build(
    architecture: Architecture, seeds: Seeds, numerics: Numerics, spelling: Spelling | None = None
) -> Transformer:
    """Build and initialise a model from its named streams (on the CPU, in fp32), then place it."""
    model = architecture.build(backend=numerics.attention, spelling=spelling)
    initialise(
        model, architecture, lambda name, shape: standard_normal(seeds.initialisation, f"initialisation/{name}", shape)
    )
    return model.to(numerics.device)


@dataclass(frozen=True)
class Taken:
    """What one optimizer step saw: 0-dim tensors, so that no device is waited for.

    Attributes:
        loss: Weighted mean of nats per target.
        norm: Of the gradient, before clipping.
        costs: What else was minimised, by name.
    """

    loss: torch.Tensor
    norm: torch.Tensor
    costs: dict[str, torch.Tensor] = field(default_factory=dict)


def take_step(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    parts: Sequence[Fed],
    numerics: Numerics,
    clip: float,
    progress: float,
    step: int = 0,
) -> Taken:
    """Do one optimizer step over `parts`, which pass through the model one after the other.

    A target counts the same wherever it stands, so that the gradient is that of all parts in one batch.
    """
    now = torch.tensor(progress, dtype=torch.float64)
    total = torch.stack([part.batch.weights.sum() for part in parts]).sum()
    optimizer.zero_grad(set_to_none=True)
    losses, costs = [], dict[str, torch.Tensor]()
    for part in parts:
        with autocast(numerics):
            nats, further = objective(part.batch, now, part.places, step)
        weights = part.batch.weights
        loss, share = (nats * weights).sum() / total, weights.sum() / total
        further = {name: cost * share for name, cost in further.items()}
        sum(further.values(), start=loss).backward()
        losses.append(loss.detach())
        costs |= {name: costs.get(name, 0.0) + cost.detach() for name, cost in further.items()}
    norm = torch.nn.utils.clip_grad_norm_(objective.model.parameters(), clip)
    optimizer.step()
    return Taken(torch.stack(losses).sum(), norm, costs)


def peak_memory(numerics: Numerics) -> int:
    """Return peak bytes: allocated on the GPU, or resident in this process on the CPU."""
    if numerics.device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _Run:
    """One stage under way: the model, its optimizer, and where they stand."""

    def __init__(self, job: Job, model: Transformer, watch: Callable[[Step], None], stop: Callable[[], bool]) -> None:
        self.job, self.pace, self.model, self._watch, self._stop = job, job.pace, model, watch, stop
        self.objective = Objective(model, (*job.stage.terms(), *job.terms))
        self.optimizer = make_optimizer(model, job.stage.optimizer)
        self.progress = load_checkpoint(job.folder, model, self.optimizer)
        self._saved = 0.0
        self._every = max(1, self.pace.steps // CURVE_POINTS)

    def go(self) -> str | None:
        """Step from where `progress` stands to the end of the budget; return why the run diverged, if it did."""
        self.model.train()
        progress = self.progress
        began, self._saved = time.perf_counter() - progress.seconds, time.perf_counter()
        while progress.step < self.pace.steps:
            step = progress.step
            factor = self.job.stage.schedule.factor(step, self.pace.steps)
            set_rates(self.optimizer, factor)
            taken = self._take(step)
            progress.step, progress.seconds = step + 1, time.perf_counter() - began
            if progress.step % self._every == 0 or progress.step == self.pace.steps:
                reason = self._note(taken, factor)
                if reason:
                    return reason
            self._pause()
        return None

    def _take(self, step: int) -> Taken:
        job, seeds = self.job, self.job.seeds
        if job.architecture.draws:
            torch.manual_seed(seed_for(seeds.dropout, f"dropout/{step}") % 2**63)
        fed = job.feed.sequences(self.pace.first(step), self.pace.size(step))
        count = job.stage.microbatch or self.pace.size(step)
        parts = [
            fed.part(first, min(count, self.pace.size(step) - first)).to(job.numerics.device)
            for first in range(0, self.pace.size(step), count)
        ]
        share = step / self.pace.steps
        return take_step(self.objective, self.optimizer, parts, job.numerics, job.stage.clip, share, step)

    def _note(self, taken: Taken, factor: float) -> str | None:
        """Put the last step on the curve, or return why the run diverged in it."""
        progress = self.progress
        rate = self.job.stage.optimizer.learning_rate * factor
        row = {"loss": taken.loss.item(), "gradient_norm": taken.norm.item(), "learning_rate": rate}
        if not (math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])):
            at = f"at step {progress.step} of {self.pace.steps}"
            return f"loss {row['loss']}, gradient norm {row['gradient_norm']} {at}"
        tokens = self.pace.first(progress.step) * self.pace.context
        costs = {name: cost.item() for name, cost in taken.costs.items()}
        progress.curve.append({"step": progress.step, "tokens": tokens, **row, **costs})
        self._watch(Step(progress.step, self.pace.steps, row["loss"], tokens / progress.seconds))
        return None

    def _pause(self) -> None:
        """Write a checkpoint when one is due, or when the run was asked to stop."""
        stopping = self._stop()
        if stopping or time.perf_counter() - self._saved > self.job.stage.checkpoint_seconds:
            save_checkpoint(self.job.folder, self.model, self.optimizer, self.progress)
            self._saved = time.perf_counter()
        if stopping:
            raise Interrupted
