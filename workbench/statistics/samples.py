"""What one arm brings to its comparison with the baseline: scores that belong together, and the fate of those lost.

Promises that nothing is filled in, that every lost seed is named with its reason, and that scores without noise between
seeds are recognised before anybody divides by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from workbench.statistics.pairing import ROUNDING, Paired

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sample:
    """The finished runs of one arm and of the baseline.

    Attributes:
        arm: Name of the arm.
        paired: Whether the arm's runs share their seeds with the baseline's; if so both sides hold complete pairs only.
        seeds: Labels of the arm's runs kept.
        baseline: float64[runs], scores of the baseline.
        scores: float64[runs], scores of the arm.
        lost: (side, status) -> seeds without a finished run.
    """

    arm: str
    paired: bool
    seeds: tuple[str, ...]
    baseline: Array
    scores: Array
    lost: dict[tuple[str, str], tuple[str, ...]]

    @property
    def differences(self) -> Array:
        """Paired differences, arm minus baseline; none where runs share no seed."""
        return np.asarray(self.scores - self.baseline) if self.paired else np.empty(0)

    @property
    def estimate(self) -> float | None:
        """Difference of the means; None without a run on either side."""
        if not len(self.scores) or not len(self.baseline):
            return None
        return float(self.differences.mean() if self.paired else self.scores.mean() - self.baseline.mean())

    @property
    def sd(self) -> float | None:
        """Standard deviation of the paired differences, or of a difference of two unpaired runs."""
        if self.runs < 2:
            return None
        if self.paired:
            return float(self.differences.std(ddof=1))
        return float(np.sqrt(self.scores.var(ddof=1) + self.baseline.var(ddof=1)))

    @property
    def runs(self) -> int:
        """Runs of the shorter side."""
        return min(len(self.scores), len(self.baseline))

    @property
    def noise(self) -> Literal["none", "identical", "constant", "present"]:
        """Whether the seeds leave noise to test against; "identical" scores in every pair answer without a test."""
        if self.runs < 2:
            return "none"
        tolerance = ROUNDING * float(max(np.abs(self.scores).max(), np.abs(self.baseline).max()))
        moves = [float(np.ptp(side)) > tolerance for side in (self.baseline, self.scores)]
        if not self.paired:
            return "present" if any(moves) else "constant"
        if np.ptp(self.differences) > tolerance:
            return "present"
        return "identical" if all(moves) and bool((np.abs(self.differences) <= tolerance).all()) else "constant"

    def diverged(self, side: Literal["arm", "baseline"]) -> tuple[str, ...]:
        """Seeds in which one side diverged."""
        return self.lost.get((side, "diverged"), ())


def samples(paired: Paired) -> list[Sample]:
    """Return the sample of every arm, in order."""
    return [_sample(paired, row) for row in range(1, 1 + len(paired.arms))]


def blocks(paired: Paired, members: Iterable[Sample]) -> tuple[str, ...]:
    """Return the seeds a joint analysis rests on: the baseline finished, and so did at least one of the members."""
    found = {seed for member in members if member.paired for seed in member.seeds}
    return tuple(seed for seed in paired.seeds if seed in found)


def losses(sample: Sample, planned: int) -> Iterable[str]:
    """Say in words which seeds were lost, why, and how many are left."""
    if not sample.paired:
        yield (
            f"its runs share no seed with the baseline's: {len(sample.scores)} runs against {len(sample.baseline)}, "
            "compared as two groups"
        )
    for (side, status), seeds in sample.lost.items():
        who = "the baseline " if side == "baseline" else ""
        what = {"diverged": "diverged", "failed": "failed on its machine", "missing": "has no score"}[status]
        which = "seed" if len(seeds) == 1 else "seeds"
        text = f"{who}{what} in {which} {', '.join(seeds)}"
        yield f"{text}; judged on {sample.runs} of {planned} seeds" if sample.paired else text


def divergence(sample: Sample) -> str | None:
    """Say in words who diverged how often; None where nobody did."""
    parts = []
    for side, who in (("arm", ""), ("baseline", "the baseline ")):
        if seeds := sample.lost.get((side, "diverged"), ()):
            parts.append(f"{who}diverged in {len(seeds)} seed{'s' * (len(seeds) > 1)}")
    return ", ".join(parts) or None


def correlation(sample: Sample) -> float | None:
    """Correlate arm and baseline over seeds; None below three pairs or without spread."""
    if not sample.paired or sample.runs < 3:
        return None
    pair = np.array([sample.baseline, sample.scores])
    if not (np.ptp(pair, axis=1) > ROUNDING * float(np.abs(pair).max())).all():
        return None
    return float(np.clip(np.corrcoef(pair)[0, 1], -1.0, 1.0))


def pairing_gain(sample: Sample) -> float | None:
    """Return how many times as many seeds the comparison would need without pairing; below 1 where pairing cost.

    The ratio of the two variances of a difference, without and with the covariance of the seeds.
    """
    if not sample.paired or sample.runs < 3 or sample.noise != "present":
        return None
    apart = sample.baseline.var(ddof=1) + sample.scores.var(ddof=1)
    return float(apart / sample.differences.var(ddof=1))


def _sample(paired: Paired, row: int) -> Sample:
    shares = paired.arms[row - 1] not in paired.unpaired
    finished = paired.status[[0, row]] == "finished"
    lost: dict[tuple[str, str], tuple[str, ...]] = {}
    for side, line in (("baseline", 0), ("arm", row)):
        # Runs that share no seed leave gaps in each other's columns by nature; those are no losses.
        for status in ("diverged", "failed", "missing") if shares else ("diverged", "failed"):
            seeds = tuple(np.array(paired.seeds)[paired.status[line] == status].tolist())
            if seeds:
                lost[side, status] = seeds
    both = finished.all(axis=0)
    left, right = (both, both) if shares else (finished[0], finished[1])
    labels = tuple(np.array(paired.seeds)[right].tolist())
    return Sample(paired.arms[row - 1], shares, labels, paired.values[0][left], paired.values[row][right], lost)
