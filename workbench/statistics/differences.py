"""What of a score's noise is left in a difference: variants that share their seeds, items and checkpoints.

Promises two decompositions of one design, variants × crossed factors: of a single score within its variant, and of the
difference of two variants at the same levels, from which everything the variants share has cancelled. Their intervals
hold whether variants share much noise or none. Refuses what `components` refuses.

Assumes the same variances in every variant; look at one variant alone where that is in doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from workbench.errors import StatisticsError
from workbench.statistics.components import Components, mean_squares, refuse_unusable, solve


class Split(NamedTuple):
    """Components of a crossed design that several variants went through.

    Attributes:
        score: Of one score of one variant, pooled over the variants.
        difference: Of one score minus another variant's at the same levels of every factor.
    """

    score: Components
    difference: Components


def split_components(scores: ArrayLike, factors: Sequence[str], *, level: float = 0.95) -> Split:
    """Split the variance of a score, and of a difference between two variants, over the factors of a crossed design.

    Mixed model with fixed variants (Searle, Casella and McCulloch 1992, ch. 4): every source T has a part that all
    variants share and a part of each variant's own. With V variants the own part has (V - 1) times the degrees of
    freedom of T, and the pooled mean square within variants is (MS_T + (V - 1) MS_own) / V, two independent terms.
    A difference carries the own parts of two variants.

    Args:
        scores: float64[variants, levels of each factor...], at least two variants under the same levels.
        factors: Name of each axis but the first.
        level: Confidence of the intervals.

    Raises:
        StatisticsError: for fewer than two variants, and as `components.variance_components` for each of them.
    """
    table = np.asarray(scores, np.float64)
    if table.ndim < 2 or len(table) < 2:
        raise StatisticsError(
            "a difference needs two variants", expected="float64[variants, levels...]", got=f"shape {table.shape}"
        )
    for scores_of_one in table:
        refuse_unusable(scores_of_one, factors, level)
    variants, names = len(table), tuple(factors)
    sizes = dict(zip(names, table.shape[1:], strict=True))
    scale = float(np.abs(table).max())
    common = table.mean(axis=0)
    shared = mean_squares(np.sqrt(variants) * common, names, scale=scale)
    deviations = [mean_squares(one - common, names, scale=scale) for one in table]
    own = {
        source: ((variants - 1) * df, sum(one[source][1] for one in deviations) / (variants - 1))
        for source, (df, _) in shared.items()
    }
    within = {
        source: ((df, square / variants), (own[source][0], own[source][1] * (variants - 1) / variants))
        for source, (df, square) in shared.items()
    }
    left = {source: ((df, 2 * square),) for source, (df, square) in own.items()}
    return Split(solve(within, sizes, float(table.mean()), level), solve(left, sizes, 0.0, level))
