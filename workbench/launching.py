"""Workers on one machine: start them, follow them, replace those that die, and deliver what they commit.

Ends when every cell the plan asks for has a record, whoever made it; a sequential plan asks for fewer as arms are
decided. A cell whose worker dies three times is recorded as
failed; everything else is left to be taken up by the next start.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import MissingExtra, WorkbenchError
from workbench.planning import Plan, Trial
from workbench.records import Record, Status
from workbench.running import Runner
from workbench.store import Store
from workbench.study import ATTEMPTS, Queue
from workbench.together import process_command

SPAWNS = 100  # workers one launch may start beyond one per cell; more, and something is wrong with the machine
PATIENCE = 60.0  # seconds a worker has to write its checkpoint when asked to end


class Interrupted(Exception):
    """The user asked to stop; what is committed is committed."""


def cores() -> int:
    """Return the processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(plan: Plan) -> int:
    """As many as have GPUs of their own where the plan uses them; else cores of their own, eight at most."""
    if plan.numerics is not None and plan.numerics.device == "cuda":
        import torch

        return max(1, torch.cuda.device_count() // plan.numerics.devices)
    threads = plan.numerics.threads * plan.numerics.devices if plan.numerics else 1
    return max(1, min(cores() // threads, len(plan.trials), 8))


class Deliverer:
    """Delivers committed runs to MLflow on a thread of its own, so that no worker ever waits for a server."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.trouble: str | None = None
        self._report: Path | None = None
        self._plan, self._document, self._store = plan, plan.document(), store
        self._waiting: queue.SimpleQueue[Trial | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._deliver, daemon=True)
        self._thread.start()

    def put(self, trial: Trial) -> None:
        """Have a committed cell delivered soon."""
        self._waiting.put(trial)

    def close(self, report: Path | None = None) -> None:
        """Deliver what waits, then the report, and end."""
        self._report = report
        self._waiting.put(None)
        self._thread.join()

    def _deliver(self) -> None:
        try:
            from workbench.tracking import Tracking, Unavailable
        except MissingExtra as error:
            self.trouble = str(error)
            return
        try:
            delivery = Tracking(self._store.home).delivery(self._document)
            while (trial := self._waiting.get()) is not None:
                record = self._store.record(trial.run_id)
                if record is not None:
                    delivery.deliver(record, trial.arm, trial.seed, self._store.run_folder(trial.run_id))
            if self._report is not None:
                delivery.write_report(self._report)
        except (Unavailable, WorkbenchError) as error:
            self.trouble = str(error)


def launch(
    plan: Plan,
    store: Store,
    command: list[str],
    workers: int,
    tell: Callable[[dict[str, Any]], None],
    asked: Callable[[], Sequence[Trial]] | None = None,
) -> None:
    """Run every cell that `plan` asks for and that has no record yet.

    Args:
        plan: What to run.
        store: The runtime folder.
        command: Arguments that start one worker of this plan.
        workers: How many at once.
        tell: Called with every worker's news (`start`, `step`, `done`, and `lost` for a worker that died).
        asked: Returns the cells the plan asks for in view of the records there are; all of them unless given.

    Raises:
        Interrupted: on SIGINT or SIGTERM, after the workers have written their checkpoints.
    """
    asked = asked or (lambda: plan.trials)
    cells = Queue(store.home / "queue", plan.hash)
    runner = Runner(plan, store)
    fleet = Fleet(command, store.home / "logs", plan)
    try:
        for trial in _undone(asked(), store):
            if store.record(trial.run_id) is not None:  # failed before: this start tries again
                store.forget_failure(trial.run_id)
        cells.recover(lambda cell: _abandoned(store, plan.trials[cell]), blame=False)
        cells.fill(trial.cell for trial in _undone(asked(), store))
        with _signals_raise():
            while missing := _missing(asked, store):
                fleet.keep(min(workers, len(missing)), cells)
                for news in fleet.news():
                    tell(news)
                if fleet.lost:
                    tell({"event": "lost", "log": str(fleet.lost.pop())})
                if not fleet.busy:
                    _recover(plan, store, cells, runner, tell)
                    if cells.waiting() == 0 and not cells.running():  # nothing leased or waiting, yet cells are missing
                        cells.fill(trial.cell for trial in _missing(asked, store))
                    time.sleep(0.2)
    except KeyboardInterrupt:
        raise Interrupted from None
    finally:
        fleet.end()
        for news in fleet.news():
            tell(news)


class Fleet:
    """The worker processes of one launch."""

    def __init__(self, command: list[str], logs: Path, plan: Plan) -> None:
        self.lost: list[Path] = []
        self._command, self._logs, self._plan = command, logs, plan
        self._running: dict[int, tuple[subprocess.Popen[str], Path]] = {}
        self._news: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._spawned = 0
        logs.mkdir(parents=True, exist_ok=True)

    @property
    def busy(self) -> bool:
        """Whether any worker runs."""
        return bool(self._running)

    def keep(self, wanted: int, cells: Queue) -> None:
        """Start workers until `wanted` run, as long as cells wait."""
        for slot, (process, log) in list(self._running.items()):
            if process.poll() is not None:
                del self._running[slot]
                if process.returncode == WorkbenchError.exit_code:
                    raise WorkbenchError("a worker refuses to go on", where=log, got=log.read_text().strip())
                if process.returncode != 0:
                    self.lost.append(log)
        if not cells.waiting():
            return
        for slot in range(wanted):
            if slot not in self._running:
                self._start(slot)

    def news(self) -> Iterator[dict[str, Any]]:
        """Yield what the workers said, waiting a moment for the first."""
        with contextlib.suppress(queue.Empty):
            yield self._news.get(timeout=0.2)
            while True:
                yield self._news.get_nowait()

    def end(self) -> None:
        """Ask every worker to write its checkpoint and end; wait for them."""
        for process, _ in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process, _ in self._running.values():
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
        self._running.clear()

    def _start(self, slot: int) -> None:
        log = self._logs / f"worker-{slot}.log"
        if self._spawned >= SPAWNS + len(self._plan.trials):
            raise WorkbenchError(f"workers keep dying: {self._spawned} were started", where=log, fix="read the log")
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if self._plan.numerics is not None:
            environment["OMP_NUM_THREADS"] = str(self._plan.numerics.threads)
            if self._plan.numerics.device == "cuda":
                environment["CUDA_VISIBLE_DEVICES"] = _visible_devices(slot, self._plan.numerics.devices)
        with open(log, "wb") as sink:
            process = subprocess.Popen(
                [*self._command, "--parent", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the parent alone, which then asks the workers to end
            )
        self._spawned += 1
        self._running[slot] = (process, log)
        threading.Thread(target=self._listen, args=(slot, process), daemon=True).start()

    def _listen(self, slot: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None  # noqa: S101
        for line in process.stdout:
            with contextlib.suppress(ValueError):
                self._news.put({"worker": slot, **json.loads(line)})


def _visible_devices(slot: int, count: int) -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else None
    if devices is None:
        import torch

        devices = [str(index) for index in range(max(1, torch.cuda.device_count()))]
    return ",".join(devices[(slot * count + place) % len(devices)] for place in range(count))


def _undone(trials: Sequence[Trial], store: Store) -> list[Trial]:
    """Cells without a record, and those whose record says that machine or code failed."""

    def undone(record: Record | None) -> bool:
        return record is None or record.status is Status.FAILED

    return [trial for trial in trials if undone(store.record(trial.run_id))]


def _missing(asked: Callable[[], Sequence[Trial]], store: Store) -> list[Trial]:
    """Cells that are asked for and have no record."""
    while True:
        trials = asked()
        missing = _unrecorded(trials, store)
        if missing or asked() == trials:  # the last run may come in after the asking, and lead to more being asked
            return missing


def _unrecorded(trials: Sequence[Trial], store: Store) -> list[Trial]:
    return [trial for trial in trials if not (store.run_folder(trial.run_id) / "record.json").exists()]


def _abandoned(store: Store, trial: Trial) -> bool:
    with store.lock(trial.run_id) as free:
        return free


def _recover(plan: Plan, store: Store, cells: Queue, runner: Runner, tell: Callable[[dict[str, Any]], None]) -> None:
    """Hand out again what dead workers held; record as failed what killed its worker three times."""
    for cell in cells.recover(lambda cell: _abandoned(store, plan.trials[cell])):
        trial = plan.trials[cell]
        if store.record(trial.run_id) is None:
            runner.fail(trial, f"its worker died {ATTEMPTS} times (out of memory?)")
            tell({"event": "done", "cell": cell, "arm": trial.arm, "seed": trial.seed, "status": "failed"})


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGTERM end the launch as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def worker_command(sweep: str, plan: Plan, store: Store, corpus: str | None) -> list[str]:
    """Return the arguments that start a worker of this plan with this interpreter."""
    return process_command("work", sweep, plan, store, corpus)
