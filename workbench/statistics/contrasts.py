"""Every arm against the baseline, with a known error rate: better, worse, equivalent, undecided.

Promises that over all arms of a family the chance of any false "better" or "worse" is at most alpha, and that of any
false "equivalent" likewise: two families, neither shrinking the other. Every verdict carries what a reader needs to
doubt it: pairs, lost seeds, correlation, smallest detectable effect. Refuses to let a diverged seed count in favour of
the side it happened to, to judge without seed noise, and to test while runs are still to come.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.errors import StatisticsError
from workbench.statistics.multiplicity import holm
from workbench.statistics.pairing import Paired
from workbench.statistics.power import chance_of_verdict, minimum_detectable_effect, upper_sd
from workbench.statistics.student import PairedT, equivalence_p, paired_t

Verdict = Literal["better", "worse", "equivalent", "undecided"]
Relevance = Literal["beyond", "within", "unclear"]

FARTHEST = 50  # more seeds than this are not worth forecasting
POWER = 0.8
ROUNDING = 1e-12  # spread below this share of the scores is arithmetic, not noise between seeds


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
        mde: True difference detected with 80 % power at the observed sd and the corrected level.
        attainable_p: Smallest p-value an enumerated test could give; None for tests without such a floor.
        correlation: Of arm and baseline over seeds; None below three pairs or without spread.
        coverage: Share of parameters that start equal, {"total", "without_embeddings"}; None where unknown.
        guard: Metrics that must not get worse for this claim; None without one.
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
    guard: str | None = None
    exploratory: bool = False
    verdict: Verdict | None = None
    more_seeds: int | None = None
    sd: float | None = None
    relevance: Relevance | None = None
    p_equivalence: float | None = None
    blocked: str | None = None
    differences: tuple[tuple[str, float], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Sample:
    """The complete pairs of one arm, and the seeds where there is none."""

    arm: str
    seeds: tuple[str, ...]
    scores: NDArray[np.float64]  # (2, pairs): baseline, arm
    lost: dict[tuple[str, str], tuple[str, ...]]  # (side, status) -> seeds

    @property
    def differences(self) -> NDArray[np.float64]:
        return np.asarray(self.scores[1] - self.scores[0])

    @property
    def noise(self) -> Literal["none", "identical", "constant", "present"]:
        """Whether the seeds leave noise to test against; "identical" scores in every pair answer without a test."""
        if len(self.seeds) < 2:
            return "none"
        tolerance = ROUNDING * float(np.abs(self.scores).max())
        if np.ptp(self.differences) > tolerance:
            return "present"
        moves = bool((np.ptp(self.scores, axis=1) > tolerance).all())
        return "identical" if moves and bool((np.abs(self.differences) <= tolerance).all()) else "constant"

    def diverged(self, side: str) -> tuple[str, ...]:
        return self.lost.get((side, "diverged"), ())


@dataclass(frozen=True)
class _Family:
    """What all contrasts of one call share."""

    size: int
    alpha: float
    smallest_effect: float | None
    higher_is_better: bool

    @property
    def level(self) -> float:
        return self.alpha / self.size


class _Adjusted(NamedTuple):
    """The two p-values of one arm, each adjusted over its own family."""

    difference: float
    equivalence: float


def contrast_all(
    paired: Paired, *, smallest_effect: float | None = None, alpha: float = 0.05, interim: bool = False
) -> tuple[Contrast, ...]:
    """Compare every arm with the baseline by paired t tests, corrected over the arms.

    Differences: two-sided paired t, Holm over arms; simultaneous intervals are Bonferroni t at 1 - alpha/K, cut at zero
    where Holm's steps reject zero and the interval, which takes no steps, still holds it. Equivalence within
    ±smallest_effect: two one-sided t tests, Holm over arms as a family of its own. Each contrast uses the seeds in
    which both runs finished. The side of a *diverged* run can be neither better nor equivalent: a diverged arm cannot
    be called better, and no arm worse than a diverged baseline. Runs that *failed* only shrink the sample, and a note
    says so.

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
    samples = [_sample(paired, row) for row in range(1, 1 + len(paired.arms))]
    described = [_describe(paired, sample, family) for sample in samples]
    if interim:
        return tuple(described)
    _refuse_unpaired(paired, samples)
    tests = [paired_t(sample.differences) if sample.noise == "present" else None for sample in samples]
    # An arm that cannot be tested keeps its place in the family, so that losing runs never makes the others easier.
    difference = holm([1.0 if test is None else float(test.p) for test in tests]).tolist()
    equivalence = holm([_equivalence(s, t, smallest_effect) for s, t in zip(samples, tests, strict=True)]).tolist()
    adjusted = map(_Adjusted, difference, equivalence)
    together = zip(described, samples, tests, adjusted, strict=True)
    return tuple(_judge(contrast, sample, test, p, family) for contrast, sample, test, p in together)


def _sample(paired: Paired, row: int) -> _Sample:
    lost: dict[tuple[str, str], tuple[str, ...]] = {}
    for side, line in (("baseline", 0), ("arm", row)):
        for status in ("diverged", "failed", "missing"):
            seeds = tuple(np.array(paired.seeds)[paired.status[line] == status].tolist())
            if seeds:
                lost[side, status] = seeds
    kept = np.flatnonzero((paired.status[[0, row]] == "finished").all(axis=0)).tolist()
    return _Sample(paired.arms[row - 1], tuple(paired.seeds[i] for i in kept), paired.values[[0, row]][:, kept], lost)


def _equivalence(sample: _Sample, test: PairedT | None, margin: float | None) -> float:
    if margin is None or (test is None and sample.noise != "identical"):
        return 1.0
    return 0.0 if test is None else float(equivalence_p(test, margin))


def _describe(paired: Paired, sample: _Sample, family: _Family) -> Contrast:
    """Everything that can be said of an arm without a test: all there is while the plan is incomplete."""
    d = sample.differences
    return Contrast(
        arm=sample.arm,
        baseline=paired.baseline,
        metric=paired.metric,
        estimand="fixed benchmark, new seeds",
        estimate=float(d.mean()) if len(d) else None,
        low=None,
        high=None,
        p=None,
        p_adjusted=None,
        method=_method(family),
        family=family.size,
        pairs=len(d),
        missing=len(paired.seeds) - len(d),
        mde=None,
        attainable_p=None,
        correlation=None,
        sd=float(d.std(ddof=1)) if len(d) > 1 else None,
        differences=tuple(zip(sample.seeds, d.tolist(), strict=True)),
        notes=tuple(_losses(sample, len(paired.seeds))),
    )


def _judge(described: Contrast, sample: _Sample, test: PairedT | None, p: _Adjusted, family: _Family) -> Contrast:
    tested = test is not None or sample.noise == "identical"
    different = tested and p.difference <= family.alpha
    equivalent = tested and p.equivalence <= family.alpha
    verdict, blocked = _verdict(sample, different, equivalent, family)
    low, high, cut = _interval(sample, test, different, family)
    notes = described.notes
    if cut:
        notes += ("interval cut at zero, which Holm's steps reject and the one-step interval does not",)
    if sample.noise == "identical":
        notes += ("scores equal to the baseline's in every seed",)
    return replace(
        described,
        low=low,
        high=high,
        p=float(test.p) if test is not None else 1.0 if tested else None,
        p_adjusted=p.difference if tested else None,
        mde=_mde(test, family),
        correlation=_correlation(sample),
        verdict=verdict,
        more_seeds=_more_seeds(test, blocked, verdict, family),
        relevance=_relevance(low, high, verdict, family),
        p_equivalence=p.equivalence if tested and family.smallest_effect is not None else None,
        blocked=blocked,
        notes=notes,
    )


def _losses(sample: _Sample, planned: int) -> Iterable[str]:
    for (side, status), seeds in sample.lost.items():
        who = "the baseline " if side == "baseline" else ""
        what = {"diverged": "diverged", "failed": "failed on its machine", "missing": "has no score"}[status]
        which = "seed" if len(seeds) == 1 else "seeds"
        yield f"{who}{what} in {which} {', '.join(seeds)}; judged on {len(sample.seeds)} of {planned} seeds"


def _verdict(sample: _Sample, different: bool, equivalent: bool, family: _Family) -> tuple[Verdict, str | None]:
    if len(sample.seeds) < 2:
        return "undecided", _divergence(sample) or "fewer than two complete pairs"
    if sample.noise == "constant":
        return "undecided", "no noise between seeds to test against"
    verdict: Verdict = "undecided"
    if different:
        verdict = "better" if (sample.differences.mean() > 0) == family.higher_is_better else "worse"
    elif equivalent:
        verdict = "equivalent"
    favours_arm, favours_baseline = verdict in ("better", "equivalent"), verdict in ("worse", "equivalent")
    vetoed = (favours_arm and sample.diverged("arm")) or (favours_baseline and sample.diverged("baseline"))
    if vetoed or verdict == "undecided":
        return "undecided", _divergence(sample)
    return verdict, None


def _divergence(sample: _Sample) -> str | None:
    parts = []
    for side, who in (("arm", ""), ("baseline", "the baseline ")):
        if seeds := sample.diverged(side):
            parts.append(f"{who}diverged in {len(seeds)} seed{'s' * (len(seeds) > 1)}")
    return ", ".join(parts) or None


def _interval(
    sample: _Sample, test: PairedT | None, different: bool, family: _Family
) -> tuple[float | None, float | None, bool]:
    if test is None:
        return (0.0, 0.0, False) if sample.noise == "identical" else (None, None, False)
    low, high = (float(end) for end in test.interval(1 - family.level))
    if different and low < 0 < high:
        return (0.0, high, True) if test.estimate > 0 else (low, 0.0, True)
    return low, high, False


def _relevance(low: float | None, high: float | None, verdict: Verdict, family: _Family) -> Relevance | None:
    margin = family.smallest_effect
    if margin is None or low is None or high is None:
        return None
    if low > margin or high < -margin:
        return "beyond"
    return "within" if verdict == "equivalent" or -margin < low <= high < margin else "unclear"


def _mde(test: PairedT | None, family: _Family) -> float | None:
    if test is None:
        return None
    return minimum_detectable_effect(test.df + 1, family.level, POWER) * float(test.sd)


def _more_seeds(test: PairedT | None, blocked: str | None, verdict: Verdict, family: _Family) -> int | None:
    if verdict != "undecided":
        return 0
    if test is None or blocked is not None:
        return None
    n = test.df + 1
    # The sd of a few seeds is itself uncertain; its upper bound keeps the forecast from being an optimist's.
    sd = upper_sd(float(test.sd), n)
    margin = None if family.smallest_effect is None else family.smallest_effect / sd
    seeds = tuple(range(n + 1, n + 1 + FARTHEST))
    enough = np.flatnonzero(chance_of_verdict(seeds, float(test.estimate) / sd, family.level, margin) >= POWER)
    return int(enough[0]) + 1 if len(enough) else None


def _correlation(sample: _Sample) -> float | None:
    tolerance = ROUNDING * float(np.abs(sample.scores).max(initial=0.0))
    if len(sample.seeds) < 3 or not (np.ptp(sample.scores, axis=1) > tolerance).all():
        return None
    return float(np.clip(np.corrcoef(sample.scores[0], sample.scores[1])[0, 1], -1.0, 1.0))


def _method(family: _Family) -> str:
    arms = f"{family.size} arm{'s' * (family.size > 1)}"
    words = f"paired t, Holm over {arms}; simultaneous {100 * (1 - family.alpha):.4g} % intervals (Bonferroni t)"
    if family.smallest_effect is not None:
        words += f"; equivalence by two one-sided paired t tests, Holm over {arms}"
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


def _refuse_unpaired(paired: Paired, samples: list[_Sample]) -> None:
    explained = bool(np.isin(paired.status, ["diverged", "failed"]).any())
    if explained or any(len(sample.seeds) >= 2 for sample in samples):
        return
    raise StatisticsError(
        "no arm shares two seeds with the baseline",
        where=f"metric {paired.metric}",
        expected=f"runs of {paired.baseline} and of an arm under the same seeds",
        got=f"at most {max(len(sample.seeds) for sample in samples)} shared",
        fix="label runs that belong together with the same seed, or run the arms under the baseline's seeds",
    )
