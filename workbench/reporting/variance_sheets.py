"""Variance components and advice as people read them: tables with a sentence each, a Markdown page, a CSV.

Promises a reason in words wherever a number could not be had, and never NaN.
"""

from __future__ import annotations

from math import prod, sqrt
from pathlib import Path

from workbench.reporting import wording
from workbench.reporting.report import write_text
from workbench.reporting.sheets import Sheet, records_csv, sheets_markdown
from workbench.reporting.variance import Explained
from workbench.sources.designs import Design
from workbench.statistics.components import Component, Components


def sheets(explained: Explained) -> list[Sheet]:
    """Return everything found as tables with their reading."""
    design, alone, parts = explained.design, explained.difference is None, []
    parts.append(
        Sheet(
            f"One score of one variant: {_size(design)}, mean {explained.score.mean:.4g}",
            ("source of variance", "sd", "95 % interval", "share", "df", *(["share of error"] if alone else [])),
            _rows(explained, explained.score),
            (*_largest(explained.score, "a score's variance"), *(_left(explained, explained.score) if alone else ())),
        )
    )
    if explained.difference is not None:
        parts.append(
            Sheet(
                "A difference between two variants at the same levels",
                ("source of variance", "sd", "95 % interval", "share", "df", "cancels", "share of error"),
                _rows(explained, explained.difference),
                (
                    "What two variants share (a lucky seed is lucky for both) cancels; what is left here is what a "
                    "verdict has to beat.",
                    *_largest(explained.difference, "a single difference's variance"),
                    *_left(explained, explained.difference),
                ),
            )
        )
    if explained.advice.averages:
        parts.append(_averages_sheet(explained))
    if explained.advice.purchases:
        parts.append(_purchases_sheet(explained))
    return parts


def closing(explained: Explained) -> list[str]:
    """Return what stands below the tables: the present standard error, and what to keep in mind."""
    if explained.advice.untold:
        return [f"No advice: {explained.advice.untold}.", *explained.notes]
    new = [name for name in explained.design.levels if name not in explained.fixed]
    kept = f", the same {' and '.join(explained.fixed)}" if explained.fixed else ""
    told = (
        f"Standard error of {explained.target}, over new {' and new '.join(new)}{kept}: {explained.advice.error:.3g}."
    )
    return [told, *explained.notes]


def records(explained: Explained) -> list[dict[str, object]]:
    """Return everything found as records in full precision, for a CSV."""
    metric, found = explained.design.metric, []
    for part, components in (("score", explained.score), ("difference", explained.difference)):
        for component in components.components if components else ():
            shared = _cancels(component, explained.score) if part == "difference" else None
            found.append(_record(part, metric, component, components, shared))
    for purchase in explained.advice.purchases:
        option = purchase.option
        found.append(
            {
                **{"part": "advice", "metric": metric, "source": option.factor, "more_levels": option.more},
                **{"cost": option.cost, "cuts_variance_by": option.gain, "standard_error": sqrt(option.variance)},
            }
        )
    for average in explained.advice.averages:
        found.append(
            {
                **{"part": "checkpoints averaged", "metric": metric, "levels": average.checkpoints},
                **{"cuts_variance_by": average.gain, "standard_error": average.error},
            }
        )
    return found


def write_variance(explained: Explained, folder: Path | str) -> list[Path]:
    """Write variance.md and variance.csv, and return their paths.

    Raises:
        StoreError: if the folder cannot be written.
    """
    design, folder = explained.design, Path(folder)
    origin = f"From {design.origin}, SHA-256 {design.sha256}."
    text = sheets_markdown(title(explained), sheets(explained), [*closing(explained), origin])
    return [
        write_text(folder / "variance.md", text),
        write_text(folder / "variance.csv", records_csv(records(explained))),
    ]


def title(explained: Explained) -> str:
    """Return the headline."""
    return f"Where the noise of {explained.design.metric.replace('_', ' ')} comes from"


def _size(design: Design) -> str:
    sizes = [f"{len(labels):,} {name}" for name, labels in design.levels.items()]
    if len(design.variants) > 1:
        sizes.insert(0, f"{len(design.variants)} variants")
    elif design.variants[0]:
        sizes.insert(0, design.variants[0])
    return " × ".join(sizes)


def _total(components: Components) -> float:
    return sum(component.estimate or 0.0 for component in components.components)


def _rows(explained: Explained, components: Components) -> tuple[tuple[str, ...], ...]:
    total, last = _total(components), components.components[-1]
    rows = []
    for component in components.components:
        name = " × ".join(component.source) + (
            " and the rest" if component is last and len(component.source) > 1 else ""
        )
        if component.estimate is None or component.low is None or component.high is None:
            figures = [wording.NONE, "cannot tell", wording.NONE, str(component.df)]
        else:
            interval = f"{sqrt(component.low):.3g} to {sqrt(component.high):.3g}"
            figures = [
                f"{sqrt(component.estimate):.3g}",
                interval,
                _share(component.estimate, total),
                str(component.df),
            ]
        if components is explained.difference:
            figures.append(_percent(_cancels(component, explained.score)))
        if components is explained.found:
            figures.append(_percent(_error_share(explained, component)))
        rows.append((name, *figures))
    return tuple(rows)


def _share(part: float, total: float) -> str:
    return _percent(part / total if total > 0 else None)


def _percent(share: float | None) -> str:
    return wording.NONE if share is None else f"{share:.0%}"


def _error_share(explained: Explained, component: Component) -> float | None:
    """Return a source's share of the squared standard error, after averaging over the levels there are."""
    if component.estimate is None or not explained.advice.error or set(component.source) <= set(explained.fixed):
        return None
    levels = explained.found.levels
    return component.estimate / prod(levels[factor] for factor in component.source) / explained.advice.error**2


def _cancels(component: Component, score: Components) -> float | None:
    """Return the share of a source's variance that a difference between two variants loses."""
    whole = score[component.source].estimate
    if component.estimate is None or not whole:
        return None
    return max(0.0, 1 - component.estimate / 2 / whole)


def _largest(components: Components, of: str) -> tuple[str, ...]:
    total = _total(components)
    blocked = [component.blocked for component in components.components if component.blocked]
    lines = [f"Cannot tell: {'; '.join(blocked)}. Shares are of what can be told."] if blocked else []
    if total > 0:
        first = max(components.components, key=lambda component: component.estimate or 0.0)
        share = (first.estimate or 0.0) / total
        lines.insert(0, f"The largest part of {of} comes from {' × '.join(first.source)} ({share:.0%}).")
    return tuple(lines)


def _left(explained: Explained, components: Components) -> tuple[str, ...]:
    """Say what dominates once the levels there are have been averaged."""
    shares = {c.source: _error_share(explained, c) or 0.0 for c in components.components}
    first = max(shares, key=lambda source: shares[source])
    if not shares[first]:
        return ()
    return (
        f"After averaging over all levels, most of the error left is from {' × '.join(first)} ({shares[first]:.0%}).",
    )


def _averages_sheet(explained: Explained) -> Sheet:
    limit = explained.advice.averages[-1]
    rows = tuple(
        (
            "however many" if average is limit else str(average.checkpoints),
            f"{average.error:.3g}",
            f"{average.gain:.0%}",
        )
        for average in explained.advice.averages
    )
    reading = (
        "Averaging takes away noise between checkpoints only: "
        f"{limit.gain:.0%} of the variance at most, the rest is that of the runs themselves.",
    )
    heads = ("last checkpoints averaged", "standard error", "cuts variance by")
    return Sheet(f"What averaging the last checkpoints buys for {explained.target}", heads, rows, reading)


def _purchases_sheet(explained: Explained) -> Sheet:
    found, best, target = explained.found, explained.advice.purchases[0].option, explained.target
    worth = [purchase.one_more / purchase.cost for purchase in explained.advice.purchases]
    budget = f"{max(purchase.cost for purchase in explained.advice.purchases):,.6g}"
    rows = tuple(
        (
            option.factor,
            f"{found.levels[option.factor]:,}",
            f"{100 * one_more:.3g}%",
            f"×{share / max(worth):.2g}" if max(worth) > 0 else wording.NONE,
            f"+{option.more:,}",
            f"{option.gain:.1%}",
            f"{sqrt(option.variance):.3g}",
        )
        for (option, _, one_more), share in zip(explained.advice.purchases, worth, strict=True)
    )
    heads = ("factor", "levels now", "one more cuts variance by", "per cost", f"{budget} buys", "cuts variance by")
    before, after = f"{explained.advice.error:.3g}", f"{sqrt(best.variance):.3g}"
    reading = (
        f"More levels of {best.factor} buy most: the standard error of {target} goes from {before} to {after}."
        if best.gain > 0
        else "None of them would make the answer more precise."
    )
    return Sheet(f"What {budget} more of cost buys for {target}", (*heads, "standard error"), rows, (reading,))


def _record(
    part: str, metric: str, component: Component, components: Components | None, cancels: float | None
) -> dict[str, object]:
    def root(value: float | None) -> float | None:
        return None if value is None else sqrt(value)

    total = _total(components) if components else 0.0
    share = None if component.estimate is None or total <= 0 else component.estimate / total
    return {
        "part": part,
        "metric": metric,
        "source": " × ".join(component.source),
        "levels": None,
        "df": component.df,
        "variance": component.estimate,
        "sd": root(component.estimate),
        "sd_low": root(component.low),
        "sd_high": root(component.high),
        "share": share,
        "cancels": cancels,
        "cannot_tell": component.blocked,
    }
