"""Noise of identical arms: by name, the conditions under which methods hold or fail, or fitted to results.

Promises that named noise is standardised: a quiet run has a residual standard deviation of one, whatever its shape
(runs that diverge come on top). Refuses names it does not know and scenarios with more noisy arms than there are arms.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.errors import StatisticsError

Array = NDArray[np.float64]

DIVERGING_SHARE, DIVERGING_SHIFT = 0.1, 5.0  # of runs, and by how many standard deviations they end up elsewhere


def _diverging(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    bad = generator.random(shape) < DIVERGING_SHARE
    return np.asarray(generator.standard_normal(shape) + DIVERGING_SHIFT * bad)


SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": lambda generator, shape: generator.standard_normal(shape),
    "exponential": lambda generator, shape: generator.standard_exponential(shape) - 1,
    "t3": lambda generator, shape: generator.standard_t(3, shape) / np.sqrt(3),
    "lognormal": lambda generator, shape: (generator.lognormal(size=shape) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e),
    "diverging": _diverging,
}


class NoiseModel(NamedTuple):
    """How runs of identical arms scatter.

    Attributes:
        scales: Factor on the residual noise of the baseline, then of every arm.
        shape: Distribution of the residual noise, a key of `SHAPES`.
        seed_sd: Standard deviation of what the runs of one seed share; methods that pair do not see it.
        unit: Residual standard deviation of one quiet run, in which effects are counted.
    """

    scales: tuple[float, ...]
    shape: str = "normal"
    seed_sd: float = 1.0
    unit: float = 1.0

    def draw(self, generator: np.random.Generator, sets: int, seeds: int) -> Array:
        """Draw data sets of identical arms: float64[sets, 1 + arms, seeds]."""
        residual = SHAPES[self.shape](generator, (sets, len(self.scales), seeds))
        shared = generator.standard_normal((sets, 1, seeds))
        return np.asarray(residual * np.array(self.scales)[:, None] + self.seed_sd * shared)


class Scenario(NamedTuple):
    """A kind of noise for any number of arms. The noisy ones stand last: the first, which effects go to, are quiet.

    Attributes:
        shape: Distribution, a key of `SHAPES`.
        baseline: Scale of the baseline's noise.
        arms: Scales of the arms' noise, given their number.
        smallest_arms: Fewer arms make no such scenario.
    """

    shape: str = "normal"
    baseline: float = 1.0
    arms: Callable[[int], Array] = np.ones
    smallest_arms: int = 1


def _last(noisy: int, times: float) -> Callable[[int], Array]:
    return lambda arms: np.where(np.arange(arms) < arms - noisy, 1.0, times)


SCENARIOS: dict[str, Scenario] = {
    "normal": Scenario(),
    "one arm 2x": Scenario(arms=_last(1, 2.0)),
    "one arm 3x": Scenario(arms=_last(1, 3.0)),
    "one arm 5x": Scenario(arms=_last(1, 5.0)),
    "baseline 2x": Scenario(baseline=2.0),
    "baseline 3x": Scenario(baseline=3.0),
    "baseline 0.3x": Scenario(baseline=0.3),
    "exponential": Scenario("exponential"),
    "t3": Scenario("t3"),
    "10 % diverging": Scenario("diverging"),
    "two arms 3x": Scenario(arms=_last(2, 3.0), smallest_arms=2),
    "exponential and one arm 3x": Scenario("exponential", arms=_last(1, 3.0)),
    "exponential and baseline 2x": Scenario("exponential", baseline=2.0),
    "lognormal and one arm 10x": Scenario("lognormal", arms=_last(1, 10.0)),
    "baseline 0.3x and two arms 3x": Scenario(baseline=0.3, arms=_last(2, 3.0), smallest_arms=2),
    "half the arms 2x": Scenario(arms=lambda arms: _last(arms // 2, 2.0)(arms), smallest_arms=2),
    "ladder from 0.4x to 2.7x": Scenario(arms=lambda arms: np.exp(np.linspace(-1, 1, arms)), smallest_arms=2),
}


def scenario(name: str, arms: int) -> NoiseModel:
    """Return the noise of a named scenario for a baseline and so many arms.

    Raises:
        StatisticsError: for an unknown name, or fewer arms than the scenario has noisy ones.
    """
    if name not in SCENARIOS:
        raise StatisticsError("unknown noise scenario", expected=", ".join(SCENARIOS), got=name)
    held = SCENARIOS[name]
    if arms < held.smallest_arms:
        raise StatisticsError(
            "the scenario needs more arms", where=name, expected=f"at least {held.smallest_arms} arms", got=arms
        )
    return NoiseModel((held.baseline, *held.arms(arms).tolist()), held.shape)


def fit_noise(scores: ArrayLike, *, equal: bool = False) -> NoiseModel:
    """Estimate the noise of every row of complete blocks, to simulate more of the kind.

    The variance of a row's residuals in the additive model of rows and seeds mixes all rows' noise; solved for a row's
    own, as Grubbs (1948), "On estimating precision of measuring instruments", does for instruments. With few seeds the
    estimates scatter far more than the noise itself, so that they exaggerate how unequal it is; none is taken for less
    than a quarter of the average. Two rows cannot be told apart and count as equal.

    Args:
        scores: float64[1 + arms, seeds], finite, baseline first.
        equal: Take all rows for equally noisy.

    Raises:
        StatisticsError: for scores that are not such an array, fewer than two seeds, or no noise at all.
    """
    held = np.asarray(scores, np.float64)
    if held.ndim != 2 or min(held.shape) < 2 or not np.isfinite(held).all():
        raise StatisticsError(
            "the noise cannot be fitted", expected="finite scores of two or more rows and seeds", got=held.shape
        )
    rows, seeds = held.shape
    by_seed = held.mean(axis=0)
    residuals = held - by_seed - held.mean(axis=1, keepdims=True) + held.mean()
    mixed = (residuals**2).sum(axis=1) / (seeds - 1)
    average = float(mixed.sum() / (rows - 1))
    if average <= 1e-24 * float((held**2).mean()):
        raise StatisticsError(
            "there is no noise to fit", expected="seeds that act differently on the arms", got="sd = 0"
        )
    own = np.full(rows, average)
    if not equal and rows > 2:
        own = np.maximum((mixed - average / rows) * rows / (rows - 2), average / 16)
    shared = float(by_seed.var(ddof=1)) - average / rows
    return NoiseModel(tuple(np.sqrt(own).tolist()), "normal", sqrt(max(shared, 0.0)), sqrt(average))
