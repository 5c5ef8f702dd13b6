"""Cached reads: what the pages know of a runtime folder and its tracking server.

Promises that what is shown is what is committed: scores, curves and verdicts are cached by the hashes of the runs they
are made of and so never outlive them, and a server that goes away leaves the run folders readable. Never writes: it
opens neither a folder nor an MLflow file that is not there yet.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import streamlit as st
from numpy.typing import NDArray

from dashboard import measures, profiles
from workbench.errors import StatisticsError, StoreError, WorkbenchError
from workbench.records import Record, Status
from workbench.reporting import Decision, decide_plan
from workbench.reporting.calibrating import (
    EQUAL,
    MEASURED,
    Blocks,
    Question,
    blocks_of_decision,
    calibrate_blocks,
)
from workbench.reporting.naming import with_unit
from workbench.results import Results
from workbench.statistics.calibration import Calibration
from workbench.store import Store

LOCAL_PAUSE, SERVER_PAUSE = 2.0, 15.0  # seconds between two looks at a running sweep; a server may be far away
Answer = TypeVar("Answer")
State = tuple[tuple[str, str | None, str, str | None], ...]


@dataclass(frozen=True)
class Overview:
    """The plans there are, newest first, and whether the tracking server was read.

    Attributes:
        plans: Plans as plain JSON.
        tracking: How MLflow was read, in words.
        silence: Why it was not, or None where it was or where there is none.
    """

    plans: tuple[dict[str, Any], ...]
    tracking: str
    silence: str | None


@dataclass(frozen=True)
class View:
    """One plan as it stands now, seen through one metric.

    Attributes:
        home: The runtime folder.
        plan: The plan as plain JSON.
        records: Committed records of its cells, in the plan's order.
        metric: The metric chosen, as the plan describes it, with "exploratory" beside.
        results: Where scores and curves are read from.
    """

    home: Path
    plan: dict[str, Any]
    records: tuple[Record, ...]
    metric: dict[str, Any]
    results: Results

    @property
    def baseline(self) -> str:
        """Name of the baseline."""
        return str(self.plan["baseline"])

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of all arms, the baseline first."""
        return tuple(arm["name"] for arm in self.plan["arms"])

    @property
    def complete(self) -> bool:
        """Whether every run the plan asks for is in; a sequential plan asks for fewer as arms are decided."""
        everything = self.done == len(self.plan["trials"])
        if everything or self.plan.get("design", "fixed") != "sequential":
            return everything
        with contextlib.suppress(StatisticsError):  # what cannot be judged yet is not over
            return self.decisions()[0].complete
        return False

    @property
    def done(self) -> int:
        """Number of planned cells with a committed run."""
        return sum(record is not None for _, record in self.cells)

    @cached_property
    def cells(self) -> list[tuple[dict[str, Any], Record | None]]:
        """Every planned cell with its record; None where it is to come."""
        by_run = {record.run_id: record for record in self.records}
        return [(trial, by_run.get(trial["run_id"])) for trial in self.plan["trials"]]

    @property
    def state(self) -> State:
        """What identifies the committed results: equal states have equal results."""
        return tuple((r.run_id, r.scores_sha256, str(r.status), r.reason) for r in self.records)

    @property
    def unit(self) -> str:
        """Name of the metric with its unit, for an axis."""
        return with_unit(self.metric["metric"], self.metric.get("unit"))

    def decision(self) -> Decision:
        """Return the decision on the chosen metric; see `decisions`.

        Raises:
            StatisticsError: if this metric cannot be decided honestly.
        """
        found = {decision.metric: decision for decision in self.decisions()}
        name = self.metric["metric"]
        if name in found:
            return found[name]
        start = f"secondary metric {name} is not decided: "
        primary = found[self.plan["metric"]]
        reason = next((note.removeprefix(start) for note in primary.footnotes if note.startswith(start)), None)
        raise StatisticsError("this metric cannot be decided", where=name, got=reason)

    def decisions(self) -> list[Decision]:
        """Return the decisions of the plan, the primary metric first.

        Raises:
            StatisticsError: if the primary metric cannot be decided honestly.
        """
        return _decisions(str(self.home), self.plan["hash"], self.state, self)

    def tables(self) -> dict[measures.Cell, pa.Table]:
        """Return the item scores of every finished run, by arm and seed."""
        finished = [(trial, record) for trial, record in self.cells if record and record.status is Status.FINISHED]
        return {(trial["arm"], trial["seed"]): self.scores(record) for trial, record in finished}

    def scores(self, record: Record) -> pa.Table:
        """Return the verified item scores of one run."""
        return _scores(str(self.home), record.run_id, record.scores_sha256, self, record)

    def run_scores(self) -> dict[measures.Cell, float]:
        """Return the score of every finished run that reports the chosen metric, by arm and seed."""
        return _run_scores(str(self.home), self.plan["hash"], self.state, self.metric["metric"], self)

    def views(self) -> dict[str, dict[measures.Cell, float]]:
        """Return the run scores of every view of the chosen metric that runs report, by its name."""
        reported = {name for table in self.tables().values() for name in pc.unique(table["metric"]).to_pylist()}
        names = profiles.views_of(self.metric["metric"], sorted(reported))
        return {name: _run_scores(str(self.home), self.plan["hash"], self.state, name, self) for name in names}

    def item_differences(self, arm: str) -> pd.DataFrame:
        """Compare an arm with the baseline item by item; see `measures.item_differences`."""
        return _item_differences(str(self.home), self.plan["hash"], self.state, self.metric["metric"], arm, self)

    def samples(self) -> dict[measures.Cell, list[dict[str, Any]]]:
        """Return the texts that the model of every finished run wrote, by arm and seed, where it was asked to."""
        arms = {arm["name"] for arm in self.plan["arms"] if (arm["spec"].get("evaluation") or {}).get("samples")}
        finished = [(trial, record) for trial, record in self.cells if record and record.status is Status.FINISHED]
        return {
            (trial["arm"], trial["seed"]): _samples(str(self.home), record.run_id, record.scores_sha256, self, record)
            for trial, record in finished
            if trial["arm"] in arms
        }

    def curves(self) -> dict[measures.Cell, pd.DataFrame]:
        """Return the learning curve of every run that left one, by arm and seed."""
        found = {
            (trial["arm"], trial["seed"]): _curve(str(self.home), record.run_id, record.scores_sha256, self, record)
            for trial, record in self.cells
            if record is not None
        }
        return {cell: curve for cell, curve in found.items() if curve is not None and len(curve)}


def home() -> Path:
    """Return the runtime folder named on the command line, else WORKBENCH_HOME, else `.workbench`."""
    named = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("WORKBENCH_HOME", ".workbench")
    return Path(named).absolute()


def overview(folder: Path) -> Overview:
    """Look which plans there are.

    Raises:
        StoreError: if a plan in the folder is damaged.
    """
    here = tuple(sorted(path.parent.name for path in folder.glob("plans/*/plan.json")))
    plans, silence = _asked(folder, lambda results: _plans(str(folder), _server(), here, results))
    if silence is not None:
        tracking = "MLflow is not read; these are the run folders."
    elif _tracked(folder):
        tracking = "MLflow answers." if _server() else "MLflow file of this folder is read."
    else:
        tracking = "Nothing was delivered to MLflow yet; these are the run folders."
    return Overview(tuple(reversed(plans)), tracking, without_password(silence or "") or None)


def view(folder: Path, plan: dict[str, Any], metric: str) -> View:
    """Look how far a plan is.

    Raises:
        StoreError: if a committed record is damaged, or two delivered runs conflict.
    """
    records, results = _asked(folder, lambda results: (results.records(plan), results))[0]
    chosen = {**plan, "exploratory": False}
    for secondary in plan.get("secondary", ()):
        if secondary["metric"] == metric:
            chosen = {**secondary, "exploratory": True}
    kept = {name: chosen.get(name) for name in ("metric", "unit", "higher_is_better", "smallest_effect", "exploratory")}
    return View(folder, plan, tuple(records), kept, results)


def calibration(decision: Decision) -> tuple[Calibration, Calibration]:
    """Run the method on identical arms in the design of a decision: all equally noisy, and as noisy as its runs look.

    The second is the harsher: a few runs make arms look more unequal than they are.

    Raises:
        StatisticsError: for fewer than two complete seeds, no noise, or a design too small for the method.
    """
    blocks, alpha = blocks_of_decision(decision), decision.alpha
    equal, measured = (
        _calibration(blocks.scores, blocks.source, Question(alpha=alpha, noise=noise)) for noise in (EQUAL, MEASURED)
    )
    return equal, measured


def pause() -> float:
    """Seconds to wait between two looks at a running sweep."""
    return SERVER_PAUSE if _server() else LOCAL_PAUSE


def delivered(view: View) -> dict[str, str]:
    """Return run_id -> id of the MLflow run that holds it, as far as the tracking server tells."""
    if view.results.silence is not None or not _tracked(view.home):
        return {}
    from workbench.tracking import COMMIT, Tracking, Unavailable

    with contextlib.suppress(Unavailable):
        tracking = Tracking(view.home)
        experiment = tracking.client.get_experiment_by_name(view.plan["sweep"])
        if experiment is not None:
            runs = tracking.search([str(experiment.experiment_id)], "cell", view.plan["hash"])
            return {run.data.tags["workbench.run"]: run.info.run_id for run in runs if COMMIT in run.data.tags}
    return {}


def troubles() -> tuple[type[Exception], ...]:
    """Return the errors that mean trouble with what is read, not with the code that reads it."""
    return (WorkbenchError, OSError, *_unavailable())


def without_password(text: object) -> str:
    """Write a text in which an address may stand, without the name and password in front of its host."""
    return re.sub(r"//[^/@\s]*@", "//…@", str(text))


def look_again() -> None:
    """Forget that the tracking server did not answer."""
    _open.clear()
    _plans.clear()


def _server() -> str | None:
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def _tracked(folder: Path) -> bool:
    """Whether there is an MLflow to read. A local file counts once MLflow has set it up; reading must not do that."""
    if _server():
        return True
    path = folder / "mlflow.db"
    if not path.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=1)) as connection:
            return connection.execute("select 1 from experiments limit 1").fetchone() is not None
    except sqlite3.Error:
        return False


def _asked(folder: Path, question: Callable[[Results], Answer]) -> tuple[Answer, str | None]:
    """Ask the results; where the tracking server has gone away since, ask the run folders alone."""
    results = _open(str(folder), _server(), _tracked(folder))
    try:
        return question(results), results.silence
    except _unavailable() as error:
        alone = Results(Store(folder), tracked=False)
        alone.silence = str(error)
        return question(alone), alone.silence


def _unavailable() -> tuple[type[Exception], ...]:
    tracking = sys.modules.get("workbench.tracking")  # nobody can raise it before it is imported
    return (tracking.Unavailable,) if tracking else ()


@st.cache_resource(show_spinner="Opening the results", ttl=300, max_entries=8)
def _open(folder: str, server: str | None, tracked: bool) -> Results:
    return Results(Store(folder), tracked=tracked)


@st.cache_data(show_spinner=False, ttl=20, max_entries=8)
def _plans(folder: str, server: str | None, here: tuple[str, ...], _results: Results) -> list[dict[str, Any]]:
    try:
        return _results.plans()
    except (ValueError, KeyError) as error:
        raise StoreError("a plan is damaged", where=f"{folder}/plans", got=f"{type(error).__name__}: {error}") from None


@st.cache_data(show_spinner=False, max_entries=4096)
def _scores(folder: str, run_id: str, sha256: str | None, _view: View, _record: Record) -> pa.Table:
    return _view.results.scores(_view.plan, _record)


@st.cache_data(show_spinner=False, max_entries=4096)
def _curve(folder: str, run_id: str, sha256: str | None, _view: View, _record: Record) -> pd.DataFrame | None:
    try:
        curve = _view.results.curve(_view.plan, _record)
    except ValueError as error:  # Arrow's errors are of this kind
        raise StoreError("a learning curve is damaged", where=f"run {run_id} in {folder}", got=error) from None
    return None if curve is None else curve.to_pandas()


@st.cache_data(show_spinner=False, max_entries=4096)
def _samples(folder: str, run_id: str, sha256: str | None, _view: View, _record: Record) -> list[dict[str, Any]]:
    return _view.results.samples(_view.plan, _record)


@st.cache_data(show_spinner=False, max_entries=64)
def _decisions(folder: str, plan: str, state: State, _view: View) -> list[Decision]:
    return decide_plan(_view.plan, _view.records, _view.scores)


@st.cache_data(show_spinner=False, max_entries=64)
def _run_scores(folder: str, plan: str, state: State, metric: str, _view: View) -> dict[measures.Cell, float]:
    scores = {cell: measures.run_score(table, metric) for cell, table in _view.tables().items()}
    return {cell: score for cell, score in scores.items() if score is not None}


@st.cache_data(show_spinner=False, max_entries=64)
def _item_differences(folder: str, plan: str, state: State, metric: str, arm: str, _view: View) -> pd.DataFrame:
    return measures.item_differences(_view.tables(), metric, _view.baseline, arm)


@st.cache_data(show_spinner="Calibrating", max_entries=64)
def _calibration(scores: NDArray[np.float64], source: str, question: Question) -> Calibration:
    return calibrate_blocks(Blocks(scores, source), question)
