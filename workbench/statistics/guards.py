"""Joint claims: better on one metric without being worse on others by more than they may lose.

Promises one error rate for the whole claim: every part is tested at alpha and all must hold (intersection-union,
Berger 1982), so that no correction over the parts is needed; over the arms the largest part is adjusted by Holm.
Refuses the claim to an arm with a diverged seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from workbench.errors import StatisticsError
from workbench.statistics.judging import judge, no_worse_p
from workbench.statistics.multiplicity import holm
from workbench.statistics.pairing import Paired
from workbench.statistics.samples import Sample, blocks, divergence, samples


class Guard(NamedTuple):
    """A metric that must not get worse by `margin` or more, in its own units."""

    paired: Paired
    margin: float


@dataclass(frozen=True)
class Claim:
    """What may be said of one arm.

    Attributes:
        arm: Name of the arm.
        holds: Whether every part holds at the family-wise level.
        p: The largest part's p-value, adjusted over the arms.
        parts: (metric, p-value) of "better" on the primary metric and of "not worse by the margin" on each guard.
        margins: (metric, margin) of each guard.
        blocked: Why the claim is refused whatever the numbers say, in words.
    """

    arm: str
    holds: bool
    p: float
    parts: tuple[tuple[str, float], ...]
    margins: tuple[tuple[str, float], ...]
    blocked: str | None


def claim_all(primary: Paired, guards: Sequence[Guard], *, alpha: float = 0.05) -> tuple[Claim, ...]:
    """Test for every arm "better on the primary metric, and on no guard worse by its margin or more".

    "Better" is the two-sided test with the right sign, so that a claim never holds where the arm would not be called
    better on its own.

    Raises:
        StatisticsError: without a guard, for a margin that is not positive, or metrics with different arms.
    """
    _refuse_bad_guards(primary, guards)
    members = samples(primary)
    judgement = judge(members, blocks(primary, members), alpha, None)
    better = [
        test.p if test is not None and (test.estimate > 0) == primary.higher_is_better else 1.0
        for test in judgement.tests
    ]
    columns = [(primary.metric, better)]
    blocked = [_blocked(member) for member in members]
    for guard in guards:
        others = [_towards_worse(sample, guard.paired.higher_is_better) for sample in samples(guard.paired)]
        columns.append((guard.paired.metric, no_worse_p(others, blocks(guard.paired, others), guard.margin)))
        blocked = [held or _blocked(other) for held, other in zip(blocked, others, strict=True)]
    # An arm that may not claim anything keeps its place among the others.
    largest = [1.0 if blocked[row] else max(p[row] for _, p in columns) for row in range(len(members))]
    adjusted = holm(largest).tolist()
    return tuple(
        Claim(
            arm=member.arm,
            holds=adjusted[row] <= alpha and blocked[row] is None,
            p=adjusted[row],
            parts=tuple((metric, p[row]) for metric, p in columns),
            margins=tuple((guard.paired.metric, guard.margin) for guard in guards),
            blocked=blocked[row],
        )
        for row, member in enumerate(members)
    )


def _towards_worse(sample: Sample, higher_is_better: bool) -> Sample:
    """Turn a sample so that larger is worse."""
    sign = -1.0 if higher_is_better else 1.0
    return Sample(
        sample.arm,
        sample.paired,
        sample.seeds,
        np.asarray(sign * sample.baseline),
        np.asarray(sign * sample.scores),
        sample.lost,
    )


def _blocked(sample: Sample) -> str | None:
    return divergence(sample) if sample.diverged("arm") else None


def _refuse_bad_guards(primary: Paired, guards: Sequence[Guard]) -> None:
    if not guards:
        raise StatisticsError("a joint claim needs a guard", expected="at least one metric that must not get worse")
    for guard in guards:
        where = f"guard {guard.paired.metric}"
        if not 0 < guard.margin < np.inf:
            raise StatisticsError("a guard's margin is not positive", where=where, expected="> 0", got=guard.margin)
        if guard.paired.arms != primary.arms or guard.paired.baseline != primary.baseline:
            raise StatisticsError(
                "a guard has other arms than the primary metric",
                where=where,
                expected=f"{primary.baseline}; {', '.join(primary.arms)}",
                got=f"{guard.paired.baseline}; {', '.join(guard.paired.arms)}",
            )
