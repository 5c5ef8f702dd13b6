"""From records, scores and curves to the numbers that pages show. Pure: no Streamlit, no files.

Promises that a run's score is the same weighted mean the verdicts are made of, and that nothing is filled in: a pair
counts where both runs finished, an item where every compared run answered it. Describes and never tests; verdicts come
from `workbench.reporting` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from workbench.records import Record, Status
from workbench.statistics import ItemScores, run_means

Cell = tuple[str, int]  # arm and seed
TO_COME = "to come"


class Pairs(NamedTuple):
    """Scores of the baseline and of one arm in the seeds in which both finished: equally long arrays."""

    seeds: tuple[int, ...]
    baseline: NDArray[np.float64]
    arm: NDArray[np.float64]


class Pairing(NamedTuple):
    """What pairing saves for one arm; None where the seeds do not say.

    Attributes:
        pairs: Seeds in which both runs finished.
        correlation: Of baseline and arm over seeds; needs three pairs.
        baseline_sd: Standard deviation of the baseline over these seeds.
        arm_sd: The same of the arm.
        difference_sd: The same of the paired difference.
        unpaired_seeds: How many times as many seeds an unpaired comparison would need for the same precision:
            (baseline_sd² + arm_sd²) / difference_sd².
    """

    pairs: int
    correlation: float | None
    baseline_sd: float | None
    arm_sd: float | None
    difference_sd: float | None
    unpaired_seeds: float | None


def items(table: pa.Table, metric: str) -> pd.DataFrame:
    """Return one metric's item scores of a run: item, task, cluster, value, weight; "task/metric" names one task."""
    task, _, name = metric.rpartition("/")
    chosen = pc.equal(table["metric"], name)
    if task:
        chosen = pc.and_(chosen, pc.equal(table["task"], task))
    rows = table.filter(chosen)
    texts = {name: rows[name].to_pylist() for name in ("item", "task", "cluster")}
    return pd.DataFrame({**texts, "value": rows["value"].to_numpy(), "weight": rows["weight"].to_numpy()})


def run_score(table: pa.Table, metric: str) -> float | None:
    """Return a run's score, the weighted mean over its items, or None where it does not report the metric."""
    rows = items(table, metric)
    if rows.empty:
        return None
    return float(run_means([ItemScores("run", rows["item"].tolist(), rows["value"], rows["weight"])])[0])


def pairs(scores: Mapping[Cell, float], baseline: str, arm: str, seeds: Iterable[int]) -> Pairs:
    """Collect the seeds in which both baseline and arm have a score."""
    both = [seed for seed in seeds if (baseline, seed) in scores and (arm, seed) in scores]
    return Pairs(
        tuple(both),
        np.array([scores[baseline, seed] for seed in both], np.float64),
        np.array([scores[arm, seed] for seed in both], np.float64),
    )


def pairing(paired: Pairs) -> Pairing:
    """Say how alike baseline and arm vary over seeds, and what that saves."""
    count = len(paired.seeds)
    if count < 2:
        return Pairing(count, None, None, None, None, None)
    ours, theirs, between = (
        float(np.std(x, ddof=1)) for x in (paired.baseline, paired.arm, paired.arm - paired.baseline)
    )
    both_vary = ours > 0 and theirs > 0
    correlation = float(np.corrcoef(paired.baseline, paired.arm)[0, 1]) if count > 2 and both_vary else None
    factor = (ours**2 + theirs**2) / between**2 if between > 0 else None
    return Pairing(count, correlation, ours, theirs, between, factor)


def item_differences(tables: Mapping[Cell, pa.Table], metric: str, baseline: str, arm: str) -> pd.DataFrame:
    """Compare an arm with the baseline item by item, under the same seeds.

    Returns:
        One row per item that every compared run answered, smallest difference first: item, task, cluster, weight,
        difference (arm minus baseline, mean over seeds), sd (over seeds), seeds, and agree (share of seeds in which the
        difference has the sign of the mean).
    """
    seeds = [seed for name, seed in tables if name == arm and (baseline, seed) in tables]
    columns, described = [], None
    for seed in seeds:
        ours = items(tables[baseline, seed], metric).set_index(["task", "item"])
        theirs = items(tables[arm, seed], metric).set_index(["task", "item"])
        columns.append((theirs["value"] - ours["value"]).rename(seed))
        described = theirs[["cluster", "weight"]] if described is None else described
    if described is None or described.empty:
        names = ["task", "item", "cluster", "weight", "difference", "sd", "seeds", "agree"]
        return pd.DataFrame({name: [] for name in names})
    differences = pd.concat(columns, axis=1, join="inner").dropna()
    mean = differences.mean(axis=1)
    table = described.loc[differences.index].assign(
        difference=mean,
        sd=differences.std(axis=1, ddof=1),
        seeds=differences.shape[1],
        agree=(np.sign(differences).eq(np.sign(mean), axis=0)).mean(axis=1),
    )
    return table.sort_values("difference", kind="stable").reset_index()


def single_runs(
    cells: Iterable[tuple[Mapping[str, Any], Record | None]], scores: Mapping[Cell, float], delivered: Mapping[str, str]
) -> pd.DataFrame:
    """Return one row per planned run with its fate, score, costs and identities.

    Args:
        cells: The plan's trials with their records, None where a run is to come.
        scores: Score of every finished run.
        delivered: run_id -> id of the MLflow run that holds it.
    """
    rows = []
    for trial, record in cells:
        costs = record.costs if record else None
        known = {
            "arm": trial["arm"],
            "seed": trial["seed"],
            "status": str(record.status) if record else TO_COME,
            "score": scores.get((trial["arm"], trial["seed"])),
            "total_seconds": costs.total_seconds if costs else None,
            "training_seconds": costs.training_seconds if costs else None,
            "evaluation_seconds": costs.evaluation_seconds if costs else None,
            "tokens": costs.tokens if costs else None,
            "tokens_per_second": costs.tokens_per_second if costs else None,
            "mfu_exact": costs.mfu_exact if costs else None,
            "flops": costs.flops if costs else None,
            "peak_memory_bytes": costs.peak_memory_bytes if costs else None,
            "rollbacks": costs.rollbacks if costs else None,
            "evaluations": record.evaluations or None if record else None,
        }
        # A cost of zero was not measured (a command of the user's, a run that failed at once).
        measured = {name: None if name in _COSTS and not value else value for name, value in known.items()}
        identities = {"run_id": trial["run_id"], "mlflow_run_id": delivered.get(trial["run_id"])}
        rows.append({**measured, **identities, "reason": record.reason if record else None})
    table = pd.DataFrame(rows)
    numbers = ["score", *_COSTS, "rollbacks", "evaluations"]
    table = table.astype(dict.fromkeys(numbers, "float64"))
    # none is a number beside runs that went back, and nothing to tell where no run did
    return table if table["rollbacks"].any() else table.assign(rollbacks=np.nan)


_COSTS = (
    "total_seconds",
    "training_seconds",
    "evaluation_seconds",
    "tokens",
    "tokens_per_second",
    "mfu_exact",
    "flops",
    "peak_memory_bytes",
)


def grouped_runs(runs: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """Group `single_runs` by everything except the seed: one row per arm, in the plan's order.

    Returns:
        arm, finished, diverged, failed, to come, mean and sd of the score over seeds, and mean costs per run.
    """
    rows = []
    for arm in arms:
        own = runs[runs["arm"] == arm]
        counts = own["status"].value_counts()
        row: dict[str, Any] = {"arm": arm, "runs": len(own)}
        row |= {status: int(counts.get(status, 0)) for status in (*map(str, Status), TO_COME)}
        row |= {"mean": own["score"].mean(), "sd": own["score"].std(ddof=1)}
        rows.append(row | {name: own[name].mean() for name in (*_COSTS, "rollbacks")})
    return pd.DataFrame(rows)


def smooth(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Average every point with the up to `window` - 1 before it; the length stays."""
    if window <= 1 or len(values) == 0:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def curve_difference(baseline: pd.DataFrame, arm: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Subtract the baseline's curve from the arm's where both have seen the same number of tokens.

    Returns:
        Columns tokens and `quantity`; empty where they share no point.
    """
    both = arm[["tokens", quantity]].merge(baseline[["tokens", quantity]], on="tokens", suffixes=("_arm", "_baseline"))
    return pd.DataFrame({"tokens": both["tokens"], quantity: both[f"{quantity}_arm"] - both[f"{quantity}_baseline"]})


def quantities(held: Mapping[Cell, pd.DataFrame]) -> list[str]:
    """Return the columns that can be drawn of any of these curves, in their order."""
    names = dict.fromkeys(name for curve in held.values() for name in curve.columns)
    return [name for name in names if name not in ("step", "tokens")]


def curves_of(held: Mapping[Cell, pd.DataFrame], quantity: str) -> dict[Cell, pd.DataFrame]:
    """Return the points at which a quantity was recorded, of the curves that have any: tokens and `quantity`."""
    found = {cell: curve[["tokens", quantity]].dropna() for cell, curve in held.items() if quantity in curve}
    return {cell: curve for cell, curve in found.items() if len(curve)}


def mean_curve(curves: Sequence[pd.DataFrame], quantity: str) -> pd.DataFrame:
    """Average curves over seeds, at the points that all of them have: a run that ended early never bends the mean."""
    if not curves:
        return pd.DataFrame({"tokens": [], quantity: []})
    columns = [curve.drop_duplicates("tokens").set_index("tokens")[quantity] for curve in curves]
    mean = pd.concat(columns, axis=1, join="inner").mean(axis=1)
    return pd.DataFrame({"tokens": mean.index, quantity: mean.to_numpy()})


def thin(curve: pd.DataFrame, points: int = 400) -> pd.DataFrame:
    """Keep about `points` evenly spaced points, the last among them: what a screen can show."""
    if len(curve) <= points:
        return curve
    kept = np.unique(np.linspace(0, len(curve) - 1, points).round().astype(int))
    return curve.iloc[kept]
