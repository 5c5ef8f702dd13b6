"""The statistic of the default test: every arm against the baseline in a design where all share their seeds.

Promises a standard error that borrows strength from all arms and still cannot be fooled by one of them: the baseline's
noise is estimated from the baseline alone, an arm may enlarge its own standard error but never shrink it, and an arm
that is blatantly noisier than the rest is set aside and judged on its own pairs. What the resulting p-values are worth
is the business of `reference`, which runs this same code on noise. Refuses nothing: callers hand over complete blocks.

The constants were chosen by simulation; `results/calibration` has the error rates they lead to.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc, fdtri, stdtr

from workbench.statistics.pairing import ROUNDING

Array = NDArray[np.float64]

SMALLEST_POOL = 3  # arms that always stay together: fewer give no estimate worth sharing
SET_ASIDE_LEVEL = 0.002  # F test above which an arm leaves the pool; higher levels cost more error than they win power
SET_ASIDE_SEEDS = 5  # with fewer the F test sees nothing below that level but accidents
SLACK, SLOPE = 1.5, 1.5  # an arm's own variance counts once it passes SLACK times the pool's, then SLOPE-fold
# With three or four seeds the baseline's own variance is too poor an estimate to be taken at its word.
BASELINE_EXPONENT = {3: 2.0, 4: 1.2}


class Fit(NamedTuple):
    """What the blocks say of every arm before any reference distribution: float64[..., arms] unless said otherwise.

    Attributes:
        estimate: Mean difference, arm minus baseline.
        standard_error: Of that difference.
        df: Degrees of freedom of the nominal t distribution.
        tax: Factor on all nominal p-values of a data set, above 1 where an arm was set aside by looking at the data.
        pooled: bool[..., arms], False where an arm was set aside.
    """

    estimate: Array
    standard_error: Array
    df: Array
    tax: Array
    pooled: NDArray[np.bool_]

    def at(self, *index: int | slice) -> Fit:
        """Return the same fit of some data sets or arms."""
        kept = (np.asarray(field[index]) for field in self)
        return Fit._make(kept)

    def p_different(self) -> Array:
        """Nominal two-sided p-values of "no difference"."""
        return np.asarray(self.tax * 2 * stdtr(self.df, -np.abs(self.estimate / self.standard_error)))

    def p_beyond(self, margin: Array | float) -> Array:
        """Nominal one-sided p-values of "the true difference lies at or beyond `margin` from zero"."""
        return np.asarray(self.tax * stdtr(self.df, (np.abs(self.estimate) - margin) / self.standard_error))


class Left(NamedTuple):
    """Residual squares, and their degrees of freedom, that stopped arms left in the pool: float64[sets] each."""

    squares: Array
    df: Array

    @classmethod
    def none(cls, sets: int) -> Left:
        """Return the state before any arm stopped."""
        return cls(np.zeros(sets), np.zeros(sets))


class Noise(NamedTuple):
    """Residual sd of one variant's runs relative to the pooled arms', and the p-value of the F test of "not larger"."""

    ratio: float
    p: float


def fit(scores: Array) -> Fit:
    """Fit arm and seed effects and give every contrast with the baseline its standard error.

    With k arms in the pool, s_A^2 their two-way residual mean square and s_u^2 the variance over seeds of the baseline
    minus the mean of the pool, a contrast of two well-behaved runs has variance s_u^2 + (1 - 1/k) s_A^2: the first
    term rests on the baseline alone, so that a noisy baseline cannot hide behind quiet arms.

    Args:
        scores: float64[..., 1 + arms, seeds], finite, baseline in row 0, at least two seeds.
    """
    leading, (rows, seeds) = scores.shape[:-2], scores.shape[-2:]
    flat = np.ascontiguousarray(scores, np.float64).reshape(-1, rows, seeds)
    found, _ = fit_after(flat, Left.none(len(flat)))
    return Fit._make(field.reshape(*leading, rows - 1) for field in found)


def fit_after(scores: Array, left: Left) -> tuple[Fit, Array]:
    """Fit arms that still run, the pool enriched by what stopped arms left in it.

    Args:
        scores: float64[sets, 1 + arms, seeds].
        left: From the arms that stopped.

    Returns:
        The fit, float64[sets, arms], and the residual squares each arm would leave if it stopped here, 0 for an arm
        outside the pool.
    """
    blocks, arms, seeds = _Blocks.of(scores), scores.shape[1] - 1, scores.shape[2]
    if arms == 1:
        variance, df = blocks.own_variance(), np.full((len(scores), 1), float(seeds - 1))
        pooled, leaves = np.ones(df.shape, np.bool_), np.zeros(df.shape)
    else:
        pooled, total = _set_aside(blocks)
        variance, df, leaves = _pooled_variance(blocks, pooled, total, left)
    tax = np.where(pooled.all(axis=1), 1.0, 1 + 4 / (seeds - 1))[:, None]
    error = np.sqrt(variance / seeds)
    return Fit(blocks.estimate, error, df, np.broadcast_to(tax, df.shape), pooled), leaves


def noise(scores: Array, pooled: NDArray[np.bool_]) -> list[Noise | None]:
    """Compare the noise of every variant's runs, baseline first, with that of the other arms in the pool.

    Args:
        scores: float64[1 + arms, seeds]: one data set.
        pooled: bool[arms], the arms that were not set aside.

    Returns:
        One entry per row; None where fewer than two other arms, or arms without any residual noise, leave no measure.
    """
    centred = scores - scores.mean(axis=1, keepdims=True)
    tolerance = (ROUNDING * float(np.abs(scores).max())) ** 2
    return [_against_pool(centred, row, pooled, tolerance) for row in range(len(scores))]


def residual_sd(scores: Array, pooled: NDArray[np.bool_]) -> tuple[float, int]:
    """Return the pooled arms' residual standard deviation of one run, seed effect removed, and its degrees of freedom.

    Args:
        scores: float64[1 + arms, seeds]: one data set.
        pooled: bool[arms]; with a single arm the paired differences give the answer, over sqrt(2).
    """
    seeds = scores.shape[1]
    if len(scores) == 2:
        return float((scores[1] - scores[0]).std(ddof=1) / np.sqrt(2)), seeds - 1
    pool = scores[1:][pooled]
    residual = pool - pool.mean(axis=1, keepdims=True) - pool.mean(axis=0) + pool.mean()
    df = (seeds - 1) * (len(pool) - 1)
    return float(np.sqrt((residual**2).sum() / df)), df


def _against_pool(centred: Array, row: int, pooled: NDArray[np.bool_], tolerance: float) -> Noise | None:
    seeds = centred.shape[1]
    others = centred[[i for i in range(1, len(centred)) if i != row and pooled[i - 1]]]
    if len(others) < 2:
        return None
    own = ((centred[row] - others.mean(axis=0)) ** 2).sum() / (seeds - 1)
    df = (seeds - 1) * (len(others) - 1)
    shared = ((others - others.mean(axis=0)) ** 2).sum() / df
    if shared <= tolerance:
        return None
    ratio = own / ((1 + 1 / len(others)) * shared)
    return Noise(float(np.sqrt(ratio)), float(fdtrc(seeds - 1, df, ratio)))


class _Blocks(NamedTuple):
    """Data sets by arms by seeds, every row centred on its mean, with the sums of squares everything is made of."""

    baseline: Array  # [sets, seeds]
    arms: Array  # [sets, arms, seeds]
    squares: Array  # [sets, arms]
    estimate: Array  # [sets, arms]

    @classmethod
    def of(cls, scores: Array) -> _Blocks:
        means = scores.mean(axis=-1)
        centred = scores - means[..., None]
        arms = np.ascontiguousarray(centred[:, 1:])
        return cls(centred[:, 0], arms, (arms * arms).sum(axis=-1), means[:, 1:] - means[:, :1])

    @property
    def seeds(self) -> int:
        return int(self.arms.shape[-1])

    def own_variance(self) -> Array:
        """Variance over seeds of each arm's paired difference."""
        cross = np.einsum("dan,dn->da", self.arms, self.baseline)
        square = (self.baseline**2).sum(axis=-1)[:, None]
        return np.asarray(np.maximum(self.squares - 2 * cross + square, 0.0) / (self.seeds - 1))


def _distances(blocks: _Blocks, total: Array, k: Array | float) -> tuple[Array, Array]:
    """Squared distance of each arm from the mean of the other pool arms, and what it takes from the pool's residual.

    `total` is the sum of the centred rows of the pool, float64[sets, seeds].
    """
    cross = np.einsum("dan,dn->da", blocks.arms, total)
    rest = (total * total).sum(axis=-1)[:, None] - 2 * cross + blocks.squares
    distance = blocks.squares - 2 * (cross - blocks.squares) / (k - 1) + rest / (k - 1) ** 2
    return np.maximum(distance, 0.0), rest


def _set_aside(blocks: _Blocks) -> tuple[NDArray[np.bool_], Array]:
    """Remove the noisiest arm while an F test finds it blatant: the pool, and the sum of its centred rows."""
    sets, arms, seeds = blocks.arms.shape
    pooled, total = np.ones((sets, arms), np.bool_), blocks.arms.sum(axis=1)
    going_on = np.arange(sets)
    for k in range(arms, SMALLEST_POOL if seeds >= SET_ASIDE_SEEDS else arms, -1):
        part = _Blocks(*(field[going_on] for field in blocks))
        distance, rest = _distances(part, total[going_on], k)
        own = (part.squares * pooled[going_on]).sum(axis=1)[:, None]
        shared = (own - part.squares - rest / (k - 1)) / ((seeds - 1) * (k - 2))
        ratio = np.divide(distance / (seeds - 1), (1 + 1 / (k - 1)) * shared, out=np.zeros_like(rest), where=shared > 0)
        ratio[~pooled[going_on]] = -1.0
        worst = ratio.argmax(axis=1)
        critical = fdtri(seeds - 1, (seeds - 1) * (k - 2), 1 - SET_ASIDE_LEVEL)
        blatant = ratio[np.arange(len(worst)), worst] > critical
        going_on, worst = going_on[blatant], worst[blatant]
        pooled[going_on, worst] = False
        total[going_on] -= blocks.arms[going_on, worst]
        if not len(going_on):
            break
    return pooled, total


def _pooled_variance(
    blocks: _Blocks, pooled: NDArray[np.bool_], total: Array, left: Left
) -> tuple[Array, Array, Array]:
    """Variance of each contrast per seed, its degrees of freedom, and what the arm would leave: float64[sets, arms]."""
    seeds = blocks.seeds
    k = pooled.sum(axis=1)[:, None].astype(np.float64)
    squares = (blocks.squares * pooled).sum(axis=1)[:, None] - (total * total).sum(axis=-1)[:, None] / k
    shared_df = (seeds - 1) * (k - 1) + left.df[:, None]
    shared = (np.maximum(squares, 0.0) + left.squares[:, None]) / shared_df
    away = blocks.baseline - total / k
    baseline = (away * away).sum(axis=-1)[:, None] / (seeds - 1)
    if (exponent := BASELINE_EXPONENT.get(seeds, 1.0)) != 1.0:
        equal = (1 + 1 / k) * shared
        ratio = np.divide(baseline, equal, out=np.ones_like(baseline), where=equal > 0)
        baseline = baseline * ratio ** (exponent - 1)
    common = baseline + (1 - 1 / k) * shared
    own = blocks.own_variance()
    distance, _ = _distances(blocks, total, k)
    excess = distance / (seeds - 1) - shared / (k - 1) - SLACK * shared
    enlarged = np.where(k > SMALLEST_POOL, common + SLOPE * np.maximum(excess, 0.0), np.maximum(common, own))
    df = 4 / ((1 + 1 / k) ** 2 / (seeds - 1) + (1 - 1 / k) ** 2 / shared_df)
    leaves = np.where(pooled, distance / (1 + 1 / (k - 1)), 0.0)
    return np.where(pooled, enlarged, own), np.where(pooled, df, seeds - 1.0), leaves
