"""Tests that only permute: signs of paired differences, labels of arms within a seed, disagreements of two runs.

Promises exact p-values where all arrangements can be listed, valid ones, (1 + exceedances)/(1 + draws) from a fixed
internal stream, where they cannot, and the smallest p-value that n seeds can attain at all. Where no interval of the
level asked for exists, the interval is infinite, never a smaller level in disguise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import permutations, product
from math import factorial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr

from workbench.errors import StatisticsError
from workbench.statistics.comparison import Comparison
from workbench.statistics.multiplicity import TIE, max_t, nothing_for_rounding, step_down, tail_share
from workbench.statistics.student import block_t

STREAM = 0x5167  # key of the internal stream: a verdict never depends on a caller's generator
ENUMERATED_SEEDS = 15  # up to here all 2^n signs are listed
DRAWS = 19_999  # sign vectors drawn beyond
RELABELINGS = 1_999  # label permutations drawn where there are more than LISTED of them
LISTED = 10_000
WORKING_SET = 4_000_000  # numbers held at a time
NEGLIGIBLE = 1e-6  # of a sum of squares: below it, what a subtraction leaves no longer tells ties


Answer = TypeVar("Answer", bound=tuple[NDArray[np.float64], ...])


class SignFlip(NamedTuple):
    """Two-sided p-values of every arm, raw and adjusted over the arms, each float64[..., K]."""

    p: NDArray[np.float64]
    p_adjusted: NDArray[np.float64]


class SignFlipInterval(NamedTuple):
    """The values of the difference that the sign-flip test does not reject, float64[...], and their exact level."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    level: float


class _Ends(NamedTuple):
    low: NDArray[np.float64]
    high: NDArray[np.float64]


class McNemar(NamedTuple):
    """An exact McNemar test per row, float64[...]; `attainable_p` is the smallest p these disagreements could give."""

    estimate: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    p: NDArray[np.float64]
    attainable_p: NDArray[np.float64]


def smallest_sign_flip_p(seeds: int, arms: int = 1) -> float:
    """Return the smallest two-sided p-value of a sign-flip or signed-rank test: 2/2^n, whatever the number of arms."""
    return 0.5 ** (seeds - 1.0) if seeds <= ENUMERATED_SEEDS else 1 / (1 + DRAWS)


def smallest_label_p(seeds: int, arms: int = 1) -> float:
    """Return the smallest p-value of the label permutation test of `arms` arms against a baseline on `seeds` seeds.

    Of the (arms + 1)!^n relabelings, those that rename the rows alike in every seed and leave the baseline at either
    end of the order give the same largest statistic.
    """
    alike = 2 * factorial(arms)
    total = factorial(arms + 1) ** seeds
    return float(alike / total if total <= LISTED else max(alike / total, 1 / (1 + RELABELINGS)))


def sign_flip_p(differences: ArrayLike) -> NDArray[np.float64]:
    """Return the two-sided p-value of "the paired differences are symmetric about zero": float64[...].

    Fisher (1935), "The design of experiments", section 21: all 2^n signs for n <= 15, 19,999 fixed random ones beyond.

    Args:
        differences: float64[..., n].

    Raises:
        StatisticsError: for fewer than two differences.
    """
    return sign_flip_max_t(_seeds_last(differences)[..., None, :]).p[..., 0]


def sign_flip_max_t(differences: ArrayLike) -> SignFlip:
    """Return raw and step-down adjusted sign-flip p-values of K arms.

    The signs of a seed flip in all arms together, which keeps whatever dependence the arms have. The statistic is
    |sum d| / sqrt(sum d^2): the t statistic up to an increasing function, and never divided by zero.

    Args:
        differences: float64[..., K, n], arm minus baseline.

    Raises:
        StatisticsError: for fewer than two differences.
    """
    d = _seeds_last(differences)
    signs, listed = _signs(d.shape[-1])
    chance = np.full(len(signs), 1 / len(signs)) if listed else None

    def judge(rows: NDArray[np.float64]) -> SignFlip:
        scale = np.sqrt((rows**2).sum(axis=-1))
        scaled = rows / np.where(scale > 0, scale, 1.0)[..., None]
        reference = np.abs(np.einsum("dkn,bn->dbk", scaled, signs))
        observed = nothing_for_rounding(np.abs(scaled.sum(axis=-1)))
        return SignFlip(tail_share(observed, reference, chance), step_down(observed, reference, chance))

    return blockwise(judge, len(signs) * d.shape[-2], (d,), (2,))


def sign_flip_interval(differences: ArrayLike, level: float) -> SignFlipInterval:
    """Return the interval of differences that the sign-flip test accepts at confidence `level` or the next above.

    Hartigan (1969), "Using subsample values as typical values": between the k-th smallest and the k-th largest of the
    2^n - 1 means of subsets lies the centre of symmetry with probability 1 - 2k/2^n exactly. Below six seeds there is
    none at 95 %: the interval is infinite. Beyond 15 seeds, 19,999 fixed random subsets.

    Args:
        differences: float64[..., n].
        level: Confidence, in (0, 1).

    Raises:
        StatisticsError: for fewer than two differences.
    """
    d = _seeds_last(differences)
    signs, exact = _signs(d.shape[-1])
    if exact:  # the listed half starts with +1; the other half mirrors it
        signs = np.concatenate([signs[1:], -signs])
    total = len(signs) + 1
    k = int(np.floor((1 - level) / 2 * total + TIE))
    if k < 1:
        unbounded = np.full(d.shape[:-1], np.inf)
        return SignFlipInterval(-unbounded, unbounded, 1.0)
    flipped = (signs < 0).astype(np.float64)
    flipped /= flipped.sum(axis=1, keepdims=True)

    def typical_values(rows: NDArray[np.float64]) -> _Ends:
        means = np.partition(np.einsum("dn,rn->dr", rows, flipped), [k - 1, len(flipped) - k], axis=-1)
        return _Ends(means[:, k - 1], means[:, len(flipped) - k])

    return SignFlipInterval(*blockwise(typical_values, len(flipped), (d,), (1,)), 1 - 2 * k / total)


def label_permutation(scores: ArrayLike, alpha: float) -> Comparison:
    """Compare arms with the baseline by permuting all labels within each seed; step-down max-T over the arms.

    The statistic is the t of `block_t`; all (K + 1)!^n relabelings where they are at most 10,000, else 1,999 fixed
    random ones. Exact if the runs of a seed are exchangeable, that is if *all* arms share one noise distribution.
    The interval is the block t interval with the critical value of the single-step test of the same relabelings.

    Args:
        scores: float64[..., 1 + K, n], baseline first.
        alpha: Family-wise error of the simultaneous intervals.

    Raises:
        StatisticsError: as `block_t`.
    """
    y = np.asarray(scores, np.float64)
    test = block_t(y)
    labels, listed = _relabelings(*y.shape[-2:])
    chance = np.full(len(labels), 1 / len(labels)) if listed else None

    def judge(rows: NDArray[np.float64], estimate: NDArray[np.float64], error: NDArray[np.float64]) -> Comparison:
        smallest = np.sqrt(NEGLIGIBLE * _total(rows) * _unit(rows))[:, None]
        answer = max_t(estimate, np.maximum(error, smallest), _relabeled_t(rows, labels), alpha, chance)
        half = (answer.high - estimate) * error / np.maximum(error, smallest)
        return answer._replace(low=estimate - half, high=estimate + half)

    return blockwise(judge, len(labels) * y.shape[-2], (y, test.estimate, test.standard_error), (2, 1, 1))


def mcnemar(baseline: ArrayLike, arm: ArrayLike) -> McNemar:
    """Compare two single runs on the same right-or-wrong items by their disagreements, exactly and two-sided.

    McNemar (1947); the disagreements are binomial with chance 1/2. It says nothing about retraining.

    Args:
        baseline: bool[..., items], whether the baseline had each item right.
        arm: bool[..., items], the same of the arm.

    Raises:
        StatisticsError: for runs on different numbers of items, none, or values other than 0 and 1.
    """
    first, second = np.asarray(baseline, np.float64), np.asarray(arm, np.float64)
    if first.shape != second.shape or not first.shape[-1]:
        raise StatisticsError(
            "McNemar's test pairs items", expected="the same items in both", got=(first.shape, second.shape)
        )
    if not np.isin(first, (0, 1)).all() or not np.isin(second, (0, 1)).all():
        raise StatisticsError(
            "McNemar's test needs items that are right or wrong", expected="0 or 1", got="other values"
        )
    difference = second - first
    items = difference.shape[-1]
    gained, lost = (difference > 0).sum(axis=-1), (difference < 0).sum(axis=-1)
    disagreements = gained + lost
    p = np.minimum(2 * bdtr(np.minimum(gained, lost).astype(np.float64), disagreements, 0.5), 1.0)
    spread = difference.std(axis=-1, ddof=1) if items > 1 else np.zeros(difference.shape[:-1])
    floor = np.minimum(2.0 ** (1 - disagreements), 1.0)
    return McNemar(difference.mean(axis=-1), spread / np.sqrt(items), p, floor)


def blockwise(
    judge: Callable[..., Answer], numbers: int, arrays: tuple[NDArray[np.float64], ...], axes: tuple[int, ...]
) -> Answer:
    """Apply `judge` to a bounded number of data sets at a time and join the members of its answers.

    Args:
        judge: Takes the arrays with one leading axis, answers with a named tuple of arrays with that axis.
        numbers: Numbers that it holds per data set.
        arrays: With the same leading axes.
        axes: How many trailing axes of each array belong to one data set.
    """
    leading = arrays[0].shape[: arrays[0].ndim - axes[0]]
    flat = [array.reshape(-1, *array.shape[array.ndim - own :]) for array, own in zip(arrays, axes, strict=True)]
    size = max(1, WORKING_SET // numbers)
    answers = [judge(*(array[start : start + size] for array in flat)) for start in range(0, len(flat[0]), size)]
    joined = (np.concatenate(member) for member in zip(*answers, strict=True))
    return type(answers[0])(*(member.reshape((*leading, *member.shape[1:])) for member in joined))


def _seeds_last(differences: ArrayLike) -> NDArray[np.float64]:
    d = np.asarray(differences, np.float64)
    if d.ndim < 1 or d.shape[-1] < 2:
        raise StatisticsError("a sign-flip test needs two differences", expected="n >= 2", got=f"shape {d.shape}")
    return d


@lru_cache(maxsize=32)
def _signs(seeds: int) -> tuple[NDArray[np.float64], bool]:
    """Return sign vectors float64[B, seeds], and whether they are all (with the first sign kept at +1)."""
    if seeds <= ENUMERATED_SEEDS:
        bits = (np.arange(2 ** (seeds - 1))[:, None] >> np.arange(seeds)) & 1
        return np.where(bits[:, ::-1] == 1, -1.0, 1.0), True
    stream = np.random.Generator(np.random.Philox(key=STREAM))
    signs = np.where(stream.random((DRAWS, seeds)) < 0.5, -1.0, 1.0)
    return signs[(signs < 0).any(axis=1)], False


@lru_cache(maxsize=32)
def _relabelings(rows: int, seeds: int) -> tuple[NDArray[np.intp], bool]:
    """Return the row that each label takes its score from, intp[B, rows, seeds], and whether all are listed."""
    if factorial(rows) ** seeds <= LISTED:
        orders = list(permutations(range(rows)))
        return np.array([np.array(chosen).T for chosen in product(orders, repeat=seeds)], np.intp), True
    stream = np.random.Generator(np.random.Philox(key=STREAM))
    return np.argsort(stream.random((RELABELINGS, rows, seeds)), axis=1), False


def _relabeled_t(scores: NDArray[np.float64], labels: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the absolute block t of every arm after every relabeling: float64[D, B, K] from float64[D, 1 + K, n]."""
    seeds = scores.shape[-1]
    by_seed = scores - scores.mean(axis=-2, keepdims=True)
    means = sum(by_seed[:, labels[:, :, seed], seed] for seed in range(seeds)) / seeds
    # Relabeling within a seed leaves the total sum of squares as it is; what the arms do not explain is residual.
    total = _total(scores)[:, None]
    residual = np.maximum(total - seeds * (means**2).sum(axis=-1), NEGLIGIBLE * total)
    error = np.sqrt(residual * _unit(scores))
    return np.asarray(np.abs(means[..., 1:] - means[..., :1]) / error[..., None])


def _total(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of squares within seeds, float64[D]."""
    return np.asarray(((scores - scores.mean(axis=-2, keepdims=True)) ** 2).sum(axis=(-2, -1)))


def _unit(scores: NDArray[np.float64]) -> float:
    """Return the variance of a difference of arms per residual sum of squares."""
    rows, seeds = scores.shape[-2:]
    return float(2 / ((seeds - 1) * (rows - 1) * seeds))
