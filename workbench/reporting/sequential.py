"""A sequential plan in a report: which runs it asks for, which arms have stopped, and their contrasts.

Promises that stops are derived from the committed records alone, so that every worker, every resumed launch and every
reader finds the same ones; and that the numbers of an arm are those of the look at which it stopped, whatever was run
later. Secondary metrics get estimates without a test: the stops were chosen by another metric.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from workbench.statistics import Contrast, Paired
from workbench.statistics.boundaries import FIRST_LOOK, SHARE, Design
from workbench.statistics.contrasts import Relevance
from workbench.statistics.sequential import METHOD, Progress, Standing, decide


def design_of(plan: Mapping[str, Any]) -> Design | None:
    """Return the sequential design of a plan, its margin in the metric's unit; None for a fixed one."""
    if plan.get("design", "fixed") != "sequential":
        return None
    seeds, arms = len(plan["seeds"]), len(plan["arms"]) - 1
    return Design(seeds, arms, plan["alpha"], plan["smallest_effect"], plan["futility"])


def progress(plan: Mapping[str, Any], paired: Paired, ended: Container[int]) -> Progress:
    """Replay a sequential plan on the primary metric of the runs committed so far.

    Args:
        plan: The plan as plain JSON.
        paired: Its primary metric, seeds and arms in the order of the plan.
        ended: Cells with a committed record. One without this metric counts as failed: nothing more will come of it.
    """
    design = design_of(plan)
    assert design is not None  # noqa: S101 - asked of sequential plans only
    status = paired.status.copy()
    for cell, place in _places(plan):
        if status[place] == "missing" and cell in ended:
            status[place] = "failed"
    return decide(paired.values, status.tolist(), design, higher_is_better=paired.higher_is_better)


def asked(plan: Mapping[str, Any], found: Progress) -> list[int]:
    """Return the cells a sequential plan has asked for so far, in the order of the plan."""
    return [cell for cell, place in _places(plan) if found.asked[place]]


def _places(plan: Mapping[str, Any]) -> Iterable[tuple[int, tuple[int, int]]]:
    """Yield every cell with its row and column among arms and seeds."""
    rows = {arm["name"]: row for row, arm in enumerate(plan["arms"])}
    columns = {seed: column for column, seed in enumerate(plan["seeds"])}
    return ((trial["cell"], (rows[trial["arm"]], columns[trial["seed"]])) for trial in plan["trials"])


def only_asked(paired: Paired, found: Progress) -> Paired:
    """Leave out the runs that the plan had not asked for."""
    values, status = paired.values.copy(), paired.status.copy()
    values[~found.asked], status[~found.asked] = np.nan, "missing"
    return replace(paired, values=values, status=status)


def conclude(plan: Mapping[str, Any], described: Sequence[Contrast], found: Progress) -> tuple[Contrast, ...]:
    """Put the standing of every arm of a finished plan into its contrast.

    Args:
        plan: The plan as plain JSON.
        described: The contrasts without a test, of the runs that were asked for.
        found: Where the plan stands.
    """
    wanted = found.asked[1:].sum(axis=1).tolist()
    return tuple(
        replace(_conclude(one, standing, plan["smallest_effect"]), missing=runs - one.pairs)
        for one, standing, runs in zip(described, found.arms, wanted, strict=True)
    )


def stops(plan: Mapping[str, Any], found: Progress) -> list[str]:
    """Say of every arm that stopped before its last seed when and why: "alibi stopped after 6 seeds: better"."""
    names = [arm["name"] for arm in plan["arms"][1:]]
    told = []
    for name, standing in zip(names, found.arms, strict=True):
        if standing.stopped and standing.seeds < len(plan["seeds"]):
            told.append(stop(name, standing.seeds, standing.state))
    return told


def stop(arm: str, seeds: int, state: str) -> str:
    """Say that one arm stopped."""
    why = "futile, further seeds would hardly decide it" if state == "futile" else state
    return f"{arm} stopped after {seeds} seeds: {why}"


def describe(plan: Mapping[str, Any]) -> list[str]:
    """Say in sentences how a sequential plan decides: part of the method note."""
    sentences = [
        f"Group-sequential: the arms are judged after every seed from {FIRST_LOOK} to {len(plan['seeds'])} by the "
        "seed-block statistic, step-down over the arms, and an arm that is decided runs no further seed. The "
        "boundaries hold the chance of any false better or worse over all looks together at "
        f"{100 * plan['alpha']:.3g} % ({100 * SHARE * plan['alpha']:.3g} % where all arms are equally noisy), and that "
        "of any false equivalent likewise.",
        "Intervals are repeated simultaneous intervals: all of them hold at all looks together. Estimates of arms that "
        "stopped early lean away from zero.",
    ]
    if plan["futility"]:
        sentences.append(
            "An arm that the remaining seeds would decide with a chance under 10 % is stopped as futile; the error "
            "rates hold whether or not it is."
        )
    return sentences


def _conclude(described: Contrast, standing: Standing, margin: float | None) -> Contrast:
    verdict = standing.state if standing.state in ("better", "worse", "equivalent") else "undecided"
    return replace(
        described,
        method=METHOD,
        notes=tuple(_notes(standing, described.pairs)),
        estimate=standing.estimate if standing.estimate is not None else described.estimate,
        low=standing.low,
        high=standing.high,
        verdict=verdict,
        more_seeds=0 if verdict != "undecided" else None,
        relevance=_relevance(standing, margin),
        blocked=_blocked(standing) if verdict == "undecided" else None,
    )


def _notes(standing: Standing, pairs: int) -> Iterable[str]:
    if pairs < standing.seeds:
        yield f"lost runs: judged on its own {pairs} pairs"
    if standing.p is not None and standing.boundary is not None and standing.state != "equivalent":
        yield f"nominal p {standing.p:.2g} against a boundary of {standing.boundary:.2g} at {standing.seeds} seeds"
    if standing.cut:
        yield "interval cut at zero, which the step-down test rejects and the single-step interval does not"


def _blocked(standing: Standing) -> str:
    if standing.blocked:
        return standing.blocked
    if standing.state == "futile":
        return f"stopped after {standing.seeds} seeds: further ones would hardly decide it"
    return f"after {standing.seeds} seeds, all the plan allows"


def _relevance(standing: Standing, margin: float | None) -> Relevance | None:
    if margin is None or standing.low is None or standing.high is None:
        return None
    if standing.low > margin or standing.high < -margin:
        return "beyond"
    inside = -margin < standing.low and standing.high < margin
    return "within" if inside or standing.state == "equivalent" else "unclear"
