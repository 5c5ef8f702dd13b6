"""Whether a benchmark can tell variants apart: signal against noise, and decisions that carry over to a larger scale.

Promises noise measured within variants only, an F test beside every ratio (the range of variants grows with their
number even where all are equal), and an interval on every share of right decisions. Refuses scores without repeats.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import fdtrc, fdtri, ndtri

from workbench.errors import StatisticsError

Floats = NDArray[np.float64]


class Signal(NamedTuple):
    """How far a benchmark spreads variants apart, each float64[...].

    Attributes:
        spread: Range of the variants' means.
        noise: Standard deviation of a single score within a variant, pooled over variants.
        ratio: spread / noise; infinite without noise.
        f: Mean square between variants over that within.
        p: Chance of so large an F if all variants were equal.
        icc: Share of the variance of a single score that variants account for, ICC(1); below 0 is shown as 0.
        icc_low: Lower end of its interval.
        icc_high: Upper end.
    """

    spread: Floats
    noise: Floats
    ratio: Floats
    f: Floats
    p: Floats
    icc: Floats
    icc_low: Floats
    icc_high: Floats


class DecisionAccuracy(NamedTuple):
    """Share of pairs of variants that two scales order the same way, ties counted as half, with its interval."""

    share: float
    low: float
    high: float
    pairs: int


def signal_to_noise_ratio(variant_scores: ArrayLike, repeated_scores: ArrayLike) -> Floats:
    """Relative dispersion of variants over relative noise of one variant, as Heineman et al. (2025) define it.

    (range / mean of the variants) / (population standard deviation / mean of the repeats). Repeats are the last
    checkpoints, or the seeds, of *one* variant: scores of several would count the signal as noise.

    Args:
        variant_scores: float64[..., variants], one score each, positive means.
        repeated_scores: float64[..., repeats] of a single variant.

    Raises:
        StatisticsError: for fewer than two of either, a mean that is not positive, or repeats without spread.
    """
    variants, repeats = _finite(variant_scores), _finite(repeated_scores)
    if variants.shape[-1] < 2 or repeats.shape[-1] < 2:
        raise StatisticsError("a ratio of spreads needs two scores of each", expected="two variants, two repeats")
    if not ((variants.mean(axis=-1) > 0).all() and (repeats.mean(axis=-1) > 0).all()):
        raise StatisticsError("relative spreads need positive scores", expected="positive means")
    if not (np.ptp(repeats, axis=-1) > 0).all():
        raise StatisticsError(
            "the repeats have no spread", expected="checkpoints or seeds that differ", got="equal scores"
        )
    signal = np.ptp(variants, axis=-1) / variants.mean(axis=-1)
    return np.asarray(signal / (repeats.std(axis=-1) / repeats.mean(axis=-1)))


def measure_signal(scores: ArrayLike, *, level: float = 0.95) -> Signal:
    """Measure how well a benchmark tells variants apart, from repeats of every variant.

    The ratio flatters a benchmark with many variants (the range of 25 equal ones is four standard deviations); F and
    the intraclass correlation of Shrout and Fleiss (1979), with its exact interval under normal noise, do not.

    Args:
        scores: float64[..., variants, repeats]: seeds, or last checkpoints, of each variant.
        level: Confidence of the interval of the ICC.

    Raises:
        StatisticsError: for scores that are not finite, fewer than two variants or repeats, or scores that never vary.
    """
    table = _finite(scores)
    if table.ndim < 2 or min(table.shape[-2:]) < 2:
        raise StatisticsError(
            "noise is what repeats of one variant differ by",
            expected="at least two variants with two repeats each",
            got=f"an array of shape {table.shape}",
        )
    variants, repeats = table.shape[-2:]
    means = table.mean(axis=-1)
    between = repeats * means.var(axis=-1, ddof=1)
    within = table.var(axis=-1, ddof=1).mean(axis=-1)
    if not (between + within > 0).all():
        raise StatisticsError("the scores never vary", expected="variants or repeats that differ", got="equal scores")
    degrees = variants - 1, variants * (repeats - 1)
    spread, noise = np.ptp(means, axis=-1), np.sqrt(within)
    f = _over(between, within)
    tail = (1 - level) / 2
    low, high = f / fdtri(*degrees, 1 - tail), f * fdtri(*degrees[::-1], 1 - tail)
    correlations = (np.maximum(_correlation(value, repeats), 0.0) for value in (f, low, high))
    return Signal(spread, noise, _over(spread, noise), f, np.asarray(fdtrc(*degrees, f)), *correlations)


def decision_accuracy(small: ArrayLike, target: ArrayLike, *, level: float = 0.95) -> DecisionAccuracy:
    """Count how often the better of two variants at a small scale is the better one at the target scale too.

    The share equals (1 + Kendall's tau) / 2. Pairs share variants and are no independent trials: the variance of tau is
    at most 2 (1 - tau²) / variants (Daniels and Kendall 1947), which is that of a share of variants / 2 trials. The
    interval is Wilson's for that many: it errs on the wide side, and stays honest where every pair agrees. It is
    about other variants of the same kind; noise of the target scores is part of what it counts as disagreement.

    Args:
        small: float64[variants], mean score of each variant at the small scale.
        target: float64[variants], at the target scale; the metrics may differ, the direction must not.
        level: Confidence of the interval.

    Raises:
        StatisticsError: for scores that are not finite, arrays that do not match, or fewer than three variants.
    """
    one, other = _finite(small), _finite(target)
    if one.ndim != 1 or one.shape != other.shape or len(one) < 3:
        raise StatisticsError(
            "the two scales do not hold the same variants",
            expected="one score per variant at each, three variants or more",
            got=f"shapes {one.shape} and {other.shape}",
        )
    first, second = np.triu_indices(len(one), 1)
    agreement = np.sign(one[first] - one[second]) * np.sign(other[first] - other[second])
    share = float((agreement + 1).mean() / 2)
    low, high = _wilson(share, len(one) / 2, level)
    return DecisionAccuracy(share, low, high, len(first))


def average_last(scores: ArrayLike, checkpoints: int) -> Floats:
    """Average the last checkpoints of every run: float64[..., all checkpoints] to float64[...].

    Takes away noise between checkpoints, none of that between seeds; see `components.advise` for what that is worth.

    Raises:
        StatisticsError: for scores that are not finite, or fewer checkpoints than asked for.
    """
    table = _finite(scores)
    if not 1 <= checkpoints <= table.shape[-1]:
        raise StatisticsError(
            "there are not that many checkpoints", expected=f"from 1 to {table.shape[-1]}", got=checkpoints
        )
    return np.asarray(table[..., table.shape[-1] - checkpoints :].mean(axis=-1))


def _over(upper: Floats, lower: Floats) -> Floats:
    """Divide; without noise the answer is infinite, not undefined."""
    return np.asarray(np.where(lower > 0, upper / np.where(lower > 0, lower, 1.0), np.inf), np.float64)


def _correlation(f: Floats, repeats: int) -> Floats:
    """Return (F - 1) / (F + repeats - 1), which is 1 for an infinite F."""
    return np.asarray(1 - repeats / (f + repeats - 1), np.float64)


def _wilson(share: float, trials: float, level: float) -> tuple[float, float]:
    z = float(ndtri(0.5 + level / 2))
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def _finite(values: ArrayLike) -> Floats:
    table = np.asarray(values, np.float64)
    if not np.isfinite(table).all():
        first = np.argwhere(~np.isfinite(table))[0].tolist()
        raise StatisticsError("a score is no number", where=f"index {first}", got=table[tuple(first)])
    return table
