"""Where the noise comes from: variance components of a crossed design, and where to spend the next unit of compute.

Promises the method of moments for every source and interaction of a balanced crossed design (initialisation seed,
data-order seed, evaluation items, last checkpoints, or any others), each with an interval, and "cannot tell" where a
source has too few levels for one. Refuses holes, factors that are not crossed, and factors of a single level.

Assumes random, exchangeable levels. Neighbouring checkpoints of a run resemble each other: space them, or their
component comes out too small.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import floor, prod
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import fdtri, gammaincinv

from workbench.errors import StatisticsError
from workbench.statistics.pairing import ROUNDING

Floats = NDArray[np.float64]
Source = tuple[str, ...]
Term = tuple[int, float]  # degrees of freedom, and the mean square or the part of one that has them

FEWEST_DEGREES = 2  # with one degree of freedom a 95 % interval spans a factor of 5,000
MOST_FACTORS = 4


@dataclass(frozen=True)
class Component:
    """The variance one source adds to a single score.

    Attributes:
        source: The factors whose interaction it is: one for a main effect; all of them for the residual.
        df: Degrees of freedom of its mean square.
        mean_square: Its mean square.
        estimate: Variance, never below 0; None where `blocked`.
        low: Lower end of its interval; None where `blocked`.
        high: Upper end.
        blocked: Why the design cannot tell, in words.
    """

    source: Source
    df: int
    mean_square: float
    estimate: float | None
    low: float | None
    high: float | None
    blocked: str | None = None


@dataclass(frozen=True)
class Components:
    """All variance components of one crossed design.

    Attributes:
        levels: Factor to its number of levels in the design.
        mean: Grand mean.
        components: Main effects first, the residual last.
        level: Confidence of the intervals, each by itself.
    """

    levels: dict[str, int]
    mean: float
    components: tuple[Component, ...]
    level: float

    def __getitem__(self, source: Source | str) -> Component:
        """Return the component of a source, whatever the order of its factors."""
        wanted = {source} if isinstance(source, str) else set(source)
        for component in self.components:
            if set(component.source) == wanted:
                return component
        raise KeyError(source)


class Option(NamedTuple):
    """One way to spend a budget: `more` levels of `factor`, and the variance of the mean it leaves.

    `gain` is the share of the present variance that it removes.
    """

    factor: str
    more: int
    cost: float
    variance: float
    gain: float


def cross(rows: Iterable[tuple[object, ...]], factors: Sequence[str]) -> Floats:
    """Arrange tidy rows (level of each factor, ..., score) as a dense array with one axis per factor.

    Levels are sorted by their text, so the order of the rows changes nothing.

    Raises:
        StatisticsError: for a combination given twice, or one that is absent: then the factors are not crossed (each
            initialisation seed with data orders of its own, say).
    """
    cells: dict[tuple[str, ...], float] = {}
    for *labels, score in rows:
        place = tuple(map(str, labels))
        if len(place) != len(factors) or place in cells:
            raise StatisticsError(
                "a cell is given twice" if place in cells else "a row does not fit the factors",
                where=", ".join(place),
                expected=f"one row per combination of {', '.join(factors)}",
            )
        cells[place] = float(score)  # type: ignore[arg-type]
    axes = [sorted({place[axis] for place in cells}) for axis in range(len(factors))]
    shape = tuple(map(len, axes))
    if prod(shape) != len(cells):
        raise StatisticsError(
            "the factors are not crossed",
            expected=f"all {' × '.join(map(str, shape))} combinations of {', '.join(factors)}",
            got=f"{len(cells)} of {prod(shape)}",
            fix="run every level of one factor with every level of the others, or leave a factor out",
        )
    index = [{label: number for number, label in enumerate(axis)} for axis in axes]
    table = np.empty(shape)
    for place, score in cells.items():
        table[tuple(index[axis][label] for axis, label in enumerate(place))] = score
    return table


def variance_components(scores: ArrayLike, factors: Sequence[str], *, level: float = 0.95) -> Components:
    """Split the variance of a score over the factors of a balanced crossed random design and their interactions.

    Expected mean squares (Searle, Casella and McCulloch 1992, ch. 4): E[MS of T] = sum over sources U containing T of
    sigma²_U times the levels of the factors outside U, solved by inclusion and exclusion. Intervals are those of Ting,
    Burdick, Graybill, Jeyaratnam and Lu (1990), exact chi-square for the residual. The residual is the interaction of
    all factors together with whatever repeating a cell would change.

    Args:
        scores: float64[levels of each factor...], one to four axes; scores of one arm, or differences of two.
        factors: Name of each axis.
        level: Confidence of the intervals.

    Raises:
        StatisticsError: for scores that are not finite, axes that do not fit the names, a factor of a single level, or
            scores that never vary.
    """
    table = np.asarray(scores, np.float64)
    refuse_unusable(table, factors, level)
    squares = {source: (term,) for source, term in mean_squares(table, tuple(factors)).items()}
    sizes = dict(zip(factors, table.shape, strict=True))
    return solve(squares, sizes, float(table.mean()), level)


def variance_of_mean(
    found: Components, levels: Mapping[str, int] | None = None, *, fixed: Collection[str] = ()
) -> float:
    """Return the variance of the mean over a crossed design of the given levels.

    Components shown as 0 enter as 0, so the sum errs upwards where many of them are small.

    Args:
        found: The components.
        levels: Factor to number of levels; those of the design unless given.
        fixed: Factors that stay as they are when the study is repeated ("fixed benchmark, new seeds": the items).

    Raises:
        StatisticsError: where a component that matters is one the design cannot tell.
    """
    sizes = found.levels | dict(levels or {})
    total = 0.0
    for component in found.components:
        if set(component.source) <= set(fixed):
            continue
        if component.estimate is None:
            raise StatisticsError(
                "the design cannot tell a component that the variance of the mean needs",
                where=" × ".join(component.source),
                expected="at least three levels of each factor",
                got=component.blocked,
                fix="add levels, or name the factor as fixed",
            )
        total += component.estimate / prod(sizes[factor] for factor in component.source)
    return total


def advise(
    found: Components,
    costs: Mapping[str, float],
    *,
    budget: float | None = None,
    fixed: Collection[str] = (),
) -> tuple[Option, ...]:
    """Say what one budget buys: more seeds, more items, or more checkpoints averaged.

    Args:
        found: The components of the present design, which is the starting point.
        costs: Factor to the cost of one more level with everything else as it is, in any one unit. One more seed costs
            a training and its evaluation, one more item its evaluation in every run.
        budget: What there is to spend; the dearest single level unless given, so that every option buys something.
        fixed: Factors that stay as they are when the study is repeated.

    Returns:
        One option per factor that the budget reaches, the most precise first.

    Raises:
        StatisticsError: for an unknown or fixed factor, a cost that is not positive, a budget below every cost, or a
            component the design cannot tell.
    """
    _refuse_bad_costs(found, costs, fixed)
    spend = max(costs.values()) if budget is None else budget
    present = variance_of_mean(found, fixed=fixed)
    options = []
    for factor in sorted(costs):
        more = floor(spend / costs[factor] * (1 + ROUNDING))
        if more:
            variance = variance_of_mean(found, {factor: found.levels[factor] + more}, fixed=fixed)
            gain = 1 - variance / present if present > 0 else 0.0
            options.append(Option(factor, more, more * costs[factor], variance, gain))
    if not options:
        raise StatisticsError("the budget buys nothing", expected=f"at least {min(costs.values())}", got=spend)
    return tuple(sorted(options, key=lambda option: (option.variance, option.cost)))


def mean_squares(table: Floats, factors: Source, *, scale: float | None = None) -> dict[Source, Term]:
    """Return degrees of freedom and mean square of every source, by peeling effects off the margins.

    Args:
        table: float64[levels of each factor...].
        factors: Name of each axis.
        scale: Size of the scores, below a share of which a mean square is arithmetic; the largest in `table` unless
            given (deviations are small against the scores they come from).
    """
    squares: dict[Source, Term] = {}
    axes = range(table.ndim)
    floor_ = (ROUNDING * (np.abs(table).max() if scale is None else scale)) ** 2
    for order in range(1, table.ndim + 1):
        for kept in combinations(axes, order):
            effect = table.mean(axis=tuple(set(axes) - set(kept)), keepdims=True)
            for axis in kept:
                effect = effect - effect.mean(axis=axis, keepdims=True)
            df = prod(table.shape[axis] - 1 for axis in kept)
            square = float((effect**2).sum()) * prod(table.shape[axis] for axis in axes if axis not in kept) / df
            squares[tuple(factors[axis] for axis in kept)] = df, square if square > floor_ else 0.0
    return squares


def solve(squares: Mapping[Source, Sequence[Term]], sizes: Mapping[str, int], mean: float, level: float) -> Components:
    """Turn the mean squares of every source into components with intervals.

    Args:
        squares: Source to the independent terms whose sum is its mean square; one term for a single table. Degrees of
            freedom of several are Satterthwaite's (1946), rounded down.
        sizes: Factor to its number of levels.
        mean: Grand mean.
        level: Confidence of the intervals.
    """
    components = tuple(_component(source, squares, sizes, level) for source in squares)
    return Components(dict(sizes), mean, components, level)


def _component(
    source: Source, squares: Mapping[Source, Sequence[Term]], sizes: Mapping[str, int], level: float
) -> Component:
    df, square = _pool(squares[source])
    fewest = min(degrees for degrees, _ in squares[source])
    if fewest < FEWEST_DEGREES:
        reason = f"{' × '.join(source)} has {fewest} degree of freedom: add levels"
        return Component(source, fewest, square, None, None, None, reason)
    outside = prod(size for factor, size in sizes.items() if factor not in source)
    added: list[Term] = []
    taken: list[Term] = []
    for other, terms in squares.items():
        if set(source) <= set(other):
            side = added if (len(other) - len(source)) % 2 == 0 else taken
            side.extend((degrees, part / outside) for degrees, part in terms)
    estimate = sum(term for _, term in added) - sum(term for _, term in taken)
    below, above = interval_of_sum(added, taken, 1 - level)
    return Component(source, df, square, max(0.0, estimate), max(0.0, estimate - below), max(0.0, estimate + above))


def _pool(terms: Sequence[Term]) -> Term:
    square = sum(part for _, part in terms)
    spread = sum(part**2 / df for df, part in terms)
    return floor(square**2 / spread * (1 + ROUNDING)) if spread > 0 else terms[0][0], square


def interval_of_sum(added: Sequence[Term], taken: Sequence[Term], alpha: float) -> tuple[float, float]:
    """Return how far an interval for a sum and difference of mean squares reaches below and above its estimate.

    Modified large-sample limits of Ting et al. (1990, J. Statist. Comput. Simul. 35, 135-143): exact for one term, and
    of at least about the stated confidence for independent chi-square terms of any signs.

    Args:
        added: (degrees of freedom, coefficient · mean square) of the terms with a positive sign.
        taken: The same of those with a negative sign.
        alpha: One minus the two-sided confidence.
    """
    below = _reach(added, taken, alpha / 2)
    above = _reach(taken, added, alpha / 2)  # the upper limit of a - b is the lower limit of b - a
    return below, above


def _reach(added: Sequence[Term], taken: Sequence[Term], tail: float) -> float:
    """Return the distance from the estimate to its lower limit, one-sided at `tail`."""
    shrink = [1 - 1 / _over(df, 1 - tail) for df, _ in added]
    grow = [1 / _over(df, tail) - 1 for df, _ in taken]
    squared = sum((g * term) ** 2 for g, (_, term) in zip(shrink, added, strict=True))
    squared += sum((h * term) ** 2 for h, (_, term) in zip(grow, taken, strict=True))
    for g, (df, term) in zip(shrink, added, strict=True):
        for h, (other_df, other) in zip(grow, taken, strict=True):
            ratio = float(fdtri(df, other_df, 1 - tail))
            squared += ((ratio - 1) ** 2 - (g * ratio) ** 2 - h**2) / ratio * term * other
    for one, two in combinations(range(len(added)), 2):
        (df, term), (other_df, other) = added[one], added[two]
        both = df + other_df
        pooled = (1 - 1 / _over(both, 1 - tail)) ** 2 * both**2 / (df * other_df)
        alone = shrink[one] ** 2 * df / other_df + shrink[two] ** 2 * other_df / df
        squared += (pooled - alone) / (len(added) - 1) * term * other
    return float(np.sqrt(max(squared, 0.0)))


def _over(df: int, probability: float) -> float:
    """Return the quantile of F with (df, infinite) degrees of freedom."""
    return float(2 * gammaincinv(df / 2, probability) / df)


def refuse_unusable(table: Floats, factors: Sequence[str], level: float) -> None:
    """Refuse a table that is no crossed design with noise in it; see `variance_components`."""
    if not 1 <= len(factors) <= MOST_FACTORS or table.ndim != len(factors) or len(set(factors)) != len(factors):
        raise StatisticsError(
            "the axes do not fit the factors",
            expected=f"one to {MOST_FACTORS} distinct names, one per axis",
            got=f"{', '.join(factors)} for an array of {table.ndim} axes",
        )
    single = [factor for factor, size in zip(factors, table.shape, strict=True) if size < 2]
    if single:
        raise StatisticsError(
            "a factor that never varies has no variance to estimate",
            where=", ".join(single),
            expected="at least two levels, better five",
            fix="leave the factor out of the design, and out of the claim",
        )
    if not np.isfinite(table).all():
        first = np.argwhere(~np.isfinite(table))[0].tolist()
        where = ", ".join(f"{factor} {place}" for factor, place in zip(factors, first, strict=True))
        raise StatisticsError(
            "the design has a hole",
            where=f"{where}, counted from 0",
            expected="a finite score in every cell",
            got=table[tuple(first)],
            fix="run the cell, or leave its level out",
        )
    if not 0 < level < 1:
        raise StatisticsError("a confidence is a probability", expected="level between 0 and 1", got=level)
    if np.ptp(table) <= ROUNDING * np.abs(table).max():
        raise StatisticsError(
            "the scores never vary", expected="noise to take apart", got=f"{table.flat[0]} everywhere"
        )


def _refuse_bad_costs(found: Components, costs: Mapping[str, float], fixed: Collection[str]) -> None:
    open_ = [factor for factor in found.levels if factor not in fixed]
    good = costs and all(factor in open_ and 0 < cost < np.inf for factor, cost in costs.items())
    if not good:
        raise StatisticsError(
            "the costs do not fit the design",
            expected=f"a positive cost for some of {', '.join(open_)}",
            got=", ".join(f"{factor} {cost}" for factor, cost in costs.items()) or "none",
        )
