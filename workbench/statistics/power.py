"""What a number of seeds can and cannot show, before they are spent.

Promises the power of the paired t test and of its equivalence test from their exact distributions. All effects and
margins here are in units of the standard deviation of a *paired difference*, which is 1.41 times the residual standard
deviation of one run. Refuses post-hoc power: nothing here takes an observed p-value.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import chdtri, nctdtr, ndtr, stdtrit

from workbench.errors import StatisticsError

NODES = 250  # equally likely values of the sample variance; leaves an error below 1e-3 in a probability


def paired_power(n: int, effect: float, alpha: float = 0.05) -> float:
    """Return the probability that a two-sided paired t test on `n` seeds detects a true difference of `effect` sd.

    Raises:
        StatisticsError: for n < 2 or an alpha outside (0, 1).
    """
    _require(n, alpha)
    return _power(n - 1, abs(effect) * float(np.sqrt(n)), alpha)


def _power(df: float, shift: float, alpha: float) -> float:
    cut = stdtrit(df, 1 - alpha / 2)
    # The library routine gives NaN at scattered arguments, all of them deep in a tail (true values below 1e-16).
    misses, wrong_sign = np.nan_to_num(nctdtr(df, shift, [cut, -cut]), nan=0.0)
    return float(1 - misses + wrong_sign)


@lru_cache(maxsize=1024)
def detectable_shift(df: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the true difference, in standard errors, that a two-sided t test with `df` detects with `power`."""
    upper = 1.0
    while _power(df, upper, alpha) < power:
        upper *= 2
    return float(brentq(lambda shift: _power(df, shift, alpha) - power, 0.0, upper, xtol=1e-10))


def minimum_detectable_effect(n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the true difference, in sd of a paired difference, that `n` seeds detect with probability `power`.

    Raises:
        StatisticsError: for n < 2, an alpha outside (0, 1), or a power not between alpha and 1.
    """
    _require(n, alpha)
    if not alpha < power < 1:
        raise StatisticsError("a power must lie between alpha and 1", expected=f"{alpha} < power < 1", got=power)
    return detectable_shift(n - 1, alpha, power) / float(np.sqrt(n))


def share_called_equivalent(n: int, alpha: float, margin: float) -> float:
    """Return the share of truly identical arms that two one-sided tests call equivalent within ±`margin` sd.

    Raises:
        StatisticsError: for n < 2, an alpha outside (0, 1), or a margin that is not positive.
    """
    _require(n, alpha)
    if not margin > 0:
        raise StatisticsError("a margin must be positive", expected="margin > 0", got=margin)
    room = margin - stdtrit(n - 1, 1 - alpha) * _sample_sds((float(n - 1),)) / np.sqrt(n)
    return float(np.maximum(2 * ndtr(room * np.sqrt(n)) - 1, 0.0).mean())


def chance_of_verdict(
    seeds: tuple[int, ...],
    effect: float,
    alpha: float,
    margin: float | None = None,
    *,
    alpha_equivalence: float | None = None,
    df_per_seed: float = 1.0,
) -> NDArray[np.float64]:
    """Return, per number of seeds, the probability that a t test calls `effect` different from zero or equivalent.

    Args:
        seeds: Numbers of seeds to consider, each >= 2.
        effect: True difference in sd of a paired difference.
        alpha: Level of each test; divide by the size of the family first.
        margin: Smallest effect that matters in the same unit, or None where equivalence is not offered.
        alpha_equivalence: Level of each one-sided test of equivalence; that of the difference unless given.
        df_per_seed: Degrees of freedom each seed beyond the first adds; above 1 where arms share their noise estimate.

    Returns:
        float64[len(seeds)].
    """
    n = np.array(seeds, np.float64)[:, None]
    df = df_per_seed * (n - 1)
    error = _sample_sds(tuple(df[:, 0].tolist())) / np.sqrt(n)
    different = stdtrit(df, 1 - alpha / 2) * error
    inner = stdtrit(df, 1 - (alpha if alpha_equivalence is None else alpha_equivalence)) * error
    equivalent = -np.ones_like(error) if margin is None else margin - inner
    # Undecided is the gap between the two cuts: too large to be equivalent, too small to be different.
    gap = np.maximum(equivalent, 0.0)
    root, shift = np.sqrt(n), abs(effect)
    not_different = ndtr((different - shift) * root) - ndtr((-different - shift) * root)
    within = ndtr((gap - shift) * root) - ndtr((-gap - shift) * root)
    undecided = np.where(gap < different, not_different - within, 0.0)
    return np.asarray(1 - undecided.mean(axis=1), np.float64)


def upper_sd(sd: float, df: float, confidence: float = 0.8) -> float:
    """Return the one-sided upper bound of a standard deviation estimated with `df` degrees of freedom (chi-square)."""
    return float(sd * np.sqrt(df / chdtri(df, confidence)))


@lru_cache(maxsize=256)
def _sample_sds(dfs: tuple[float, ...]) -> NDArray[np.float64]:
    """Return NODES equally likely sample sds (true sd 1) for each number of degrees of freedom: float64[dfs, NODES]."""
    df = np.array(dfs, np.float64)[:, None]
    upper_tail = 1 - (np.arange(NODES) + 0.5) / NODES
    return np.asarray(np.sqrt(chdtri(df, upper_tail) / df), np.float64)


def _require(n: int, alpha: float) -> None:
    if n < 2:
        raise StatisticsError("a paired test needs two seeds", expected="n >= 2", got=f"n = {n}")
    if not 0 < alpha < 1:
        raise StatisticsError("alpha is no error rate", expected="0 < alpha < 1", got=alpha)
