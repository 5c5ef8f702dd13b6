"""The crossed bootstrap: seeds and items drawn again, independently, for all arms at once.

Promises the same bytes whatever the number of threads, the BLAS library and the memory: scores are placed on a grid of
whole numbers fine enough to lose nothing that matters and coarse enough that every sum is exact, and the draws come
from one internal stream. Refuses fewer than three seeds or twenty clusters of items: there the draws hold too little.

Known failure: counts the residual noise about twice, so it is cautious where seeds matter little, and like every
bootstrap of three seeds too bold where they matter most. `items.two_way` answers the same question with the right size.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log2
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.errors import StatisticsError
from workbench.statistics.comparison import Comparison
from workbench.statistics.items import shares
from workbench.statistics.multiplicity import max_t
from workbench.statistics.pairing import ROUNDING

Floats = NDArray[np.float64]

STREAM = 0x63726F73736564  # "crossed"; one key, so that a verdict never depends on a caller's generator
BLOCK = 128  # resamples per matrix product: its weights for 67,000 items take 70 MB
FEWEST_SEEDS, FEWEST_CLUSTERS = 3, 20


class CrossedBootstrap(NamedTuple):
    """Every arm against the baseline over new seeds and new items.

    Attributes:
        comparison: Estimates, simultaneous intervals and p-values, each float64[arms].
        standard_error: float64[arms], spread of the draws.
        draws: float64[resamples, arms], the resampled differences.
    """

    comparison: Comparison
    standard_error: Floats
    draws: Floats


def crossed_bootstrap(
    scores: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    resamples: int = 10_000,
    alpha: float = 0.05,
) -> CrossedBootstrap:
    """Compare arms with the baseline by resampling seeds and items independently.

    The pigeonhole bootstrap of Owen (2007, Annals of Applied Statistics 1, 386-411): a resample weighs a score by
    (times its seed was drawn) · (times its item, or cluster of items, was drawn). All arms share both counts, as they
    share seeds and items. Errors are studentised by their spread over the resamples and compared jointly over the
    arms: single-step simultaneous intervals, step-down p-values.

    Args:
        scores: float64[1 + arms, seeds, items], complete, baseline first.
        weights: float64[items], positive; equal unless given.
        clusters: int[items], cluster of each item counted from 0; each item its own unless given.
        resamples: Number of draws; the smallest p-value is 1 / (1 + resamples).
        alpha: Family-wise error of the intervals.

    Raises:
        StatisticsError: for scores that are not finite, too few seeds, clusters or resamples, or an arm that differs
            from the baseline by the same amount everywhere.
    """
    table = np.asarray(scores, np.float64)
    _refuse_unusable(table, resamples, alpha)
    estimate, deviations, sizes = _deviations(table, weights, clusters)
    errors = _resampled_errors(deviations, sizes, resamples)
    spread = errors.std(axis=0, ddof=1)
    _refuse_constant(estimate, spread)
    scale = np.where(spread > 0, spread, 1.0)
    compared = max_t(estimate, scale, np.abs(errors / scale), alpha)
    same = spread == 0  # an arm equal to the baseline in every score: no error at all
    low, high = np.where(same, estimate, compared.low), np.where(same, estimate, compared.high)
    return CrossedBootstrap(compared._replace(low=low, high=high), spread, estimate + errors)


def _deviations(table: Floats, weights: ArrayLike | None, clusters: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    """Return each arm's estimate, what every seed and cluster deviates from it, and the sizes of the clusters.

    float64[arms]; float64[arms, seeds, clusters]; float64[clusters], which average one.
    """
    items = table.shape[-1]
    codes = np.arange(items) if clusters is None else np.asarray(clusters, np.intp)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    if len(starts) < FEWEST_CLUSTERS:
        raise StatisticsError(
            "too few items to draw from",
            expected=f"at least {FEWEST_CLUSTERS} items, or clusters of them",
            got=len(starts),
            fix="take the two-way analysis, or the fixed benchmark as it is",
        )
    share = shares(items, weights)[order]
    arms = len(table) - 1
    estimate, deviations = np.empty(arms), np.empty((arms, table.shape[1], len(starts)))
    for arm in range(arms):  # one arm at a time: the table may fill a good part of the memory
        differences = (table[arm + 1] - table[0])[:, order]
        estimate[arm] = (differences * share).sum(axis=-1).mean()
        errors = differences - estimate[arm]
        if np.abs(errors).max() <= ROUNDING * np.abs(differences).max():
            errors[:] = 0.0
        parts = errors * share
        deviations[arm] = parts if clusters is None else np.add.reduceat(parts, starts, axis=-1)
    sizes = np.add.reduceat(share, starts)
    return estimate, deviations * len(starts), sizes * len(starts)


def _resampled_errors(deviations: Floats, sizes: Floats, resamples: int) -> Floats:
    """Return float64[resamples, arms]: how far each resampled difference is from the estimate."""
    arms, seeds, clusters = deviations.shape
    whole, steps = _on_grid(deviations.reshape(arms, -1), seeds * clusters)
    whole_sizes, size_step = _on_grid(sizes[None], seeds * clusters)
    rows = np.concatenate([whole.reshape(arms * seeds, clusters), whole_sizes])
    errors = np.empty((resamples, arms))
    for first, seed_weights, item_weights in _weights(seeds, clusters, resamples):
        sums = item_weights @ rows.T  # exact in any order: whole numbers below 2**53
        by_seed = sums[:, :-1].reshape(-1, arms, seeds)
        totals = (by_seed * seed_weights[:, None, :]).sum(axis=-1) * steps
        errors[first : first + len(totals)] = totals / (seeds * size_step * sums[:, -1:])
    return errors


def _on_grid(rows: Floats, terms: int) -> tuple[Floats, Floats]:
    """Express each row in whole steps, of a power of two, such that no weighted sum of `terms` of them exceeds 2**53.

    The weights of a resample sum to the number of terms, so the bound holds for every draw. The error of a mean is
    below half a step: 2**-33 of the row's largest value for ten seeds and 67,000 items.
    """
    largest = np.abs(rows).max(axis=-1)
    exponent = np.frexp(np.where(largest > 0, largest, 1.0))[1]  # largest <= 2**exponent
    steps = np.ldexp(1.0, exponent - (53 - ceil(log2(terms))))
    return np.rint(rows / steps[:, None]), steps


def _weights(seeds: int, clusters: int, resamples: int) -> Iterator[tuple[int, Floats, Floats]]:
    """Yield blocks of (first resample, float64[block, seeds], float64[block, clusters]), counts of what was drawn.

    Seeds and items have a stream each and are drawn resample by resample, so that the block size changes nothing. The
    arrays are reused from block to block.
    """
    key = np.array([STREAM, 0], np.uint64)
    seed_draws = np.random.Generator(np.random.Philox(key=key))
    item_draws = np.random.Generator(np.random.Philox(key=key + np.array([0, 1], np.uint64)))
    by_seed, by_cluster = np.empty((BLOCK, seeds)), np.empty((BLOCK, clusters))
    for first in range(0, resamples, BLOCK):
        block = min(BLOCK, resamples - first)
        for row in range(block):
            by_seed[row] = np.bincount(seed_draws.integers(seeds, size=seeds), minlength=seeds)
            by_cluster[row] = np.bincount(item_draws.integers(clusters, size=clusters), minlength=clusters)
        yield first, by_seed[:block], by_cluster[:block]


def _refuse_unusable(table: Floats, resamples: int, alpha: float) -> None:
    if table.ndim != 3 or len(table) < 2:
        raise StatisticsError(
            "the scores have the wrong shape", expected="1 + arms, seeds, items", got=" × ".join(map(str, table.shape))
        )
    if not np.isfinite(table).all():
        first = np.argwhere(~np.isfinite(table))[0].tolist()
        raise StatisticsError(
            "a score is no number",
            where=f"arm {first[0]}, seed {first[1]}, item {first[2]}, counted from 0",
            got=table[tuple(first)],
            fix="pass complete blocks of seeds only",
        )
    if table.shape[1] < FEWEST_SEEDS:
        raise StatisticsError("too few seeds to draw from", expected=f"at least {FEWEST_SEEDS}", got=table.shape[1])
    if not 0 < alpha < 1 or alpha * (1 + resamples) < 10:
        raise StatisticsError(
            "the resamples do not reach that far into the tail",
            expected="0 < alpha < 1 and alpha · resamples of at least 10",
            got=f"alpha {alpha}, {resamples} resamples",
        )


def _refuse_constant(estimate: Floats, spread: Floats) -> None:
    constant = (spread == 0) & (estimate != 0)
    if constant.any():
        raise StatisticsError(
            "an arm differs from the baseline by the same amount everywhere",
            where=f"arm {int(np.flatnonzero(constant)[0]) + 1}, counted from 1",
            expected="scores with noise of seeds or items",
            got=f"a constant difference of {estimate[constant][0]}",
        )
