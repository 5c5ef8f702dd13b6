"""What a budget buys: seeds against tokens, and the effect each choice can detect.

Promises that every proposal spends the whole budget, so that its rows differ in nothing but how it is spent. Refuses to
guess: the noise is the sweep's own, taken to be the same at every length, and a command's cost is unknown until it ran.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from workbench.errors import PlanError
from workbench.planning import Plan
from workbench.statistics.reference import PLANNING_DRAWS, reference

SEEDS = (3, 4, 5, 6, 8, 10, 15, 20)
UNITS = {"m": 60, "min": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Proposal:
    """One way to spend a budget.

    Attributes:
        seeds: Seeds of every arm.
        share: Training tokens of every arm, as a multiple of those the sweep declares.
        tokens: What that is in tokens of the baseline; None for a command.
        detectable: Difference found with probability 0.8, in residual standard deviations of one run.
        equivalent: Share of identical arms called equivalent; None where the sweep names no noise.
    """

    seeds: int
    share: float
    tokens: int | None
    detectable: float
    equivalent: float | None


def parse_budget(text: str) -> float:
    """Return the seconds of "120h", "90min" or "3d": time of all devices together.

    Raises:
        PlanError: for anything else.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(m|min|h|d)\s*", text)
    if not found or not float(found[1]) > 0:
        raise PlanError("a budget is an amount of device time", expected="120h, 90min or 3d", got=text)
    return float(found[1]) * UNITS[found[2]]


def propose(plan: Plan, seconds: Mapping[str, float | None], budget: float) -> list[Proposal]:
    """Spend a budget on more seeds or on more tokens.

    Args:
        plan: The plan whose arms are to run.
        seconds: Expected seconds of one run of every arm, as declared.
        budget: Device seconds.

    Raises:
        PlanError: where the cost of an arm is not known.
    """
    unknown = [arm.name for arm in plan.arms if not seconds.get(arm.name)]
    if unknown:
        raise PlanError(
            "the cost of an arm is not known",
            where=", ".join(unknown),
            expected="a finished run of it",
            got="none",
            fix="run the sweep until one block of seeds is done, or one cell: workbench run SWEEP --cell 0",
        )
    devices = plan.numerics.devices if plan.numerics else 1
    block = devices * sum(seconds[arm.name] or 0.0 for arm in plan.arms)
    sweep, tokens = plan.sweep, plan.arms[0].size["tokens"]
    proposals = []
    for seeds in SEEDS:
        share = budget / (seeds * block)
        null = reference(seeds, plan.together, PLANNING_DRAWS)
        margin = sweep.metric.smallest_effect / sweep.noise if sweep.noise else None
        proposals.append(
            Proposal(
                seeds,
                share,
                round(tokens * share) if tokens else None,
                null.minimum_detectable_effect(plan.share),
                null.share_called_equivalent(margin, plan.share) if margin else None,
            )
        )
    return proposals
