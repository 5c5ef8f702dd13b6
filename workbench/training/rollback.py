"""Rollback of loss spikes: a run goes back to its last good point and on from there with other text and other dropout.

LokiLM went back to the most recent checkpoint and restarted with another seed, by judgement (its report, section 2.3);
here detector and points are declared. What happens is a function of the seeds alone: points lie at declared steps and
every loss is looked at, so that an interrupted run goes back where an uninterrupted one does. That needs the loss of
every step, but a device is waited for only at the points of the curve, at those to go back to and at checkpoints.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from workbench.errors import StoreError
from workbench.identity import Spec, setting
from workbench.training.checkpoints import Progress, pack, point_stem, read_state, unpack, write_state
from workbench.training.pace import Pace

NORMAL = 1.4826  # standard deviations of a normal distribution per median absolute deviation
LEAST = 1e-3  # nats; a loss that hardly moves has no spread to measure a spike by


class Rollback(Spec):
    """When a run goes back, and how often.

    A loss or gradient that is not finite is a spike at any time; a loss that lies high is one once `window` steps are
    behind. The last point is held in the memory of the host: three times the weights for AdamW.

    Attributes:
        threshold: How many robust standard deviations (1.4826 median absolute deviations) above their median.
        window: How many steps before it median and deviation are of.
        every: Steps between two points to go back to; the beginning is one.
        tries: Rollbacks of one stage; a spike after the last ends the run as diverged.
    """

    threshold: float = setting(default=10.0, effect="training", gt=0)
    window: int = setting(default=64, effect="training", ge=8)
    every: int = setting(default=100, effect="training", gt=0)
    tries: int = setting(default=3, effect="training", ge=1)

    def trouble(self, before: Sequence[float], loss: float, norm: float) -> str | None:
        """Return what is wrong with a step, given the losses of the steps before it; None if nothing is."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return f"loss {loss}, gradient norm {norm}"
        if len(before) < self.window:
            return None
        last = before[-self.window :]
        median = statistics.median(last)
        spread = NORMAL * statistics.median(abs(value - median) for value in last)
        high = (loss - median) / max(spread, LEAST)
        if high <= self.threshold:
            return None
        return f"loss {loss:.4g}, {high:.0f} robust standard deviations above {median:.4g}"


@dataclass(frozen=True)
class Spike:
    """A step after which a run must not go on.

    Attributes:
        step: Steps done, with this one.
        reason: What is wrong.
    """

    step: int
    reason: str


@dataclass(frozen=True)
class _Point:
    step: int
    content: bytes
    losses: tuple[float, ...]


class Guard:
    """Watches the losses of one run and takes it back; without a rule it does nothing.

    Args:
        rule: Of the stage.
        folder: Of the run's checkpoints.
        model: As it stands.
        optimizer: As it stands.
        progress: Of the run; kept up to date here.
        pace: Of the run.
    """

    def __init__(
        self,
        rule: Rollback | None,
        folder: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        pace: Pace,
    ) -> None:
        self._rule, self._folder, self._model, self._optimizer = rule, folder, model, optimizer
        self._progress, self._pace = progress, pace
        self._pending: list[tuple[int, Tensor, Tensor]] = []
        if rule is not None:
            self._written = progress.point is not None
            self._point = self._read() if self._written else self._take()

    def see(self, loss: Tensor, norm: Tensor) -> None:
        """Remember loss and gradient norm, 0-dim, of the step just done; nothing is waited for."""
        if self._rule is not None:
            self._pending.append((self._progress.step, loss.detach().float(), norm.detach().float()))

    def due(self, step: int) -> bool:
        """Say whether the run can go back to where it stands after `step` steps."""
        return self._rule is not None and step % self._rule.every == 0 and step < self._pace.steps

    def look(self) -> Spike | None:
        """Look at all steps not looked at, and return the first spike; without one, take the point that is due."""
        if self._rule is None:
            return None
        pending, self._pending = self._pending, []
        if pending:
            seen = torch.stack([torch.stack([loss, norm]) for _, loss, norm in pending]).tolist()
            losses = self._progress.losses
            for (step, _, _), (loss, norm) in zip(pending, seen, strict=True):
                if reason := self._rule.trouble(losses, loss, norm):
                    return Spike(step, reason)
                losses.append(loss)
                del losses[: -self._rule.window]
        if self.due(self._progress.step) and self._progress.step != self._point.step:
            self._point = self._take()
        return None

    def go_back(self, spike: Spike) -> str | None:
        """Take model, optimizer and progress back; return why that is not allowed any more, if so."""
        assert self._rule is not None  # noqa: S101 - only a rule finds spikes
        progress, point, done = self._progress, self._point, len(self._progress.rollbacks)
        if done >= self._rule.tries:
            progress.step = spike.step  # steps beyond it are done only because nobody looked
            return f"{spike.reason} at step {spike.step} of {self._pace.steps}, after {done} rollbacks"
        unpack(point.content, self._model, self._optimizer)
        tokens, reached = (self._pace.first(step) * self._pace.context for step in (point.step, spike.step))
        progress.rollbacks.append(
            {
                "number": done + 1,
                "step": spike.step,
                "reason": spike.reason,
                "back_to": point.step,
                "tokens": tokens,
                "lost_tokens": reached - tokens,
            }
        )
        progress.step, progress.losses = point.step, list(point.losses)
        progress.curve = [row for row in progress.curve if row["step"] <= point.step]
        return None

    def secure(self) -> None:
        """Write the point to go back to, without which a checkpoint is of no use."""
        if self._rule is None or self._written:
            return
        described = {"step": self._point.step, "losses": self._point.losses}
        write_state(point_stem(self._folder, self._point.step), self._point.content, described)
        self._written = True

    def _take(self) -> _Point:
        progress = self._progress
        progress.point, self._written = progress.step, False
        return _Point(progress.step, pack(self._model, self._optimizer), tuple(progress.losses))

    def _read(self) -> _Point:
        assert self._progress.point is not None  # noqa: S101 - of a checkpoint that was loaded with its point
        found = read_state(point_stem(self._folder, self._progress.point))
        if found is None:
            raise StoreError("a point to go back to is gone", where=self._folder, expected=self._progress.point)
        return _Point(found[0]["step"], found[1], tuple(found[0]["losses"]))
