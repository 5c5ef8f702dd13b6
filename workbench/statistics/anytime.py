"""Verdicts that hold whenever one looks: every arm against the baseline by e-values, seeds added as long as one likes.

Promises that over all arms and over all looks, planned or not, the chance of any false "better" or "worse" is at most
alpha, and that of any false "equivalent" likewise. The price is power (see `evalues`): with a last seed in mind, the
sequential design finds more with fewer seeds. Refuses what `contrasts` refuses.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from workbench.statistics.contrasts import Contrast, contrast_all, relevance, vetoed_verdict
from workbench.statistics.evalues import evalue_t, first_verdict
from workbench.statistics.multiplicity import holm
from workbench.statistics.pairing import Paired
from workbench.statistics.samples import Sample, correlation, samples

LABEL = "by e-values: holds whenever one looks and however many seeds follow, at the price of power"


def contrast_anytime(
    paired: Paired, *, smallest_effect: float | None = None, alpha: float = 0.05
) -> tuple[Contrast, ...]:
    """Compare every arm with the baseline so that the answer may be read after any seed.

    Each arm bets on the seeds in their order; the largest e-value it ever reached counts, over K arms rejected at
    K/alpha, the next at (K - 1)/alpha. p is the inverse of that e-value, valid at any time. The interval is the
    confidence sequence at alpha/K; an arm whose interval lies within the smallest effect is equivalent.

    Args:
        paired: Scores of one metric, seeds in the order in which they were run.
        smallest_effect: Smallest difference that matters, in units of the metric; None offers no equivalence.
        alpha: Family-wise error, over all looks.

    Raises:
        StatisticsError: for an alpha outside (0, 0.5) or a smallest effect that is not positive.
    """
    described = contrast_all(paired, smallest_effect=smallest_effect, alpha=alpha, interim=True)
    members = samples(paired)
    p = [_smallest_p(member) for member in members]
    adjusted = holm([1.0 if one is None else one for one in p]).tolist()
    together = zip(described, members, p, adjusted, strict=True)
    return tuple(_conclude(*parts, paired, smallest_effect, alpha) for parts in together)


def _smallest_p(member: Sample) -> float | None:
    """Inverse of the largest e-value over all looks from the second seed on."""
    if not member.paired or member.noise != "present":
        return None
    d = member.differences
    looks = [d[:n] for n in range(2, len(d) + 1)]
    reached = [float(evalue_t(seen).e) for seen in looks if np.ptp(seen) > 0]
    return min(1.0, 1.0 / max(reached))


def _conclude(
    described: Contrast,
    member: Sample,
    p: float | None,
    adjusted: float,
    paired: Paired,
    margin: float | None,
    alpha: float,
) -> Contrast:
    family = len(paired.arms)
    method = f"e-value t test, stepping down over {family} arm{'s' * (family > 1)}; confidence sequence"
    if p is None:
        why = "no noise between seeds to test against" if member.runs >= 2 else "fewer than two complete pairs"
        return replace(described, method=method, verdict="undecided", blocked=why, notes=(*described.notes, LABEL))
    now = evalue_t(member.differences)
    ends = [float(end) for end in now.interval(1 - alpha / family)]
    low, high = ends if np.isfinite(ends).all() else (None, None)
    inside = margin is not None and low is not None and high is not None and -margin < low <= high < margin
    verdict, blocked = vetoed_verdict(member, float(now.estimate), adjusted <= alpha, inside, paired.higher_is_better)
    early = member.runs < first_verdict(alpha / family)
    waits = f"no e-value can decide before seed {first_verdict(alpha / family)}" if early else "more seeds may be added"
    return replace(
        described,
        method=method,
        low=low,
        high=high,
        p=p,
        p_adjusted=adjusted,
        correlation=correlation(member),
        verdict=verdict,
        blocked=blocked or (waits if verdict == "undecided" else None),
        more_seeds=0 if verdict != "undecided" else None,
        relevance=relevance(low, high, verdict, margin),
        notes=(*described.notes, LABEL),
    )
