"""Bootstraps over seeds, and of the residuals of the seed blocks.

Promises that a seed is drawn for the arm and the baseline together, that up to eight seeds every resample is counted
exactly, and that beyond the draws come from a fixed internal stream or from the generator given, never from a global
one. Refuses fewer than five seeds, where no bootstrap interval keeps its level; `caution` says what is known above.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from itertools import combinations
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import factorial, ndtr, ndtri, stdtr, stdtrit

from workbench.errors import StatisticsError
from workbench.statistics.comparison import Comparison
from workbench.statistics.multiplicity import TIE, max_t
from workbench.statistics.permutation import blockwise
from workbench.statistics.student import block_residuals, block_t

Kind = Literal["percentile", "basic", "bca", "studentised", "symmetric studentised", "expanded percentile"]

STREAM = 0xB007  # key of the internal stream
ENUMERATED_SEEDS = 8  # up to here all resamples are counted: 6435 different ones at eight
DRAWS = 9_999  # resamples drawn beyond
RESIDUAL_DRAWS = 1_999
SMALLEST_SEEDS = 5
# Seeds -> coverage of nominal 95 % intervals of a mean: normal noise, 20,000 simulations, Monte Carlo error .0015.
COVERAGE: dict[Kind, dict[int, float]] = {
    "percentile": {5: 0.841, 8: 0.885, 10: 0.904},
    "basic": {5: 0.841, 8: 0.886, 10: 0.904},
    "bca": {5: 0.842, 8: 0.884, 10: 0.902},
    "expanded percentile": {5: 0.930, 8: 0.944, 10: 0.950},
    "studentised": {5: 0.948, 8: 0.949, 10: 0.952},
    "symmetric studentised": {5: 0.979, 8: 0.965, 10: 0.963},
}


class Resamples(NamedTuple):
    """How often each seed is drawn, float64[B, n], and the orderings each stands for, whole numbers float64[B].

    Whole numbers add up exactly, so that no answer depends on the order in which equal means are counted.
    """

    counts: NDArray[np.float64]
    orderings: NDArray[np.float64]

    @property
    def chance(self) -> NDArray[np.float64]:
        """Of every resample."""
        return np.asarray(self.orderings / self.orderings.sum())

    @property
    def rarest(self) -> float:
        """The smallest chance that this bootstrap can tell from none."""
        return float(self.orderings.min() / self.orderings.sum())


class Interval(NamedTuple):
    """A bootstrap interval and the two-sided p-value it inverts to, float64[...]."""

    estimate: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p: NDArray[np.float64]


class _Distribution(NamedTuple):
    """A bootstrap distribution in ascending order with the chances of "at most" and "at least" each of its values."""

    values: NDArray[np.float64]
    at_most: NDArray[np.float64]
    at_least: NDArray[np.float64]


def caution(kind: Kind, seeds: int) -> str | None:
    """Return what is known against the 95 % interval `kind` at this number of seeds, or None."""
    known = max((n for n in COVERAGE[kind] if n <= seeds), default=SMALLEST_SEEDS)
    covered = COVERAGE[kind][known]
    if seeds >= 20 or covered >= 0.94:
        return None
    return f"a 95 % {kind} interval covers only {100 * covered:.0f} % at {known} seeds, even of normal noise"


def smallest_bootstrap_p(seeds: int, arms: int = 1, *, kind: Kind) -> float:
    """Return the p-value below which the bootstrap `kind` cannot go, whatever the number of arms."""
    rarest = resamples(seeds).rarest
    if kind == "symmetric studentised":
        return rarest
    return float(_expanded_p(2 * rarest, seeds)) if kind == "expanded percentile" else 2 * rarest


def resamples(seeds: int, generator: np.random.Generator | None = None) -> Resamples:
    """Return the resamples of `seeds` seeds: every one with its exact chance up to eight, else 9,999 random ones.

    A resample is its counts: C(2n - 1, n) of them differ, with multinomial chances (Fisher and Hall 1991, "Bootstrap
    algorithms for small samples").

    Args:
        seeds: At least 2.
        generator: Draws the random ones; None for the fixed internal stream. Ignored where all are counted.
    """
    if seeds <= ENUMERATED_SEEDS:
        return _all_resamples(seeds)
    return _drawn_resamples(seeds) if generator is None else _draw(seeds, generator)


def bootstrap(
    differences: ArrayLike, level: float, kind: Kind, generator: np.random.Generator | None = None
) -> Interval:
    """Return the bootstrap interval of the mean paired difference and its p-value.

    Percentile, basic, BCa (Efron 1987), studentised with equal tails or symmetric (Hall 1988, resamples without spread
    count as infinite), and the percentile interval expanded to the width of a t interval (Hesterberg 2015, section
    5.3). The p-value is the smallest alpha whose interval excludes zero; no tail is taken to be rarer than the rarest
    resample, and an interval that needed a rarer one is infinite.

    Args:
        differences: float64[..., n], arm minus baseline under the same seed, n >= 5.
        level: Confidence of the interval, in (0, 1).
        kind: One of the six names.
        generator: As in `resamples`.

    Raises:
        StatisticsError: for fewer than five seeds, differences without spread, an unknown kind or level.
    """
    d = np.asarray(differences, np.float64)
    _refuse(d, level, kind)
    drawn = resamples(d.shape[-1], generator)
    judge = partial(_KINDS[kind], tail=(1 - level) / 2, drawn=drawn)
    return blockwise(judge, 4 * len(drawn.orderings), (d,), (1,))


def seed_bootstrap_max_t(scores: ArrayLike, alpha: float) -> Comparison:
    """Compare arms with the baseline by resampling whole seeds; studentised, step-down over the arms.

    Romano and Wolf (2005), "Exact and approximate stepdown methods", with the paired t of every arm as statistic. It
    keeps the dependence of the arms and each arm's own variance.

    Args:
        scores: float64[..., 1 + K, n], baseline first, n >= 5.
        alpha: Family-wise error of the simultaneous intervals.

    Raises:
        StatisticsError: for fewer than five seeds or differences without spread.
    """
    y = np.asarray(scores, np.float64)
    d = y[..., 1:, :] - y[..., :1, :]
    _refuse(d, 1 - alpha, "studentised")
    drawn = resamples(d.shape[-1])
    chance = drawn.chance if d.shape[-1] <= ENUMERATED_SEEDS else None

    def judge(rows: NDArray[np.float64]) -> Comparison:
        error = rows.std(axis=-1, ddof=1) / np.sqrt(rows.shape[-1])
        reference = np.moveaxis(np.abs(_studentised(rows, drawn)), -1, -2)
        return max_t(rows.mean(axis=-1), error, reference, alpha, chance)

    return blockwise(judge, 4 * len(drawn.orderings) * d.shape[-2], (d,), (2,))


def residual_bootstrap_max_t(scores: ArrayLike, alpha: float) -> Comparison:
    """Compare arms with the baseline by resampling the residuals of the seed blocks; step-down max-T over the arms.

    The residuals of arm + seed are drawn with replacement from one pool, the statistic is the t of `block_t`; 1,999
    fixed random draws. One pool means one noise distribution for all arms.

    Args:
        scores: float64[..., 1 + K, n], baseline first, n >= 3.
        alpha: Family-wise error of the simultaneous intervals.

    Raises:
        StatisticsError: as `block_t`.
    """
    y = np.asarray(scores, np.float64)
    test = block_t(y)
    pool = block_residuals(y).reshape(*y.shape[:-2], -1)
    chosen = _residual_indices(*y.shape[-2:])

    def judge(rows: NDArray[np.float64], estimate: NDArray[np.float64], error: NDArray[np.float64]) -> Comparison:
        return max_t(estimate, error, _redrawn_t(rows, chosen), alpha)

    return blockwise(judge, 2 * chosen.size, (pool, test.estimate, test.standard_error), (1, 1, 1))


def _redrawn_t(pool: NDArray[np.float64], chosen: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the absolute block t of every arm in every redrawn design: float64[D, B, K] from a pool [D, (1 + K) n]."""
    rows, n = chosen.shape[-2:]
    redrawn = pool[:, chosen]
    by_arm, by_seed = redrawn.mean(axis=-1), redrawn.mean(axis=-2)
    total = (redrawn**2).sum(axis=(-2, -1))
    arms, seeds = n * (by_arm**2).sum(axis=-1), rows * (by_seed**2).sum(axis=-1)
    square = (total - arms - seeds + rows * n * by_arm.mean(axis=-1) ** 2) / ((n - 1) * (rows - 1))
    # A few residuals can be drawn so that none are left: such a t is infinite, or 0 between equal means.
    scale = (pool**2).mean(axis=-1)[:, None]
    error = np.sqrt(2 * np.where(square > TIE * scale, square, 0.0) / n)
    return _ratio(np.abs(by_arm[..., 1:] - by_arm[..., :1]), error[..., None], np.sqrt(scale)[..., None])


def _refuse(d: NDArray[np.float64], level: float, kind: str) -> None:
    if kind not in get_args(Kind):
        raise StatisticsError("no such bootstrap", expected=", ".join(get_args(Kind)), got=kind)
    if not 0 < level < 1:
        raise StatisticsError("a confidence level lies between 0 and 1", expected="0 < level < 1", got=level)
    if d.ndim < 1 or d.shape[-1] < SMALLEST_SEEDS:
        raise StatisticsError(
            "too few seeds to resample",
            expected=f"at least {SMALLEST_SEEDS} paired differences",
            got=f"shape {d.shape}",
            fix="use a t test; at three seeds a 95 % percentile interval covers 75 %",
        )
    if not (np.ptp(d, axis=-1) > 0).all():
        raise StatisticsError("the differences have no spread", expected="seeds that change the score", got="sd = 0")


def _percentile(d: NDArray[np.float64], tail: float, drawn: Resamples) -> Interval:
    means = _ordered(_means(d, drawn), drawn)
    p = _two_sided(*_tails(means, np.zeros(len(d))), drawn)
    return Interval(d.mean(axis=-1), *_ends(means, tail, tail, drawn), p)


def _basic(d: NDArray[np.float64], tail: float, drawn: Resamples) -> Interval:
    means, estimate = _ordered(_means(d, drawn), drawn), d.mean(axis=-1)
    low, high = _ends(means, tail, tail, drawn)
    return Interval(estimate, 2 * estimate - high, 2 * estimate - low, _two_sided(*_tails(means, 2 * estimate), drawn))


def _expanded(d: NDArray[np.float64], tail: float, drawn: Resamples) -> Interval:
    means, n = _ordered(_means(d, drawn), drawn), d.shape[-1]
    wider = float(ndtr(np.sqrt(n / (n - 1)) * stdtrit(n - 1, tail)))
    plain = _two_sided(*_tails(means, np.zeros(len(d))), drawn)
    return Interval(d.mean(axis=-1), *_ends(means, wider, wider, drawn), _expanded_p(plain, n))


def _expanded_p(plain: ArrayLike, seeds: int) -> NDArray[np.float64]:
    """Return the p-value of the expanded interval where the percentile interval has `plain`."""
    return np.asarray(2 * stdtr(seeds - 1, np.sqrt((seeds - 1) / seeds) * ndtri(np.asarray(plain) / 2)))


def _bca(d: NDArray[np.float64], tail: float, drawn: Resamples) -> Interval:
    means, estimate = _ordered(_means(d, drawn), drawn), d.mean(axis=-1)
    at_most, at_least = _tails(means, estimate)
    rarest = drawn.rarest
    bias = ndtri(np.clip((at_most + 1 - at_least) / 2, rarest, 1 - rarest))
    deviations = d - estimate[:, None]  # of the jackknife means, up to a factor that cancels
    spread = (deviations**2).sum(axis=-1)
    acceleration = (deviations**3).sum(axis=-1) / (6 * spread**1.5)

    def moved(z: float) -> NDArray[np.float64]:
        shifted = bias + z
        return np.asarray(ndtr(bias + shifted / np.maximum(1 - acceleration * shifted, TIE)))

    def level_of(share: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the normal quantile that `moved` carries to this share."""
        w = ndtri(np.clip(share, rarest, 1 - rarest)) - bias
        return np.asarray(w / np.maximum(1 + acceleration * w, TIE) - bias)

    low, high = _ends(means, moved(ndtri(tail)), 1 - moved(-ndtri(tail)), drawn)
    below, above = _tails(means, np.zeros(len(d)))
    p = 2 * np.minimum(ndtr(level_of(below)), ndtr(-level_of(1 - above)))
    return Interval(estimate, low, high, np.clip(p, 2 * rarest, 1.0))


def _studentised_interval(d: NDArray[np.float64], tail: float, drawn: Resamples, symmetric: bool) -> Interval:
    estimate, error = d.mean(axis=-1), d.std(axis=-1, ddof=1) / np.sqrt(d.shape[-1])
    t, observed = _studentised(d, drawn), estimate / error
    if symmetric:
        distribution = _ordered(np.abs(t), drawn)
        p = np.maximum(_tails(distribution, np.abs(observed))[1], drawn.rarest)
        half = _ends(distribution, tail, 2 * tail, drawn)[1] * error
        return Interval(estimate, estimate - half, estimate + half, np.minimum(p, 1.0))
    distribution = _ordered(t, drawn)
    low, high = _ends(distribution, tail, tail, drawn)
    p = _two_sided(*_tails(distribution, observed), drawn)
    return Interval(estimate, estimate - high * error, estimate - low * error, p)


_KINDS: dict[str, Callable[..., Interval]] = {
    "percentile": _percentile,
    "basic": _basic,
    "bca": _bca,
    "studentised": partial(_studentised_interval, symmetric=False),
    "symmetric studentised": partial(_studentised_interval, symmetric=True),
    "expanded percentile": _expanded,
}


def _means(d: NDArray[np.float64], drawn: Resamples) -> NDArray[np.float64]:
    """Return the mean of every resample, float64[..., B] from float64[..., n]."""
    return np.asarray(np.einsum("...n,bn->...b", d, drawn.counts) / d.shape[-1])


def _studentised(d: NDArray[np.float64], drawn: Resamples) -> NDArray[np.float64]:
    """Return (mean* - mean) / error* of every resample: infinite where a resample has no spread, 0 where neither."""
    n = d.shape[-1]
    centred = d - d.mean(axis=-1, keepdims=True)
    means = _means(centred, drawn)
    square = _means(centred**2, drawn)
    variance = square - means**2
    variance = np.where(variance > TIE * square, variance, 0.0)
    return _ratio(means, np.sqrt(variance / (n - 1)), np.sqrt((centred**2).mean(axis=-1))[..., None])


def _ratio(distance: NDArray[np.float64], error: NDArray[np.float64], unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return distance / error; with no error it is infinite, or 0 for a distance that is rounding of `unit`."""
    none = error == 0
    limit = np.where(np.abs(distance) > TIE * unit, np.copysign(np.inf, distance), 0.0)
    return np.where(none, limit, distance / np.where(none, 1.0, error))


def _ordered(values: NDArray[np.float64], drawn: Resamples) -> _Distribution:
    total = drawn.orderings.sum()
    if total == len(drawn.orderings):
        ordered, own = np.sort(values, axis=-1), np.ones_like(values)
        up_to = np.broadcast_to(np.arange(1, len(drawn.orderings) + 1), values.shape)
    else:
        order = np.argsort(values, axis=-1)
        ordered, own = np.take_along_axis(values, order, axis=-1), drawn.orderings[order]
        up_to = np.cumsum(own, axis=-1)
    return _Distribution(ordered, up_to / total, (total - up_to + own) / total)


def _tails(distribution: _Distribution, value: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the chances of at most and of at least `value`, float64[D]; equal up to rounding is equal."""
    finite = np.where(np.isfinite(distribution.values), distribution.values, 0.0)
    slack = TIE * (np.abs(finite).max(axis=-1) + np.abs(value))
    below = (distribution.values <= (value + slack)[:, None]).sum(axis=-1)
    under = (distribution.values < (value - slack)[:, None]).sum(axis=-1)
    draws = distribution.values.shape[-1]
    at_most = np.take_along_axis(distribution.at_most, np.maximum(below - 1, 0)[:, None], axis=-1)[:, 0]
    at_least = np.take_along_axis(distribution.at_least, np.minimum(under, draws - 1)[:, None], axis=-1)[:, 0]
    return np.where(below > 0, at_most, 0.0), np.where(under < draws, at_least, 0.0)


def _ends(
    distribution: _Distribution, below: ArrayLike, above: ArrayLike, drawn: Resamples
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the innermost values with at least the chance `below` at or under, `above` at or over them; float64[D]."""
    rows = len(distribution.values)
    tails = [np.broadcast_to(np.asarray(tail, np.float64), rows) for tail in (below, above)]
    first = np.argmax(distribution.at_most >= tails[0][:, None] * (1 - TIE), axis=-1)
    last = distribution.values.shape[-1] - 1
    final = last - np.argmax(distribution.at_least[:, ::-1] >= tails[1][:, None] * (1 - TIE), axis=-1)
    rarest = drawn.rarest * (1 - TIE)
    every = np.arange(rows)
    low = np.where(tails[0] < rarest, -np.inf, distribution.values[every, first])
    return low, np.where(tails[1] < rarest, np.inf, distribution.values[every, final])


def _two_sided(at_most: NDArray[np.float64], at_least: NDArray[np.float64], drawn: Resamples) -> NDArray[np.float64]:
    return np.asarray(np.clip(2 * np.minimum(at_most, at_least), 2 * drawn.rarest, 1.0))


@lru_cache(maxsize=16)
def _all_resamples(seeds: int) -> Resamples:
    # Counts are the gaps that n - 1 bars leave among 2n - 1 places.
    bars = np.array(list(combinations(range(2 * seeds - 1), seeds - 1)), np.int64)
    edges = np.pad(bars, ((0, 0), (1, 1)), constant_values=((0, 0), (-1, 2 * seeds - 1)))
    counts = np.diff(edges, axis=1) - 1
    orderings = factorial(seeds, exact=True) // factorial(counts, exact=True).prod(axis=1)
    return Resamples(counts.astype(np.float64), orderings.astype(np.float64))


@lru_cache(maxsize=16)
def _drawn_resamples(seeds: int) -> Resamples:
    return _draw(seeds, np.random.Generator(np.random.Philox(key=STREAM)))


def _draw(seeds: int, generator: np.random.Generator) -> Resamples:
    counts = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS)
    return Resamples(counts.astype(np.float64), np.ones(DRAWS))


@lru_cache(maxsize=16)
def _residual_indices(rows: int, seeds: int) -> NDArray[np.intp]:
    stream = np.random.Generator(np.random.Philox(key=STREAM))
    return stream.integers(rows * seeds, size=(RESIDUAL_DRAWS, rows, seeds), dtype=np.intp)
