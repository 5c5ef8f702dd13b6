"""MLflow: the shared store of record, written from committed run folders and read back; the only `import mlflow`.

One experiment per sweep; a parent run per plan with plan and report; a child run per cell. Delivery is idempotent: a
child run is complete when its tag `workbench.commit` is set, which happens last; an incomplete one is replaced.
Readers skip untagged runs, merge equal ones and refuse conflicting ones.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import pyarrow as pa
import pyarrow.parquet as pq

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read at import
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a server that is away is told within seconds
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from workbench.errors import DataError, MissingExtra, StoreError
from workbench.identity import leaves
from workbench.records import Record, Status
from workbench.store import read_samples, read_scores

try:
    import mlflow
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
except ModuleNotFoundError:
    raise MissingExtra("mlflow", "track") from None

COMMIT = "workbench.commit"
LONGEST_PARAMETER = 6000  # MLflow refuses longer values
MOST_METRICS = 850  # MLflow refuses more than 1000 values at once; parameters go with the first of them


class Unavailable(Exception):
    """The tracking server does not answer; results stay in their folders until `workbench sync`."""


class Tracking:
    """One MLflow server or file: MLFLOW_TRACKING_URI where that is set, else an SQLite file in the runtime folder."""

    def __init__(self, home: Path) -> None:
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home.absolute() / 'mlflow.db'}"
        self._artifacts = (home / "artifacts").absolute().as_uri() if self.uri.startswith("sqlite:") else None
        self._downloads = home / "cache" / "downloads"
        with _answered(self.uri):
            if self.uri.startswith("sqlite:///"):
                _prepare_sqlite(Path(self.uri.removeprefix("sqlite:///")))
            self.client = MlflowClient(tracking_uri=self.uri)

    def delivery(self, plan: dict[str, Any]) -> Delivery:
        """Open the plan's parent run for writing; see `Delivery`."""
        return Delivery(self, plan)

    def plans(self) -> list[dict[str, Any]]:
        """Return every plan on this server, oldest first."""
        with _answered(self.uri):
            experiments = [str(experiment.experiment_id) for experiment in self.client.search_experiments()]
            runs = [run for run in self.search(experiments, "plan") if COMMIT in run.data.tags]
            runs.sort(key=lambda run: run.info.start_time)
            return [json.loads(self._artifact(run, "plan.json").read_text()) for run in runs]

    def records(self, plan: dict[str, Any]) -> list[Record]:
        """Return the delivered records of a plan, merged where equal.

        Raises:
            StoreError: if two delivered runs claim the same cell with different scores.
        """
        found: dict[str, Record] = {}
        with _answered(self.uri):
            for run in self._cells(plan):
                record = Record.model_validate_json(self._artifact(run, "record.json").read_bytes())
                other = found.setdefault(record.run_id, record)
                if other.scores_sha256 != record.scores_sha256:
                    raise StoreError(
                        "two delivered runs claim the same cell with different scores",
                        where=f"{self.uri}, run {record.run_id}",
                        expected=other.scores_sha256,
                        got=record.scores_sha256,
                    )
        return list(found.values())

    def scores(self, plan: dict[str, Any], record: Record) -> pa.Table:
        """Return the item scores of a delivered run, verified against its record."""
        with _answered(self.uri):
            return read_scores(self._artifact(self._cell(plan, record), "scores.parquet"), record.scores_sha256)

    def curve(self, plan: dict[str, Any], record: Record) -> pa.Table | None:
        """Return the learning curve of a delivered run, or None where it left none."""
        with _answered(self.uri):
            run = self._cell(plan, record)
            names = {artifact.path for artifact in self.client.list_artifacts(run.info.run_id)}
            return pq.read_table(self._artifact(run, "curve.parquet")) if "curve.parquet" in names else None

    def samples(self, plan: dict[str, Any], record: Record) -> list[dict[str, Any]]:
        """Return the texts that the model of a delivered run wrote."""
        with _answered(self.uri):
            run = self._cell(plan, record)
            names = {artifact.path for artifact in self.client.list_artifacts(run.info.run_id)}
            return read_samples(self._artifact(run, "samples.jsonl")) if "samples.jsonl" in names else []

    def experiment(self, sweep: str) -> str:
        """Return the id of the sweep's experiment, made on first use."""
        found = self.client.get_experiment_by_name(sweep)
        if found is not None:
            return str(found.experiment_id)
        location = f"{self._artifacts}/{sweep}" if self._artifacts else None
        try:
            return str(self.client.create_experiment(sweep, artifact_location=location))
        except MlflowException:  # another process made it in between
            return str(self.client.get_experiment_by_name(sweep).experiment_id)

    def search(self, experiments: list[str], kind: str, plan: str | None = None) -> Iterator[Any]:
        """Yield the active runs of a kind ("plan" or "cell"), of one plan where its hash is given."""
        wanted = f"tags.`workbench.kind` = '{kind}'" + (f" and tags.`workbench.plan` = '{plan}'" if plan else "")
        token: str | None = None
        while experiments:
            page = self.client.search_runs(experiments, wanted, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _cells(self, plan: dict[str, Any]) -> list[Any]:
        found = self.client.get_experiment_by_name(plan["sweep"])
        experiments = [str(found.experiment_id)] if found else []
        return [run for run in self.search(experiments, "cell", plan["hash"]) if COMMIT in run.data.tags]

    def _cell(self, plan: dict[str, Any], record: Record) -> Any:
        for run in self._cells(plan):
            if run.data.tags["workbench.run"] == record.run_id:
                return run
        raise StoreError("a run is not on the tracking server", where=self.uri, expected=record.run_id)

    def _artifact(self, run: Any, name: str) -> Path:
        if run.info.artifact_uri.startswith("file:"):
            return Path(url2pathname(urlparse(run.info.artifact_uri).path)) / name
        folder = self._downloads / run.info.run_id
        folder.mkdir(parents=True, exist_ok=True)
        return Path(self.client.download_artifacts(run.info.run_id, name, str(folder)))


class Delivery:
    """Writes one plan's committed runs to MLflow, each once.

    Raises (from every method):
        Unavailable: if the server does not answer.
    """

    def __init__(self, tracking: Tracking, plan: dict[str, Any]) -> None:
        self._tracking, self._client, self._plan = tracking, tracking.client, plan
        with _answered(tracking.uri):
            self._experiment = tracking.experiment(plan["sweep"])
            self.parent = self._open_parent()
            self._earlier = {
                run.data.tags["workbench.run"]: run for run in tracking.search([self._experiment], "cell", plan["hash"])
            }

    def deliver(self, record: Record, arm: str, seed: int, folder: Path) -> bool:
        """Deliver a committed run as this plan's cell (arm, seed); return whether anything had to be written."""
        commit = f"{record.status} {record.scores_sha256}"
        with _answered(self._tracking.uri):
            earlier = self._earlier.get(record.run_id)
            if earlier is not None:
                if earlier.data.tags.get(COMMIT) == commit:
                    return False
                self._client.delete_run(earlier.info.run_id)
            tags = {
                "mlflow.runName": f"{arm}, seed {seed}",
                "mlflow.parentRunId": self.parent,
                "workbench.kind": "cell",
                "workbench.plan": self._plan["hash"],
                "workbench.arm": arm,
                "workbench.seed": str(seed),
                "workbench.status": str(record.status),
                "workbench.run": record.run_id,
                "workbench.score": record.score_id,
                "workbench.model": record.model_id or "",
                "workbench.code": str(record.provenance.get("commit", "")),
            }
            run_id = self._client.create_run(self._experiment, tags=tags).info.run_id
            metrics = _metrics(record, folder)
            self._client.log_batch(run_id, metrics=metrics[:MOST_METRICS], params=_parameters(record))
            for first in range(MOST_METRICS, len(metrics), MOST_METRICS):
                self._client.log_batch(run_id, metrics=metrics[first : first + MOST_METRICS])
            self._client.log_artifacts(run_id, str(folder))
            self._client.set_tag(run_id, COMMIT, commit)
            self._client.set_terminated(run_id, "FINISHED" if record.status is Status.FINISHED else "FAILED")
            self._earlier[record.run_id] = self._client.get_run(run_id)
        return True

    def write_report(self, folder: Path) -> None:
        """Put a sweep's report beside its plan and close the plan's run."""
        with _answered(self._tracking.uri):
            self._client.log_artifacts(self.parent, str(folder), "report")
            self._client.set_terminated(self.parent, "FINISHED")

    def _open_parent(self) -> str:
        for run in self._tracking.search([self._experiment], "plan", self._plan["hash"]):
            if COMMIT in run.data.tags:
                return str(run.info.run_id)
            self._client.delete_run(run.info.run_id)
        tags = {
            "mlflow.runName": f"plan {self._plan['hash'][:8]}",
            "mlflow.note.content": self._plan["question"],
            "workbench.kind": "plan",
            "workbench.plan": self._plan["hash"],
        }
        run_id = str(self._client.create_run(self._experiment, tags=tags).info.run_id)
        self._client.log_text(run_id, json.dumps(self._plan, indent=2), "plan.json")
        self._client.set_tag(run_id, COMMIT, self._plan["hash"])
        return run_id


@contextlib.contextmanager
def _answered(uri: str) -> Iterator[None]:
    """Turn every way in which a server can be away into `Unavailable`."""
    try:
        yield
    except (MlflowException, OSError, sqlite3.Error) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise Unavailable(f"{uri}: {first[:200]}") from error


def _prepare_sqlite(path: Path) -> None:
    """Create the file with a write-ahead log, which persists in it: commits cost a third of the default journal's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma journal_mode=WAL")


def read_experiment(name: str, uri: str | None = None) -> list[dict[str, Any]]:
    """Return every active run of any MLflow experiment as plain values; nothing of it need be ours.

    Args:
        name: Name of the experiment, or its id.
        uri: Tracking server, file or folder; MLFLOW_TRACKING_URI, else MLflow's own default, unless given.

    Returns:
        Per run, oldest first: "name", "status", "params" (name -> text) and "metrics" (name -> last value). Runs that
        only hold others together are left out.

    Raises:
        DataError: for an experiment or a store that does not exist.
        Unavailable: if the server does not answer.
    """
    uri = uri or mlflow.get_tracking_uri()
    _refuse_absent_store(uri)
    with _answered(uri):
        client = MlflowClient(tracking_uri=uri)
        known = {held.name: str(held.experiment_id) for held in client.search_experiments()}
        if name not in known and name not in known.values():
            raise DataError(
                "the experiment does not exist", where=uri, expected="one of " + ", ".join(sorted(known)), got=name
            )
        runs: list[Any] = []
        token: str | None = ""
        while token is not None:
            page = client.search_runs([known.get(name, name)], max_results=1000, page_token=token or None)
            runs, token = [*runs, *page], page.token or None
    parents = {run.data.tags.get("mlflow.parentRunId") for run in runs}
    kept = [run for run in runs if run.info.run_id not in parents]
    return [
        {
            "name": run.info.run_name or run.info.run_id,
            "status": run.info.status,
            "params": dict(run.data.params),
            "metrics": dict(run.data.metrics),
        }
        for run in sorted(kept, key=lambda run: (run.info.start_time, run.info.run_id))
    ]


def _refuse_absent_store(uri: str) -> None:
    """Refuse a local store that is not there, of which MLflow would make an empty one."""
    scheme = urlparse(uri).scheme
    if scheme == "sqlite":
        path = Path(uri.removeprefix("sqlite:///"))
    elif scheme in ("", "file"):
        path = Path(url2pathname(urlparse(uri).path))
        os.environ.setdefault(
            "MLFLOW_ALLOW_FILE_STORE", "true"
        )  # MLflow 3 refuses it unless told; here it is only read
    else:
        return
    if not path.exists():
        raise DataError(
            "there is no MLflow store",
            where=uri,
            got="no such file or folder",
            fix="name the store: --tracking-uri URI, or MLFLOW_TRACKING_URI",
        )


def _metrics(record: Record, folder: Path) -> list[Metric]:
    now = int(time.time() * 1000)
    metrics = [Metric(f"costs/{name}", float(value), now, 0) for name, value in record.costs.model_dump().items()]
    for name, count in _counts(record).items():
        metrics.append(Metric(_named(f"screening/{name}"), float(count), now, 0))
    scores = folder / "scores.parquet"
    table = pq.read_table(scores).to_pandas() if scores.exists() else None
    if table is not None and len(table):
        for (task, metric), rows in table.groupby(["task", "metric"], observed=True):
            mean = float((rows["value"] * rows["weight"]).sum() / rows["weight"].sum())
            metrics.append(Metric(_named(f"scores/{task}/{metric}"), mean, now, 0))
    curve = folder / "curve.parquet"
    for row in pq.read_table(curve).to_pylist() if curve.exists() else []:
        metrics += [
            Metric(_named(f"training/{name}"), value, now, row["step"])
            for name, value in row.items()
            if name != "step" and value is not None and math.isfinite(value)
        ]
    return metrics


def _counts(record: Record) -> dict[str, int]:
    """Return what was done to the text of a run, and what of its evaluation is in it, by name."""
    found: dict[str, int] = {}
    for place, one in enumerate(record.screening.text if record.screening else ()):
        held = {"before": one.before, "after": one.after, "overlapping": one.overlapping}
        found |= {f"text.{place} {one.by}/{name}": count for name, count in held.items() if count is not None}
    for task in record.screening.items if record.screening else ():
        found |= {f"items/{task.task}": task.items, f"contaminated/{task.task}": task.contaminated}
    return found


def _parameters(record: Record) -> list[Param]:
    held = {**leaves(record.spec), **{f"seeds.{name}": seed for name, seed in record.seeds.model_dump().items()}}
    return [Param(_named(path), str(value)[:LONGEST_PARAMETER]) for path, value in held.items()]


def _named(path: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", path)[:250]
