"""Which test each arm gets, and how the error rate is shared between them.

Promises that the chance of any false difference over all arms is at most alpha, and of any false equivalence likewise,
whatever was lost. Arms with every seed of the design are judged together by the default test; an arm that lacks seeds,
or shares none, is judged on its own runs by a t test. Each of the two groups spends its arms' share of alpha, so
that losing a run never makes the other arms easier to call. Refuses to spend more than it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from workbench.statistics.blocks import Fit, Noise, fit, noise, residual_sd
from workbench.statistics.multiplicity import holm
from workbench.statistics.power import detectable_shift
from workbench.statistics.reference import SMALLEST_SEEDS, Reference, reference
from workbench.statistics.samples import Sample

Array = NDArray[np.float64]

POWER = 0.8


@dataclass(frozen=True)
class Test:
    """The test of one arm, in units of the scores.

    Attributes:
        seeds: Runs of the shorter side.
        kind: "blocks" (together with the other arms), "set aside" (too noisy for that), "own pairs", "two groups" or
            "identical" (scores equal in every pair: nothing to test).
        estimate: Arm minus baseline.
        half: Half the width of the simultaneous interval.
        p: Two-sided p-value of this arm alone.
        p_adjusted: Adjusted over all arms.
        p_equivalence: Of equivalence, adjusted over all arms as a family of its own; None where no margin was named.
        mde: True difference detected with 80 % power by the single-step test; None where there is nothing to test.
        sd: Estimated standard deviation of a paired difference, which `df` degrees of freedom support.
        df: Degrees of freedom.
        level: Level of the single-step test of a difference, before its t distribution.
        level_equivalence: The same for each one-sided test of equivalence.
        noise: Of the arm's runs relative to the other arms'; None where arms were not judged together.
        tax: Factor on the nominal p-value, because some arm was set aside.
    """

    seeds: int
    kind: str
    estimate: float
    half: float
    p: float
    p_adjusted: float
    p_equivalence: float | None
    mde: float | None = None
    sd: float = 0.0
    df: float = 0.0
    level: float = 0.0
    level_equivalence: float = 0.0
    noise: Noise | None = None
    tax: float = 1.0


@dataclass(frozen=True)
class Judgement:
    """The tests of all arms, None where an arm left nothing to test, and what was learnt about noise on the way.

    Attributes:
        tests: One per arm.
        baseline_noise: The baseline's noise relative to the arms'.
        residual: Residual sd of one run, pooled over arms, and its degrees of freedom.
        together: Number of arms judged together.
    """

    tests: tuple[Test | None, ...]
    baseline_noise: Noise | None
    residual: tuple[float, int] | None
    together: int


def judge(members: Sequence[Sample], blocks: Sequence[str], alpha: float, margin: float | None) -> Judgement:
    """Test every arm against the baseline.

    Args:
        members: One sample per arm.
        blocks: Seeds of the joint analysis (see `samples.blocks`).
        alpha: Family-wise error of each of the two families, over all arms.
        margin: Smallest effect that matters, in units of the scores; None offers no equivalence.
    """
    complete = _complete(members, blocks)
    inside = [member for member, whole in zip(members, complete, strict=True) if whole]
    outside = [member for member, whole in zip(members, complete, strict=True) if not whole]
    tests: list[Test | None] = [None] * len(members)
    apart = iter(_judge_apart(outside, len(members), alpha, margin))
    joint: list[Test] = []
    loudness = residual = None
    if inside:
        joint, loudness, residual = _judge_together(inside, len(members), alpha, margin)
    together = iter(joint)
    for index, whole in enumerate(complete):
        tests[index] = next(together) if whole else next(apart)
    return Judgement(tuple(tests), loudness, residual, len(inside))


def no_worse_p(members: Sequence[Sample], blocks: Sequence[str], bound: float) -> list[float]:
    """Return, per arm and for that arm alone, the p-value of "the true difference is `bound` or more".

    Args:
        members: One sample per arm.
        blocks: Seeds of the joint analysis.
        bound: Upper bound to be excluded, in units of the scores.

    Returns:
        One-sided p-values from the same standard errors as `judge`; 1 for an arm that cannot be tested.
    """
    complete = _complete(members, blocks)
    p = [1.0] * len(members)
    inside = [index for index, whole in enumerate(complete) if whole]
    if inside:
        scores = np.array([members[inside[0]].baseline, *(members[index].scores for index in inside)])
        found, null = fit(scores), reference(scores.shape[1], len(inside))
        nominal = np.asarray(found.tax * stdtr(found.df, (found.estimate - bound) / found.standard_error))
        for index, value in zip(inside, null.marginal(nominal, "equivalence").tolist(), strict=True):
            p[index] = value
    for index, member in enumerate(members):
        error = None if complete[index] else _standard_error(member)
        if error is not None and member.estimate is not None:
            p[index] = float(stdtr(error[1], (member.estimate - bound) / error[0]))
        elif member.noise == "identical":
            p[index] = 0.0
    return p


def _complete(members: Sequence[Sample], blocks: Sequence[str]) -> list[bool]:
    """Whether each arm has every block, and noise, so that it can be judged together with the others."""
    if len(blocks) < SMALLEST_SEEDS:
        return [False] * len(members)
    return [member.paired and member.noise == "present" and member.seeds == tuple(blocks) for member in members]


def _judge_together(
    members: Sequence[Sample], family: int, alpha: float, margin: float | None
) -> tuple[list[Test], Noise | None, tuple[float, int]]:
    scores = np.array([members[0].baseline, *(member.scores for member in members)])
    arms, seeds = len(members), scores.shape[1]
    found, null, share = fit(scores), reference(seeds, arms), alpha * arms / family
    penalty = family / arms
    nominal = found.p_different()
    adjusted = np.minimum(null.adjust(nominal) * penalty, 1.0)
    equivalence = None
    if margin is not None:
        equivalence = np.minimum(null.adjust(found.p_beyond(margin), "equivalence") * penalty, 1.0)
    baseline_noise, *noises = noise(scores, found.pooled)
    halves, alone = null.half_width(found, share), null.marginal(nominal)
    tests = []
    for row in range(arms):
        one = found.at(row)
        tests.append(
            Test(
                seeds=seeds,
                kind="blocks" if one.pooled else "set aside",
                estimate=float(one.estimate),
                half=float(halves[row]),
                p=float(alone[row]),
                p_adjusted=float(adjusted[row]),
                p_equivalence=None if equivalence is None else float(equivalence[row]),
                noise=noises[row],
                tax=float(one.tax),
                **_precision(one, null, share),
            )
        )
    return tests, baseline_noise, residual_sd(scores, found.pooled)


def _precision(one: Fit, null: Reference, share: float) -> dict[str, float]:
    """What the numbers of seeds and the noise found mean for detecting a difference in one arm."""
    sd = float(one.standard_error) * float(np.sqrt(null.seeds))
    level = null.critical(share) / float(one.tax)
    if bool(one.pooled) and float(one.tax) == 1.0:
        mde = _detectable(null.seeds, null.arms, share) * sd / float(np.sqrt(2))
    else:
        mde = detectable_shift(float(one.df), level, POWER) * float(one.standard_error)
    return {
        "mde": mde,
        "sd": sd,
        "df": float(one.df),
        "level": level,
        "level_equivalence": null.critical(share, "equivalence") / float(one.tax),
    }


@lru_cache(maxsize=256)
def _detectable(seeds: int, arms: int, alpha: float) -> float:
    return reference(seeds, arms).minimum_detectable_effect(alpha, POWER)


def _judge_apart(members: Sequence[Sample], family: int, alpha: float, margin: float | None) -> list[Test | None]:
    """Judge arms by t tests of their own; one that cannot be tested keeps its place among them."""
    if not members:
        return []
    level, penalty = alpha / family, family / len(members)
    errors = [_standard_error(member) for member in members]
    raw = [1.0 if error is None else _two_sided(m, *error) for m, error in zip(members, errors, strict=True)]
    beyond = [_beyond(m, error, margin) for m, error in zip(members, errors, strict=True)]
    adjusted = np.minimum(holm(raw) * penalty, 1.0).tolist()
    equivalence = np.minimum(holm(beyond) * penalty, 1.0).tolist()
    tests: list[Test | None] = []
    for member, error, p, own, equivalent in zip(members, errors, raw, adjusted, equivalence, strict=True):
        estimate, offered = member.estimate, equivalent if margin is not None else None
        if member.noise == "identical":
            tests.append(Test(member.runs, "identical", 0.0, 0.0, 1.0, 1.0, offered))
        elif error is None or estimate is None:
            tests.append(None)
        else:
            standard_error, df = error
            half = float(stdtrit(df, 1 - level / 2)) * standard_error
            tests.append(
                Test(
                    seeds=member.runs,
                    kind="own pairs" if member.paired else "two groups",
                    estimate=estimate,
                    half=half,
                    p=p,
                    p_adjusted=own,
                    p_equivalence=offered,
                    mde=detectable_shift(df, level, POWER) * standard_error,
                    sd=standard_error * float(np.sqrt(member.runs)),
                    df=df,
                    level=level,
                    level_equivalence=level,
                )
            )
    return tests


def _standard_error(member: Sample) -> tuple[float, float] | None:
    """Standard error and degrees of freedom: paired t (Student 1908), or Welch (1947) for runs that share no seed."""
    if member.noise != "present":
        return None
    if member.paired:
        return float(member.differences.std(ddof=1) / np.sqrt(member.runs)), float(member.runs - 1)
    sides = [(side.var(ddof=1) / len(side), len(side) - 1) for side in (member.baseline, member.scores)]
    total = float(sum(variance for variance, _ in sides))
    return float(np.sqrt(total)), total**2 / float(sum(variance**2 / df for variance, df in sides))


def _two_sided(member: Sample, standard_error: float, df: float) -> float:
    assert member.estimate is not None  # noqa: S101
    return float(2 * stdtr(df, -abs(member.estimate) / standard_error))


def _beyond(member: Sample, error: tuple[float, float] | None, margin: float | None) -> float:
    """p-value of "the true difference lies at or beyond the margin": two one-sided t tests (Schuirmann 1987)."""
    if margin is None or error is None or member.estimate is None:
        return 0.0 if margin is not None and member.noise == "identical" else 1.0
    standard_error, df = error
    return float(stdtr(df, (abs(member.estimate) - margin) / standard_error))
