"""One worker: takes cells from the queue, runs them, and tells its parent how it goes, one JSON line at a time.

A worker may be killed at any moment, or be left behind by a parent that was: it then writes a checkpoint and ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from workbench.command import Command
from workbench.planning import Plan, Trial
from workbench.records import Record, Status
from workbench.running import Runner, Stopped
from workbench.store import Store
from workbench.together import lead_or_follow, run_together

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


def work(plan: Plan, store: Store, parent: int | None = None, devices: Sequence[str] = ()) -> None:
    """Run cells until none waits, reporting on standard output.

    Args:
        plan: What to run.
        store: The runtime folder.
        parent: Process whose end ends this worker.
        devices: Arguments that start one device's process, where several train a run together.
    """
    from workbench.study import Queue  # here, so that a single cell can be run where there is no Optuna

    queue = Queue(store.home / "queue", plan.hash)
    current: dict[str, Any] = {}
    with stop_requested(parent) as stop:

        def say(text: str) -> None:
            _tell(event="said", **current, text=text)

        runner = Runner(plan, store, watch=_watch(current), stop=stop, say=say)
        while not stop() and (lease := queue.lease()) is not None:
            trial = plan.trials[lease.cell]
            current.update(_place(trial))
            with store.lock(trial.run_id) as mine:
                if not mine:  # another worker has it already
                    queue.finish(lease, None)
                    continue
                _tell(event="start", **current)
                try:
                    record = _run(runner, trial, devices, stop)
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


def run_one(
    plan: Plan,
    store: Store,
    trial: Trial,
    watch: Callable[[int, int, float, float], None],
    devices: Sequence[str] = (),
) -> Record | None:
    """Run one cell, without queue or tracking; None if it was stopped or is run elsewhere."""
    with stop_requested() as stop, store.lock(trial.run_id) as mine:
        if not mine:
            return None
        try:
            return _run(Runner(plan, store, watch=watch, stop=stop), trial, devices, stop, quiet=True)
        except Stopped:
            return None


def work_as_device(plan: Plan, store: Store, trial: Trial, parent: int | None = None) -> int:
    """Do the part of one of the devices that train a cell together; return the exit code of this process.

    The device that leads reports on standard output.

    Raises:
        WorkbenchError: if this is not one of as many as the plan says, or folder or data cannot be used.
    """
    from workbench.training.numerics import settle
    from workbench.training.parallel import joined

    assert plan.numerics is not None  # noqa: S101 - a cell that is trained has numerics
    settle(plan.numerics)
    with stop_requested(parent) as stop, joined(plan.numerics) as parallel:
        watch = _watch(_place(trial)) if parallel.leads else lambda *news: None
        return lead_or_follow(Runner(plan, store, watch=watch, stop=stop, parallel=parallel), trial, parallel.leads)


def _run(
    runner: Runner, trial: Trial, devices: Sequence[str], stop: Callable[[], bool], *, quiet: bool = False
) -> Record:
    numerics, configuration = runner.plan.numerics, runner.plan.arm(trial.arm).configuration
    if numerics is None or numerics.devices == 1 or isinstance(configuration, Command):
        return runner.run(trial)
    return run_together(runner, trial, [*devices, "--cell", str(trial.cell)], stop, quiet=quiet)


def _place(trial: Trial) -> dict[str, Any]:
    return {"cell": trial.cell, "arm": trial.arm, "seed": trial.seed}


def _watch(current: dict[str, Any]) -> Callable[[int, int, float, float], None]:
    """Return what tells of the steps of the `current` cell, not too often."""
    last = 0.0

    def watch(step: int, steps: int, loss: float, speed: float) -> None:
        nonlocal last
        if step == steps or time.monotonic() - last > NEWS_EVERY:
            last = time.monotonic()
            _tell(event="step", **current, step=step, steps=steps, loss=loss, tokens_per_second=speed)

    return watch


def _tell(**news: Any) -> None:
    try:
        sys.stdout.write(json.dumps(news) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the parent is gone; `stop` will say so
        pass
