"""The one training loop: a stage, a feed of sequences and named seeds in, trained weights and a learning curve out.

Same specification, seeds and numerics give the same bytes of weights, whether the run was interrupted or not. A loss
or a gradient that stops being finite ends the run as diverged, which is an outcome and no error.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import torch

from architectures.architecture import Architecture
from architectures.heads import Spelling
from architectures.initialisation import initialise
from architectures.transformer import Transformer
from workbench.errors import StoreError
from workbench.records import Costs, Numerics, Seeds, Status, curve_table
from workbench.seeds import seed_for, standard_normal
from workbench.training.checkpoints import (
    keep_weights,
    kept,
    load_checkpoint,
    load_final,
    save_checkpoint,
    save_final,
)
from workbench.training.execution import prepared
from workbench.training.feeding import Fed, Feed
from workbench.training.keeping import Keeper
from workbench.training.lowbit import in_few_bits
from workbench.training.numerics import utilised
from workbench.training.objective import Objective, Term
from workbench.training.optimizers import make_optimizer, set_rates
from workbench.training.pace import Pace, curve_interval
from workbench.training.parallel import Alone
from workbench.training.probes import Prober
from workbench.training.recipe import Training
from workbench.training.rollback import Guard, Spike
from workbench.training.stepping import ALONE, Taken, compute_gradients, take_step

CHECKPOINT_SHARE = 0.01  # of a run's time that checkpoints by the clock may take


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is written and the next start goes on from there."""


@dataclass(frozen=True)
class Trained:
    """What training left: the model (weights as trained), how it ended, its curve, its costs, where it went back."""

    model: Transformer
    status: Status
    reason: str | None
    curve: pa.Table
    costs: Costs
    rollbacks: Sequence[dict[str, Any]] = ()


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
    job: Job,
    *,
    watch: Callable[[Step], None] = lambda step: None,
    stop: Callable[[], bool] = lambda: False,
    parallel: Alone = ALONE,
) -> Trained:
    """Train one model, or take up where its last checkpoint stands, or load it where it has been trained before.

    Args:
        job: What to train, on what, and where its checkpoints lie.
        watch: Called at every point that is put on the curve.
        stop: Asked after every step; when true a checkpoint is written and `Interrupted` raised.
        parallel: The devices that train it together, each of which calls this.

    Raises:
        StoreError: if the parent is not trained, or weights are damaged.
    """
    model, trained = begin(job)
    if trained is not None:
        return trained
    run = Run(job, model, watch, stop, parallel)
    trained = run.end(run.go())
    parallel.wait()
    if not parallel.whole:
        model = build(job.architecture, job.seeds, job.numerics, job.spelling)
        load_final(job.folder, model)
    return replace(trained, model=model)


def begin(job: Job) -> tuple[Transformer, Trained | None]:
    """Return the model from which the stage starts, and what training left where it has ended before.

    Raises:
        StoreError: if the parent is not trained, or weights are damaged.
    """
    model = build(job.architecture, job.seeds, job.numerics, job.spelling)
    summary = load_final(job.folder, model)
    if summary is not None:
        if summary["status"] != Status.FINISHED or _kept_all(job, summary):
            curve, costs, rollbacks = curve_table(summary["curve"]), summary["costs"], summary.get("rollbacks", ())
            return model, Trained(model, Status(summary["status"]), summary["reason"], curve, Costs(**costs), rollbacks)
        model = build(job.architecture, job.seeds, job.numerics, job.spelling)
    if job.parent is not None and load_final(job.parent, model) is None:
        raise StoreError("a stage has nothing to start from", where=job.parent, expected="trained weights", got="none")
    return model, None


def _kept_all(job: Job, summary: dict[str, Any]) -> bool:
    """Say whether a run that has ended kept the weights that the stage asks for by now."""
    rule, best = job.stage.keep_best, summary.get("best") or {}
    same_best = rule is None or best.get("rule") == rule.model_dump()
    return same_best and _on_the_way(job) <= {one.step for one in kept(job.folder)}


def _on_the_way(job: Job) -> set[int]:
    return job.stage.kept_steps(job.pace)


def build(
    architecture: Architecture, seeds: Seeds, numerics: Numerics, spelling: Spelling | None = None
) -> Transformer:
    """Build and initialise a model from its named streams (on the CPU, in fp32), then place it."""
    model = architecture.build(backend=numerics.attention, spelling=spelling)
    initialise(
        model, architecture, lambda name, shape: standard_normal(seeds.initialisation, f"initialisation/{name}", shape)
    )
    return cast(Transformer, in_few_bits(model.to(numerics.device), numerics.matmul))


def peak_memory(numerics: Numerics) -> int:
    """Return peak bytes: allocated on the GPU, or resident in this process on the CPU."""
    if numerics.device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Run:
    """One stage under way: the model, its optimizer, and where they stand."""

    def __init__(
        self,
        job: Job,
        model: Transformer,
        watch: Callable[[Step], None],
        stop: Callable[[], bool],
        parallel: Alone = ALONE,
    ) -> None:
        self.job, self.pace, self.model, self._watch, self._stop = job, job.pace, model, watch, stop
        self.parallel = parallel
        objective = prepared(Objective(model, (*job.stage.terms(), *job.terms)), job.numerics)
        self.objective = parallel.wrap(objective, job.architecture)
        self.optimizer = make_optimizer(model, job.stage.optimizer)
        self.progress = load_checkpoint(job.folder, model, self.optimizer)
        self._guard = Guard(job.stage.rollback, job.folder, model, self.optimizer, self.progress, self.pace)
        self._keeper = Keeper(job.stage.keep_best, job.folder, model, self.progress, self.pace.steps)
        self._feed = self._current_feed()
        self._saved, self._writing, self.together = 0.0, 0.0, 1
        self._every, self._kept = curve_interval(self.pace.steps), _on_the_way(job)
        self.prober = Prober(job.stage.probes, model, self.pace.steps, self._every, job.numerics.compiled)

    def go(self) -> str | None:
        """Step from where `progress` stands to the end of the budget; return why the run diverged, if it did."""
        self.model.train()
        progress = self.progress
        began, self._saved = time.perf_counter() - progress.seconds, time.perf_counter()
        while progress.step < self.pace.steps:
            step = progress.step
            factor = self.job.stage.schedule.factor(step, self.pace.steps)
            set_rates(self.optimizer, factor)
            with self.prober.over(step + 1):
                taken = self._take(step)
            progress.step, progress.seconds = step + 1, time.perf_counter() - began
            self._guard.see(taken.loss, taken.norm)
            stopping, saving = self._asked()
            marked = self.marked()
            spike = self._guard.look() if marked or saving or self._guard.due(progress.step) else None
            reason = self._go_back(spike) if spike else self.note(taken, factor) if marked else None
            if reason:
                return reason
            if saving or spike:
                self.save()
            if stopping:
                raise Interrupted
        return None

    def marked(self) -> bool:
        """Return whether the last step is put on the curve."""
        return self.progress.step % self._every == 0 or self.progress.step == self.pace.steps

    def _asked(self) -> tuple[bool, bool]:
        """Return whether the run is asked to stop, and whether a checkpoint is due: the same on all devices."""
        wait = max(self.job.stage.checkpoint_seconds, self._writing / CHECKPOINT_SHARE)
        late = time.perf_counter() - self._saved > wait
        stopping, due = self.parallel.most(self._stop(), self.parallel.leads and late)
        return bool(stopping), bool(stopping or due)

    def _go_back(self, spike: Spike) -> str | None:
        """Take the run back to before a spike, and on to other text; return why it may not, if so."""
        reason = self._guard.go_back(spike)
        self._keeper.go_back()
        self._feed = self._current_feed()
        return reason

    def _current_feed(self) -> Feed:
        rollbacks = len(self.progress.rollbacks)
        return self.job.feed.restarted(rollbacks) if rollbacks else self.job.feed

    def parts(self, step: int) -> tuple[list[Fed], int]:
        """Return what passes through the model in a step, one after the other; how many of the last count nothing."""
        first = self.pace.first(step)
        passes = self.parallel.passes(self.pace.size(step), self.job.stage.microbatch)
        begin, end = min(one.first for one in passes), max(one.first + one.count for one in passes)
        fed = self._feed.sequences(first + begin, end - begin)
        parts = [fed.part(one.first - begin, one.count).to(self.job.numerics.device) for one in passes]
        return parts, sum(not one.counts for one in passes)

    def _take(self, step: int) -> Taken:
        job = self.job
        self.draw_dropout(step)
        parts, idle = self.parts(step)
        return take_step(
            self.objective,
            self.optimizer,
            parts,
            job.numerics,
            job.stage.clip,
            step / self.pace.steps,
            step,
            self.parallel,
            idle,
        )

    def _gradients(self, steps: Iterable[int]) -> Iterator[int]:
        """Put the gradients of some steps in place, one after the other, at the weights as they stand."""
        for step in steps:
            self.draw_dropout(step)
            parts, idle = self.parts(step)
            share, numerics = step / self.pace.steps, self.job.numerics
            compute_gradients(self.objective, parts, numerics, share, step, self.parallel, idle)
            yield step
        self.objective.zero_grad(set_to_none=True)

    def draw_dropout(self, step: int) -> None:
        """Seed torch's generator for what a step draws."""
        job, seeds = self.job, self.job.seeds
        if job.architecture.draws:
            number = len(self.progress.rollbacks)
            name = f"rollback/{number}/dropout/{step}" if number else f"dropout/{step}"
            torch.manual_seed(seed_for(seeds.dropout, self.parallel.stream(name)) % 2**63)

    def note(self, taken: Taken, factor: float) -> str | None:
        """Put the last step on the curve, or return why the run diverged in it."""
        progress = self.progress
        rate = self.job.stage.optimizer.learning_rate * factor
        row = {"loss": taken.loss.item(), "gradient_norm": taken.norm.item(), "learning_rate": rate}
        if not (math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])):
            at = f"at step {progress.step} of {self.pace.steps}"
            return f"loss {row['loss']}, gradient norm {row['gradient_norm']} {at}"
        tokens = self.pace.first(progress.step) * self.pace.context
        costs = {name: value.item() for name, value in (taken.costs | taken.seen).items()}
        if self.prober.compares(progress.step):
            last = range(max(0, progress.step - self.job.stage.probes.gradients), progress.step)
            self.prober.compare(self._gradients(last))
        probed = self.prober.row(row["gradient_norm"])
        progress.curve.append({"step": progress.step, "tokens": tokens, **row, **costs, **probed})
        if progress.step in self._kept:
            curve, leads = progress.curve, self.parallel.leads
            keep_weights(self.job.folder, self.model, progress.step, tokens, curve, leads=leads)
        self._keeper.look()
        self._watch(Step(progress.step, self.pace.steps, row["loss"], tokens / progress.seconds))
        return None

    def save(self) -> None:
        """Write a checkpoint."""
        leads, began = self.parallel.leads, time.perf_counter()
        if leads:
            self._guard.secure()
            self._keeper.secure()
        save_checkpoint(self.job.folder, self.model, self.optimizer, self.progress, self.job.stage.keep, leads=leads)
        self._saved = time.perf_counter()
        self._writing = self._saved - began

    def end(self, reason: str | None) -> Trained:
        """Save the weights as they stand, with what training them cost and why they diverged, if they did."""
        status, progress = Status.DIVERGED if reason else Status.FINISHED, self.progress
        tokens = self.pace.first(progress.step) * self.pace.context
        lost = sum(one["lost_tokens"] for one in progress.rollbacks)
        rate = (tokens + lost) / max(progress.seconds, 1e-9)
        costs = Costs(
            training_seconds=progress.seconds,
            tokens=tokens,
            tokens_per_second=rate,
            mfu_exact=utilised(rate, self.job.architecture, self.job.numerics),
            peak_memory_bytes=int(self.parallel.most(peak_memory(self.job.numerics))[0]),
            rollbacks=len(progress.rollbacks),
            lost_tokens=lost,
            together=self.together,
        )
        described = {
            "status": status,
            "reason": reason,
            "curve": progress.curve,
            "costs": costs.model_dump(),
            "rollbacks": progress.rollbacks,
            "architecture": self.job.architecture.model_dump(mode="json"),
            "data": self.job.data,
        }
        if not reason and (best := self._keeper.described()):
            described["best"] = best
            if self.parallel.leads:
                self._keeper.secure()
        save_final(self.job.folder, self.model, described, leads=self.parallel.leads)
        return Trained(self.model, status, reason, curve_table(progress.curve), costs, progress.rollbacks)
