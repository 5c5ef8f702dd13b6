"""Which identical arms a user asks about: a bare design, noise like that of her results, or her own runs dealt again.

Promises the same function that makes the verdicts, by name, at the numbers of seeds and arms of her results unless she
says otherwise. Refuses results without two complete seeds to fit noise to, and names it does not know.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.errors import StatisticsError
from workbench.reporting.decision import Decision
from workbench.sources import Results
from workbench.statistics import pair
from workbench.statistics.calibration import SIMULATIONS, Calibration, calibrate, calibrate_on_pool
from workbench.statistics.comparison import Compare
from workbench.statistics.methods import DEFAULT, METHODS
from workbench.statistics.pairing import natural, unknown_baseline
from workbench.statistics.scenarios import SCENARIOS, fit_noise

SEEDS, ARMS = 5, 6  # of a design that nothing else determines
MEASURED, EQUAL = "measured", "equal"


class Question(NamedTuple):
    """What to ask.

    Attributes:
        method: A key of `METHODS`, or the default test by its name.
        seeds: Seeds of every data set; None for those of the results.
        arms: Arms beside the baseline; None likewise.
        noise: Name of a scenario, or "measured" or "equal" for noise fitted to results; None for what is usual.
        alpha: Family-wise error that is promised.
        simulations: Data sets to judge.
    """

    method: str = DEFAULT
    seeds: int | None = None
    arms: int | None = None
    noise: str | None = None
    alpha: float = 0.05
    simulations: int = SIMULATIONS


class Blocks(NamedTuple):
    """Scores of the seeds that all runs finished, float64[1 + arms, seeds], and where they are from, in words."""

    scores: NDArray[np.float64]
    source: str


def blocks_of_results(results: Results, baseline: str) -> Blocks:
    """Return the scores of the complete seeds of some results.

    Raises:
        StatisticsError: for an unknown baseline, or fewer than two complete seeds.
    """
    _refuse_unknown(baseline, results)
    paired = pair(results.rows, baseline=baseline, metric=results.metric, higher_is_better=True)
    complete = (paired.status == "finished").all(axis=0)
    return _blocks(paired.values[:, complete], Path(results.origin).name)


def pool_of_results(results: Results, variant: str) -> NDArray[np.float64]:
    """Return the scores of all finished runs of one variant, float64[runs], in the order of their seeds.

    Raises:
        StatisticsError: for an unknown variant.
    """
    _refuse_unknown(variant, results)
    held = [row for row in results.rows if row.variant == variant and row.status == "finished"]
    return np.array([row.value for row in sorted(held, key=lambda row: natural(str(row.seed)))], np.float64)


def blocks_of_decision(decision: Decision) -> Blocks:
    """Return the runs of the arms that a decision judged together, the baseline taken as zero.

    Those are the arms with every seed that any arm has; what the noise of all runs is, their differences tell.

    Raises:
        StatisticsError: for fewer than two such seeds.
    """
    held = [dict(contrast.differences) for contrast in decision.contrasts]
    most = max(len(differences) for differences in held)
    seeds = sorted(next(differences for differences in held if len(differences) == most), key=natural)
    together = [[differences[seed] for seed in seeds] for differences in held if set(differences) == set(seeds)]
    return _blocks(np.array([[0.0] * len(seeds), *together]), decision.title)


def _refuse_unknown(baseline: str, results: Results) -> None:
    if baseline not in results.variants:
        raise unknown_baseline(baseline, sorted(results.variants, key=natural))


def _blocks(scores: NDArray[np.float64], name: str) -> Blocks:
    rows, seeds = scores.shape
    if seeds < 2:
        raise StatisticsError(
            "there is no noise to fit",
            where=name,
            expected="two seeds or more that every run finished",
            got=f"{seeds}",
            fix="give the design instead: workbench calibrate --seeds 5 --arms 6",
        )
    return Blocks(scores, f"fitted to {name} ({rows} x {seeds} runs)")


def calibrate_design(question: Question) -> Calibration:
    """Ask about a design with noise of a named scenario.

    Raises:
        StatisticsError: for an unknown method or scenario, or a design the method refuses.
    """
    if question.noise in (MEASURED, EQUAL):
        raise StatisticsError(
            "there are no results to fit noise to",
            expected=", ".join(SCENARIOS),
            got=question.noise,
            fix="workbench calibrate RESULTS.csv --baseline NAME",
        )
    seeds = question.seeds or SEEDS
    return calibrate(
        named(question.method, seeds),
        seeds=seeds,
        arms=question.arms or ARMS,
        noise=question.noise or "normal",
        simulations=question.simulations,
        alpha=question.alpha,
    )


def calibrate_blocks(blocks: Blocks, question: Question) -> Calibration:
    """Ask about the design of some results, with noise fitted to them unless a scenario is named.

    Raises:
        StatisticsError: as `calibrate_design`, and for another number of arms than the measured noise has.
    """
    rows, finished = blocks.scores.shape
    seeds, arms = question.seeds or finished, question.arms or rows - 1
    if question.noise not in (None, MEASURED, EQUAL):
        return calibrate_design(question._replace(seeds=seeds, arms=arms))
    equal = question.noise == EQUAL
    noise = fit_noise(blocks.scores, equal=equal)
    if equal:
        noise = noise._replace(scales=noise.scales[:1] * (1 + arms))
    return calibrate(
        named(question.method, seeds),
        seeds=seeds,
        arms=arms,
        noise=noise,
        simulations=question.simulations,
        alpha=question.alpha,
        source=blocks.source + (", the same in every arm" if equal else ", each arm as noisy as measured"),
    )


def calibrate_results(results: Results, baseline: str | None, question: Question, *, pool: bool = False) -> Calibration:
    """Ask about results from elsewhere: with noise fitted to them or, for a pool, with the baseline's own runs.

    Raises:
        StatisticsError: as `calibrate_blocks`; for no baseline, or a pool too small for the design.
    """
    if baseline is None:
        expected = "--baseline with one of " + ", ".join(sorted(results.variants, key=natural))
        raise StatisticsError(
            "which variant is the baseline?", where=results.origin, expected=expected, got="no choice"
        )
    if not pool:
        return calibrate_blocks(blocks_of_results(results, baseline), question)
    if question.noise is not None:
        raise StatisticsError("a pool brings its own noise", expected="--pool or --noise", got="both")
    runs, arms = pool_of_results(results, baseline), question.arms or 1
    seeds = question.seeds or max(min(SEEDS, len(runs) // (1 + arms)), 2)
    return calibrate_on_pool(
        named(question.method, seeds),
        runs,
        seeds=seeds,
        arms=arms,
        simulations=question.simulations,
        alpha=question.alpha,
    )


def named(method: str, seeds: int) -> Compare:
    """Return the function behind a method's name.

    Raises:
        StatisticsError: for a name that is not known, or a method that needs more seeds.
    """
    if method not in METHODS:
        raise StatisticsError("unknown method", expected=", ".join(METHODS), got=method)
    held = METHODS[method]
    if seeds < held.smallest_seeds:
        raise StatisticsError(
            "too few seeds for the method", where=method, expected=f"at least {held.smallest_seeds} seeds", got=seeds
        )
    return held.compare
