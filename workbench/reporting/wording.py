"""Numbers and verdicts in words: the one place that decides how a result reads.

Promises that every number of a decision is shown to the precision its noise allows, that no table ever shows NaN, and
that "undecided" always says what would help.
"""

from __future__ import annotations

from math import floor, log10
from statistics import median

from workbench.reporting.decision import Decision
from workbench.statistics import Claim, Contrast

NONE = "–"
MINUS = "−"

PAIRINGS = {
    "tokens": "same text, token by token",
    "documents": "same documents in the same order",
    "text": "same text in another order",
    "sources": "same order within each source, another mix",
    "corpus": "same corpus, other text of it",
    "none": "not paired: other seeds",
    "declared": "declared by the shared seed, not proven",
}


def decimals(decision: Decision) -> int:
    """Return the decimals all differences of a decision are shown with: two digits of the typical uncertainty."""
    shown = decision.contrasts
    halves = [(c.high - c.low) / 2 for c in shown if c.low is not None and c.high is not None and c.high > c.low]
    sizes = halves or [c.sd for c in shown if c.sd] or [abs(c.estimate) for c in shown if c.estimate]
    return min(max(1 - floor(log10(median(sizes))), 0), 8) if sizes else 2


def signed(value: float | None, places: int) -> str:
    """Write a difference with its sign: +0.150, −0.021, 0.000."""
    if value is None:
        return NONE
    text = f"{abs(value):.{places}f}"
    if float(text) == 0:
        return text
    return (MINUS if value < 0 else "+") + text


def difference(contrast: Contrast, places: int) -> str:
    """Write a difference and its simultaneous interval: +0.150 [+0.120, +0.180]."""
    estimate = signed(contrast.estimate, places)
    if contrast.low is None or contrast.high is None:
        return estimate
    return f"{estimate} [{signed(contrast.low, places)}, {signed(contrast.high, places)}]"


def p_value(p: float | None) -> str:
    """Write a p-value as papers do: <.001, .0314, .27, 1."""
    if p is None:
        return NONE
    if p < 0.001:
        return "<.001"
    text = f"{p:.4f}" if p < 0.1 else f"{p:.2f}"
    return "1" if float(text) >= 1 else text.removeprefix("0")


def correlation(r: float | None) -> str:
    """Write a correlation: .83, −.12."""
    if r is None:
        return NONE
    text = f"{abs(r):.2f}"
    sign = MINUS if r < 0 and float(text) > 0 else ""
    return sign + ("1" if float(text) >= 1 else text.removeprefix("0"))


def count(value: float | None, *, sign: bool = False) -> str:
    """Write a count with thousands separated; with a sign where it is a difference."""
    if value is None:
        return NONE
    text = f"{abs(value):,.0f}"
    prefix = MINUS if value < 0 else "+" if sign and value > 0 else ""
    return prefix + text


def pairing(level: str | None) -> str:
    """Say how far the runs of an arm share their noise with the baseline's, and who says so."""
    return PAIRINGS.get(level or "", NONE)


def coverage(shares: dict[str, float] | None) -> str:
    """Write the share of parameters that start equal in arm and baseline: in total, and without embeddings."""
    return f"{100 * shares['total']:.0f} % ({100 * shares['without_embeddings']:.0f} %)" if shares else NONE


def magnitude(value: float | None) -> str:
    """Write a large number short: 3.1 M, 1.2 G."""
    if value is None:
        return NONE
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:.3g}"


def verdict(contrast: Contrast) -> str:
    """Write the verdict for a table cell; undecided with what would settle it."""
    if contrast.verdict is None:
        return NONE
    if contrast.verdict != "undecided":
        return contrast.verdict
    needed = ">50 seeds" if contrast.more_seeds is None else f"+{contrast.more_seeds} seeds"
    return f"undecided ({contrast.blocked or needed})"


def settling(contrast: Contrast) -> str:
    """Say what an undecided contrast needs."""
    if contrast.blocked is not None:
        return contrast.blocked
    if contrast.more_seeds is None:
        return "more than 50 more seeds"
    return f"about {contrast.more_seeds} more seed{'s' * (contrast.more_seeds != 1)}"


def sentence(contrast: Contrast, decision: Decision) -> str:
    """Write the verdict as a sentence without its subject: "worse: 0.15 bits per byte more [0.12, 0.18]"."""
    places = decimals(decision)
    smallest = decision.smallest_effect
    unit = f" {decision.unit}" if decision.unit else ""
    seeds = "seed" if contrast.pairs == 1 else "seeds"
    if contrast.verdict is None and contrast.estimate is None:
        return "no verdict yet: no seed is finished in both arms"
    if contrast.verdict is None:
        return f"no verdict yet: {signed(contrast.estimate, places)}{unit} over {contrast.pairs} {seeds} so far"
    estimate = contrast.estimate
    if estimate is None or contrast.low is None or contrast.high is None:
        return f"undecided: {contrast.blocked}"
    if contrast.verdict == "equivalent":
        return f"equivalent: {signed(estimate, places)}{unit}, within the ±{smallest:g} that does not matter"
    if contrast.verdict == "undecided":
        return f"undecided: {difference(contrast, places)}{unit}; {_settled_by(contrast)}"
    ends = sorted((abs(contrast.low), abs(contrast.high)))
    more = "more" if estimate > 0 else "less"
    text = f"{contrast.verdict}: {abs(estimate):.{places}f}{unit} {more} [{ends[0]:.{places}f}, {ends[1]:.{places}f}]"
    if contrast.verdict == "better" and contrast.guard is not None:
        text = f"{text}, {claim(contrast.guard)}"
    if contrast.relevance == "unclear":
        return f"{text}, perhaps less than the {smallest:g} that matters"
    return f"{text}, less than the {smallest:g} that matters" if contrast.relevance == "within" else text


def claim(held: Claim) -> str:
    """Write a joint claim: "without being worse on accuracy by 0.02 or more (p .003)"."""
    guards = " and ".join(f"on {metric} by {margin:g} or more" for metric, margin in held.margins)
    if held.holds:
        return f"without being worse {guards} (p {p_value(held.p)})"
    return f"not shown without being worse {guards} ({held.blocked or 'p ' + p_value(held.p)})"


def _settled_by(contrast: Contrast) -> str:
    if contrast.blocked is not None:
        return contrast.blocked
    return (
        f"{settling(contrast)} would be needed"
        if contrast.more_seeds is None
        else f"{settling(contrast)} would settle it"
    )
