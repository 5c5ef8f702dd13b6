"""The paired t test, its interval, and equivalence by two one-sided tests.

Promises the textbook answers, vectorised over leading axes. Refuses fewer than two differences and differences without
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


def equivalence_p(test: PairedT, margin: float) -> NDArray[np.float64]:
    """Return the p-value of the claim that the true difference lies within ±margin.

    Two one-sided t tests (Schuirmann 1987): the larger of the p-values of "not above -margin" and "not below +margin".

    Args:
        test: The paired t test of the differences.
        margin: The smallest effect that matters, in the units of the differences, > 0.
    """
    below = stdtr(test.df, (test.estimate - margin) / test.standard_error)
    above = stdtr(test.df, -(test.estimate + margin) / test.standard_error)
    p: NDArray[np.float64] = np.maximum(below, above)
    return p
