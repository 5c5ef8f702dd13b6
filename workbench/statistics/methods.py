"""The methods that compare arms with a baseline on shared seeds, by name, each with its known failure.

Promises one shape of answer for all of them, and beside every name the sentence a reader must know before trusting it.
Refuses scores that no method can judge: not finite, too few seeds, arms that differ from the baseline without noise.
Effects below are in residual standard deviations of one run, the seed effect removed; figures are simulated error rates
and powers of six arms at five seeds, unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.errors import StatisticsError
from workbench.statistics.comparison import Compare, Comparison
from workbench.statistics.multiplicity import benjamini_hochberg, benjamini_yekutieli, holm, hommel
from workbench.statistics.pairing import ROUNDING
from workbench.statistics.permutation import (
    label_permutation,
    sign_flip_interval,
    sign_flip_max_t,
    smallest_label_p,
    smallest_sign_flip_p,
)
from workbench.statistics.rank_tests import block_dunnett, hodges_lehmann, signed_rank_interval, wilcoxon_p
from workbench.statistics.reference import SMALLEST_SEEDS as FEWEST_POOLED
from workbench.statistics.reference import compare_blocks
from workbench.statistics.resampling import (
    SMALLEST_SEEDS,
    Kind,
    bootstrap,
    caution,
    residual_bootstrap_max_t,
    seed_bootstrap_max_t,
    smallest_bootstrap_p,
)
from workbench.statistics.student import PairedT, StudentT, block_t, paired_t, welch_t

DEFAULT = "seed-block bootstrap"

Adjust = Callable[[ArrayLike], NDArray[np.float64]]


@dataclass(frozen=True)
class Method:
    """One way to compare arms with a baseline.

    Attributes:
        name: As in `METHODS`.
        compare: Scores float64[..., 1 + arms, seeds] and a level in, a `Comparison` out.
        fails: Its known failure, one sentence with a figure.
        smallest_seeds: Fewer are refused.
        attainable_p: Smallest p-value (not yet adjusted, where the adjustment is a separate step) at a number of seeds
            and, optionally, of arms; None for tests without such a floor.
        caution: What more is to be said at a number of seeds; None where nothing is, or for methods without any.
    """

    name: str
    compare: Compare
    fails: str
    smallest_seeds: int = 2
    attainable_p: Callable[..., float] | None = None
    caution: Callable[[int], str | None] | None = None


def compare(scores: ArrayLike, *, method: str, alpha: float = 0.05) -> Comparison:
    """Compare every arm with the baseline by the method of that name.

    Args:
        scores: float64[..., 1 + arms, seeds], baseline first; each column one seed, shared by all rows.
        method: A key of `METHODS`.
        alpha: Family-wise error of the simultaneous intervals.

    Raises:
        StatisticsError: for an unknown method, an alpha outside (0, 1), scores of another shape, not finite or on too
            few seeds, or an arm whose differences from the baseline have no spread.
    """
    if method not in METHODS:
        raise StatisticsError("no such method", expected=", ".join(METHODS), got=method)
    if not 0 < alpha < 1:
        raise StatisticsError("alpha is no error rate", expected="0 < alpha < 1", got=alpha)
    chosen, y = METHODS[method], np.asarray(scores, np.float64)
    _refuse(y, chosen)
    return chosen.compare(y, alpha)


def _refuse(y: NDArray[np.float64], method: Method) -> None:
    if y.ndim < 2 or y.shape[-2] < 2:
        raise StatisticsError("nothing to compare", expected="scores [..., 1 + arms, seeds]", got=f"shape {y.shape}")
    if not np.isfinite(y).all():
        row, seed = np.argwhere(~np.isfinite(y))[0][-2:].tolist()
        raise StatisticsError(
            "a score is not finite",
            where="the baseline" if row == 0 else f"arm {row}, seed column {seed}",
            expected="a number in every cell",
            got=y[~np.isfinite(y)][0],
            fix="a diverged run is an outcome: report it, or compare arms in which every seed finished",
        )
    if y.shape[-1] < method.smallest_seeds:
        raise StatisticsError(
            f"too few seeds for the method '{method.name}'",
            expected=f"at least {method.smallest_seeds}",
            got=y.shape[-1],
            fix="run more seeds, or use 'paired t + Holm'",
        )
    differences = y[..., 1:, :] - y[..., :1, :]
    still = np.ptp(differences, axis=-1) <= ROUNDING * np.abs(y).max(axis=(-2, -1))[..., None]
    if still.any():
        raise StatisticsError(
            "an arm differs from the baseline by the same amount under every seed",
            where=f"arm {int(np.argwhere(still)[0][-1]) + 1}",
            expected="seeds that change the score",
            got="no noise to test against",
            fix="check that the seeds reach both runs, and that the arm's setting has any effect",
        )


def _differences(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return scores[..., 1:, :] - scores[..., :1, :]


def _corrected(test: PairedT | StudentT, alpha: float, adjust: Adjust) -> Comparison:
    """Return a t test per arm with Bonferroni intervals: simultaneous whatever the dependence."""
    low, high = test.interval(1 - alpha / test.p.shape[-1])
    return Comparison(test.estimate, low, high, test.p, adjust(test.p))


def _per_arm(test: PairedT, alpha: float, adjust: Adjust) -> Comparison:
    """Return a t test per arm with intervals for one arm at a time, as an adjustment without family-wise error has."""
    low, high = test.interval(1 - alpha)
    return Comparison(test.estimate, low, high, test.p, adjust(test.p))


def _paired_t(scores: NDArray[np.float64], alpha: float, *, adjust: Adjust = holm) -> Comparison:
    return _corrected(paired_t(_differences(scores)), alpha, adjust)


def _paired_t_per_arm(scores: NDArray[np.float64], alpha: float, *, adjust: Adjust = np.asarray) -> Comparison:
    return _per_arm(paired_t(_differences(scores)), alpha, adjust)


def _welch(scores: NDArray[np.float64], alpha: float) -> Comparison:
    return _corrected(welch_t(scores[..., :1, :], scores[..., 1:, :]), alpha, holm)


def _pooled_block(scores: NDArray[np.float64], alpha: float) -> Comparison:
    return _corrected(block_t(scores), alpha, holm)


def _sign_flip(scores: NDArray[np.float64], alpha: float, *, joint: bool) -> Comparison:
    """Return sign-flip tests; the intervals invert the single arm's test at the Bonferroni level in either form."""
    d = _differences(scores)
    test, interval = sign_flip_max_t(d), sign_flip_interval(d, 1 - alpha / d.shape[-2])
    adjusted = test.p_adjusted if joint else holm(test.p)
    return Comparison(d.mean(axis=-1), interval.low, interval.high, test.p, adjusted)


def _wilcoxon(scores: NDArray[np.float64], alpha: float) -> Comparison:
    """Return signed-rank tests; the estimate is that of Hodges and Lehmann, which their intervals surround."""
    d = _differences(scores)
    p, interval = wilcoxon_p(d), signed_rank_interval(d, 1 - alpha / d.shape[-2])
    return Comparison(hodges_lehmann(d), *interval, p, holm(p))


def _bootstrap(scores: NDArray[np.float64], alpha: float, *, kind: Kind) -> Comparison:
    d = _differences(scores)
    interval = bootstrap(d, 1 - alpha / d.shape[-2], kind)
    return Comparison(interval.estimate, interval.low, interval.high, interval.p, holm(interval.p))


def _bootstrap_method(name: str, kind: Kind, fails: str) -> Method:
    floor = partial(smallest_bootstrap_p, kind=kind)
    return Method(name, partial(_bootstrap, kind=kind), fails, SMALLEST_SEEDS, floor, partial(caution, kind))


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            DEFAULT,
            compare_blocks,
            "Family-wise error 0.08 where noise is skewed and one variant two or three times noisier at once, at most "
            "0.06 otherwise.",
            smallest_seeds=FEWEST_POOLED,
        ),
        Method(
            "paired t + Holm",
            _paired_t,
            "Holds its error rate and finds little: 27 % of effects of 2 sd.",
        ),
        Method(
            "paired t + Hommel",
            partial(_paired_t, adjust=hommel),
            "Needs positive dependence of the arms, and finds 28 % of effects of 2 sd where Holm finds 27 %.",
        ),
        Method(
            "paired t + Benjamini-Hochberg",
            partial(_paired_t_per_arm, adjust=benjamini_hochberg),
            "Holds the share of false discoveries, not their chance: with three of six arms truly different, one of "
            "the other three is called different in 9 % of sweeps.",
        ),
        Method(
            "paired t + Benjamini-Yekutieli",
            partial(_paired_t_per_arm, adjust=benjamini_yekutieli),
            "Holds the share of false discoveries under any dependence at the price of power: 18 % of effects of 2 sd "
            "where paired t + Holm finds 27 %.",
        ),
        Method(
            "paired t, uncorrected",
            _paired_t_per_arm,
            "Calls at least one of six identical arms different in 22 % of sweeps.",
        ),
        Method(
            "Welch + Holm",
            _welch,
            "Ignores that the seeds are shared: where arm and baseline correlate 0.8 over them, it finds a quarter of "
            "the effects of which a paired t finds 76 %.",
        ),
        Method(
            "pooled block t + Holm",
            _pooled_block,
            "Family-wise error 0.13-0.15 with one arm five times noisier, 0.17 with the baseline three times noisier.",
        ),
        Method(
            "block Dunnett",
            block_dunnett,
            "Family-wise error 0.14-0.17 with one arm five times noisier, 0.19 with the baseline three times noisier.",
        ),
        Method(
            "sign-flip + Holm",
            partial(_sign_flip, joint=False),
            "p never falls below 2/2^n, 0.0625 at five seeds; with six arms nothing can be found below eight seeds.",
            attainable_p=smallest_sign_flip_p,
        ),
        Method(
            "sign-flip max-T",
            partial(_sign_flip, joint=True),
            "p never falls below 2/2^n, 0.0625 at five seeds: nothing can be found below six.",
            attainable_p=smallest_sign_flip_p,
        ),
        Method(
            "Wilcoxon + Holm",
            _wilcoxon,
            "p never falls below 2/2^n, 0.0625 at five seeds; with six arms nothing can be found below eight seeds.",
            attainable_p=smallest_sign_flip_p,
        ),
        Method(
            "label permutation max-T",
            label_permutation,
            "Family-wise error 0.13-0.16 with one arm five times noisier, 0.19 with the baseline three times noisier.",
            attainable_p=smallest_label_p,
        ),
        Method(
            "seed-resampling bootstrap max-T",
            seed_bootstrap_max_t,
            "Finds 4 % of effects of 2 sd: its error rate is 0.004 where 0.05 is allowed.",
            smallest_seeds=SMALLEST_SEEDS,
        ),
        Method(
            "residual bootstrap max-T",
            residual_bootstrap_max_t,
            "Family-wise error 0.16 with one arm five times noisier, 0.19 with the baseline three times noisier.",
            smallest_seeds=3,
        ),
        _bootstrap_method(
            "percentile bootstrap",
            "percentile",
            "Calls 16 % of identical arms different at 95 %, and one of six in 38 % of sweeps even after Holm.",
        ),
        _bootstrap_method(
            "basic bootstrap",
            "basic",
            "Calls 16 % of identical arms different at 95 %, and one of six in 38 % of sweeps even after Holm.",
        ),
        _bootstrap_method(
            "BCa bootstrap",
            "bca",
            "Corrects nothing at five seeds: calls 16 % of identical arms different at 95 %, and one of six in 40 % of "
            "sweeps even after Holm.",
        ),
        _bootstrap_method(
            "studentised bootstrap",
            "studentised",
            "Holds its error rate with intervals 1.29 times as wide as the paired t's: finds 18 % of effects of 2 sd "
            "where paired t + Holm finds 27 %.",
        ),
        _bootstrap_method(
            "symmetric studentised bootstrap",
            "symmetric studentised",
            "Covers 98 % instead of 95 % with intervals 1.35 times as wide as the paired t's: finds 5 % of effects of "
            "2 sd where paired t + Holm finds 27 %.",
        ),
        _bootstrap_method(
            "expanded percentile bootstrap",
            "expanded percentile",
            "Calls 7 % of identical arms different at 95 %, yet its p never falls below 0.038: with two arms or more "
            "nothing can be found.",
        ),
    )
}
