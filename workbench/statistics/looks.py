"""The statistic of one look of a sequential design: the default test where arms have stopped or lost seeds.

Promises that the running arms with every seed are fitted as `blocks` fits them, with the residual squares that stopped
arms left in the pool; that an arm which lost a seed, or follows the baseline without any noise, is judged on its own
complete pairs, outside the pool; and that where there is no such arm the answer is that of `blocks.fit`. Differences
without noise decide nothing, except that what is equal throughout is equivalent.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from workbench.statistics.blocks import Left, fit_after
from workbench.statistics.pairing import ROUNDING

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SMALLEST_PAIRS = 3  # complete pairs an arm with lost seeds needs to be judged at all


class Look(NamedTuple):
    """The statistic of every arm, float64[sets, arms]; without meaning for arms that do not run.

    Attributes:
        estimate: Mean difference, arm minus baseline.
        error: Its standard error, 0 without noise, infinite where too few pairs are left.
        df: Degrees of freedom of the nominal t distribution.
        tax: Factor on the nominal p-values.
        squares: Residual squares the arm leaves in the pool if it stops here; 0 for an arm outside the pool.
    """

    estimate: Array
    error: Array
    df: Array
    tax: Array
    squares: Array

    def p_different(self) -> Array:
        """Nominal two-sided p-values of "no difference"; 1 without noise."""
        noisy = self.error > 0
        ratio = np.divide(self.estimate, self.error, out=np.zeros_like(self.error), where=noisy)
        return np.asarray(np.where(noisy, self.tax * 2 * stdtr(self.df, -np.abs(ratio)), 1.0))

    def p_beyond(self, margin: float) -> Array:
        """Nominal one-sided p-values of "the true difference lies at or beyond `margin` from zero"."""
        inside = np.abs(self.estimate) - margin
        noisy = self.error > 0
        ratio = np.divide(inside, self.error, out=np.zeros_like(inside), where=noisy)
        return np.asarray(np.where(noisy, self.tax * stdtr(self.df, ratio), self.estimate != 0))


def look(scores: Array, running: Mask, left: Left) -> Look:
    """Fit the running arms of every data set.

    Args:
        scores: float64[sets, 1 + arms, seeds], baseline in row 0 and finite, NaN where a running arm lost a seed.
        running: bool[sets, arms].
        left: From the arms that stopped.
    """
    sets, rows, seeds = scores.shape
    found = Look(*np.zeros((5, sets, rows - 1)))
    found.error[:], found.df[:], found.tax[:] = np.inf, 1.0, 1.0
    differences = scores[:, 1:] - scores[:, :1]
    tolerance = ROUNDING * np.abs(np.where(np.isfinite(scores), scores, 0.0)).max(axis=(1, 2))[:, None]
    whole = running & (np.ptp(differences, axis=-1) > tolerance)  # a lost seed leaves no spread to compare
    _own_pairs(differences, running & ~whole, found)
    counts = whole.sum(axis=1)
    for count in np.unique(counts[counts > 0]):
        chosen = np.flatnonzero(counts == count)
        arms = np.argsort(~whole[chosen], axis=1, kind="stable")[:, :count]
        rows_of = np.concatenate([np.zeros((len(chosen), 1), np.intp), 1 + arms], axis=1)
        running_scores = np.take_along_axis(scores[chosen], rows_of[..., None], axis=1)
        fitted, leaves = fit_after(running_scores, Left(left.squares[chosen], left.df[chosen]))
        together = Look(fitted.estimate, fitted.standard_error, fitted.df, fitted.tax, leaves)
        for field, value in zip(found, together, strict=True):
            field[chosen[:, None], arms] = value
    found.error[found.error * np.sqrt(seeds) <= tolerance] = 0.0
    found.estimate[np.abs(found.estimate) <= tolerance] = 0.0
    return found


def _own_pairs(differences: Array, chosen: Mask, found: Look) -> None:
    """Judge arms outside the pool by a paired t on the pairs they have."""
    pairs = differences[chosen]
    there = np.isfinite(pairs)
    count = there.sum(axis=1)
    mean = np.where(there, pairs, 0.0).sum(axis=1) / np.maximum(count, 1)
    squares = (np.where(there, pairs - mean[:, None], 0.0) ** 2).sum(axis=1)
    df = np.maximum(count - 1, 1)
    found.estimate[chosen], found.df[chosen] = mean, df
    found.error[chosen] = np.where(count >= SMALLEST_PAIRS, np.sqrt(squares / df / np.maximum(count, 1)), np.inf)
