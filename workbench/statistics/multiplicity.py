"""Adjusting p-values for the size of their family.

Promises monotone results: no hypothesis is easier to reject than one with stronger evidence. Refuses p-values that are
no probabilities. What each adjustment holds, and under which dependence, stands with it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.errors import StatisticsError
from workbench.statistics.comparison import Comparison

TIE = 1e-9  # two statistics closer than this share of themselves differ by rounding only


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Adjust p-values over their last axis so that the family-wise error is held under any dependence.

    Holm (1979), "A simple sequentially rejective multiple test procedure": the j-th smallest of K is multiplied by
    K - j + 1, never falls below its predecessor, and is capped at 1.

    Args:
        p: float[..., K], raw p-values of one family per row.

    Returns:
        float64[..., K], adjusted p-values in the order given.

    Raises:
        StatisticsError: for a p-value outside [0, 1] or not a number.
    """
    return _in_order(p, _stepped_down)


def hommel(p: ArrayLike) -> NDArray[np.float64]:
    """Adjust p-values by Hommel's procedure: the family-wise error, for independent or positively dependent tests.

    Hommel (1988), "A stagewise rejective multiple test procedure", in the form of Wright (1992), appendix: the closure
    of Simes' test. Never larger than Holm's. Shapes and errors as `holm`.
    """
    return _in_order(p, _closed_simes)


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """Adjust p-values so that the expected share of false discoveries is held for positively dependent tests.

    Benjamini and Hochberg (1995), "Controlling the false discovery rate". Holds no family-wise error: with many true
    effects, some of the arms called different are expected to be false. Shapes and errors as `holm`.
    """
    return _in_order(p, _stepped_up)


def benjamini_yekutieli(p: ArrayLike) -> NDArray[np.float64]:
    """Adjust p-values so that the expected share of false discoveries is held under any dependence.

    Benjamini and Yekutieli (2001), theorem 1.3: Benjamini-Hochberg times 1 + 1/2 + ... + 1/K. Shapes and errors as
    `holm`.
    """
    arms = np.shape(p)[-1]
    return np.minimum(_in_order(p, lambda ascending: _stepped_up(ascending, cap=np.inf)) * _harmonic(arms), 1.0)


def step_down(
    statistics: ArrayLike, reference: ArrayLike, probability: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Adjust p-values by the joint distribution of the statistics, stepping down from the largest.

    Westfall and Young (1993), algorithm 2.8; Romano and Wolf (2005): the j-th largest statistic is held against the
    largest of the statistics not yet rejected, in every draw of the reference. For min-p, pass -p on both sides.

    Args:
        statistics: float64[..., K], large against the null hypothesis.
        reference: float64[B, K] or float64[..., B, K], the statistics in draws from the complete null.
        probability: float64[B], chances of the draws where they enumerate the reference; None for a random sample of
            it, which answers (1 + exceedances)/(1 + B) (Phipson and Smyth 2010).

    Returns:
        float64[..., K], adjusted p-values in the order given; never below the chance of the rarest draw.
    """
    observed, draws = np.asarray(statistics, np.float64), np.asarray(reference, np.float64)
    order = np.argsort(-observed, axis=-1, kind="stable")
    largest_first = np.take_along_axis(observed, order, axis=-1)
    shape = (*observed.shape[:-1], *draws.shape[-2:])
    ordered = np.take_along_axis(np.broadcast_to(draws, shape), order[..., None, :], axis=-1)
    remaining = np.maximum.accumulate(ordered[..., ::-1], axis=-1)[..., ::-1]
    return _restored(np.maximum.accumulate(tail_share(largest_first, remaining, probability), axis=-1), order)


def max_t(
    estimate: NDArray[np.float64],
    standard_error: NDArray[np.float64],
    reference: NDArray[np.float64],
    alpha: float,
    probability: NDArray[np.float64] | None = None,
) -> Comparison:
    """Compare arms by |estimate / standard_error| against the joint distribution of that statistic.

    Adjusted p-values step down; the simultaneous intervals are single-step, from the distribution of the largest.

    Args:
        estimate: float64[..., K].
        standard_error: float64[..., K], positive.
        reference: float64[..., B, K], absolute statistics in draws from the complete null; may be infinite.
        alpha: Family-wise error of the intervals.
        probability: As in `step_down`.
    """
    observed = nothing_for_rounding(np.abs(estimate / standard_error))
    adjusted = step_down(observed, reference, probability)
    half = critical_value(reference.max(axis=-1), alpha, probability)[..., None] * standard_error
    return Comparison(
        estimate, estimate - half, estimate + half, tail_share(observed, reference, probability), adjusted
    )


def critical_value(
    maxima: NDArray[np.float64], alpha: float, probability: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return the value that a single-step test at `alpha` must exceed: float64[...]; infinite where none is enough.

    Args:
        maxima: float64[..., B], the largest statistic of the family in every draw of the reference.
        alpha: Family-wise error of the single step.
        probability: As in `step_down`.
    """
    draws = maxima.shape[-1]
    if probability is None:
        allowed = int(np.floor(alpha * (1 + draws) + TIE))
        if allowed < 1:
            return np.full(maxima.shape[:-1], np.inf)
        return np.asarray(np.partition(maxima, draws - allowed, axis=-1)[..., draws - allowed])
    order = np.argsort(-maxima, axis=-1, kind="stable")
    tail = np.cumsum(probability[order], axis=-1)
    first_above = np.argmax(tail > alpha * (1 + TIE), axis=-1)[..., None]
    value = np.take_along_axis(np.take_along_axis(maxima, order, axis=-1), first_above, axis=-1)[..., 0]
    top = maxima.max(axis=-1)
    # Ties at the very top (a relabeling and its mirror image) may outweigh alpha: then nothing can be rejected.
    return np.asarray(np.where(value >= top * (1 - TIE), np.inf, value))


def tail_share(
    statistics: NDArray[np.float64], reference: NDArray[np.float64], probability: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return unadjusted p-values float64[..., K] of statistics against their reference; arguments as `step_down`."""
    return _share(reference >= (statistics - TIE * np.abs(statistics))[..., None, :], probability)


def nothing_for_rounding(statistics: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return absolute statistics of unit scale with zero for those that are rounding, so that they tie with zero."""
    return np.where(statistics > TIE, statistics, 0.0)


def _share(exceeds: NDArray[np.bool_], probability: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Return the p-value of exceedances, bool[..., B, K]."""
    if probability is None:
        return np.asarray((1 + exceeds.sum(axis=-2)) / (1 + exceeds.shape[-2]), np.float64)
    share = np.einsum("...bk,b->...k", exceeds.astype(np.float64), probability)
    return np.asarray(np.clip(share, probability.min(), 1.0))


def _in_order(p: ArrayLike, adjust: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
    """Apply `adjust` to the p-values in ascending order and give the results back in the order given."""
    raw = np.asarray(p, np.float64)
    if not ((raw >= 0) & (raw <= 1)).all():
        raise StatisticsError("a p-value is not a probability", expected="numbers from 0 to 1", got=raw)
    order = np.argsort(raw, axis=-1, kind="stable")
    return _restored(adjust(np.take_along_axis(raw, order, axis=-1)), order)


def _restored(ordered: NDArray[np.float64], order: NDArray[np.intp]) -> NDArray[np.float64]:
    restored = np.empty_like(ordered)
    np.put_along_axis(restored, order, ordered, axis=-1)
    return restored


def _stepped_down(ascending: NDArray[np.float64]) -> NDArray[np.float64]:
    factors = np.arange(ascending.shape[-1], 0, -1)
    return np.minimum(np.maximum.accumulate(ascending * factors, axis=-1), 1.0)


def _stepped_up(ascending: NDArray[np.float64], cap: float = 1.0) -> NDArray[np.float64]:
    size = ascending.shape[-1]
    scaled = ascending * (size / np.arange(1, size + 1))
    return np.minimum(np.minimum.accumulate(scaled[..., ::-1], axis=-1)[..., ::-1], cap)


def _closed_simes(ascending: NDArray[np.float64]) -> NDArray[np.float64]:
    adjusted, size = ascending.copy(), ascending.shape[-1]
    for m in range(size, 1, -1):
        top = ascending[..., size - m :]
        simes = (m * top / np.arange(1, m + 1)).min(axis=-1, keepdims=True)
        adjusted[..., size - m :] = np.maximum(adjusted[..., size - m :], simes)
        below = np.minimum(simes, m * ascending[..., : size - m])
        adjusted[..., : size - m] = np.maximum(adjusted[..., : size - m], below)
    return adjusted


def _harmonic(size: int) -> float:
    return float((1 / np.arange(1, size + 1)).sum())
