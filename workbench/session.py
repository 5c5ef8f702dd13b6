"""What the commands do, in order: load, plan, prepare, run, deliver, decide, report. Each step is one function."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.command import Command
from workbench.errors import PlanError, StoreError
from workbench.loading import load_sweep
from workbench.planning import Plan, Trial, plan
from workbench.records import Numerics, Record
from workbench.reporting.decision import Decision, decide_plan, follow_plan
from workbench.reporting.report import write_report
from workbench.reporting.sequential import asked
from workbench.reporting.trajectory import as_fact, follow_checkpoints, write_trajectory
from workbench.results import Results
from workbench.store import Store
from workbench.sweep import Sweep, Variant


@dataclass(frozen=True)
class Session:
    """A plan and the runtime folder it runs in; `sweep` and `corpus` are as the user typed them."""

    sweep: str
    corpus: str | None
    plan: Plan
    store: Store

    def cells(self) -> list[tuple[Trial, Record | None]]:
        """Return every cell with its committed record, or None where it has none yet."""
        return [(trial, self.store.record(trial.run_id)) for trial in self.plan.trials]


def open_session(
    sweep: str,
    home: Path,
    corpus: str | None = None,
    *,
    devices: int | None = None,
    sharded: bool = False,
    execution: str | None = None,
) -> Session:
    """Load and plan a sweep. Nothing is written.

    Args:
        sweep: As the user typed it.
        home: The runtime folder.
        corpus: In place of the sweep's.
        devices: That train each run together, in place of what the sweep says.
        sharded: Whether each of them keeps a share of the model; a sweep that says so needs no telling.
        execution: "loop" or "stacked", in place of what the sweep says.

    Raises:
        SweepError, PlanError, DataError: whatever is wrong with what the user declared.
    """
    loaded = load_sweep(sweep, corpus)
    told = {
        "devices": devices or loaded.numerics.devices,
        "sharded": sharded or loaded.numerics.sharded,
        "execution": execution or loaded.numerics.execution,
    }
    loaded = loaded.model_copy(update={"numerics": loaded.numerics.model_copy(update=told)})
    return session_of(loaded, home, sweep, corpus)


def session_of(sweep: Sweep, home: Path, told: str | None = None, corpus: str | None = None) -> Session:
    """Plan a sweep that is loaded or made up already, `told` being what the user typed for it. Nothing is written.

    Raises:
        PlanError, DataError: whatever is wrong with what the user declared.
    """
    return Session(told or sweep.name, corpus, plan(sweep, _numerics(sweep), _fingerprints()), Store(home))


class Frontier:
    """The cells a plan asks for in view of the records there are: all of a fixed one, fewer of a sequential one.

    Called again and again while a sweep runs, it reads only what is new.

    Args:
        plan: The plan.
        store: Where its runs are committed.
        tell: Called once for every arm that stopped early (`stopped`, with arm, seeds and state).
    """

    def __init__(self, plan: Plan, store: Store, tell: Callable[[dict[str, Any]], None] = lambda news: None) -> None:
        self._plan, self._store, self._tell = plan, store, tell
        self._scores: dict[str, Any] = {}
        self._seen: list[int] | None = None
        self._asked: tuple[Trial, ...] = ()
        self._told: set[str] = set()

    def __call__(self) -> tuple[Trial, ...]:
        """Return the cells asked for so far, in the order of the plan.

        Raises:
            StatisticsError: if the runs cannot be judged, as when none reports the metric.
        """
        if self._plan.sweep.design != "sequential":
            return self._plan.trials
        if (seen := [self._changed(trial) for trial in self._plan.trials]) != self._seen:
            self._seen, self._asked = seen, self._ask()
        return self._asked

    def _ask(self) -> tuple[Trial, ...]:
        document, trials = self._plan.document(), self._plan.trials
        found = follow_plan(document, self._store.records(trial.run_id for trial in trials), self._read)
        for arm, standing in zip(self._plan.arms[1:], found.arms, strict=True):
            if standing.stopped and standing.seeds < len(self._plan.sweep.seeds) and arm.name not in self._told:
                self._told.add(arm.name)
                self._tell({"event": "stopped", "arm": arm.name, "seeds": standing.seeds, "state": standing.state})
        return tuple(trials[cell] for cell in asked(document, found))

    def _changed(self, trial: Trial) -> int:
        try:
            return (self._store.run_folder(trial.run_id) / "record.json").stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def _read(self, record: Record) -> Any:
        key = f"{record.run_id} {record.scores_sha256}"
        if key not in self._scores:
            self._scores[key] = self._store.scores(record)
        return self._scores[key]


def decide(results: Results, document: dict[str, Any]) -> list[Decision]:
    """Judge a plan by its records, wherever they lie."""
    records = results.records(document)
    return decide_plan(document, records, lambda record: results.scores(document, record))


def publish(results: Results, document: dict[str, Any], folder: Path) -> tuple[list[Decision], list[Path]]:
    """Judge a plan and write its report, tables and figure into `folder`, beside the plan itself."""
    decisions = decide(results, document)
    followed = follow_checkpoints(document, results.records(document), lambda record: results.scores(document, record))
    decisions[0] = replace(decisions[0], facts={**decisions[0].facts, **as_fact(followed)})
    paths = write_report(decisions, folder)
    return decisions, paths + (write_trajectory(followed, folder) if followed else [])


def merge(store: Store, others: Iterable[Path]) -> int:
    """Copy committed runs and plans from other runtime folders; return how many runs were new.

    Raises:
        StoreError: if a folder is none of ours, or holds another result for a run that is here.
    """
    new = 0
    for other in others:
        theirs = Store(other)
        if not (theirs.home / "runs").is_dir():
            raise StoreError("this is no runtime folder", where=theirs.home, expected="a folder with 'runs' in it")
        for document in theirs.plans():
            store.save_plan(document["hash"], document)
        for path in sorted((theirs.home / "runs").glob("*/record.json")):
            record = theirs.record(path.parent.name)
            if record is None or store.holds(record):
                continue
            if samples := theirs.samples(record):
                store.keep_samples(record.run_id, samples)
            store.commit(record, theirs.scores(record), theirs.curve(record))
            new += 1
        for path in theirs.home.glob("evaluations/*/[!.]*.json"):
            told = json.loads(path.read_text())
            store.count_evaluation(path.parent.name, told["score_id"], told)
    return new


def deliver(store: Store) -> tuple[int, int]:
    """Deliver every committed run of every plan in this folder to MLflow; return (written, already there).

    Raises:
        Unavailable: if the server does not answer.
    """
    from workbench.tracking import Tracking

    tracking = Tracking(store.home)
    written = present = 0
    for document in store.plans():
        delivery = tracking.delivery(document)
        for trial in document["trials"]:
            record = store.record(trial["run_id"])
            if record is None:
                continue
            folder = store.run_folder(record.run_id)
            fresh = delivery.deliver(record, trial["arm"], trial["seed"], folder)
            written, present = written + fresh, present + (not fresh)
        if store.reports(document["sweep"]).is_dir():
            delivery.write_report(store.reports(document["sweep"]))
    return written, present


def clear_reports(store: Store, sweep: str) -> Path:
    """Return an empty folder for a sweep's report."""
    folder = store.reports(sweep)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _numerics(sweep: Sweep) -> Numerics | None:
    variants = [sweep.baseline, *(arm.configuration for arm in sweep.arms)]
    trained: list[Any] = [variant for variant in variants if not isinstance(variant, Command)]
    if not trained:
        return None
    from workbench.training.execution import executing
    from workbench.training.lowbit import refuse_unsupported
    from workbench.training.numerics import resolve

    wanted = sweep.numerics
    architectures = [configuration.architecture for configuration in trained]
    packed = any(stage.packs for configuration in trained for stage in configuration.training)
    known = resolve(wanted.device, wanted.precision, wanted.attention, wanted.threads, architectures, packed=packed)
    if wanted.execution == "stacked":
        _refuse_unstacked(sweep)
    known = known.model_copy(update={"execution": wanted.execution, "matmul": wanted.matmul})
    refuse_unsupported(trained, known.model_copy(update={"sharded": wanted.sharded}))
    return executing(
        known,
        architectures,
        devices=wanted.devices,
        sharded=wanted.sharded,
        compiled=wanted.compiled,
        recompute=wanted.recompute,
    )


def _refuse_unstacked(sweep: Sweep) -> None:
    from workbench.training.cohort import refuse_unstacked

    if sweep.design == "sequential":
        raise PlanError(
            "a sequential design asks for one seed after the other",
            where="numerics.execution (--execution)",
            expected='loop, or design="fixed"',
            got="stacked",
        )
    named = {sweep.baseline_name: sweep.baseline, **{arm.name: arm.configuration for arm in sweep.arms}}
    trained: dict[str, Any] = {name: one for name, one in named.items() if not isinstance(one, Command)}
    for name, configuration in trained.items():
        refuse_unstacked(configuration.architecture, configuration.training, f"arm '{name}'")


def _fingerprints() -> Callable[[Variant], str]:
    """Return a function that hashes the corpus of a variant, reading every corpus once."""
    known: dict[Any, str] = {}

    def of(variant: Variant) -> str:
        if isinstance(variant, Command):
            return ""
        from workbench.configuration import Configuration

        assert isinstance(variant, Configuration)  # noqa: S101 - the only other kind there is
        bytes_of = variant.data.corpus, variant.data.validation
        if bytes_of not in known:
            known[bytes_of] = variant.data.fingerprint()
        return known[bytes_of]

    return of
