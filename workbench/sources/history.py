"""The noise of earlier runs, which arms with a single run may borrow.

Promises that only the spread among runs of the same variant counts, never that between variants. Refuses a history that
is given twice, by half, or too thin.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from workbench.errors import DataError
from workbench.sources import read_results
from workbench.statistics.single import History, pool_history


def declare_history(
    path: Path | None, sd: float | None, df: float | None, mapping: Mapping[str, str] | None, metric: str | None
) -> History | None:
    """Take the history from a file or from two numbers, whichever was given.

    Raises:
        DataError: for both, or one number without the other.
    """
    if path is None and sd is None and df is None:
        return None
    if path is not None and sd is None and df is None:
        return read_history(path, mapping, metric=metric)
    if path is not None or sd is None or df is None:
        raise DataError(
            "the history is said twice or by half",
            expected="--history FILE, or --history-sd SD with --history-df DF",
            got=", ".join(
                name for name, held in (("--history", path), ("--history-sd", sd), ("--history-df", df)) if held
            ),
        )
    return History(sd, df)


def read_history(path: Path | str, mapping: Mapping[str, str] | None = None, *, metric: str | None = None) -> History:
    """Pool the noise of one run from a file of earlier results: the spread within each of its variants.

    Raises:
        DataError: for what cannot be read.
        StatisticsError: for fewer than ten degrees of freedom.
    """
    results = read_results(path, mapping, metric=metric)
    groups: dict[str, list[float]] = {}
    for row in results.rows:
        if row.value is not None:
            groups.setdefault(row.variant, []).append(row.value)
    return pool_history(groups.values())
