"""Signed ranks of paired differences, and Dunnett's comparison of many arms with one baseline.

Promises exact signed-rank p-values, ties and zeros included, and Dunnett probabilities by quadrature: the same bytes
every time, where libraries draw at random. Refuses what its designs cannot answer: one difference, arms of one run.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import gammaln, ndtr, stdtrit

from workbench.errors import StatisticsError
from workbench.statistics.comparison import Comparison
from workbench.statistics.multiplicity import TIE
from workbench.statistics.permutation import sign_flip_p
from workbench.statistics.student import StudentT, block_t

RAREST = 1e-16  # the tabulated probabilities of one t end here
FARTHEST_T = 1e6
KNOTS = 161  # of the table; leaves a relative error below 1e-5


def wilcoxon_p(differences: ArrayLike) -> NDArray[np.float64]:
    """Return the two-sided p-value of Wilcoxon's (1945) signed-rank test: float64[...].

    The sign-flip test of the signed ranks: exact for n <= 15, ties included; zeros are dropped before ranking, as
    Wilcoxon did. At five seeds nothing falls below 0.0625.

    Args:
        differences: float64[..., n].

    Raises:
        StatisticsError: for fewer than two differences.
    """
    d = np.asarray(differences, np.float64)
    # Differences equal up to rounding are ties: their last bits must not rank them.
    unit = np.abs(d).max(axis=-1, keepdims=True, initial=0.0) * TIE
    steps = np.rint(np.abs(d) / np.where(unit > 0, unit, 1.0))
    zeros = (steps == 0).sum(axis=-1, keepdims=True)
    ranks = _average_ranks(steps) - zeros
    return sign_flip_p(np.where(steps == 0, 0.0, np.sign(d) * ranks))


def hodges_lehmann(differences: ArrayLike) -> NDArray[np.float64]:
    """Return the median of the n (n + 1)/2 Walsh averages: float64[...] (Hodges and Lehmann 1963)."""
    return np.asarray(np.median(_walsh_averages(np.asarray(differences, np.float64)), axis=-1))


def signed_rank_interval(differences: ArrayLike, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the differences that the signed-rank test accepts at confidence `level`, float64[...] each.

    Between the k-th smallest and the k-th largest Walsh average (Tukey 1949); infinite where n is too small for the
    level. The centre belonging to it is `hodges_lehmann`.
    """
    d = np.asarray(differences, np.float64)
    averages, n = np.sort(_walsh_averages(d), axis=-1), d.shape[-1]
    at_most = np.cumsum(_signed_rank_counts(n)) / 2.0**n
    k = int((at_most <= (1 - level) / 2 + TIE).sum())
    if k < 1:
        unbounded = np.full(d.shape[:-1], np.inf)
        return -unbounded, unbounded
    return averages[..., k - 1], averages[..., -k]


def block_dunnett(scores: ArrayLike, alpha: float) -> Comparison:
    """Compare arms with the baseline by the block t, with the exact joint distribution of Dunnett (1955).

    The K statistics share the baseline and the pooled error: correlation 1/2, (n - 1) K degrees of freedom. Adjusted
    p-values step down (Dunnett and Tamhane 1991); intervals are single-step.

    Args:
        scores: float64[..., 1 + K, n], baseline first, complete blocks.
        alpha: Family-wise error of the simultaneous intervals.

    Raises:
        StatisticsError: as `block_t`.
    """
    return _dunnett(block_t(scores), alpha)


def dunnett(baseline: ArrayLike, *arms: ArrayLike) -> NDArray[np.float64]:
    """Return Dunnett's single-step p-values of arms that share no seeds with the baseline: float64[K].

    One pooled variance over all groups; unequal numbers of runs enter the correlations.

    Args:
        baseline: float64[n].
        arms: float64[m] each.

    Raises:
        StatisticsError: without an arm or a degree of freedom, or for groups all without spread.
    """
    groups = [np.asarray(group, np.float64) for group in (baseline, *arms)]
    df = sum(group.size - 1 for group in groups)
    if len(groups) < 2 or min(group.size for group in groups) < 1 or df < 1:
        raise StatisticsError("no variance can be pooled", expected="arms, and two runs in a group", got=f"df = {df}")
    square = float(sum(((group - group.mean()) ** 2).sum() for group in groups)) / df
    if not square > 0:
        raise StatisticsError("no group has any spread", expected="seeds that change the score", got="sd = 0")
    sizes = np.array([group.size for group in groups[1:]], np.float64)
    error = np.sqrt(square * (1 / groups[0].size + 1 / sizes))
    t = np.array([group.mean() - groups[0].mean() for group in groups[1:]]) / error
    return _exceedance(np.abs(t), np.sqrt(sizes / (sizes + groups[0].size)), df)


def _dunnett(test: StudentT, alpha: float) -> Comparison:
    arms, df = test.estimate.shape[-1], int(test.df.flat[0])
    t = np.abs(test.estimate / test.standard_error)
    order = np.argsort(-t, axis=-1, kind="stable")
    ordered = np.take_along_axis(t, order, axis=-1)
    steps = [_largest_t_p(ordered[..., j], arms - j, df) for j in range(arms)]
    adjusted = np.empty_like(t)
    np.put_along_axis(adjusted, order, np.maximum.accumulate(np.stack(steps, axis=-1), axis=-1), axis=-1)
    half = _critical_t(alpha, arms, df) * test.standard_error
    # The table ends, and a step over one arm differs from the exact t by rounding: an adjusted p is never the smaller.
    return Comparison(test.estimate, test.estimate - half, test.estimate + half, test.p, np.maximum(adjusted, test.p))


def _largest_t_p(t: NDArray[np.float64], arms: int, df: int) -> NDArray[np.float64]:
    """Return the chance that the largest of `arms` |t| with correlation 1/2 reaches t."""
    table = _table(arms, df)
    return np.asarray(np.minimum(np.exp(table(np.minimum(np.arcsinh(t), table.x[-1]))), 1.0))


@lru_cache(maxsize=256)
def _critical_t(alpha: float, arms: int, df: int) -> float:
    table = _table(arms, df)
    return float(np.sinh(brentq(lambda u: float(table(u)) - np.log(alpha), 0.0, table.x[-1], xtol=1e-12)))


@lru_cache(maxsize=256)
def _table(arms: int, df: int) -> CubicSpline:
    """Return log P(max |t| >= sinh u) as a spline of u."""
    u = np.linspace(0.0, np.arcsinh(min(FARTHEST_T, -stdtrit(df, RAREST))), KNOTS)
    p = _exceedance(np.sinh(u), np.full(arms, np.sqrt(0.5)), df)
    return CubicSpline(u, np.log(np.maximum(p, np.finfo(np.float64).tiny)))


def _exceedance(t: NDArray[np.float64], loadings: NDArray[np.float64], df: int) -> NDArray[np.float64]:
    """Return the chance that the largest of K |t| reaches t: float64[T].

    The K normal variables are loadings·z + sqrt(1 - loadings²)·own, all over one chi; the integrals over z and the
    logarithm of that chi are trapezoidal, which for smooth and vanishing integrands converges geometrically.
    """
    z = np.linspace(-9.0, 9.0, 121)
    step = min(0.06, 0.4 / np.sqrt(2 * df))
    log_scale = np.arange(-40 / df - 1.0, min(1.5, 12 / np.sqrt(2 * df)), step)
    log_density = (
        np.log(2) + df / 2 * np.log(df / 2) - gammaln(df / 2) + df * log_scale - df / 2 * np.exp(2 * log_scale)
    )
    weight = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0]) * (np.exp(log_density) * step)[:, None]
    own = np.sqrt(1 - loadings**2)
    kinds, copies = np.unique(np.stack([loadings / own, 1 / own]), axis=1, return_counts=True)
    answers = []
    for bound in t:
        log_inside = np.zeros_like(weight)
        for (shift, stretch), count in zip(kinds.T, copies, strict=True):
            reach = stretch * bound * np.exp(log_scale)[:, None]
            outside = ndtr(shift * z - reach) + ndtr(-shift * z - reach)
            log_inside += count * np.log1p(-np.minimum(outside, 1 - 1e-16))
        answers.append(float((-np.expm1(log_inside) * weight).sum()))
    return np.asarray(np.minimum(np.array(answers), 1.0))


def _average_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank of every value from 1, ties sharing their mean: float64[..., n]."""
    one, other = values[..., :, None], values[..., None, :]
    return np.asarray((one > other).sum(axis=-1) + ((one == other).sum(axis=-1) + 1) / 2)


def _walsh_averages(d: NDArray[np.float64]) -> NDArray[np.float64]:
    if d.shape[-1] < 2:
        raise StatisticsError("signed ranks need two differences", expected="n >= 2", got=f"n = {d.shape[-1]}")
    first, second = np.triu_indices(d.shape[-1])
    return (d[..., first] + d[..., second]) / 2


def _signed_rank_counts(n: int) -> NDArray[np.float64]:
    """Return in how many of the 2^n sign patterns the positive ranks sum to 0, 1, ..., n (n + 1)/2."""
    counts = np.zeros(n * (n + 1) // 2 + 1)
    counts[0] = 1.0
    for rank in range(1, n + 1):
        counts[rank:] = counts[rank:] + counts[: counts.size - rank]
    return counts
