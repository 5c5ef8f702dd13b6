"""Results from elsewhere: files, tracker exports and benchmark logs become tidy rows.

Promises one row per (variant, seed) of one metric, item scores averaged with their weights, a note for everything that
was assumed or left out, and a message with file, line and column for whatever is wrong. Refuses duplicated cells, text
where a number should stand, a choice between several metrics that the user did not make, and to guess which column is
the variant or the seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.sources.cells import ItemTable
from workbench.sources.experiments import arrange_runs, read_runs, recognise_export
from workbench.sources.results import Results, Source
from workbench.sources.samples import holds_samples, read_samples
from workbench.sources.table import read_file, rename

__all__ = ["ItemTable", "Results", "Source", "open_experiment", "open_source", "read_results"]


def open_source(path: Path | str, mapping: Mapping[str, str] | None = None, *, metrics: Sequence[str] = ()) -> Source:
    """Open results of any kind, recognised by what they look like.

    Args:
        path: A .csv, .tsv or .parquet file with one row per run or per run and item, tidy or with a column per metric;
            a CSV export of a Weights & Biases runs table; or a folder of lm-eval sample logs.
        mapping: Our column name -> the file's: {"variant": "model", "seed": "config.seed"}. "position+width" stands for
            the combination of two columns. For a folder of logs, which folder level below it names what: {"seed": "2"}.
        metrics: Names the caller will ask for, so that no such column of a runs table is taken for a setting.

    Raises:
        DataError: for what cannot be read, is empty, or lacks a column; each with its place.
    """
    path = Path(path)
    if path.is_dir() and holds_samples(path):
        return Source(read_samples(path, mapping))
    table = read_file(path)
    if recognise_export(table):
        return Source(arrange_runs(table, mapping, metrics=metrics))
    return Source(rename(table, mapping))


def read_results(path: Path | str, mapping: Mapping[str, str] | None = None, *, metric: str | None = None) -> Results:
    """Read the scores of one metric; see `open_source` and `Source.results`."""
    return open_source(path, mapping, metrics=[metric] if metric else []).results(metric)


def open_experiment(
    origin: str,
    runs: Sequence[Mapping[str, Any]],
    mapping: Mapping[str, str] | None = None,
    *,
    metrics: Sequence[str] = (),
) -> Source:
    """Open the runs of an experiment tracker, whose settings and results are told apart already.

    Args:
        origin: What to call them: "mlflow:NAME".
        runs: Per run "name", "status", "params" (name -> text) and "metrics" (name -> last value).
        mapping: Our column name -> the parameter's.
        metrics: Names the caller will ask for.

    Raises:
        DataError: without runs, without a parameter for the seed, or without one that varies.
    """
    table, settings = read_runs(origin, runs)
    return Source(arrange_runs(table, mapping, metrics=metrics, settings=settings))
