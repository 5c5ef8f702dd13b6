"""The runs of each variant by themselves, for questions that do not pair them.

Promises the values in the order of their seeds whatever the order of the rows, and every lost run with its reason.
Refuses a run given twice and a finished run without a finite score.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from workbench.errors import StatisticsError
from workbench.statistics.contrasts import Verdict
from workbench.statistics.pairing import Cell, natural


@dataclass(frozen=True)
class Runs:
    """The runs of one variant: seeds and scores of those that finished, status -> seeds of those that did not."""

    seeds: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    lost: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean score."""
        return float(np.mean(self.values))

    @property
    def sd(self) -> float | None:
        """Standard deviation over runs; None below two."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def missing(self) -> int:
        """Runs without a score."""
        return sum(map(len, self.lost.values()))


def gather_runs(rows: Iterable[Cell]) -> dict[str, Runs]:
    """Group tidy rows by variant, by name.

    Raises:
        StatisticsError: for a run given twice, or a finished run without a finite score.
    """
    cells: dict[tuple[str, str], Cell] = {}
    for row in rows:
        key = row.variant, str(row.seed)
        if key in cells:
            raise StatisticsError("a run is given twice", where=f"variant {key[0]}, seed {key[1]}")
        if row.status == "finished" and (row.value is None or not np.isfinite(row.value)):
            raise StatisticsError(
                "a finished run has no finite score", where=f"variant {key[0]}, seed {key[1]}", got=row.value
            )
        cells[key] = row
    variants: dict[str, Runs] = {}
    for name, seed in sorted(cells, key=lambda key: (natural(key[0]), natural(key[1]))):
        cell, held = cells[name, seed], variants.get(name, Runs())
        if cell.status == "finished" and cell.value is not None:
            variants[name] = Runs((*held.seeds, seed), (*held.values, float(cell.value)), held.lost)
        else:
            lost = {**held.lost, cell.status: (*held.lost.get(cell.status, ()), seed)}
            variants[name] = Runs(held.seeds, held.values, lost)
    return variants


def vetoes(runs: Runs, base: Runs | None) -> tuple[frozenset[Verdict], str | None]:
    """What a diverged run forbids: its own side can be neither better nor equivalent."""
    vetoed: set[Verdict] = set()
    parts = []
    if seeds := runs.lost.get("diverged"):
        vetoed |= {"better", "equivalent"}
        parts.append(f"diverged in {len(seeds)} seed{'s' * (len(seeds) > 1)}")
    if base is not None and (seeds := base.lost.get("diverged")):
        vetoed |= {"worse", "equivalent"}
        parts.append(f"the baseline diverged in {len(seeds)} seed{'s' * (len(seeds) > 1)}")
    return frozenset(vetoed), ", ".join(parts) or None


def losses(runs: Runs, who: str) -> Iterable[str]:
    """Say which runs have no score, and why; `who` begins every sentence."""
    for status, seeds in runs.lost.items():
        what = {"diverged": "diverged", "failed": "failed on its machine"}.get(status, "has no score")
        yield f"{who}{what} in seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"
