"""Where the arms of a sequential design stop: nominal p-values per look and size of family, from simulated noise.

Promises that an equal-noise sweep without any difference crosses a boundary, at any look, in a share SHARE * alpha of
all cases, whatever part of the family is left; what remains of alpha pays for arms and baselines of unequal noise (see
`results/calibration`). The draws come from a fixed internal stream: the same design has the same boundaries everywhere.
Refuses designs without a second look.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from workbench.errors import StatisticsError
from workbench.statistics.blocks import fit

Array = NDArray[np.float64]

FIRST_LOOK = 4  # a look at three seeds lets 8 % through under a noisy baseline and saves next to nothing
SHARE = 0.8  # of alpha that the boundaries spend on equal noise; .9 lets 6.7 % through under a baseline 3x noisier
DRAWS = 100_000
_CHUNK = 5_000
_KEY = 0x5EEDB10D  # the fixed internal stream: a verdict never depends on anybody's generator


@dataclass(frozen=True)
class Design:
    """What is fixed before the first seed.

    Attributes:
        seeds: Most seeds an arm may get.
        arms: Arms, the baseline not counted.
        alpha: Family-wise error over all looks, of each of the two families.
        margin: Smallest effect that matters, in units of the scores; None offers no equivalence.
        futility: Stop arms that will hardly be decided. Non-binding: the error holds whether or not they stop.

    Raises:
        StatisticsError: for a design without a second look, without arms, or with an impossible alpha or margin.
    """

    seeds: int
    arms: int
    alpha: float = 0.05
    margin: float | None = None
    futility: bool = False

    def __post_init__(self) -> None:
        if self.seeds <= FIRST_LOOK or self.arms < 1:
            raise StatisticsError(
                "a sequential design needs an arm and at least two looks",
                expected=f"more than {FIRST_LOOK} seeds and one arm or more",
                got=f"{self.seeds} seeds, {self.arms} arms",
                fix="declare more seeds (they are run only while an arm is undecided), or a fixed design",
            )
        if not 0 < self.alpha < 0.5:
            raise StatisticsError("alpha is no error rate", expected="0 < alpha < 0.5", got=self.alpha)
        if self.margin is not None and not 0 < self.margin < np.inf:
            raise StatisticsError("the smallest effect is not a positive number", expected="> 0", got=self.margin)

    @property
    def looks(self) -> range:
        """Numbers of complete blocks after which the arms are judged."""
        return range(FIRST_LOOK, self.seeds + 1)


@dataclass(frozen=True, eq=False)
class Boundaries:
    """Nominal p-values at which arms stop: float64[looks, arms], column m - 1 for a family of m arms."""

    difference: Array
    equivalence: Array


@lru_cache(maxsize=16)
def boundaries(seeds: int, arms: int, alpha: float = 0.05, draws: int = DRAWS) -> Boundaries:
    """Find where arms stop by running the statistic on noise, look by look.

    After look j of J a family of m arms has rejected in a share SHARE * alpha * j / J of the paths (the cumulative
    error of Lan and DeMets 1983, linear in the looks). The boundary never rises with the size of the family, as
    stepping down needs. Equivalence is calibrated with arms at the two ends of the margin in turn; all at one end
    would be kinder.
    """
    looks = Design(seeds, arms, alpha).looks
    two_sided, one_sided = _noise_paths(looks, arms, draws)
    spent = SHARE * alpha * np.arange(1, len(looks) + 1) / len(looks)
    return Boundaries(_spend(two_sided, spent), _spend(one_sided, spent))


def _noise_paths(looks: range, arms: int, draws: int) -> tuple[Array, Array]:
    """Smallest nominal p-values, two- and one-sided, of the first m arms on noise: float64[looks, arms, draws] each."""
    generator = np.random.Generator(np.random.Philox(key=_KEY))
    sign = (-1.0) ** np.arange(arms)
    two_sided, one_sided = np.empty((2, len(looks), arms, draws))
    for start in range(0, draws, _CHUNK):
        part = slice(start, min(start + _CHUNK, draws))
        paths = generator.standard_normal((part.stop - start, 1 + arms, looks[-1]))
        for row, seeds in enumerate(looks):
            found = fit(paths[..., :seeds])
            p = found.p_different()
            towards = np.where(sign * found.estimate > 0, p / 2, found.tax - p / 2)
            two_sided[row, :, part] = np.minimum.accumulate(p, axis=1).T
            one_sided[row, :, part] = np.minimum.accumulate(towards, axis=1).T
    return two_sided, one_sided


def _spend(minima: Array, spent: Array) -> Array:
    """Find the limit of every look at which the share of paths that ever fell below theirs is what may be spent."""
    looks, arms, draws = minima.shape
    limits = np.empty((looks, arms))
    for m in range(arms):
        inside = np.ones(draws, np.bool_)
        for row in range(looks):
            allowed = round(float(spent[row]) * draws) - (draws - int(inside.sum()))
            limits[row, m] = np.partition(minima[row, m][inside], allowed)[allowed]
            inside &= minima[row, m] >= limits[row, m]
    limits = np.minimum.accumulate(limits, axis=1)
    limits.flags.writeable = False
    return limits
