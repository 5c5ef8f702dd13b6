"""Every arm against the baseline, with a known error rate: better, worse, equivalent, undecided.

Promises that over all arms of a family the chance of any false "better" or "worse" is at most alpha, and that of any
false "equivalent" likewise: two families, neither shrinking the other. Every verdict carries what a reader needs to
doubt it: pairs, lost seeds, correlation, noise beside the other arms', smallest detectable effect. Refuses to let a
diverged seed count in favour of the side it happened to, to judge without seed noise, and to test while runs are still
to come.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from workbench.errors import StatisticsError
from workbench.statistics.guards import Claim
from workbench.statistics.judging import POWER, Judgement, Test, judge
from workbench.statistics.multiplicity import holm
from workbench.statistics.pairing import Paired
from workbench.statistics.power import chance_of_verdict, upper_sd
from workbench.statistics.reference import reference
from workbench.statistics.samples import Sample, blocks, correlation, divergence, losses, pairing_gain, samples
from workbench.statistics.student import paired_t

Verdict = Literal["better", "worse", "equivalent", "undecided"]
Relevance = Literal["beyond", "within", "unclear"]

METHOD = "seed-block bootstrap with step-down correction, version 1"  # part of a plan's hash
FARTHEST = 50  # more seeds than this are not worth forecasting


@dataclass(frozen=True)
class Contrast:
    """One arm against the baseline on one metric. Differences are arm minus baseline, in units of the metric.

    Attributes:
        arm: Name of the arm.
        baseline: Name of the baseline.
        metric: Name of the metric.
        estimand: What the difference is a difference of.
        estimate: Mean paired difference; None without a single complete pair.
        low: Lower end of the simultaneous interval; None where no test was made.
        high: Upper end.
        p: Two-sided p-value of "no difference"; None where no test was made.
        p_adjusted: The same, adjusted over the family.
        method: Test, correction and interval in words.
        family: Number of arms the correction covers.
        pairs: Complete pairs of runs the numbers rest on.
        missing: Seed blocks left out.
        mde: True difference these seeds detect with 80 % power at the observed noise and the corrected level.
        attainable_p: Smallest adjusted p-value the test could give: one in as many draws as its reference has; None for
            tests without such a floor.
        correlation: Of arm and baseline over seeds; None below three pairs or without spread.
        pairing_gain: How many times as many seeds the comparison would need without pairing; below 1 where it cost.
        noise: Residual sd of the arm's runs relative to the other arms'; None where arms were not judged together.
        baseline_noise: The baseline's, likewise.
        residual_sd: Residual sd of one run, seed effect removed, pooled over the arms judged together; in units of the
            metric, as the noise a plan asks for.
        residual_df: Its degrees of freedom.
        set_aside: Whether the arm was too noisy to be judged together with the others.
        p_paired: The paired t test's p-value of this arm, adjusted by Holm: what a reviewer knows, not what decides.
        coverage: Share of parameters that start equal, {"total", "without_embeddings"}; None where unknown.
        guard: The joint claim "better, and no worse on these metrics"; None where no metric guards.
        exploratory: Not the primary metric of the plan.
        verdict: With respect to the metric's direction; None while the plan is incomplete.
        more_seeds: Further seeds expected to settle an undecided verdict with probability 0.8 (0 where it is settled);
            None for more than 50, or where seeds alone cannot settle it.
        sd: Standard deviation of the paired differences.
        relevance: The difference against the smallest effect: "beyond" it or "within" it by the interval (or by the
            verdict "equivalent"), else "unclear"; None without a smallest effect.
        p_equivalence: p-value of equivalence, adjusted over its own family; None where it was not tested.
        blocked: Why a verdict was withheld whatever the numbers say, in words.
        differences: (seed label, paired difference) of every complete pair.
        notes: Footnotes.
    """

    arm: str
    baseline: str
    metric: str
    estimand: str
    estimate: float | None
    low: float | None
    high: float | None
    p: float | None
    p_adjusted: float | None
    method: str
    family: int
    pairs: int
    missing: int
    mde: float | None
    attainable_p: float | None
    correlation: float | None
    coverage: dict[str, float] | None = None
    guard: Claim | None = None
    exploratory: bool = False
    verdict: Verdict | None = None
    more_seeds: int | None = None
    sd: float | None = None
    relevance: Relevance | None = None
    p_equivalence: float | None = None
    blocked: str | None = None
    differences: tuple[tuple[str, float], ...] = ()
    notes: tuple[str, ...] = ()
    pairing_gain: float | None = None
    noise: float | None = None
    baseline_noise: float | None = None
    residual_sd: float | None = None
    residual_df: int | None = None
    set_aside: bool = False
    p_paired: float | None = None


@dataclass(frozen=True)
class _Family:
    """What all contrasts of one call share."""

    size: int
    alpha: float
    smallest_effect: float | None
    higher_is_better: bool


def contrast_all(
    paired: Paired, *, smallest_effect: float | None = None, alpha: float = 0.05, interim: bool = False
) -> tuple[Contrast, ...]:
    """Compare every arm with the baseline by the default test, corrected over the arms.

    Arms with every seed of the design are judged together by the seed-block bootstrap: a variance that borrows strength
    from all arms (see `blocks`), against a reference distribution of the whole procedure, step-down (see `reference`).
    With one arm that is the paired t test. Arms that lack seeds are judged on their own pairs by a paired t test, arms
    declared unpaired by Welch's, both with Holm, on their share of alpha. Equivalence within ±smallest_effect is a
    step-down family of its own. Intervals are simultaneous and single-step, cut at zero where the steps reject zero and
    the interval still holds it.

    A seed is lost only to the arm that lacks it; one in which the baseline has no run is lost to all. The side of a
    *diverged* run can be neither better nor equivalent: a diverged arm cannot be called better, and no arm worse than a
    diverged baseline. Runs that *failed* only shrink the sample, and a note says so.

    Args:
        paired: Scores of one metric.
        smallest_effect: Smallest difference that matters, in units of the metric; None offers no equivalence.
        alpha: Family-wise error of each of the two families.
        interim: The plan is incomplete: estimates and spread only. A test after every seed would give 10-23 % false
            positives.

    Returns:
        One contrast per arm, in the order of the arms.

    Raises:
        StatisticsError: for an alpha outside (0, 0.5), a smallest effect that is not positive, or arms none of which
            shares two seeds with the baseline.
    """
    _refuse_bad_levels(alpha, smallest_effect)
    family = _Family(len(paired.arms), alpha, smallest_effect, paired.higher_is_better)
    members = samples(paired)
    described = [_describe(paired, sample, family) for sample in members]
    if interim:
        return tuple(described)
    _refuse_unpaired(paired, members)
    judgement = judge(members, blocks(paired, members), alpha, smallest_effect)
    familiar = _paired_p(members)
    together = zip(described, members, judgement.tests, familiar, strict=True)
    return tuple(
        replace(_conclude(contrast, sample, test, judgement, family), p_paired=p)
        for contrast, sample, test, p in together
    )


def _describe(paired: Paired, sample: Sample, family: _Family) -> Contrast:
    """Everything that can be said of an arm without a test: all there is while the plan is incomplete."""
    differences = sample.differences.tolist()
    planned = len(paired.seeds) if sample.paired else sample.runs
    return Contrast(
        arm=sample.arm,
        baseline=paired.baseline,
        metric=paired.metric,
        estimand="fixed benchmark, new seeds",
        estimate=sample.estimate,
        low=None,
        high=None,
        p=None,
        p_adjusted=None,
        method=METHOD,
        family=family.size,
        pairs=sample.runs,
        missing=planned - sample.runs,
        mde=None,
        attainable_p=None,
        correlation=None,
        sd=sample.sd,
        differences=tuple(zip(sample.seeds, differences, strict=True)) if sample.paired else (),
        notes=tuple(losses(sample, planned)),
    )


def _conclude(
    described: Contrast, sample: Sample, test: Test | None, judgement: Judgement, family: _Family
) -> Contrast:
    different = test is not None and test.p_adjusted <= family.alpha
    equivalent = test is not None and test.p_equivalence is not None and test.p_equivalence <= family.alpha
    verdict, blocked = _verdict(sample, test, different, equivalent, family)
    low, high, cut = None, None, False
    if test is not None:
        low, high, cut = cut_at_zero(test.estimate - test.half, test.estimate + test.half, test.estimate, different)
    return replace(
        described,
        method=_method(test, judgement, family),
        low=low,
        high=high,
        p=test.p if test else None,
        p_adjusted=test.p_adjusted if test else None,
        attainable_p=_attainable(test, judgement, family),
        mde=test.mde if test else None,
        correlation=correlation(sample),
        pairing_gain=pairing_gain(sample),
        noise=test.noise.ratio if test and test.noise else None,
        baseline_noise=judgement.baseline_noise.ratio if judgement.baseline_noise else None,
        residual_sd=judgement.residual[0] if judgement.residual else None,
        residual_df=judgement.residual[1] if judgement.residual else None,
        set_aside=test is not None and test.kind == "set aside",
        verdict=verdict,
        more_seeds=_more_seeds(sample, test, blocked, verdict, family),
        relevance=relevance(low, high, verdict, family.smallest_effect),
        p_equivalence=test.p_equivalence if test else None,
        blocked=blocked,
        notes=described.notes + tuple(_notes(sample, test, cut, judgement)),
    )


def _attainable(test: Test | None, judgement: Judgement, family: _Family) -> float | None:
    if test is None or test.kind not in ("blocks", "set aside") or judgement.together == 1:
        return None
    return family.size / judgement.together / (1 + reference(test.seeds, judgement.together).draws)


def _notes(sample: Sample, test: Test | None, cut: bool, judgement: Judgement) -> Iterable[str]:
    if test is None:
        return
    if test.kind == "set aside" and test.noise:
        yield (
            f"its runs are {test.noise.ratio:.1f} times as noisy as the other arms' (F test, p {test.noise.p:.1g}): "
            "judged on its own pairs"
        )
    if test.kind == "own pairs" and judgement.together:
        yield "lacks seeds that other arms have: judged on its own pairs, on its share of the error rate"
    if test.tax > 1 and test.kind == "blocks":
        yield f"p-values carry a factor of {test.tax:g} because a noisier arm was set aside by looking at the data"
    if cut:
        yield "interval cut at zero, which the step-down test rejects and the single-step interval does not"
    if test.kind == "identical":
        yield "scores equal to the baseline's in every seed"


def _verdict(
    sample: Sample, test: Test | None, different: bool, equivalent: bool, family: _Family
) -> tuple[Verdict, str | None]:
    if sample.runs < 2:
        return "undecided", divergence(sample) or "fewer than two complete pairs"
    if test is None:
        return "undecided", "no noise between seeds to test against"
    return vetoed_verdict(sample, test.estimate, different, equivalent, family.higher_is_better)


def vetoed_verdict(
    sample: Sample, estimate: float, different: bool, equivalent: bool, higher_is_better: bool
) -> tuple[Verdict, str | None]:
    """Turn what a test found into a verdict, and say who diverged where that forbids it.

    A diverged arm can be neither better nor equivalent, and no arm worse than, or equivalent to, a diverged baseline.
    """
    verdict: Verdict = "undecided"
    if different:
        verdict = "better" if (estimate > 0) == higher_is_better else "worse"
    elif equivalent:
        verdict = "equivalent"
    favours_arm, favours_baseline = verdict in ("better", "equivalent"), verdict in ("worse", "equivalent")
    vetoed = (favours_arm and sample.diverged("arm")) or (favours_baseline and sample.diverged("baseline"))
    if vetoed or verdict == "undecided":
        return "undecided", divergence(sample)
    return verdict, None


def cut_at_zero(low: float, high: float, estimate: float, different: bool) -> tuple[float, float, bool]:
    """Cut a single-step interval that still holds the zero which the step-down test rejects, and say whether it was."""
    if different and low < 0 < high:
        return (0.0, high, True) if estimate > 0 else (low, 0.0, True)
    return low, high, False


def relevance(low: float | None, high: float | None, verdict: Verdict, margin: float | None) -> Relevance | None:
    """Weigh an interval against the smallest effect that matters; see `Contrast.relevance`."""
    if margin is None or low is None or high is None:
        return None
    if low > margin or high < -margin:
        return "beyond"
    return "within" if verdict == "equivalent" or -margin < low <= high < margin else "unclear"


def _more_seeds(
    sample: Sample, test: Test | None, blocked: str | None, verdict: Verdict, family: _Family
) -> int | None:
    if verdict != "undecided":
        return 0
    if test is None or blocked is not None:
        return None
    n = sample.runs
    # The sd of a few seeds is itself uncertain; its upper bound keeps the forecast from being an optimist's.
    sd = upper_sd(test.sd, test.df)
    margin = None if family.smallest_effect is None else family.smallest_effect / sd

    def enough(more: int) -> bool:
        chance = chance_of_verdict(
            (n + more,),
            test.estimate / sd,
            test.level,
            margin,
            alpha_equivalence=test.level_equivalence,
            df_per_seed=test.df / (n - 1),
        )
        return bool(chance[0] >= POWER)

    found = bisect_left(range(1, 1 + FARTHEST), True, key=enough)
    return found + 1 if found < FARTHEST else None


def _paired_p(members: Sequence[Sample]) -> list[float | None]:
    testable = [sample.paired and sample.noise == "present" for sample in members]
    raw = [
        float(paired_t(sample.differences).p) if able else 1.0 for sample, able in zip(members, testable, strict=True)
    ]
    return [p if able else None for p, able in zip(holm(raw).tolist(), testable, strict=True)]


def _method(test: Test | None, judgement: Judgement, family: _Family) -> str:
    arms = f"{family.size} arm{'s' * (family.size > 1)}"
    if test is None or test.kind == "identical":
        return f"no test; keeps its place among {arms}"
    if test.kind in ("own pairs", "two groups") or judgement.together == 1:
        own = "Welch t" if test.kind == "two groups" else "paired t"
        words = own if family.size == 1 else f"{own}, Holm over {arms}"
    elif test.kind == "set aside":
        words = f"paired t within the seed-block bootstrap, step-down over {arms}"
    else:
        words = f"seed-block bootstrap, step-down over {arms}"
    words += f"; simultaneous {100 * (1 - family.alpha):.4g} % interval"
    if family.smallest_effect is not None:
        words += "; equivalence by two one-sided tests, a step-down family of its own"
    return words


def _refuse_bad_levels(alpha: float, smallest_effect: float | None) -> None:
    if not 0 < alpha < 0.5:
        raise StatisticsError("alpha is no error rate", expected="0 < alpha < 0.5", got=alpha)
    if smallest_effect is not None and not 0 < smallest_effect < np.inf:
        raise StatisticsError(
            "the smallest effect that matters is not a positive number",
            expected="a number > 0 in units of the metric",
            got=smallest_effect,
            fix="leave it out if no size is too small to matter; equivalence is then not offered",
        )


def _refuse_unpaired(paired: Paired, members: Sequence[Sample]) -> None:
    explained = bool(np.isin(paired.status, ["diverged", "failed"]).any())
    if explained or any(sample.runs >= 2 for sample in members):
        return
    raise StatisticsError(
        "no arm shares two seeds with the baseline",
        where=f"metric {paired.metric}",
        expected=f"runs of {paired.baseline} and of an arm under the same seeds",
        got=f"at most {max(sample.runs for sample in members)} shared",
        fix="label runs that belong together with the same seed, or run the arms under the baseline's seeds",
    )
