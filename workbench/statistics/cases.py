"""From one t test per arm to contrasts: correction over the arms, intervals, verdicts with their vetoes.

Promises Holm's family-wise error over the arms for differences and, as a family of its own, for equivalence, and
Bonferroni intervals at the same level. Refuses senseless levels. What the t test rests on is the caller's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.errors import StatisticsError
from workbench.statistics.contrasts import Contrast, Verdict, cut_at_zero, relevance
from workbench.statistics.judging import POWER
from workbench.statistics.multiplicity import holm
from workbench.statistics.power import detectable_shift
from workbench.statistics.student import StudentT, equivalence_p


@dataclass(frozen=True)
class Question:
    """What all contrasts of one call share; `label` is the note that says what the answers do not cover.

    Raises:
        StatisticsError: for an alpha outside (0, 0.5) or a smallest effect that is not positive.
    """

    baseline: str
    metric: str
    higher_is_better: bool
    smallest_effect: float | None
    alpha: float
    estimand: str
    method: str
    label: str

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise StatisticsError("alpha is no error rate", expected="0 < alpha < 0.5", got=self.alpha)
        if self.smallest_effect is not None and not 0 < self.smallest_effect < np.inf:
            raise StatisticsError(
                "the smallest effect that matters is not a positive number",
                expected="a number > 0 in units of the metric",
                got=self.smallest_effect,
            )


@dataclass(frozen=True)
class Case:
    """One arm before the correction.

    Attributes:
        arm: Name of the arm.
        runs: Runs its estimate rests on, those of the shorter side.
        missing: Runs without a score.
        estimate: Difference; None without a run.
        test: Of that difference; None where none is possible.
        sd: Of one difference.
        blocked: Why there is no test, in words.
        vetoed: Verdicts that a diverged run forbids.
        veto: Whose runs diverged, in words.
        settled_by: What an undecided verdict shows, in words, where more runs would not settle it.
        chances: Chance of a verdict with 1, 2, ... more runs.
        differences: (seed, difference) of every run.
        notes: Footnotes of this arm alone.
    """

    arm: str
    runs: int
    missing: int
    estimate: float | None
    test: StudentT | None
    sd: float | None
    blocked: str | None = None
    vetoed: frozenset[Verdict] = frozenset()
    veto: str | None = None
    settled_by: str | None = None
    chances: NDArray[np.float64] | None = None
    differences: tuple[tuple[str, float], ...] = ()
    notes: tuple[str, ...] = ()


def conclude(cases: Sequence[Case], question: Question) -> tuple[Contrast, ...]:
    """Correct over all cases and decide each; one contrast per case, in their order."""
    # An arm that cannot be tested keeps its place in the family, so that losing runs never makes the others easier.
    margin = question.smallest_effect
    difference = holm([1.0 if case.test is None else float(case.test.p) for case in cases]).tolist()
    equivalence = holm(
        [1.0 if case.test is None or margin is None else float(equivalence_p(case.test, margin)) for case in cases]
    ).tolist()
    return tuple(
        _contrast(case, p, q, len(cases), question) for case, p, q in zip(cases, difference, equivalence, strict=True)
    )


def _contrast(case: Case, p: float, p_equivalence: float, family: int, question: Question) -> Contrast:
    tested = case.test is not None
    different, equivalent = tested and p <= question.alpha, tested and p_equivalence <= question.alpha
    verdict, blocked = _verdict(case, different, equivalent, question)
    low, high, cut = None, None, False
    if case.test is not None:
        ends = case.test.interval(1 - question.alpha / family)
        low, high, cut = cut_at_zero(float(ends[0]), float(ends[1]), float(case.test.estimate), different)
    arms = f"{family} arm{'s' * (family > 1)}"
    share = f"{100 * (1 - question.alpha):.4g} %"
    cutting = ("interval cut at zero, which Holm's steps reject and the one-step interval does not",) if cut else ()
    return Contrast(
        arm=case.arm,
        baseline=question.baseline,
        metric=question.metric,
        estimand=question.estimand,
        estimate=case.estimate,
        low=low,
        high=high,
        p=float(case.test.p) if case.test is not None else None,
        p_adjusted=p if tested else None,
        method=f"{question.method}, Holm over {arms}; simultaneous {share} intervals (Bonferroni)",
        family=family,
        pairs=case.runs,
        missing=case.missing,
        mde=_mde(case.test, question.alpha / family),
        attainable_p=None,
        correlation=None,
        verdict=verdict,
        more_seeds=0 if verdict != "undecided" else None if blocked else _more_seeds(case),
        sd=case.sd,
        relevance=relevance(low, high, verdict, question.smallest_effect),
        p_equivalence=p_equivalence if tested and question.smallest_effect is not None else None,
        blocked=blocked,
        differences=case.differences,
        notes=(question.label, *case.notes, *cutting),
    )


def _verdict(case: Case, different: bool, equivalent: bool, question: Question) -> tuple[Verdict, str | None]:
    if case.test is None or case.estimate is None:
        return "undecided", case.veto or case.blocked
    verdict: Verdict = "undecided"
    if different:
        verdict = "better" if (case.estimate > 0) == question.higher_is_better else "worse"
    elif equivalent:
        verdict = "equivalent"
    if verdict in case.vetoed or (verdict == "undecided" and case.veto):
        return "undecided", case.veto
    return verdict, case.settled_by if verdict == "undecided" else None


def _mde(test: StudentT | None, level: float) -> float | None:
    return None if test is None else detectable_shift(float(test.df), level, POWER) * float(test.standard_error)


def _more_seeds(case: Case) -> int | None:
    if case.chances is None:
        return None
    enough = np.flatnonzero(case.chances >= POWER)
    return int(enough[0]) + 1 if len(enough) else None
