"""How large a difference is: standardised, as a chance of winning, as a posterior, as a violation of dominance.

Promises textbook numbers to print beside a difference in the metric's own units, never instead of it, and never a
verdict: none of these controls an error rate over arms. Refuses scores without spread, where a standardised effect
would be infinite.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtri, stdtr

from workbench.errors import StatisticsError
from workbench.statistics.resampling import resamples

COUNTED_RUNS = 5  # up to here a side, all pairs of resamples are counted
DRAWS = 20_000  # pairs of resamples drawn beyond
STREAM = 0xA50


class Standardised(NamedTuple):
    """A standardised mean difference as estimated and with Hedges' small-sample factor, float64[...]."""

    estimate: NDArray[np.float64]
    unbiased: NDArray[np.float64]


class SeedsWon(NamedTuple):
    """The share of seeds that the arm wins, with its Clopper-Pearson interval, each float64[...].

    `ties` counts the seeds in which arm and baseline are equal; they are left out, as in the sign test.
    """

    share: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    ties: NDArray[np.int64]


class Posterior(NamedTuple):
    """Chances that the true difference lies below -margin, within ±margin, and above it, each float64[...]."""

    below: NDArray[np.float64]
    within: NDArray[np.float64]
    above: NDArray[np.float64]


class Dominance(NamedTuple):
    """How far the arm is from being stochastically larger than the baseline, and the upper confidence bound of that."""

    violation: float
    upper: float


def standardised_difference(differences: ArrayLike) -> Standardised:
    """Return d_z, the mean paired difference in units of its own standard deviation.

    The factor 1 - 3/(4 df - 1) of Hedges (1981), equation 6e, removes the bias of a small sample.

    Args:
        differences: float64[..., n], n >= 3.

    Raises:
        StatisticsError: for fewer than three differences, or differences without spread.
    """
    d = np.asarray(differences, np.float64)
    return _standardise(d.mean(axis=-1), _sd(d), d.shape[-1] - 1)


def difference_in_baseline_sds(baseline: ArrayLike, arm: ArrayLike) -> Standardised:
    """Return the mean difference in standard deviations of the baseline's runs (Glass 1976), and its unbiased form.

    Args:
        baseline: float64[..., n], n >= 3.
        arm: float64[..., m].

    Raises:
        StatisticsError: for fewer than three baseline runs, or a baseline without spread.
    """
    first, second = np.asarray(baseline, np.float64), np.asarray(arm, np.float64)
    return _standardise(second.mean(axis=-1) - first.mean(axis=-1), _sd(first), first.shape[-1] - 1)


def probability_of_superiority(baseline: ArrayLike, arm: ArrayLike) -> NDArray[np.float64]:
    """Return the chance that a run of the arm scores above an unrelated run of the baseline; ties count half.

    The Mann-Whitney statistic over n·m: float64[...].

    Args:
        baseline: float64[..., n].
        arm: float64[..., m].
    """
    first, second = np.asarray(baseline, np.float64)[..., None, :], np.asarray(arm, np.float64)[..., :, None]
    return np.asarray(((second > first) + 0.5 * (second == first)).mean(axis=(-2, -1)))


def seeds_won(differences: ArrayLike, level: float = 0.95) -> SeedsWon:
    """Return the share of seeds in which the arm scores above the baseline, with an exact interval.

    Clopper and Pearson (1934). Without a single untied seed the share is 1/2 and the interval [0, 1].

    Args:
        differences: float64[..., n], arm minus baseline under the same seed.
        level: Confidence of the interval.
    """
    d = np.asarray(differences, np.float64)
    won, lost = (d > 0).sum(axis=-1), (d < 0).sum(axis=-1)
    tail = (1 - level) / 2
    low = np.where(won > 0, betaincinv(np.maximum(won, 1), lost + 1, tail), 0.0)
    high = np.where(lost > 0, betaincinv(won + 1, np.maximum(lost, 1), 1 - tail), 1.0)
    decided = won + lost
    share = np.where(decided > 0, won / np.maximum(decided, 1), 0.5)
    return SeedsWon(share, low, high, d.shape[-1] - decided)


def seeds_to_show_superiority(probability: float, alpha: float = 0.05, power: float = 0.95) -> int:
    """Return the runs per side that show a probability of superiority to exceed 1/2, one-sided.

    Noether (1987), "Sample size determination for some common nonparametric tests", for two equal groups. With the
    3/4 that Bouthillier et al. (2021) ask for, 29.

    Raises:
        StatisticsError: for a probability outside (1/2, 1], or levels outside (0, 1).
    """
    if not (0.5 < probability <= 1 and 0 < alpha < 1 and 0 < power < 1):
        raise StatisticsError(
            "no number of seeds shows this",
            expected="1/2 < probability <= 1, and alpha and power between 0 and 1",
            got=(probability, alpha, power),
        )
    return int(np.ceil((ndtri(1 - alpha) + ndtri(power)) ** 2 / (6 * (probability - 0.5) ** 2)))


def posterior_of_difference(differences: ArrayLike, margin: float, correlation: float = 0.0) -> Posterior:
    """Return the posterior chances of a difference below, within and above ±margin (region of practical equivalence).

    Benavoli et al. (2017), "Time for a change", section 4: under the flat prior a t distribution around the mean, with
    variance (1/n + correlation/(1 - correlation)) s^2 and n - 1 degrees of freedom; for correlation 0 its tails are
    the p-values of the two one-sided t tests.

    Args:
        differences: float64[..., n].
        margin: Smallest effect that matters, >= 0.
        correlation: Between differences that share training data: 1/folds in cross-validation, 0 for fresh seeds.

    Raises:
        StatisticsError: for fewer than two differences, no spread, a negative margin or a correlation outside [0, 1).
    """
    d = np.asarray(differences, np.float64)
    if not (margin >= 0 and 0 <= correlation < 1):
        raise StatisticsError(
            "no such posterior", expected="margin >= 0 and 0 <= correlation < 1", got=(margin, correlation)
        )
    n, estimate = d.shape[-1], d.mean(axis=-1)
    scale = _sd(d, smallest=2) * np.sqrt(1 / n + correlation / (1 - correlation))
    below, above = stdtr(n - 1, (-margin - estimate) / scale), stdtr(n - 1, (estimate - margin) / scale)
    return Posterior(below, np.maximum(1 - below - above, 0.0), above)


def almost_stochastic_order(
    baseline: ArrayLike, arm: ArrayLike, alpha: float = 0.05, comparisons: int = 1
) -> Dominance:
    """Return how much of the squared distance between two quantile functions contradicts "the arm scores higher".

    del Barrio et al. (2018); Dror et al. (2019): 0 is stochastic dominance of the arm, 1/2 no order, 1 dominance of
    the baseline; the claim is made where the upper bound stays below 0.2 (Ulmer et al. 2022). `comparisons` divides
    alpha, so that more of them raise the bound. Unpaired, and poorly calibrated at ten runs and fewer: supplementary.

    Args:
        baseline: float64[n], n >= 3.
        arm: float64[m], m >= 3.
        alpha: Error of the bound over all comparisons.
        comparisons: How many such bounds are reported together.

    Raises:
        StatisticsError: for fewer than three runs a side, or for no comparison at all.
    """
    first, second = np.sort(np.asarray(baseline, np.float64)), np.sort(np.asarray(arm, np.float64))
    if min(first.size, second.size) < 3 or comparisons < 1 or not 0 < alpha < 1:
        raise StatisticsError(
            "no stochastic order can be estimated",
            expected="three runs a side, one comparison, 0 < alpha < 1",
            got=f"{first.size} and {second.size} runs, {comparisons} comparisons, alpha {alpha}",
        )
    violation = float(_violation(first, second))
    upper = violation + _violation_sd(first, second) * float(ndtri(1 - alpha / comparisons))
    return Dominance(violation, min(max(upper, violation), 1.0))


def _violation(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the squared quantile distance where the sorted `first` lies above the sorted `second`."""
    n, m = first.shape[-1], second.shape[-1]
    cuts = np.unique(np.concatenate([np.arange(1, n + 1) * m, np.arange(1, m + 1) * n]))  # in units of 1/(n m)
    width = np.diff(cuts, prepend=0)
    gap = first[..., (cuts - 1) // m] - second[..., (cuts - 1) // n]
    against, total = (width * np.maximum(gap, 0) ** 2).sum(axis=-1), (width * gap**2).sum(axis=-1)
    return np.asarray(np.where(total > 0, against / np.where(total > 0, total, 1.0), 0.5))


def _violation_sd(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the bootstrap standard deviation of the violation, both sides resampled."""
    if max(first.size, second.size) > COUNTED_RUNS:
        stream = np.random.Generator(np.random.Philox(key=STREAM))
        redrawn = [np.sort(stream.choice(side, size=(DRAWS, side.size)), axis=-1) for side in (first, second)]
        return float(_violation(redrawn[0], redrawn[1]).std())
    sides = [_sorted_resamples(side) for side in (first, second)]
    violation = _violation(sides[0][0][:, None], sides[1][0])
    chance = sides[0][1][:, None] * sides[1][1]
    mean = (violation * chance).sum()
    return float(np.sqrt(((violation - mean) ** 2 * chance).sum()))


def _sorted_resamples(ordered: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return every resample of sorted values, itself sorted, float64[B, n], and its chance."""
    drawn = resamples(ordered.size)
    up_to = np.cumsum(drawn.counts, axis=-1)
    position = (up_to[:, :, None] <= np.arange(ordered.size)).sum(axis=1)
    return ordered[position], drawn.chance


def _standardise(difference: NDArray[np.float64], sd: NDArray[np.float64], df: int) -> Standardised:
    estimate = np.asarray(difference / sd)
    return Standardised(estimate, estimate * (1 - 3 / (4 * df - 1)))


def _sd(values: NDArray[np.float64], smallest: int = 3) -> NDArray[np.float64]:
    if values.shape[-1] < smallest:
        raise StatisticsError(
            "too few scores for a standard deviation", expected=f"n >= {smallest}", got=values.shape[-1]
        )
    sd = np.asarray(values.std(axis=-1, ddof=1))
    if not (sd > 0).all():
        raise StatisticsError("the scores have no spread", expected="seeds that change the score", got="sd = 0")
    return sd
