"""Student's tests: paired, Welch's, pooled over the seed blocks; and equivalence by two one-sided tests.

Promises the textbook answers, vectorised over leading axes. Refuses fewer than two scores a side and scores without
any spread: a t statistic of infinity is the sign of a seed that changed nothing, not of certainty.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from workbench.errors import StatisticsError


class PairedT(NamedTuple):
    """A paired t test per row: everything float64[...], in the units of the differences except `p` and `df`."""

    estimate: NDArray[np.float64]
    sd: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    p: NDArray[np.float64]
    df: int

    def interval(self, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the two-sided t interval at confidence `level`."""
        half = stdtrit(self.df, 0.5 + level / 2) * self.standard_error
        return self.estimate - half, self.estimate + half


class StudentT(NamedTuple):
    """A t test per row: everything float64[...] and in the units of the scores, except `p` and `df`."""

    estimate: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    p: NDArray[np.float64]
    df: NDArray[np.float64]

    def interval(self, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the two-sided t interval at confidence `level`."""
        half = stdtrit(self.df, 0.5 + level / 2) * self.standard_error
        return self.estimate - half, self.estimate + half


def paired_t(differences: ArrayLike) -> PairedT:
    """Test whether the mean of paired differences is zero (Student 1908; two-sided).

    Args:
        differences: float[..., n], arm minus baseline under the same seed, n >= 2.

    Raises:
        StatisticsError: for fewer than two differences, or differences without spread.
    """
    d = np.asarray(differences, np.float64)
    n = d.shape[-1]
    if n < 2:
        raise StatisticsError("a paired t test needs two differences", expected="n >= 2", got=f"n = {n}")
    sd = d.std(axis=-1, ddof=1)
    if not (sd > 0).all():
        raise StatisticsError("the differences have no spread", expected="seeds that change the score", got="sd = 0")
    estimate, error = d.mean(axis=-1), sd / np.sqrt(n)
    return PairedT(estimate, sd, error, 2 * stdtr(n - 1, -np.abs(estimate / error)), n - 1)


def welch_t(baseline: ArrayLike, arm: ArrayLike) -> StudentT:
    """Test whether two groups of runs that share no seeds have the same mean, whatever their variances.

    Welch (1947), "The generalization of Student's problem"; degrees of freedom by Satterthwaite. Two-sided.

    Args:
        baseline: float64[..., n], n >= 2.
        arm: float64[..., m], m >= 2; the leading axes broadcast against those of the baseline.

    Raises:
        StatisticsError: for a group of fewer than two scores, or two groups both without spread.
    """
    groups = [np.asarray(group, np.float64) for group in (baseline, arm)]
    sizes = [group.shape[-1] for group in groups]
    if min(sizes) < 2:
        raise StatisticsError("a group of runs has no variance", expected="two runs a group", got=f"{min(sizes)}")
    squared = [group.var(axis=-1, ddof=1) / size for group, size in zip(groups, sizes, strict=True)]
    total = squared[0] + squared[1]
    if not (total > 0).all():
        raise StatisticsError("neither group has any spread", expected="seeds that change the score", got="sd = 0")
    df = total**2 / (squared[0] ** 2 / (sizes[0] - 1) + squared[1] ** 2 / (sizes[1] - 1))
    return _student(groups[1].mean(axis=-1) - groups[0].mean(axis=-1), np.sqrt(total), df)


def block_t(scores: ArrayLike) -> StudentT:
    """Test every arm against the baseline with one error variance pooled over all arms, the seeds being blocks.

    The additive model score = arm + seed + noise; its residual mean square has (n - 1) K degrees of freedom, and a
    difference the variance 2 MS/n (Dunnett 1955, "A multiple comparison procedure", section 2). Two-sided, unadjusted.
    Right only if the noise of every arm, the baseline's included, is the same.

    Args:
        scores: float64[..., 1 + K, n], baseline first, complete blocks, n >= 2.

    Returns:
        A test per arm, float64[..., K].

    Raises:
        StatisticsError: for fewer than two seeds, no arm, or a block design without residuals.
    """
    y = np.asarray(scores, np.float64)
    if y.ndim < 2 or y.shape[-1] < 2 or y.shape[-2] < 2:
        raise StatisticsError(
            "a block design needs arms and seeds", expected="(1 + arms, seeds) >= (2, 2)", got=y.shape
        )
    arms, n = y.shape[-2] - 1, y.shape[-1]
    residuals = block_residuals(y)
    mean_square = (residuals**2).sum(axis=(-2, -1)) / ((n - 1) * arms)
    if not (mean_square > 0).all():
        raise StatisticsError("the blocks leave no residual noise", expected="seeds that act differently on the arms")
    means = y.mean(axis=-1)
    estimate = means[..., 1:] - means[..., :1]
    error = np.broadcast_to(np.sqrt(2 * mean_square / n)[..., None], estimate.shape)
    return _student(estimate, error, np.full(estimate.shape, float((n - 1) * arms)))


def block_residuals(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what arm and seed effects leave of complete blocks, float64[..., 1 + K, n]."""
    by_seed = scores - scores.mean(axis=-2, keepdims=True)
    return np.asarray(by_seed - by_seed.mean(axis=-1, keepdims=True))


def _student(estimate: NDArray[np.float64], error: NDArray[np.float64], df: NDArray[np.float64]) -> StudentT:
    return StudentT(estimate, error, 2 * stdtr(df, -np.abs(estimate / error)), df)


def equivalence_p(test: PairedT | StudentT, margin: float) -> NDArray[np.float64]:
    """Return the p-value of the claim that the true difference lies within ±margin.

    Two one-sided t tests (Schuirmann 1987): the larger of the p-values of "not above -margin" and "not below +margin".

    Args:
        test: The t test of the difference.
        margin: The smallest effect that matters, in the units of the difference, > 0.
    """
    below = stdtr(test.df, (test.estimate - margin) / test.standard_error)
    above = stdtr(test.df, -(test.estimate + margin) / test.standard_error)
    p: NDArray[np.float64] = np.maximum(below, above)
    return p
