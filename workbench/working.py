"""One worker: takes cells from the queue, runs them, and tells its parent how it goes, one JSON line at a time.

A worker may be killed at any moment, or be left behind by a parent that was: it then writes a checkpoint and ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from workbench.planning import Plan, Trial
from workbench.records import Record, Status
from workbench.running import Runner, Stopped
from workbench.store import Store

NEWS_EVERY = 0.25  # seconds between two lines about the same cell


@contextmanager
def stop_requested(parent: int | None = None) -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether this process was asked to end (SIGINT, SIGTERM) or lost its parent."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked or (parent is not None and os.getppid() != parent)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def work(plan: Plan, store: Store, parent: int | None = None) -> None:
    """Run cells until none waits, reporting on standard output."""
    from workbench.study import Queue  # here, so that a single cell can be run where there is no Optuna

    queue = Queue(store.home / "queue", plan.hash)
    last = 0.0
    current: dict[str, Any] = {}

    def watch(step: int, steps: int, loss: float, speed: float) -> None:
        nonlocal last
        if step == steps or time.monotonic() - last > NEWS_EVERY:
            last = time.monotonic()
            _tell(event="step", **current, step=step, steps=steps, loss=loss, tokens_per_second=speed)

    with stop_requested(parent) as stop:
        runner = Runner(plan, store, watch=watch, stop=stop)
        while not stop() and (lease := queue.lease()) is not None:
            trial = plan.trials[lease.cell]
            current = {"cell": trial.cell, "arm": trial.arm, "seed": trial.seed}
            with store.lock(trial.run_id) as mine:
                if not mine:  # another worker has it already
                    queue.finish(lease, None)
                    continue
                _tell(event="start", **current)
                try:
                    record = runner.run(trial)
                except Stopped:
                    queue.finish(lease, None)
                    break
                queue.finish(lease, primary_value(plan, store, record))
                _tell(event="done", **current, status=str(record.status), reason=record.reason)


def primary_value(plan: Plan, store: Store, record: Record) -> float | None:
    """Return a run's mean of the primary metric, for Optuna's own views; None where it has none."""
    if record.status is not Status.FINISHED:
        return None
    scores = store.scores(record).to_pandas()
    rows = scores[scores["metric"] == plan.sweep.metric.name]
    return float((rows["value"] * rows["weight"]).sum() / rows["weight"].sum()) if len(rows) else None


def run_one(plan: Plan, store: Store, trial: Trial, watch: Callable[[int, int, float, float], None]) -> Record | None:
    """Run one cell in this process, without queue or tracking; None if it was stopped or is run elsewhere."""
    with stop_requested() as stop, store.lock(trial.run_id) as mine:
        if not mine:
            return None
        try:
            return Runner(plan, store, watch=watch, stop=stop).run(trial)
        except Stopped:
            return None


def _tell(**news: Any) -> None:
    try:
        sys.stdout.write(json.dumps(news) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the parent is gone; `stop` will say so
        pass
