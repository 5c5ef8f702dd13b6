"""How often a method is wrong when there is nothing to find: its whole procedure, run on identical arms.

Promises the family-wise error of a method at the numbers of seeds and arms it will be used with, as the share of data
sets without any difference in which it calls some arm different, with the interval that the number of simulations
leaves. The noise is invented by a named scenario, fitted to results, or drawn from real runs of one variant. The
streams are fixed, so that the same question has the same answer, and two methods are asked about the same data sets.
Refuses designs a pool of runs cannot fill, and gives no interval where draws are not independent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from workbench.errors import StatisticsError
from workbench.statistics.comparison import Compare
from workbench.statistics.pairing import ROUNDING
from workbench.statistics.scenarios import NoiseModel, scenario

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Array]

SIMULATIONS = 20_000  # the standard error of an error rate of 5 % is then 0.15 %
EFFECT, AFFECTED = 2.0, 3  # power is asked for true differences of so many standard deviations in so many arms
BINS = 100
SIMILAR_POOLS, SIMILAR_SHARE = 50, 25  # pools of normal noise, each seen through this fraction of the simulations
COUNTABLE_SPLITS = 1_000_000  # with more ways to split a pool, their number limits nothing
_KEY = 0xCA11B8A7E
_NUMBERS_AT_A_TIME = 1_000_000


class Pool(NamedTuple):
    """What a pool of real runs can tell.

    Attributes:
        runs: Their number.
        splits: Ways to deal a data set from them, arms and order of seeds not told apart; None for a great many.
        low, high: Middle 90 % of the errors that the same method shows on pools of as many *normal* runs: what an
            error on this pool is to be compared with.
    """

    runs: int
    splits: int | None
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """What a method does to identical arms, and to three arms that differ.

    Attributes:
        seeds: Seeds of every data set.
        arms: Arms beside the baseline.
        alpha: The family-wise error that the method was asked to hold.
        simulations: Number of data sets.
        source: Where the noise is from, in words.
        error: Share of data sets of identical arms in which some arm is called different.
        low, high: 95 % interval of `error` (Clopper and Pearson 1934); None where the draws are not independent.
        coverage: Share of data sets of identical arms in which all intervals hold the truth.
        power: Share of the arms that differ called different; None where it was not asked for.
        error_beside_effects: Share of data sets with such arms in which an identical arm is called different; None
            where there is none, or it was not asked for.
        smallest_p: Number of data sets whose smallest adjusted p-value falls into each hundredth, upper end included.
        pool: The runs drawn from, where they were.
    """

    seeds: int
    arms: int
    alpha: float
    simulations: int
    source: str
    error: float
    low: float | None
    high: float | None
    coverage: float
    power: float | None
    error_beside_effects: float | None
    smallest_p: tuple[int, ...]
    pool: Pool | None = None

    def share_called(self, level: float) -> float:
        """Return the share of data sets of identical arms called different at another level, a whole percentage."""
        return sum(self.smallest_p[: round(level * BINS)]) / self.simulations


def calibrate(
    compare: Compare,
    *,
    seeds: int,
    arms: int,
    noise: NoiseModel | str = "normal",
    simulations: int = SIMULATIONS,
    alpha: float = 0.05,
    effect: float | None = EFFECT,
    source: str | None = None,
) -> Calibration:
    """Run a method on identical arms whose noise is simulated.

    Args:
        compare: The method, whole: the function that makes the verdicts.
        seeds: Seeds of every data set.
        arms: Arms beside the baseline.
        noise: Name of a scenario, or the noise itself (see `fit_noise`).
        simulations: Number of data sets.
        alpha: The family-wise error to ask for.
        effect: True difference for the power, in residual standard deviations of one quiet run; None leaves it out.
        source: Where the noise is from, in words; the scenario's name unless given.

    Raises:
        StatisticsError: for an unknown scenario or one that needs more arms, noise for another number of arms, no
            simulation, or a design the method refuses.
    """
    held = scenario(noise, arms) if isinstance(noise, str) else noise
    if len(held.scales) != 1 + arms:
        raise StatisticsError(
            "the noise is for another number of arms", expected=f"{1 + arms} runs a seed", got=len(held.scales)
        )
    asked = _Question(seeds, arms, simulations, alpha, None if effect is None else effect * held.unit)
    tally = _count(compare, lambda generator, sets: held.draw(generator, sets, seeds), asked)
    return _summary(asked, tally, source or (noise if isinstance(noise, str) else "given noise"), None)


def calibrate_on_pool(
    compare: Compare,
    pool: ArrayLike,
    *,
    seeds: int,
    arms: int,
    simulations: int = SIMULATIONS,
    alpha: float = 0.05,
    effect: float | None = EFFECT,
) -> Calibration:
    """Run a method on identical arms dealt from real runs of one variant, each run at most once per data set.

    The data sets share their runs and so are not independent: however many are drawn, they know no more than the pool.
    Hence no interval, but the number of runs and the errors that equally small pools of normal noise show. The runs of
    one fake seed share nothing, so that a method gains nothing by pairing them.

    Args:
        compare: The method, whole.
        pool: float64[runs], scores of one variant under different seeds.
        seeds: Seeds of every data set.
        arms: Arms beside the baseline.
        simulations: Number of data sets.
        alpha: The family-wise error to ask for.
        effect: True difference for the power, in standard deviations of the pool.

    Raises:
        StatisticsError: for a pool with too few runs for the design, scores that are not finite or so coarse that whole
            draws are equal, or a design the method refuses.
    """
    runs = np.sort(np.asarray(pool, np.float64), axis=None)  # the answer must not depend on the order of the runs
    needed = (1 + arms) * seeds
    if np.ndim(pool) != 1 or not np.isfinite(runs).all():
        raise StatisticsError("a pool is a list of finite scores", expected="float64[runs]", got=np.shape(pool))
    if runs.size < needed:
        raise StatisticsError(
            "the pool is too small for the design",
            expected=f"{needed} runs for a baseline and {arms} arms with {seeds} seeds each",
            got=f"{runs.size} runs",
            fix=f"at most {runs.size // (1 + arms)} seeds, or {max(runs.size // seeds - 1, 0)} arms",
        )

    def deal_from(held: Array) -> Draw:
        return lambda generator, sets: _deal(held, generator, sets, arms, seeds)

    asked = _Question(seeds, arms, simulations, alpha, None if effect is None else effect * float(runs.std(ddof=1)))
    tally = _count(compare, deal_from(runs), asked)
    each = _Question(seeds, arms, max(simulations // SIMILAR_SHARE, 1), alpha, None)
    noise = np.random.Generator(np.random.Philox(key=_KEY + 1)).standard_normal((SIMILAR_POOLS, runs.size))
    errors = [_count(compare, deal_from(held), each).wrong / each.simulations for held in noise]
    low, high = np.quantile(errors, (0.05, 0.95))
    about = Pool(runs.size, count_splits(runs.size, seeds, arms), float(low), float(high))
    return _summary(asked, tally, f"{runs.size} runs of one variant", about)


def clopper_pearson(hits: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a probability from independent trials (Clopper and Pearson 1934)."""
    tail = (1 - level) / 2
    low = float(betaincinv(hits, trials - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, trials - hits, 1 - tail)) if hits < trials else 1.0
    return low, high


def count_splits(runs: int, seeds: int, arms: int) -> int | None:
    """Return in how many ways groups of `seeds` runs for a baseline and arms can be dealt; None for over a million.

    Two arms that trade their runs are the same split, and so are a single arm and its baseline: 126 for ten runs.
    """
    total = 1
    for group in range(1 + arms):
        total *= comb(runs - group * seeds, seeds)
    for alike in range(2, 1 + (arms if arms > 1 else 2)):
        total //= alike
    return total if total <= COUNTABLE_SPLITS else None


class _Question(NamedTuple):
    """What is asked; see `calibrate`. `shift` is the true difference in units of the scores, None where not asked."""

    seeds: int
    arms: int
    simulations: int
    alpha: float
    shift: float | None


class _Tally(NamedTuple):
    """Counts over data sets; see `Calibration`."""

    wrong: int
    covered: int
    found: int
    wrong_beside: int
    smallest_p: tuple[int, ...]


def _count(compare: Compare, draw: Draw, asked: _Question) -> _Tally:
    """Run the method on identical arms and, where a shift is asked for, again with the first arms shifted."""
    if min(asked.seeds, asked.arms, asked.simulations) < 1:
        raise StatisticsError(
            "there is nothing to simulate",
            expected="at least one seed, one arm and one data set",
            got=f"{asked.seeds} seeds, {asked.arms} arms, {asked.simulations} data sets",
        )
    generator = np.random.Generator(np.random.Philox(key=_KEY))
    affected = min(AFFECTED, asked.arms)
    shift = np.zeros((1 + asked.arms, 1))
    shift[1 : 1 + affected] = asked.shift or 0.0
    wrong = covered = found = beside = 0
    histogram = np.zeros(BINS, np.int64)
    at_once = max(_NUMBERS_AT_A_TIME // ((1 + asked.arms) * asked.seeds), 1)
    for start in range(0, asked.simulations, at_once):
        scores = draw(generator, min(at_once, asked.simulations - start))
        _refuse_equal_scores(scores)
        null = compare(scores, asked.alpha)
        smallest = null.p_adjusted.min(axis=-1)
        wrong += int((smallest <= asked.alpha).sum())
        covered += int(((null.low <= 0) & (null.high >= 0)).all(axis=-1).sum())
        bins = np.clip(np.ceil(smallest * BINS - 1e-9).astype(np.int64) - 1, 0, BINS - 1)
        histogram += np.bincount(bins, minlength=BINS)
        if asked.shift is not None:
            called = compare(scores + shift, asked.alpha).p_adjusted <= asked.alpha
            found += int(called[:, :affected].sum())
            beside += int(called[:, affected:].any(axis=-1).sum())
    return _Tally(wrong, covered, found, beside, tuple(histogram.tolist()))


def _summary(asked: _Question, tally: _Tally, source: str, pool: Pool | None) -> Calibration:
    sets, with_effects = asked.simulations, asked.shift is not None
    low, high = (None, None) if pool else clopper_pearson(tally.wrong, sets)
    return Calibration(
        seeds=asked.seeds,
        arms=asked.arms,
        alpha=asked.alpha,
        simulations=sets,
        source=source,
        error=tally.wrong / sets,
        low=low,
        high=high,
        coverage=tally.covered / sets,
        power=tally.found / (sets * min(AFFECTED, asked.arms)) if with_effects else None,
        error_beside_effects=tally.wrong_beside / sets if with_effects and asked.arms > AFFECTED else None,
        smallest_p=tally.smallest_p,
        pool=pool,
    )


def _deal(runs: Array, generator: np.random.Generator, sets: int, arms: int, seeds: int) -> Array:
    needed = (1 + arms) * seeds
    rows = max(_NUMBERS_AT_A_TIME // runs.size, 1)
    orders = [
        generator.random((min(rows, sets - start), runs.size)).argsort(axis=1)[:, :needed]
        for start in range(0, sets, rows)
    ]
    return np.asarray(runs[np.concatenate(orders)].reshape(sets, 1 + arms, seeds))


def _refuse_equal_scores(scores: Array) -> None:
    differences = scores[:, 1:] - scores[:, :1]
    smallest = ROUNDING * np.abs(scores).max()
    if scores.shape[-1] > 1 and (np.ptp(differences, axis=-1) <= smallest).any():
        raise StatisticsError(
            "the scores repeat so often that whole draws have no spread",
            expected="scores fine enough to differ between runs",
            got="an arm whose differences to the baseline are all equal",
            fix="use a finer metric, or more seeds",
        )
