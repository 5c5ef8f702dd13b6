"""Run folders: the local, committed truth from which everything else is delivered or computed.

A run is done when `runs/<run_id>/record.json` exists. That file holds the SHA-256 of the scores beside it and is
renamed into place last, so that a killed process leaves either a complete run or none. Locks are advisory file locks
that the operating system releases when a process dies, however it dies: a cell whose lock is free is being worked on
by nobody.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workbench.errors import StoreError
from workbench.records import Record, Status

TICK = 1_000_000  # nanoseconds that a plan is younger than the one before it, at least


class Store:
    """The runtime folder (`.workbench` unless told otherwise): caches, checkpoints, committed runs, plans, reports."""

    def __init__(self, home: Path | str) -> None:
        self.home = Path(home).absolute()

    @property
    def cache(self) -> Path:
        """Corpora, tokenizers and token files, addressed by content; safe to delete."""
        return self.home / "cache"

    def model_folder(self, model_key: str) -> Path:
        """Folder of a model while it trains and, as `final.safetensors`, once it has."""
        return self.home / "models" / model_key

    def run_folder(self, run_id: str) -> Path:
        """Folder of one run's record, scores and curve."""
        return self.home / "runs" / run_id

    def reports(self, sweep: str) -> Path:
        """Folder of a sweep's report, tables and figures."""
        return self.home / "reports" / sweep

    def ensure_writable(self) -> None:
        """Create the runtime folder, or say clearly why that is impossible.

        Raises:
            StoreError: if the folder cannot be created or written.
        """
        probe = self.home / f".probe-{os.getpid()}"
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            probe.write_text("")
            probe.unlink()
            ignore = self.home / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise StoreError(
                "the runtime folder cannot be written",
                where=self.home,
                got=error.strerror or str(error),
                fix="name another with --home FOLDER or WORKBENCH_HOME",
            ) from None

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        """Try to hold the lock `name`; yields whether it is ours. Released when the process ends, even by kill -9."""
        folder = self.home / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / name, "a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def rollbacks(self, model_key: str) -> list[dict[str, Any]]:
        """Return where the training of a model went back, as `final.json` says; nothing where it has not ended."""
        try:
            summary = json.loads((self.model_folder(model_key) / "final.json").read_text())
        except FileNotFoundError:
            return []
        return list(summary.get("rollbacks", []))

    # --- evaluations

    def count_evaluation(self, model_key: str, score_id: str, told: dict[str, Any]) -> int:
        """Remember that a model was evaluated, and return how often it has been by now, each time another way.

        The same evaluation again is not counted twice, as it shows nothing new. What is remembered outlives the folder
        of the model.

        Args:
            model_key: Of what was scored.
            score_id: What identifies the scores.
            told: What to remember: `tasks`, and `by` whom.

        Raises:
            StoreError: if the disk refuses it.
        """
        path = self._evaluations(model_key) / f"{score_id}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            write_durably(path, json.dumps({"score_id": score_id, "when": when, **told}).encode())
        return len(self.evaluations(model_key))

    def evaluations(self, model_key: str) -> list[dict[str, Any]]:
        """Return how a model has been evaluated, each with `score_id`, `when`, `tasks` and `by`, the earliest first."""
        paths = self._evaluations(model_key).glob("[!.]*.json")
        return sorted((json.loads(path.read_text()) for path in paths), key=lambda one: (one["when"], one["score_id"]))

    def _evaluations(self, model_key: str) -> Path:
        return self.home / "evaluations" / model_key

    # --- runs

    def commit(self, record: Record, scores: pa.Table, curve: pa.Table | None = None) -> Record:
        """Write a run's scores and curve, then its record, and return the record with the hash of the scores.

        A finished or diverged run is never overwritten by a different one; a failed one may be tried again.

        Raises:
            StoreError: if another result is already committed under this identity.
        """
        folder = self.run_folder(record.run_id)
        folder.mkdir(parents=True, exist_ok=True)
        content = _parquet(scores)
        record = record.model_copy(update={"scores_sha256": hashlib.sha256(content).hexdigest()})
        before = self.record(record.run_id)
        if before is not None and before.status is not Status.FAILED:
            if before.scores_sha256 != record.scores_sha256:
                raise StoreError(
                    "two different results claim the same run",
                    where=folder,
                    expected=f"scores {before.scores_sha256}",
                    got=f"scores {record.scores_sha256}",
                    fix="training is not deterministic here; remove the folder if the first result was wrong",
                )
            return before
        (folder / "record.json").unlink(missing_ok=True)
        write_durably(folder / "scores.parquet", content)
        if curve is not None:
            write_durably(folder / "curve.parquet", _parquet(curve))
        write_durably(folder / "record.json", record.model_dump_json(indent=2).encode())
        return record

    def record(self, run_id: str) -> Record | None:
        """Return the committed record, or None where there is none yet.

        Raises:
            StoreError: if the record cannot be read, or the scores are not those it was committed with.
        """
        path = self.run_folder(run_id) / "record.json"
        try:
            record = Record.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StoreError("a committed record is damaged", where=path, got=str(error).splitlines()[0]) from None
        return record

    def holds(self, record: Record) -> bool:
        """Say whether this record is committed here."""
        return (self.run_folder(record.run_id) / "record.json").exists()

    def forget_failure(self, run_id: str) -> None:
        """Set a failed record aside (as `failed.json`), so that the cell is tried again."""
        folder = self.run_folder(run_id)
        (folder / "record.json").replace(folder / "failed.json")

    def records(self, run_ids: Iterable[str]) -> list[Record]:
        """Return those of the named runs that are committed, in the order asked."""
        found = (self.record(run_id) for run_id in run_ids)
        return [record for record in found if record is not None]

    def scores(self, record: Record) -> pa.Table:
        """Return a run's item scores, after checking that they are the ones it was committed with."""
        return read_scores(self.run_folder(record.run_id) / "scores.parquet", record.scores_sha256)

    def curve(self, record: Record) -> pa.Table | None:
        """Return a run's learning curve, or None where it left none."""
        path = self.run_folder(record.run_id) / "curve.parquet"
        return pq.read_table(path) if path.exists() else None

    def keep_samples(self, run_id: str, samples: list[dict[str, Any]]) -> None:
        """Write the texts of a run's model into its folder; to be called before the run is committed."""
        folder = self.run_folder(run_id)
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
        write_durably(folder / "samples.jsonl", lines.encode())

    def samples(self, record: Record) -> list[dict[str, Any]]:
        """Return the texts that a run's model wrote; none where the evaluation asks for none."""
        return read_samples(self.run_folder(record.run_id) / "samples.jsonl")

    # --- plans

    def save_plan(self, name: str, document: dict[str, Any]) -> Path:
        """Write a plan under its hash, once: a plan that exists is never changed."""
        path = self.home / "plans" / name / "plan.json"
        if not path.exists():
            newest = max(map(_written, self.home.glob("plans/*/plan.json")), default=0)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, json.dumps(document, indent=2).encode())
            if _written(path) <= newest:  # the clock of files ticks every few milliseconds
                os.utime(path, ns=(newest + TICK, newest + TICK))
        return path

    def plans(self) -> list[dict[str, Any]]:
        """Return every plan of this folder, oldest first."""
        paths = sorted(self.home.glob("plans/*/plan.json"), key=_written)
        return [json.loads(path.read_text()) for path in paths]


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns


def write_durably(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name, flush it to disk, and rename it into place."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoreError("a file could not be written", where=path, got=error.strerror or str(error)) from None


def read_scores(path: Path, sha256: str | None) -> pa.Table:
    """Read item scores and verify their hash.

    Raises:
        StoreError: if the file is missing or is not the one the record names.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError("scores cannot be read", where=path, got=error.strerror or str(error)) from None
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise StoreError("scores are not those of the record", where=path, expected=sha256, got=actual)
    return pq.read_table(pa.BufferReader(content))


def read_samples(path: Path) -> list[dict[str, Any]]:
    """Read the texts of a run's model; none where there is no such file.

    Raises:
        StoreError: if the file is damaged.
    """
    try:
        return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise StoreError("the texts of a run are damaged", where=path, got=error) from None


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())
