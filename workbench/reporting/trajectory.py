"""What the last checkpoints of every run say about noise: how far a score moves between them, and what averaging buys.

For a sweep whose evaluation asks for a trajectory. Promises that only seeds count in which every arm has all of its
checkpoints, and that nothing here changes a verdict: those are about the weights that the plan names. An arm that
shares no seed with the baseline is left out of the noise, not of the curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from workbench.errors import StatisticsError
from workbench.records import Record
from workbench.reporting import variance_sheets
from workbench.reporting.naming import spoken, view_of
from workbench.reporting.report import write_text
from workbench.reporting.runs import Scores, mean_score, read_runs
from workbench.reporting.sheets import Sheet, records_csv, sheets_markdown
from workbench.reporting.variance import Explained, explain_variance
from workbench.sources.designs import Design
from workbench.statistics.signal import Signal, measure_signal

END = "the end"
FACTOR = "checkpoint"


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The primary metric of a plan's runs at their last checkpoints.

    Attributes:
        plan: Hash of the plan.
        metric: Its name.
        arms: Arm to its scores, float64[seeds, checkpoints], the end last.
        tokens: Arm to the tokens read at each of its checkpoints but the end.
        seeds: Those in which every arm has all of them.
        explained: The noise taken apart, over the arms that share their seeds; None where it cannot be.
        signals: What are repeats -> signal and noise: "seeds" at the end, "checkpoints" of one run (mean over seeds).
        untold: Why there is no noise, in words.
    """

    plan: str
    metric: str
    arms: dict[str, NDArray[np.float64]]
    tokens: dict[str, tuple[int, ...]]
    seeds: tuple[int, ...]
    explained: Explained | None
    signals: dict[str, Signal]
    untold: str | None

    @property
    def checkpoints(self) -> int:
        """How many there are of a run, with its end."""
        return len(next(iter(self.tokens.values()))) + 1

    @property
    def told(self) -> str:
        """The main result in a sentence."""
        if self.explained is None:
            return f"not told apart from other noise: {self.untold}"
        estimate = self.explained.score[("seed", FACTOR)].estimate
        sd = "cannot be told" if estimate is None else f"is {sqrt(estimate):.3g}"
        advice, several = self.explained.advice, self.checkpoints
        bought = "; what averaging them would buy cannot be told"
        if advice.averages:  # of all there are, and of endlessly many
            gain = advice.averages[-2].gain
            bought = f"; averaging all {several} would cut the variance of {self.explained.target} by {gain:.0%}"
        return f"the sd of one run's score between its last {several} checkpoints, beside a shift of all, {sd}{bought}"


def follow_checkpoints(plan: Mapping[str, Any], records: Sequence[Record], scores: Scores) -> Trajectory | None:
    """Read the trajectory of a plan's runs; None where it asks for none, or there is no seed that has all of it yet.

    Raises:
        StatisticsError: if the runs mix numerics.
    """
    _, finished = read_runs(plan, records, scores)
    trials = {trial["cell"]: trial for trial in plan["trials"]}
    held: dict[str, dict[int, dict[int, float]]] = {arm["name"]: {} for arm in plan["arms"]}
    for cell, table in finished.items():
        held[trials[cell]["arm"]][trials[cell]["seed"]] = _run(trials[cell], table, plan["metric"])
    tokens = {arm: _shared_tokens(runs) for arm, runs in held.items()}
    if not held or len({len(one) for one in tokens.values()}) != 1 or not all(tokens.values()):
        return None
    wanted = {arm: {*places, -1} for arm, places in tokens.items()}
    seeds = tuple(seed for seed in plan["seeds"] if all(wanted[arm] <= held[arm].get(seed, {}).keys() for arm in held))
    if not seeds:
        return None
    arms = {
        arm: np.array([[runs[seed][at] for at in (*tokens[arm], -1)] for seed in seeds]) for arm, runs in held.items()
    }
    paired = [arm["name"] for arm in plan["arms"] if arm.get("pairing") != "none"]
    design = _design(plan, {arm: arms[arm] for arm in paired}, tokens, seeds)
    try:
        explained, signals, untold = explain_variance(design, checkpoint=FACTOR), _signals(design), None
    except StatisticsError as error:
        explained, signals, untold = None, {}, error.what
    return Trajectory(plan["hash"], plan["metric"], arms, tokens, seeds, explained, signals, untold)


def sheets(found: Trajectory) -> list[Sheet]:
    """Return the curve, signal and noise, and the noise taken apart, as tables."""
    same = len(set(found.tokens.values())) == 1
    names = [f"{tokens:,} tokens" for tokens in next(iter(found.tokens.values()))]
    heads = names if same else [f"checkpoint {place}" for place in range(1, found.checkpoints)]
    rows = tuple(
        (arm, *(f"{value:.4g}" for value in scores.mean(axis=0)), f"{scores.std(axis=1, ddof=1).mean():.2g}")
        for arm, scores in found.arms.items()
    )
    reading = (f"Means over {len(found.seeds)} seeds; the last column is the sd of a run over its checkpoints, trend "
               "included.",)  # fmt: skip
    title = f"{spoken(found.metric)} at the last checkpoints".capitalize()
    parts = [Sheet(title, ("arm", *heads, END, "sd within a run"), rows, reading)]
    if found.signals:
        parts.append(_signal_sheet(found))
    return parts + (variance_sheets.sheets(found.explained) if found.explained else [])


def write_trajectory(found: Trajectory, folder: Path | str) -> list[Path]:
    """Write trajectory.md and trajectory.csv, and return their paths.

    Raises:
        StoreError: if the folder cannot be written.
    """
    notes = variance_sheets.closing(found.explained) if found.explained else [f"No noise: {found.untold}."]
    title = f"How {spoken(found.metric)} moves between checkpoints"
    text = sheets_markdown(title, sheets(found), [*notes, f"Plan {found.plan}."])
    rows: list[dict[str, object]] = [
        {"arm": arm, "seed": seed, "tokens": tokens, "metric": found.metric, "value": value}
        for arm, scores in found.arms.items()
        for seed, values in zip(found.seeds, scores.tolist(), strict=True)
        for tokens, value in zip((*found.tokens[arm], END), values, strict=True)
    ]
    folder = Path(folder)
    return [write_text(folder / "trajectory.md", text), write_text(folder / "trajectory.csv", records_csv(rows))]


def _run(trial: Mapping[str, Any], table: pa.Table, metric: str) -> dict[int, float]:
    """Return a run's score by the tokens read, that of the weights it is scored by under -1."""
    own = metric.rpartition("/")[2]
    views = {name: view_of(name) for name in pc.unique(table["metric"]).to_pylist()}
    names = {int(view.value): name for name, view in views.items() if view.kind == "tokens" and view.metric == own}
    prefix = metric.removesuffix(own)
    found = {tokens: mean_score(trial, table, prefix + name) for tokens, name in [*names.items(), (-1, own)]}
    return {tokens: value for tokens, value in found.items() if value is not None}


def _shared_tokens(runs: Mapping[int, Mapping[int, float]]) -> tuple[int, ...]:
    every = [set(run) - {-1} for run in runs.values()]
    return tuple(sorted(set.intersection(*every))) if every else ()


def _design(
    plan: Mapping[str, Any],
    arms: Mapping[str, NDArray[np.float64]],
    tokens: Mapping[str, tuple[int, ...]],
    seeds: tuple[int, ...],
) -> Design:
    places = tuple(f"{at:,} tokens" for at in tokens[plan["baseline"]])
    return Design(
        origin=f"plan {plan['hash'][:12]}",
        sha256=plan["hash"],
        metric=plan["metric"],
        variants=tuple(arms),
        levels={"seed": tuple(map(str, seeds)), FACTOR: (*places, END)},
        scores=np.stack(list(arms.values())),
    )


def _signals(design: Design) -> dict[str, Signal]:
    if len(design.variants) < 2:
        return {}
    ends, within = measure_signal(design.scores[..., -1]), measure_signal(np.moveaxis(design.scores, 1, 0))
    return {"seeds": ends, "checkpoints": Signal(*(np.asarray(values.mean()) for values in within))}


def _signal_sheet(found: Trajectory) -> Sheet:
    names = {"seeds": "runs under other seeds, at the end", "checkpoints": "the last checkpoints of one run"}
    rows = tuple(
        (names[kind], f"{signal.spread:.3g}", f"{signal.noise:.3g}", f"{signal.ratio:.3g}")
        for kind, signal in found.signals.items()
    )
    reading = (
        "Signal is the range of the arms, noise the sd of a score within an arm. Noise between checkpoints of one run "
        "leaves out what another seed would change, so that its ratio flatters.",
    )
    return Sheet("Signal to noise", ("repeats", "signal", "noise", "signal to noise"), rows, reading)


def as_fact(found: Trajectory | None) -> dict[str, str]:
    """Return what a report's facts say of it; nothing where there is none."""
    return {} if found is None else {"Between checkpoints": f"{found.told}; see trajectory.md"}
