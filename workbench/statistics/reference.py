"""What the default test's p-values are worth: a parametric bootstrap of the whole procedure.

Promises that a p-value is compared with what the same steps make of pure noise in the same design, step by step over
the arms, from a fixed internal stream: the same design gives the same reference everywhere, whoever asks. The
statistic does not change when scores are shifted or rescaled, so the reference depends on the numbers of seeds and
arms only. Refuses designs too small for the pooled statistic; `contrasts` judges those pair by pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

from workbench.errors import StatisticsError
from workbench.statistics.blocks import Fit, fit
from workbench.statistics.comparison import Comparison

Array = NDArray[np.float64]
Family = Literal["difference", "equivalence"]

DRAWS = 100_000  # the standard error of a p-value near .05 is then .0007; with 10,000 verdicts flip
SMALLEST_SEEDS = 3
MOST_CELLS = 10_000_000  # arms × draws kept in memory: beyond 100 arms there are fewer draws
_CHUNK = 5_000
PLANNING_DRAWS = 20_000  # forecasts look at designs by the dozen, each less exactly
_SIMULATED = 10
_KEY = 0x5EEDB10C  # the fixed internal stream: a verdict never depends on anybody's generator


@dataclass(frozen=True, eq=False)
class Reference:
    """The default test on noise: how small the smallest nominal p-value of m arms gets, for every m up to all of them.

    Attributes:
        seeds: Seeds of the design.
        arms: Arms of the design, the baseline not counted.
        difference: float64[arms, draws], row m - 1 sorted: the smallest two-sided p-value of m arms.
        equivalence: The same for one-sided p-values at the margin, arms at its two ends in turn. Arms that all sit at
            one end would be a kinder assumption: it lets 6 to 8 % through where the truth is mixed.
        one_arm: Estimate and standard error, df and tax of one arm in every draw, for power.
    """

    seeds: int
    arms: int
    difference: Array
    equivalence: Array
    one_arm: Fit

    @property
    def draws(self) -> int:
        """Data sets of noise behind it."""
        return int(self.difference.shape[1])

    def adjust(self, p: Array, family: Family = "difference") -> Array:
        """Adjust nominal p-values over their last axis, step-down (Westfall and Young 1993; Romano and Wolf 2005).

        The j-th smallest of K is compared with the smallest of K - j + 1 arms under noise, counted as
        (1 + exceedances) / (1 + draws), and never falls below its predecessor. A single arm keeps its p-value, which is
        that of a t distribution.
        """
        if self.arms == 1:
            return np.minimum(p, 1.0)
        sorted_minima = self._minima(family)
        order = np.argsort(p, axis=-1, kind="stable")
        nominal = np.take_along_axis(p, order, axis=-1)
        stepped = np.empty_like(nominal)
        for step in range(p.shape[-1]):
            row = sorted_minima[p.shape[-1] - 1 - step]
            stepped[..., step] = (1 + np.searchsorted(row, nominal[..., step], side="right")) / (1 + row.size)
        adjusted = np.empty_like(nominal)
        np.put_along_axis(adjusted, order, np.maximum.accumulate(stepped, axis=-1), axis=-1)
        return adjusted

    def marginal(self, p: Array, family: Family = "difference") -> Array:
        """Turn each nominal p-value into one that is exact for its arm alone, without any family."""
        if self.arms == 1:
            return np.minimum(p, 1.0)
        row = self._minima(family)[0]
        return np.asarray((1 + np.searchsorted(row, p, side="right")) / (1 + row.size))

    def critical(self, alpha: float, family: Family = "difference") -> float:
        """Return the nominal p-value at which a single-step test of all arms has family-wise error `alpha`."""
        if self.arms == 1:
            return alpha
        row = self._minima(family)[-1]
        below, part = divmod(alpha * (row.size - 1), 1)  # a linear quantile, found at once because the row is sorted
        return float((1 - part) * row[int(below)] + part * row[int(below) + 1])

    def half_width(self, found: Fit, alpha: float) -> Array:
        """Return half the width of the simultaneous 1 - `alpha` intervals."""
        tail = self.critical(alpha) / (2 * found.tax)
        return np.asarray(-stdtrit(found.df, tail) * found.standard_error)

    def chance(self, effect: float, alpha: float, margin: float | None = None) -> float:
        """Return the probability that one arm's single-step test decides, for a true difference of `effect`.

        Args:
            effect: True difference, in residual standard deviations of one run.
            alpha: Family-wise error.
            margin: Smallest effect that matters in the same unit; None counts only "different".
        """
        away = np.abs(self.one_arm.estimate + effect)
        decided = away > self.half_width(self.one_arm, alpha)
        if margin is not None:
            decided |= away < margin - self._inner(alpha)
        return float(decided.mean())

    def minimum_detectable_effect(self, alpha: float, power: float = 0.8) -> float:
        """Return the true difference detected with probability `power`, in residual standard deviations of one run."""
        upper = 1.0
        while self.chance(upper, alpha) < power:
            upper *= 2
        return float(brentq(lambda effect: self.chance(effect, alpha) - power, 0.0, upper, xtol=1e-4))

    def share_called_equivalent(self, margin: float, alpha: float) -> float:
        """Return the share of identical arms called equivalent within ±`margin` standard deviations of one run."""
        return float((np.abs(self.one_arm.estimate) < margin - self._inner(alpha)).mean())

    def _inner(self, alpha: float) -> Array:
        tail = self.critical(alpha, "equivalence") / self.one_arm.tax
        return np.asarray(-stdtrit(self.one_arm.df, tail) * self.one_arm.standard_error)

    def _minima(self, family: Family) -> Array:
        return self.difference if family == "difference" else self.equivalence


@lru_cache(maxsize=16)
def reference(seeds: int, arms: int, draws: int = DRAWS) -> Reference:
    """Run the default test's statistic on `draws` data sets of standard normal noise, fewer beyond 100 arms.

    Raises:
        StatisticsError: for fewer than three seeds and several arms, or fewer than two seeds.
    """
    if seeds < (2 if arms == 1 else SMALLEST_SEEDS) or arms < 1:
        raise StatisticsError(
            "the design is too small to pool noise over arms",
            expected=f"at least {SMALLEST_SEEDS} seeds and one arm",
            got=f"{seeds} seeds, {arms} arms",
        )
    draws = min(draws, MOST_CELLS // arms)
    generator = np.random.Generator(np.random.Philox(key=_KEY))
    sign = (-1.0) ** np.arange(arms)
    two_sided, one_sided = np.empty((draws, arms)), np.empty((draws, arms))
    first = []
    chunk = max(1, min(_CHUNK, MOST_CELLS // (seeds * (1 + arms))))
    for start in range(0, draws, chunk):
        found = fit(generator.standard_normal((min(chunk, draws - start), 1 + arms, seeds)))
        stop = start + len(found.tax)
        two_sided[start:stop] = found.p_different()
        one_sided[start:stop] = found.tax * stdtr(found.df, -sign * found.estimate / found.standard_error)
        first.append(found.at(slice(None), 0))
    one_arm = Fit._make(np.concatenate(parts) for parts in zip(*first, strict=True))
    return Reference(seeds, arms, _minima(two_sided), _minima(one_sided), one_arm)


@lru_cache(maxsize=64)
def seeds_needed(effect: float, arms: int, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """Return the number of seeds with which one arm's difference of `effect` is detected with probability `power`.

    Args:
        effect: True difference in residual standard deviations of one run; divide by the upper bound of a pilot's sd
            (`power.upper_sd`), because the sd of a few runs is itself a guess.
        arms: Arms of the sweep.
        alpha: Family-wise error over them.
        power: Wanted probability.

    Returns:
        At least three, at most 1,000; None for more.

    Raises:
        StatisticsError: for an effect that is not positive.
    """
    if not effect > 0:
        raise StatisticsError("an effect to detect must be positive", expected="effect > 0", got=effect)
    for seeds in range(SMALLEST_SEEDS, _SIMULATED + 1):
        detectable = reference(seeds, arms, PLANNING_DRAWS).minimum_detectable_effect(alpha, power)
        if detectable <= effect:
            return seeds
    # From there on the detectable effect falls with the root of the number of seeds, to within a percent or two.
    needed = int(np.ceil(_SIMULATED * (detectable / effect) ** 2))
    return needed if needed <= 1000 else None


def _minima(p: Array) -> Array:
    minima = np.ascontiguousarray(np.minimum.accumulate(p, axis=1).T)
    minima.sort(axis=1)
    minima.flags.writeable = False
    return minima


def compare_blocks(scores: Array, alpha: float = 0.05) -> Comparison:
    """Judge complete blocks by the default test: step-down p-values and single-step simultaneous intervals.

    Args:
        scores: float64[..., 1 + arms, seeds], baseline in row 0.
        alpha: Family-wise error.

    Raises:
        StatisticsError: for a design too small to pool (see `reference`).
    """
    found, noise = fit(scores), reference(scores.shape[-1], scores.shape[-2] - 1)
    nominal = found.p_different()
    half = noise.half_width(found, alpha)
    return Comparison(
        found.estimate, found.estimate - half, found.estimate + half, noise.marginal(nominal), noise.adjust(nominal)
    )
