"""Where the noise comes from and what to buy next: what `workbench variance` finds and how it reads.

Promises one line per source of variance, with an interval or the reason why the design cannot tell, for one score and,
where several variants went through the same design, for a difference between two of them; then what more seeds, items
or checkpoints would buy for that difference. Refuses costs of what is no factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

from workbench.errors import DataError, StatisticsError
from workbench.sources.designs import Design
from workbench.statistics.components import Components, Option, advise, variance_components, variance_of_mean
from workbench.statistics.differences import split_components

ENDLESS = 10**15  # levels that leave nothing of their factor
UNEQUAL = 2.0  # ratio of standard deviations from which a pooled component misleads


class Purchase(NamedTuple):
    """What more levels of one factor buy.

    Attributes:
        option: What the common budget buys of it.
        cost: Of one more level.
        one_more: Share of the variance that a single level more removes.
    """

    option: Option
    cost: float
    one_more: float


class Average(NamedTuple):
    """Averaging some last checkpoints: standard error left, and the share of the variance it removes."""

    checkpoints: int
    error: float
    gain: float


class Advice(NamedTuple):
    """How precise the answer is and what would make it more so.

    Attributes:
        error: Standard error of the difference (of the mean, for a single variant) at present; None if untold.
        untold: Why there is none, in words.
        purchases: Best first; empty without costs.
        averages: Empty without a checkpoint factor.
    """

    error: float | None
    untold: str | None
    purchases: tuple[Purchase, ...]
    averages: tuple[Average, ...]


@dataclass(frozen=True)
class Explained:
    """The noise of one metric, taken apart.

    Attributes:
        design: What was read.
        score: Components of one score of one variant.
        difference: Components of a difference between two variants; None for a single variant.
        noise: Variant to the standard deviation of its scores, all sources together; only where all could be told.
        fixed: Factors that stay as they are when the study is repeated.
        advice: What to buy next.
        notes: What to keep in mind.
    """

    design: Design
    score: Components
    difference: Components | None
    noise: dict[str, float]
    fixed: tuple[str, ...]
    advice: Advice
    notes: tuple[str, ...]

    @property
    def found(self) -> Components:
        """The components that the advice is about."""
        return self.difference or self.score

    @property
    def target(self) -> str:
        """What the advice is about."""
        return "a difference between two variants" if self.difference else "the mean of this variant"


def explain_variance(
    design: Design,
    *,
    costs: Mapping[str, float] | None = None,
    fixed: Sequence[str] = (),
    checkpoint: str | None = None,
) -> Explained:
    """Take the noise of a design apart, and say what to buy next.

    Args:
        design: From `read_design`.
        costs: Factor to the cost of one more level with everything else as it is, in any one unit.
        fixed: Factors that a repetition of the study would not draw anew, as the items of a fixed benchmark.
        checkpoint: The factor whose levels are checkpoints to average.

    Raises:
        DataError: for a cost or a fixed factor that is no factor of the design.
        StatisticsError: as `variance_components`.
    """
    costs = dict(costs or {})
    _refuse_unknown(design, costs, fixed, checkpoint)
    factors = list(design.levels)
    if len(design.variants) > 1:
        score, difference = split_components(design.scores, factors)
    else:
        score, difference = variance_components(design.scores[0], factors), None
    noise = _noise(design) if difference else {}
    advice = _advise(difference or score, costs, fixed, checkpoint)
    return Explained(design, score, difference, noise, tuple(fixed), advice, _notes(design, noise, checkpoint))


def _advise(found: Components, costs: Mapping[str, float], fixed: Sequence[str], checkpoint: str | None) -> Advice:
    try:
        error = sqrt(variance_of_mean(found, fixed=fixed))
    except StatisticsError as refusal:
        return Advice(None, f"{refusal.what} ({refusal.details['where']}): {refusal.details['fix']}", (), ())
    return Advice(error, None, _purchases(found, costs, fixed), _averages(found, checkpoint, fixed))


def _refuse_unknown(design: Design, costs: Mapping[str, float], fixed: Sequence[str], checkpoint: str | None) -> None:
    for option, names in (("--cost", costs), ("--fixed", fixed), ("--checkpoint", [checkpoint] if checkpoint else [])):
        unknown = [name for name in names if name not in design.levels]
        if unknown:
            raise DataError(
                "that is no factor of the design", where=option, expected=", ".join(design.levels), got=unknown[0]
            )
    if set(fixed) >= set(design.levels):
        raise DataError(
            "with every factor fixed nothing is left to chance",
            where="--fixed",
            expected="a factor that a repetition draws anew",
            got=", ".join(fixed),
        )
    both = [name for name in costs if name in fixed]
    if both:
        raise DataError(
            "more of what stays the same buys nothing",
            where=f"--cost {both[0]}",
            expected="a factor that a repetition draws anew",
            got=f"--fixed {both[0]}",
        )


def _purchases(found: Components, costs: Mapping[str, float], fixed: Sequence[str]) -> tuple[Purchase, ...]:
    if not costs:
        return ()
    one_more = {name: advise(found, {name: cost}, fixed=fixed)[0].gain for name, cost in costs.items()}
    options = advise(found, costs, fixed=fixed)
    return tuple(Purchase(option, costs[option.factor], one_more[option.factor]) for option in options)


def _averages(found: Components, checkpoint: str | None, fixed: Sequence[str]) -> tuple[Average, ...]:
    if checkpoint is None:
        return ()
    last, counts = found.levels[checkpoint], [1]
    while counts[-1] * 2 < last:
        counts.append(counts[-1] * 2)
    variances = {k: variance_of_mean(found, {checkpoint: k}, fixed=fixed) for k in (*counts, last, ENDLESS)}
    alone = variances[1]
    return tuple(Average(k, sqrt(v), 1 - v / alone if alone > 0 else 0.0) for k, v in variances.items())


def _noise(design: Design) -> dict[str, float]:
    """Return the standard deviation of one score per variant, where the design tells every component."""
    told: dict[str, float] = {}
    for name, scores in zip(design.variants, design.scores, strict=True):
        parts = [component.estimate for component in variance_components(scores, list(design.levels)).components]
        told |= {name: sqrt(sum(part for part in parts if part is not None))} if None not in parts else {}
    return told


def _notes(design: Design, noise: Mapping[str, float], checkpoint: str | None) -> tuple[str, ...]:
    notes = list(design.notes)
    if len(design.variants) == 1:
        notes.append(
            "One variant cannot tell what two of them would share; with a second one under the same levels the advice "
            "is about their difference."
        )
    elif noise:
        quiet, loud = min(noise, key=noise.__getitem__), max(noise, key=noise.__getitem__)
        unequal = noise[loud] > UNEQUAL * noise[quiet]
        notes.append(
            f"Components are pooled over {len(design.variants)} variants, taken as equally noisy; alone, one score has "
            f"an sd from {noise[quiet]:.3g} ({quiet}) to {noise[loud]:.3g} ({loud})"
            + ("; so unequal that --variant should look at them one by one." if unequal else ".")
        )
    if checkpoint is not None:
        notes.append(
            f"Neighbouring levels of {checkpoint} resemble each other: unless they are far apart, averaging gains less "
            "than it seems, and a trend over them counts as noise."
        )
    return tuple(notes)
