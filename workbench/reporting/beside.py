"""The same data under every other method: what a reviewer would have computed, and what is known against it.

Promises every method of `workbench.statistics.methods` on the same complete blocks, with its smallest attainable
p-value and its known failure beside it. The verdict stays the default test's: a method is chosen before the data are
seen, not by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from workbench.errors import StatisticsError
from workbench.reporting import wording
from workbench.reporting.escaping import plain, to_markdown
from workbench.statistics.crossed import crossed_bootstrap
from workbench.statistics.effects import (
    difference_in_baseline_sds,
    posterior_of_difference,
    probability_of_superiority,
    seeds_won,
    standardised_difference,
)
from workbench.statistics.evalues import evalue_t
from workbench.statistics.items import PairedItems
from workbench.statistics.methods import METHODS, compare
from workbench.statistics.new_items import contrast_new_items
from workbench.statistics.pairing import Paired

CAPTION = "p-values of the same data by other methods, adjusted over the arms; they do not decide"


SIZES = "effect sizes, arm by arm; they decide nothing"
TWO_WAY = "Answers a wider question at the price of wider intervals; needs items that were sampled."
CROSSED = "Counts about one residual variance too much: calls 0 to 7 % of identical arms different instead of 5 %."

Scores = NDArray[np.float64]


class Beside(NamedTuple):
    """One method's answer.

    Attributes:
        method: Its name.
        arms: Names of the arms.
        p: Adjusted p-value per arm; None where the method refuses the data.
        refused: Why it does, in words.
        floor: Smallest p-value it could give with these seeds; None without such a floor.
        fails: What is known against it.
    """

    method: str
    arms: tuple[str, ...]
    p: tuple[float, ...] | None
    refused: str | None
    floor: float | None
    fails: str


class Sizes(NamedTuple):
    """What one arm's differences amount to without a test over the family.

    Attributes:
        arm: Its name.
        hedges_g: Mean paired difference in its own sd, with Hedges' small-sample factor; None below three seeds.
        baseline_sds: Mean difference in standard deviations of the baseline's runs, likewise.
        won: (share, low, high) of the seeds in which the arm is better, with its exact 95 % interval.
        superiority: Chance that a run of the arm beats an unrelated run of the baseline.
        e_value: Anytime-valid evidence against "no difference"; rejects at arms / alpha, stepping down.
        equivalent: Posterior chance that the true difference lies within the smallest effect; None without one.
    """

    arm: str
    hedges_g: float | None
    baseline_sds: float | None
    won: tuple[float, float, float]
    superiority: float
    e_value: float
    equivalent: float | None


def judge_beside(paired: Paired, alpha: float, items: PairedItems | None = None) -> list[Beside]:
    """Judge the seeds in which every variant finished by every method.

    Args:
        paired: One metric of arms and baseline.
        alpha: Family-wise error.
        items: The same by items: adds the two methods that ask about new items too.

    Raises:
        StatisticsError: where fewer than two seeds are complete, or arms were declared unpaired.
    """
    scores = _complete(paired)
    found = [_judge(name, paired.arms, scores, alpha) for name in METHODS]
    return [*found, *_judge_items(items, alpha)] if items is not None else found


def measure_sizes(paired: Paired, margin: float | None) -> list[Sizes]:
    """Measure effects in the usual currencies, on the seeds in which every variant finished.

    Raises:
        StatisticsError: as `judge_beside`, and for an arm without noise.
    """
    scores = _complete(paired)
    enough, sign = scores.shape[1] >= 3, 1.0 if paired.higher_is_better else -1.0
    sizes = []
    for arm, own in zip(paired.arms, scores[1:], strict=True):
        d = own - scores[0]
        won = seeds_won(sign * d)
        sizes.append(
            Sizes(
                arm,
                float(standardised_difference(d).unbiased) if enough else None,
                float(difference_in_baseline_sds(scores[0], own).unbiased) if enough else None,
                (float(won.share), float(won.low), float(won.high)),
                float(probability_of_superiority(sign * scores[0], sign * own)),
                float(evalue_t(d).e),
                None if margin is None else float(posterior_of_difference(d, margin).within),
            )
        )
    return sizes


def _complete(paired: Paired) -> Scores:
    whole = (paired.status == "finished").all(axis=0)
    if paired.unpaired or whole.sum() < 2:
        raise StatisticsError(
            "the other methods need seeds that all variants share",
            where=f"metric {paired.metric}",
            expected="at least two seeds with every run finished",
            got="variants declared unpaired" if paired.unpaired else f"{int(whole.sum())}",
        )
    return paired.values[:, whole]


def _judge_items(items: PairedItems, alpha: float) -> list[Beside]:
    arms, complete = items.paired.arms, items.complete()
    if complete.shape[1] < 2:
        return []
    wider = contrast_new_items(items, alpha=alpha)
    p = tuple(1.0 if contrast.p_adjusted is None else contrast.p_adjusted for contrast in wider)
    rows = [Beside("two-way random effects (new items too)", arms, p, None, None, TWO_WAY)]
    try:
        crossed = crossed_bootstrap(complete, weights=items.weights, clusters=items.clusters, alpha=alpha)
    except StatisticsError as error:
        return [*rows, Beside("crossed bootstrap (new items too)", arms, None, error.what, None, CROSSED)]
    adjusted = tuple(crossed.comparison.p_adjusted.tolist())
    return [*rows, Beside("crossed bootstrap (new items too)", arms, adjusted, None, None, CROSSED)]


def _judge(name: str, arms: tuple[str, ...], scores: Scores, alpha: float) -> Beside:
    method, seeds = METHODS[name], scores.shape[1]
    warned = method.caution(seeds) if method.caution else None
    known = f"{method.fails} Here: {warned}." if warned else method.fails
    floor = method.attainable_p(seeds, len(arms)) if method.attainable_p and seeds >= method.smallest_seeds else None
    try:
        found = compare(scores, method=name, alpha=alpha)
    except StatisticsError as error:
        return Beside(name, arms, None, error.what, floor, known)
    return Beside(name, arms, tuple(found.p_adjusted.tolist()), None, floor, known)


def beside_table(rows: Sequence[Beside]) -> Table:
    """Return the methods as a table for a terminal."""
    return _terminal(CAPTION, ["method", *rows[0].arms, "smallest p"], [_cells(row) for row in rows])


def sizes_table(sizes: Sequence[Sizes]) -> Table:
    """Return the effect sizes as a table for a terminal."""
    return _terminal(SIZES, _HEADS, [_size_cells(one) for one in sizes])


def beside_markdown(rows: Sequence[Beside], sizes: Sequence[Sizes]) -> str:
    """Return both tables, and what is known against each method, as Markdown."""
    heads = ["method", *rows[0].arms, "smallest p", "known failure"]
    methods = _markdown(heads, [[*_cells(row), row.fails] for row in rows])
    effects = _markdown(_HEADS, [_size_cells(one) for one in sizes])
    return f"# {CAPTION}\n\n{methods}\n# {SIZES}\n\n{effects}"


def _terminal(caption: str, heads: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    table = Table(title=Text(caption, style="bold"), title_justify="left", box=SIMPLE_HEAD)
    for column, heading in enumerate(heads):
        table.add_column(Text(plain(heading)), justify="right" if column else "left")
    for line in lines:
        table.add_row(*(Text(plain(cell)) for cell in line))
    return table


def _markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(heads) - 1)]
    table = [[to_markdown(cell) for cell in heads], rule, *([to_markdown(cell) for cell in line] for line in lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in table) + "\n"


_HEADS = ["arm", "Hedges' g", "Δ in baseline sds", "seeds won", "P(better run)", "e-value", "P(within smallest effect)"]


def _size_cells(one: Sizes) -> list[str]:
    share, low, high = one.won
    return [
        one.arm,
        wording.signed(one.hedges_g, 2),
        wording.signed(one.baseline_sds, 2),
        f"{share:.0%} [{low:.0%}, {high:.0%}]",
        f"{one.superiority:.0%}",
        f"{one.e_value:.3g}",
        wording.NONE if one.equivalent is None else f"{one.equivalent:.1%}",
    ]


def _cells(row: Beside) -> list[str]:
    p = [wording.p_value(value) for value in row.p] if row.p else [wording.NONE] * len(row.arms)
    return [row.method, *p, wording.NONE if row.floor is None else wording.p_value(row.floor)]
