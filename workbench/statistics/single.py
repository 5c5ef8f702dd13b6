"""Questions that need no paired seeds: against a fixed target, against the noise of earlier runs, over items alone.

Promises the same contrasts, corrections and vetoes as the comparison under shared seeds, and on every contrast a note
that says what the answer does not cover. Refuses a history too short to lend its noise, an arm blatantly noisier than
the history it borrows from, and to call an arm with a diverged run better or equivalent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import fdtrc, ndtr, stdtr, stdtrit

from workbench.errors import StatisticsError
from workbench.statistics.cases import Case, Question, conclude
from workbench.statistics.contrasts import Contrast
from workbench.statistics.items import ITEMS_ONLY, items_only
from workbench.statistics.pairing import ROUNDING, Cell, natural, unknown_baseline
from workbench.statistics.permutation import mcnemar
from workbench.statistics.power import chance_of_verdict, upper_sd
from workbench.statistics.runs import Runs, gather_runs, losses, vetoes
from workbench.statistics.student import StudentT

FARTHEST = 50  # more runs than this are not worth forecasting
SHORTEST_HISTORY = 10  # degrees of freedom; below, the borrowed sd is itself a guess
NOISIER = 0.01  # level of the check that an arm is no noisier than the history


class History(NamedTuple):
    """The noise of one run, from earlier runs of like arms: standard deviation and its degrees of freedom."""

    sd: float
    df: float


def pool_history(groups: Iterable[Sequence[float]]) -> History:
    """Pool the spread within groups of like runs: sd and degrees of freedom.

    Raises:
        StatisticsError: for fewer than ten degrees of freedom, or groups without spread.
    """
    held = [np.asarray(group, np.float64) for group in groups if len(group) > 1]
    df = sum(len(group) - 1 for group in held)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in held)
    return _sound(History(float(np.sqrt(squares / df)) if df else 0.0, df))


def contrast_target(
    rows: Iterable[Cell],
    target: float,
    *,
    metric: str,
    higher_is_better: bool,
    history: History | None = None,
    smallest_effect: float | None = None,
    alpha: float = 0.05,
) -> tuple[Contrast, ...]:
    """Compare the mean of every variant with a fixed number.

    One-sample t test per variant: t = (mean - target) sqrt(n) / sd, with its own spread and n - 1 degrees of freedom or
    with the history's. Two-sided; Holm over variants; intervals jointly at 1 - alpha (Bonferroni).

    Args:
        rows: One row per run, in any order.
        target: The number, in units of the metric.
        metric: Name of the metric.
        higher_is_better: Its direction.
        history: Noise of one run from earlier runs; lets a single run be tested. None takes each variant's own.
        smallest_effect: Difference from the target that does not matter yet; None offers no equivalence.
        alpha: Family-wise error of each of the two families.

    Returns:
        One contrast per variant, by name.

    Raises:
        StatisticsError: for a target that is not finite, senseless levels, or too short a history.
    """
    if not np.isfinite(target):
        raise StatisticsError("the target is no number", expected="a finite number", got=target)
    noise = "" if history is None else f", noise from history ({_words(_sound(history))})"
    question = Question(
        baseline=f"target {target:g}",
        metric=metric,
        higher_is_better=higher_is_better,
        smallest_effect=smallest_effect,
        alpha=alpha,
        estimand="mean of new seeds, against a fixed number",
        method=f"one-sample t{noise}",
        label="compared with a fixed target, not with a baseline: says nothing about which variant is better",
    )
    variants = gather_runs(rows)
    cases = [_against_target(name, variants[name], target, history, question, len(variants)) for name in variants]
    return conclude(cases, question)


def contrast_with_history(
    rows: Iterable[Cell],
    history: History,
    *,
    baseline: str,
    metric: str,
    higher_is_better: bool,
    smallest_effect: float | None = None,
    alpha: float = 0.05,
) -> tuple[Contrast, ...]:
    """Compare arms with the baseline on borrowed noise: the only test a single run per arm allows.

    t = (difference of means) / (sd sqrt(1/n_arm + 1/n_baseline)) with the history's degrees of freedom; two-sided, Holm
    over arms, intervals jointly at 1 - alpha (Bonferroni). Seeds need not be shared and are not used. An arm whose own
    runs vary more than the history allows (F test at 1 %) gets no verdict.

    Args:
        rows: One row per run, in any order.
        history: Noise of one run, from earlier runs of like arms.
        baseline: The variant all others are compared with.
        metric: Name of the metric.
        higher_is_better: Its direction.
        smallest_effect: Smallest difference that matters; None offers no equivalence.
        alpha: Family-wise error of each of the two families.

    Raises:
        StatisticsError: for a baseline that is not there, nothing to compare, senseless levels, or too short a history.
    """
    variants = gather_runs(rows)
    if baseline not in variants:
        raise unknown_baseline(baseline, list(variants))
    if len(variants) < 2:
        raise StatisticsError("there is nothing to compare", expected="a baseline and one more variant", got=baseline)
    question = Question(
        baseline=baseline,
        metric=metric,
        higher_is_better=higher_is_better,
        smallest_effect=smallest_effect,
        alpha=alpha,
        estimand="fixed benchmark, new seeds",
        method=f"noise-floor t, noise from history ({_words(_sound(history))})",
        label=f"rests on the noise of earlier runs ({_words(history)}) and on this arm being no noisier",
    )
    arms = [name for name in variants if name != baseline]
    cases = [_against_history(arm, variants[arm], variants[baseline], history, question, len(arms)) for arm in arms]
    return conclude(cases, question)


def contrast_items_only(
    scores: Mapping[str, ArrayLike],
    *,
    baseline: str,
    metric: str,
    higher_is_better: bool,
    weights: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    smallest_effect: float | None = None,
    alpha: float = 0.05,
) -> tuple[Contrast, ...]:
    """Compare single runs on the same items: what new items would say of these very runs, and nothing beyond.

    Paired differences per item with their (cluster-robust) error, see `items.items_only`; Holm over arms. Where all
    scores are 0 or 1 and every item stands alone, a note gives the exact p-value of McNemar (1947).

    Args:
        scores: variant -> float64[items], one run each, items in the same order.
        baseline: The variant all others are compared with.
        metric: Name of the metric.
        higher_is_better: Its direction.
        weights: float64[items], positive; equal unless given.
        clusters: int[items], counted from 0; each item its own unless given.
        smallest_effect: Smallest difference that matters; None offers no equivalence.
        alpha: Family-wise error of each of the two families.

    Raises:
        StatisticsError: for a baseline that is not there, nothing to compare, fewer than two items or clusters, scores
            that are not finite, or senseless levels.
    """
    names = sorted(scores, key=natural)
    if baseline not in names:
        raise unknown_baseline(baseline, names)
    if len(names) < 2:
        raise StatisticsError("there is nothing to compare", expected="a baseline and one more variant", got=baseline)
    question = Question(
        baseline=baseline,
        metric=metric,
        higher_is_better=higher_is_better,
        smallest_effect=smallest_effect,
        alpha=alpha,
        estimand=ITEMS_ONLY,
        method="paired t over items" + (", errors clustered" if clusters is not None else ""),
        label="items only: says nothing about retraining",
    )
    held = {name: np.asarray(scores[name], np.float64) for name in names}
    arms = [name for name in names if name != baseline]
    cases = [_over_items(arm, held[baseline], held[arm], weights, clusters) for arm in arms]
    return conclude(cases, question)


def _against_target(
    name: str, runs: Runs, target: float, history: History | None, question: Question, family: int
) -> Case:
    n, level = len(runs.values), question.alpha / family
    blocked, test, chances = _noisy(runs, history) if history else None, None, None
    if n == 0 or (n == 1 and history is None):
        blocked = "no finished run" if n == 0 else "one run has no spread of its own; --history-sd lends it one"
    sd = history.sd if history else runs.sd
    if blocked is None and sd is not None:
        if sd <= ROUNDING * max(map(abs, runs.values)):
            blocked = "no noise between seeds to test against"
        else:
            test = _student(runs.mean - target, sd / np.sqrt(n), history.df if history else n - 1)
            chances = (
                _chances_alone(test, sd, n, level, question)
                if history is None
                else _chances(test, sd, (n, None), level, question)
            )
    vetoed, veto = vetoes(runs, None)
    return Case(
        arm=name,
        runs=n,
        missing=runs.missing,
        estimate=runs.mean - target if n else None,
        test=test,
        sd=runs.sd,
        blocked=blocked,
        vetoed=vetoed,
        veto=veto,
        chances=chances,
        differences=tuple((seed, value - target) for seed, value in zip(runs.seeds, runs.values, strict=True)),
        notes=tuple(losses(runs, "")),
    )


def _against_history(arm: str, runs: Runs, base: Runs, history: History, question: Question, family: int) -> Case:
    sizes = len(runs.values), len(base.values)
    blocked = _noisy(runs, history) or _noisy(base, history, "the baseline")
    test = chances = estimate = None
    if min(sizes) == 0:
        blocked = "no finished run" if sizes[0] == 0 else "the baseline has no finished run"
    else:
        estimate = runs.mean - base.mean
        if blocked is None:
            test = _student(estimate, history.sd * np.sqrt(1 / sizes[0] + 1 / sizes[1]), history.df)
            chances = _chances(test, history.sd, sizes, question.alpha / family, question)
    vetoed, veto = vetoes(runs, base)
    counts = f"{sizes[0]} run{'s' * (sizes[0] != 1)} against {sizes[1]} of the baseline"
    return Case(
        arm=arm,
        runs=min(sizes),
        missing=runs.missing + base.missing,
        estimate=estimate,
        test=test,
        sd=history.sd * float(np.sqrt(2)),
        blocked=blocked,
        vetoed=vetoed,
        veto=veto,
        chances=chances,
        notes=(counts, *losses(runs, ""), *losses(base, "the baseline ")),
    )


def _over_items(
    arm: str,
    base: NDArray[np.float64],
    values: NDArray[np.float64],
    weights: ArrayLike | None,
    clusters: ArrayLike | None,
) -> Case:
    differences = values - base
    mean = items_only(differences, weights=weights, clusters=clusters)
    estimate, error = float(mean.estimate), float(mean.standard_error)
    scale = float(np.abs(np.concatenate([values, base])).max())
    binary = bool(np.isin(values, (0, 1)).all() and np.isin(base, (0, 1)).all())
    exact = binary and weights is None and clusters is None
    test, blocked = None, None
    if error <= ROUNDING * scale:
        same = "the runs score alike on every item" if abs(estimate) <= ROUNDING * scale else "every item differs alike"
        blocked = f"{same}, which leaves no noise to test against"
    else:
        test = _student(estimate, error, mean.df)
    return Case(
        arm=arm,
        runs=1,
        missing=0,
        estimate=estimate,
        test=test,
        sd=float(differences.std(ddof=1)),
        blocked=blocked,
        settled_by="these items do not tell the two runs apart",
        notes=(f"exact McNemar p = {float(mcnemar(base, values).p):.3g}",) if exact else (),
    )


def _student(estimate: float, error: float, df: float) -> StudentT:
    held = [np.asarray(number, np.float64) for number in (estimate, error, 2 * stdtr(df, -abs(estimate / error)), df)]
    return StudentT(*held)


def _chances_alone(test: StudentT, sd: float, n: int, level: float, question: Question) -> NDArray[np.float64]:
    """Chance of a verdict with 1, 2, ... more runs, of which each also sharpens the variant's own spread."""
    bound = upper_sd(sd, n - 1)
    margin = None if question.smallest_effect is None else question.smallest_effect / bound
    seeds = tuple(range(n + 1, n + 1 + FARTHEST))
    return chance_of_verdict(seeds, float(test.estimate) / bound, level, margin)


def _chances(
    test: StudentT, sd: float, sizes: tuple[int, int | None], level: float, question: Question
) -> NDArray[np.float64]:
    """Chance of a verdict with 1, 2, ... more runs on each side, the history's spread staying what it is."""
    more = np.arange(1, 1 + FARTHEST)
    error = sd * np.sqrt(sum(1 / (size + more) for size in sizes if size is not None))
    shift = abs(float(test.estimate)) / error
    cut = stdtrit(float(test.df), 1 - level / 2)
    different = ndtr(shift - cut) + ndtr(-shift - cut)
    if question.smallest_effect is None:
        return np.asarray(different, np.float64)
    inner = question.smallest_effect / error - stdtrit(float(test.df), 1 - level)
    equivalent = np.where(inner > 0, ndtr(inner - shift) - ndtr(-inner - shift), 0.0)
    return np.asarray(np.minimum(different + equivalent, 1.0), np.float64)


def _noisy(runs: Runs, history: History, who: str = "the arm") -> str | None:
    """Say where a variant's own runs refute that it is no noisier than the history (one-sided F test)."""
    if runs.sd is None:
        return None
    ratio = runs.sd / history.sd
    p = float(fdtrc(len(runs.values) - 1, history.df, ratio**2))
    return f"{who} is {ratio:.1f} times as noisy as the history (p = {p:.2g})" if p < NOISIER else None


def _words(history: History) -> str:
    return f"sd {history.sd:.3g}, {history.df:,.0f} df"


def _sound(history: History) -> History:
    if not (0 < history.sd < np.inf) or not history.df >= SHORTEST_HISTORY:
        raise StatisticsError(
            "the history is too thin to lend its noise",
            expected=f"a positive sd from at least {SHORTEST_HISTORY} degrees of freedom (better 30): "
            "groups of repeated runs, of which each adds its runs less one",
            got=_words(history),
            fix="add earlier runs of like arms, or repeat these under more seeds",
        )
    return history
