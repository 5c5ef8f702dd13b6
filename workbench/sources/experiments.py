"""Runs of an experiment tracker: "group by everything except the seed", with the fate of every run.

Promises that the variant of a run is either the column the user named or the combination of the settings that vary, the
seed aside, and says which those were; that crashed, failed, killed and unfinished runs are recognised by the tracker's
own words; and that a run repeated after a crash counts once. Refuses to guess the seed, and whether a column is a
setting or a result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from json import dumps
from typing import Any

import numpy as np
import pyarrow as pa

from workbench.errors import DataError
from workbench.sources.table import OPTIONAL, Table, combine, rename

# Header of a runs table exported from Weights & Biases: these two and some of the others.
EXPORT = {"Name", "State"}
BOOKKEEPING = {
    *("Notes", "User", "Tags", "Created", "Runtime", "Sweep", "ID", "End Time", "Start Time", "Duration", "Hostname"),
    *("Description", "Commit", "GitHub", "Group", "Job Type", "Updated", "GPU Type", "GPU Count", "Username"),
    *("Relative Time (Process)", "Relative Time (Wall)", "Wall Time", "Step", "Project", "Entity", "Agent", "Path"),
}
STATES = {
    "finished": "finished",
    "crashed": "failed",  # stopped sending heartbeats
    "failed": "failed",  # ended with a non-zero exit status
    "killed": "failed",
    "preempted": "failed",
    "preempting": "running",
    "running": "running",
    "pending": "running",
    "scheduled": "running",
}
NOTHING = {"", "nan", "inf", "-inf", "infinity", "-infinity"}  # values no setting is told by
TRUE = {"true", "1", "1.0", "yes"}


def recognise_export(table: Table) -> bool:
    """Whether a file is a Weights & Biases runs table, by its header."""
    return set(table.columns) >= EXPORT and bool(BOOKKEEPING & set(table.columns))


def read_runs(origin: str, runs: Sequence[Mapping[str, Any]]) -> tuple[Table, list[str]]:
    """Make a table of a tracker's runs, and name the columns that are settings.

    Args:
        origin: What to call them: "mlflow:NAME".
        runs: Per run "name", "status", "params" (name -> text) and "metrics" (name -> last value).

    Raises:
        DataError: without any run.
    """
    if not runs:
        raise DataError("the experiment has no runs", where=origin, expected="a run per variant and seed", got="none")
    metrics = sorted({name for run in runs for name in run["metrics"]})
    settings = sorted({name for run in runs for name in run["params"]})
    renamed = {name: f"params.{name}" if name in metrics else name for name in settings}
    columns = {
        **{renamed[name]: pa.array([run["params"].get(name) for run in runs], pa.string()) for name in settings},
        **{name: pa.array([run["metrics"].get(name) for run in runs], pa.float64()) for name in metrics},
        "State": pa.array([run["status"] for run in runs], pa.string()),
    }
    names = [str(run["name"]) for run in runs]
    content = dumps([dict(run) for run in runs], sort_keys=True, default=str).encode()
    table = Table(origin, sha256(content).hexdigest(), columns, "run", names.__getitem__, tracked=True)
    return table, [renamed[name] for name in settings]


def arrange_runs(
    runs: Table,
    mapping: Mapping[str, str] | None = None,
    *,
    metrics: Sequence[str] = (),
    settings: Sequence[str] | None = None,
) -> Table:
    """Arrange a tracker's runs by variant, seed and status.

    Args:
        runs: One row per run, its state in column "State".
        mapping: Our column name -> theirs.
        metrics: Columns that are results whatever they look like.
        settings: Columns that are settings; None to tell settings from results: every value of a setting returns under
            another seed, a result hardly ever does.

    Raises:
        DataError: for an unknown state, no column for the seed, or a column that may be a setting or a result.
    """
    table = replace(rename(runs, mapping), tracked=True)
    table.require("seed")
    settings = _settings(table, metrics) if settings is None else settings
    columns, notes = dict(table.columns), []
    if "variant" not in columns:
        columns["variant"], chosen = _combination(table, settings)
        notes.append(chosen)
    if "status" not in columns:
        columns["status"] = pa.array(_fates(table))
    # What is constant over all runs answers nothing; a metric named by the user is kept whatever it looks like.
    constant = {name for name in table.columns if len({*table.labels(name)[1]} - {""}) < 2}
    unneeded = {*settings, *BOOKKEEPING, *EXPORT, *constant, "diverged"} - set(metrics) - {"variant", "seed", "status"}
    kept = {name: held for name, held in columns.items() if name not in unneeded and not name.startswith("_")}
    named = replace(table, columns=kept, unit="run", name_row=_names(table))
    rows, left_out = _countable(named)
    return replace(named.take(rows), notes=(*notes, *left_out))


def _combination(table: Table, settings: Sequence[str]) -> tuple[pa.Array, str]:
    """Name every run by the settings that vary, and say so."""
    varying = [name for name in settings if name in table.columns and _varies(table, name)]
    if not varying:
        error = table.missing("variant")
        error.details["expected"] = "a setting that differs between the runs, or a column that names the variant"
        raise error
    note = (
        f"a variant is a combination of {', '.join(varying)}: what varies between the runs, the seed aside; "
        "--map variant=COLUMN (or COLUMN+COLUMN) chooses otherwise"
    )
    return combine(table, varying), note


def _settings(table: Table, metrics: Sequence[str]) -> list[str]:
    """Tell settings from results in an export whose header does not."""
    found, unclear = [], []
    for name in table.columns:
        if name in {*BOOKKEEPING, *EXPORT, "diverged", "seed", "variant", "value", *OPTIONAL, *metrics}:
            continue
        if name.startswith("_") or not _varies(table, name):
            continue
        held = [text for text in table.texts(name) if text.lower() not in NOTHING]
        counts = Counter(held).values()
        text_only = bool(table.numbers(name)[1].all())
        if min(counts, default=0) >= 2 or (text_only and max(counts, default=0) >= 2):
            found.append(name)
        elif 2 * len(counts) <= len(held):
            unclear.append(name)
    if unclear and "variant" not in table.columns:
        raise DataError(
            f"is {unclear[0]!r} a setting or a result?",
            where=table.origin,
            expected="settings, whose every value returns under another seed, and results, which differ in every run",
            got=f"some values of {', '.join(unclear)} return, some do not",
            fix=f"say what the variant is: --map variant={'+'.join([*found, *unclear][:3])}; or name the result: "
            f"--metric {unclear[0]}",
        )
    return found


def _varies(table: Table, name: str) -> bool:
    """Whether a setting differs between runs, and not only as the seed's own copy (cfg.seed beside seed)."""
    codes, names = table.labels(name)
    if len(names) < 2 or name in ("seed", "variant"):
        return False
    seeds, labels = table.labels("seed")
    met = {(a, b) for a, b in zip(codes.tolist(), seeds.tolist(), strict=True)}
    return not (len(met) == len(names) == len(labels))


def _fates(table: Table) -> list[str]:
    """Translate the tracker's states; a column or tag "diverged" overrides them."""
    fates = []
    diverged = table.texts("diverged") if "diverged" in table.columns else [""] * table.rows
    tags = table.texts("Tags") if "Tags" in table.columns else [""] * table.rows
    for row, state in enumerate(table.texts("State")):
        if state.lower() not in STATES:
            raise DataError(
                "unknown state of a run", where=table.where(row, "State"), expected=", ".join(STATES), got=repr(state)
            )
        said = {tag.strip().lower() for tag in tags[row].split(",")}
        own = diverged[row].lower() in TRUE or "diverged" in said
        fates.append("diverged" if own else STATES[state.lower()])
    return fates


def _names(table: Table) -> Any:
    if "Name" not in table.columns:
        return table.name_row
    names = table.texts("Name")
    return lambda row: f"{names[row]} ({table.unit} {table.name_row(row)})"


def _countable(table: Table) -> tuple[np.ndarray, Iterable[str]]:
    """Leave out runs that still run, and failed attempts at a cell that another run finished.

    An attempt that left a loss of NaN diverged, whatever ended it: repeating it until it ends well is no repair, so it
    stays and the cell counts as given twice.
    """
    fates, cells = table.texts("status"), list(zip(table.texts("variant"), table.texts("seed"), strict=True))
    running = [row for row, fate in enumerate(fates) if fate == "running"]
    ended = {cells[row] for row, fate in enumerate(fates) if fate in ("finished", "diverged", "")}
    broken = np.zeros(table.rows, np.bool_)
    for name in table.columns:
        values, unreadable = table.numbers(name)
        broken |= ~unreadable & ~np.isfinite(values)
    repeated, failed = [], {}
    for row, fate in enumerate(fates):
        if fate != "failed" or broken[row]:
            continue
        if cells[row] in ended or cells[row] in failed:
            repeated.append(row)
        else:
            failed[cells[row]] = row
    notes = []
    if running:
        notes.append(
            f"left out because unfinished: {_list(table, running)}; looking again after every run makes errors likelier"
        )
    if repeated:
        notes.append(f"left out because another run repeats it: {_list(table, repeated)}")
    if failed:
        notes.append(
            f"taken for trouble with machine or code, not for an outcome: {_list(table, failed.values())}; if training "
            "itself broke down, tag the run 'diverged'"
        )
    dropped = {*running, *repeated}
    return np.array([row for row in range(table.rows) if row not in dropped], np.int64), notes


def _list(table: Table, rows: Iterable[int]) -> str:
    rows = list(rows)
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return "run " * (len(rows) == 1) + "runs " * (len(rows) > 1) + ", ".join(table.name_row(r) for r in rows[:5]) + more
