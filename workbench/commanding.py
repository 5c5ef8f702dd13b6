"""A trainer of the user's own: start its command, follow it, read what it left.

A command is given a seed and a folder (`command.Command`) and leaves its scores there. Whatever else happens is an end
with a reason: a command that cannot be started, that fails, or that leaves no scores. A value that is not finite is
passed on as `NotFinite`, which is how a diverged run shows.
"""

from __future__ import annotations

import csv
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from workbench.command import Command
from workbench.errors import DataError, NotFinite
from workbench.records import Costs, Seeds, Status, empty_scores, scores_table

Ended = tuple[Status, str | None, pa.Table, pa.Table | None, Costs]  # status, reason, scores, curve, costs
SHOWN = 15  # last lines of a failed command's output that are kept in the record


def run_command(
    command: Command, seeds: Seeds, folder: Path, score_id: str, metric: str, stop: Callable[[], bool]
) -> Ended | None:
    """Run a command to its end and read its scores; None if `stop` said so, the command then being ended too.

    Args:
        command: What to start.
        seeds: Of the run; a command is given the one of initialisation.
        folder: Of the run: the log of the command, and in `out` what it leaves.
        score_id: What identifies its scores.
        metric: What values without a name of their own are.
        stop: Asked again and again.

    Raises:
        NotFinite: if a score is not finite.
    """
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("scores.*"):
        stale.unlink()
    log, began = folder / "command.log", time.perf_counter()
    try:
        code = _follow(command.arguments(seeds.initialisation, out), command.folder, log, stop)
    except OSError as error:
        return Status.FAILED, f"the command cannot be started: {error}", empty_scores(), None, Costs()
    if code is None:
        return None
    costs = Costs(training_seconds=time.perf_counter() - began)
    if code != 0:
        lines = log.read_text(errors="replace").strip().splitlines()[-SHOWN:]
        reason = f"the command ended with exit code {code}: " + "\n".join(lines)
        return Status.FAILED, reason, empty_scores(), None, costs
    try:
        scores = command_scores(out, score_id, metric)
    except NotFinite:
        raise
    except DataError as error:
        return Status.FAILED, str(error), empty_scores(), None, costs
    return Status.FINISHED, None, scores, None, costs


def _follow(arguments: list[str], folder: Any, log: Path, stop: Callable[[], bool]) -> int | None:
    """Return the exit code of a command; None if it was ended because `stop` said so."""
    with open(log, "wb") as sink:
        process = subprocess.Popen(arguments, cwd=folder, stdout=sink, stderr=subprocess.STDOUT)
        while process.poll() is None:
            if stop():
                process.terminate()
                process.wait()
                return None
            time.sleep(0.05)
    return process.returncode


def command_scores(out: Path, score_id: str, metric: str) -> pa.Table:
    """Read the scores a command left: `scores.parquet` or `scores.csv` with a column `value`.

    Columns `metric`, `task`, `item`, `cluster`, `view` and `weight` are used where present; without `metric` the
    values are the sweep's primary metric, without `item` the rows are items in their order.

    Raises:
        NotFinite: if a value is not finite, which is how a diverged run shows.
        DataError: if there is no such file, no column `value`, or a value that is no number.
    """
    found = [path for path in (out / "scores.parquet", out / "scores.csv") if path.exists()]
    if not found:
        raise DataError(
            "the command left no scores", where=out, expected="scores.csv or scores.parquet", got="neither of them"
        )
    try:
        table = pq.read_table(found[0]) if found[0].suffix == ".parquet" else _read_csv(found[0])
        columns = {name: table[name].to_pylist() for name in table.column_names}
        values = [float(value) for value in columns["value"]]
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(
            "the command's scores cannot be read", where=found[0], expected="a column 'value' of numbers", got=error
        ) from None
    if not values:
        raise DataError("the command's scores are empty", where=found[0], expected="at least one row", got="none")
    count = len(values)
    given = {name: columns[name] for name in ("task", "view", "metric", "cluster", "weight") if name in columns}
    defaults: dict[str, list[Any]] = {
        "task": ["command"] * count,
        "view": ["final"] * count,
        "metric": [metric] * count,
        "item": [str(item) for item in columns.get("item", range(count))],
    }
    return scores_table(score_id, {**defaults, **given, "value": values})


def _read_csv(path: Path) -> pa.Table:
    # by default "nan" would be read as missing, and a diverged run as a malformed one
    return pacsv.read_csv(path, convert_options=pacsv.ConvertOptions(null_values=[""]))
