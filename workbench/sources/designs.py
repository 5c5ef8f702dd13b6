"""Crossed designs from files: one score per combination of a variant and the levels of named factors.

Promises a dense array whose axes are the columns the user named, in an order that does not depend on the rows, and a
message that says which columns, cells or rows stand in the way. Refuses factors that are not crossed, cells given
twice and holes; never averages over a column nobody named, and never imputes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.errors import DataError
from workbench.sources.cells import refuse_bad_numbers
from workbench.sources.experiments import recognise_export
from workbench.sources.results import Source
from workbench.sources.samples import holds_samples, read_samples
from workbench.sources.table import KNOWN, Table, read_file, rename
from workbench.statistics.pairing import natural

USUAL = ("seed", "item")  # factors of a file whose user named none
PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
SIZE = re.compile(r"(\D*?)(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*([kmgbt](?![a-z]))?", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Design:
    """Scores of one metric over variants and crossed factors.

    Attributes:
        origin: Path.
        sha256: Of the content.
        metric: Name of the metric.
        variants: Names; a single empty one where the file has no column for them.
        levels: Factor to its labels, in order.
        scores: float64[variants, levels of each factor...].
        notes: What was assumed or left out.
    """

    origin: str
    sha256: str
    metric: str
    variants: tuple[str, ...]
    levels: dict[str, tuple[str, ...]]
    scores: NDArray[np.float64]
    notes: tuple[str, ...] = ()


class _Axis(NamedTuple):
    """A column as an axis: int64[rows], each the index of its label."""

    codes: NDArray[np.int64]
    labels: list[str]


def read_design(
    path: Path | str,
    mapping: Mapping[str, str] | None = None,
    *,
    factors: Sequence[str] = (),
    variants: Sequence[str] = (),
    metric: str | None = None,
    checkpoint: str | None = None,
    last: int | None = None,
) -> Design:
    """Read a crossed design.

    Args:
        path: A .csv, .tsv or .parquet file with a row per score, or a folder of lm-eval sample logs.
        mapping: Our column name -> the file's, for variant, value, seed and the like.
        factors: Columns whose levels are crossed; `seed` and `item`, where there are such, unless given.
        variants: Which variants to read; all unless given.
        metric: Which metric, where there are several.
        checkpoint: The factor that is ordered in time; added to `factors`.
        last: How many of its last levels to read; all unless given.

    Raises:
        DataError: for what cannot be read, a column, metric or variant that is not there, a score that is not a finite
            number, a cell given twice, or factors that are not crossed; each with its place.
    """
    table = _open(Path(path), mapping)
    names = _choose_factors(table, factors, checkpoint)
    others = {name: held for name, held in table.columns.items() if name not in names or name in KNOWN}
    rows, column, metric = Source(replace(table, columns=others)).select(metric)
    table, notes = _finished(table.take(rows))
    table = _of_variants(table, variants)
    if checkpoint is not None and last is not None:
        table = last_levels(table, checkpoint, last)
    values, unreadable = table.numbers(column)
    refuse_bad_numbers(table, column, values, unreadable, np.ones(table.rows, np.bool_))
    axes = {
        name: _axis(table, name, ordered=name == checkpoint) for name in ("variant", *names) if name in table.columns
    }
    scores = _arrange(table, values, axes)
    variant_names = tuple(axes["variant"].labels) if "variant" in axes else ("",)
    levels = {name: tuple(axes[name].labels) for name in names}
    scores = scores.reshape(len(variant_names), *map(len, levels.values()))
    return Design(table.origin, table.sha256, metric, variant_names, levels, scores, (*table.notes, *notes))


def order_by_size(labels: Sequence[str], where: str) -> list[str]:
    """Sort labels by the number in them: "step-900" before "step-1000", "60M" before "1B".

    Raises:
        DataError: for labels without a number, or with different words before it.
    """
    found = [SIZE.match(label) for label in labels]
    if not all(found) or len({match[1] for match in found if match}) > 1:
        raise DataError(
            "the order of the levels cannot be told",
            where=where,
            expected="numbers, such as 900 and 1000, step-900 and step-1000, or 60M and 1B",
            got=", ".join(labels[:5]),
        )
    sizes = {label: float(m[2]) * PREFIXES[(m[3] or "").lower()] for label, m in zip(labels, found, strict=True) if m}
    return sorted(labels, key=lambda label: (sizes[label], label))


def last_levels(table: Table, column: str, last: int) -> Table:
    """Keep the rows of the last levels of a column that is ordered by the number in its labels.

    Raises:
        DataError: if it has fewer, or no order.
    """
    codes, labels = table.labels(column)
    ordered = order_by_size(labels, f"{table.origin}, column {column}")
    if not 1 <= last <= len(ordered):
        raise DataError(
            "there are not that many checkpoints",
            where=f"{table.origin}, column {column}",
            expected=f"from 1 to {len(ordered)}",
            got=last,
        )
    kept = [labels.index(label) for label in ordered[len(ordered) - last :]]
    return table.take(np.flatnonzero(np.isin(codes, kept)))


def _open(path: Path, mapping: Mapping[str, str] | None) -> Table:
    if path.is_dir() and holds_samples(path):
        return read_samples(path, mapping)
    table = read_file(path)
    if recognise_export(table):  # its settings are factors here, so it stays a plain table
        mapping = {"status": "State", **(mapping or {})}
    return rename(table, mapping)


def _choose_factors(table: Table, factors: Sequence[str], checkpoint: str | None) -> list[str]:
    named = list(factors) or [name for name in USUAL if name in table.columns and len(table.labels(name)[1]) > 1]
    if checkpoint is not None and checkpoint not in named:
        named.append(checkpoint)
    taken = [name for name in named if name in ("variant", "value")]
    absent = [name for name in named if name not in table.columns]
    if not named or absent or taken or len(set(named)) < len(named):
        raise DataError(
            f"the file has no column {absent[0]!r}" if absent else "which columns are the sources of noise?",
            where=table.origin,
            expected="one column, given once, per source of noise: --factor init_seed --factor data_seed",
            got=", ".join(named) + " named" if named and not absent else "columns " + ", ".join(table.columns),
        )
    return named


def _finished(table: Table) -> tuple[Table, tuple[str, ...]]:
    notes = [f"column {name} is not used" for name in ("weight", "cluster") if name in table.columns]
    if "status" not in table.columns:
        return table, tuple(notes)
    kept = np.array([text.lower() in ("", "finished") for text in table.texts("status")], np.bool_)
    if not kept.all():
        notes.append(f"rows that did not finish are not used: {int((~kept).sum())} of {table.rows}")
    return table.take(np.flatnonzero(kept)), tuple(notes)


def _of_variants(table: Table, variants: Sequence[str]) -> Table:
    if variants:
        table.require("variant")
        codes, names = table.labels("variant")
        unknown = [name for name in variants if name not in names]
        if unknown:
            raise DataError(
                "the file has no such variant", where=table.origin, expected=", ".join(names), got=unknown[0]
            )
        table = table.take(np.flatnonzero(np.isin(codes, [names.index(name) for name in variants])))
    if not table.rows:
        raise DataError("the file has no results", where=table.origin, expected="a row per score", got="no rows")
    return table


def _axis(table: Table, name: str, *, ordered: bool) -> _Axis:
    """Number the levels of a column in their own order."""
    codes, labels = table.labels(name)
    if "" in labels:
        row = int(np.flatnonzero(codes == labels.index(""))[0])
        raise DataError(f"a row names no {name}", where=table.where(row, name), expected="a label in every row")
    place = f"{table.origin}, column {name}"
    names = order_by_size(labels, place) if ordered else sorted(labels, key=natural)
    rank = {label: number for number, label in enumerate(names)}
    return _Axis(np.array([rank[label] for label in labels], np.int64)[codes], names)


def _arrange(table: Table, values: NDArray[np.float64], axes: Mapping[str, _Axis]) -> NDArray[np.float64]:
    shape = tuple(len(axis.labels) for axis in axes.values())
    places = tuple(axis.codes for axis in axes.values())
    cells = np.ravel_multi_index(places, shape)
    found = np.unique(cells)
    if len(found) < table.rows:
        _refuse_repeats(table, cells, list(axes))
    if len(found) < prod(shape):
        _refuse_holes(table.origin, axes, found, shape)
    scores = np.empty(shape)
    scores[places] = values
    return scores


def _refuse_repeats(table: Table, cells: NDArray[np.int64], names: Sequence[str]) -> None:
    order = np.argsort(cells, kind="stable")
    row = int(order[1:][np.diff(cells[order]) == 0].min())
    first = int(np.flatnonzero(cells == cells[row])[0])
    texts = {name: table.texts(name) for name in table.columns}
    candidates = [name for name in texts if name not in {"variant", "value", "status", "metric", "task", *names}]
    differ = [name for name in candidates if texts[name][first] != texts[name][row]]
    fix = f"--factor {differ[0]}, if that is one more source of noise" if differ else "take one of the rows out"
    if differ and "variant" not in names:
        fix += f"; --map variant={(table.likely('variant') or differ)[0]}, if that names the variant"
    raise DataError(
        "a cell of the design is given twice",
        where=table.where(row),
        expected=f"one row per combination of {', '.join(names)}",
        got=", ".join(f"{name} {texts[name][row]}" for name in names)
        + f" again (first in {table.unit} {table.name_row(first)})"
        + (f"; the rows differ in {', '.join(differ[:5])}" if differ else ""),
        fix=fix,
    )


def _refuse_holes(origin: str, axes: Mapping[str, _Axis], found: NDArray[np.int64], shape: tuple[int, ...]) -> None:
    together = _together(axes)
    if together:
        raise DataError(
            f"{together[0]} and {together[1]} always change together: nobody can tell their noise apart",
            where=origin,
            expected=f"every level of {together[0]} with every level of {together[1]}",
            fix=f"name one of them and read it as the noise of both: --factor {together[0]}",
        )
    absent = np.setdiff1d(np.arange(prod(shape)), found)[:3]
    places = np.stack(np.unravel_index(absent, shape), axis=1).tolist()
    lacking = (
        ", ".join(f"{name} {axis.labels[place]}" for (name, axis), place in zip(axes.items(), cell, strict=True))
        for cell in places
    )
    wanted = " × ".join(f"{size} {name}" for name, size in zip(axes, shape, strict=True))
    raise DataError(
        "the factors are not crossed",
        where=origin,
        expected=f"all {prod(shape):,} combinations of {wanted}",
        got=f"{len(found):,}; there is no {'; no '.join(lacking)}",
        fix="run what lacks, leave its level or a factor out, or look at some variants alone with --variant",
    )


def _together(axes: Mapping[str, _Axis]) -> tuple[str, str] | None:
    """Name two factors whose levels always come in the same pairs."""
    for (one, first), (two, second) in combinations(((n, axis) for n, axis in axes.items() if n != "variant"), 2):
        pairs = np.unique(np.stack([first.codes, second.codes]), axis=1).shape[1]
        if len(first.labels) == len(second.labels) == pairs > 1:
            return one, two
    return None
