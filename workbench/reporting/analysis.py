"""From results made elsewhere to decisions: what `workbench analyze` does.

Promises the statistics of a planned sweep on results from anywhere, a footnote for everything it had to assume (the
baseline, the metric's direction, what a variant is) and a label on every answer that covers less than retraining.
Where items are flagged as standing in training text, a metric is decided once more without them in any run.
Refuses to guess a baseline among several variants, and to test single runs on noise they do not have.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import DataError, StatisticsError, WorkbenchError
from workbench.reporting.answers import Terms, answer, pair_items_of, pair_results
from workbench.reporting.beside import Beside, Sizes, judge_beside, measure_sizes
from workbench.reporting.contaminated import CLEAN, source_without_contaminated
from workbench.reporting.decision import Decision
from workbench.sources import Results, Source, open_source
from workbench.statistics.guards import Guard, claim_all
from workbench.statistics.pairing import natural, unknown_baseline

LOWER = re.compile(r"(loss|perplexity|ppl|bits|bpb|bpc|nll|nats|error|wer|cer|cross_?entropy|latency|seconds|cost)")
CLEARED = " without contaminated items"  # beside a title
EVERY = "all"  # stands for every metric not yet named


def analyze(
    source: Path | str | Source, *, metric: str | None = None, mapping: Mapping[str, str] | None = None, **terms: Any
) -> Decision:
    """Decide one metric of results from elsewhere; see `Terms` for the keywords, `open_source` for the source.

    Raises:
        DataError: for what cannot be read, a baseline that is not given and not evident, or single runs without items.
        StatisticsError: for results no honest test accepts.
    """
    return analyze_all(source, Terms(**terms), metrics=[metric] if metric else [], mapping=mapping)[0]


def analyze_all(
    source: Path | str | Source,
    terms: Terms,
    *,
    metrics: Sequence[str] = (),
    mapping: Mapping[str, str] | None = None,
) -> list[Decision]:
    """Decide several metrics: the first named is the primary one, the others are exploratory.

    Direction and smallest effect are those of the primary metric; the others' directions are taken from their names.
    A secondary metric that cannot be decided is left out, and the primary decision says why. One with flagged items is
    followed by the same one without them, whose name ends with "@clean".

    Args:
        source: A path (see `open_source`), or a source that is open already.
        terms: What is asked.
        metrics: Names; "all" after the first stands for every other one there is. None where there is one only.
        mapping: Our column name -> theirs, for a path.

    Raises:
        DataError: as `analyze`, and for "all" without a primary metric before it.
        StatisticsError: for results no honest test accepts.
    """
    if EVERY in metrics[:1]:
        raise DataError(
            "which metric is the primary one?",
            where="--metric",
            expected="its name before 'all': one metric is decided, the others are explored",
            got="all",
            fix="--metric NAME --metric all",
        )
    named = [name for name in metrics if name != EVERY]
    guards = [name for name, _ in terms.guards]
    opened = source if isinstance(source, Source) else open_source(source, mapping, metrics=[*named, *guards])
    primary = _decide(opened.results(named[0] if named else None), terms)
    if terms.guards:
        primary = _guarded(opened, primary, terms)
    others = [*named[1:], *(name for name in opened.metrics() if EVERY in metrics and name not in named)]
    if others and (terms.target is not None or terms.history is not None):
        raise DataError(
            "a target or a history is about one metric", where="--metric", got=", ".join([named[0], *others])
        )
    left_out = []
    first, *decisions = _beside(opened, primary, terms, named[0] if named else None)
    rest = dataclasses.replace(terms, baseline=primary.baseline, lower_is_better=None, smallest_effect=None, guards=())
    for name in others:
        try:
            decision = _exploratory(_decide(opened.results(name), rest))
        except (DataError, StatisticsError) as error:
            left_out.append(f"metric {name} is not decided: {error.what}")
            continue
        decisions += _beside(opened, decision, rest, name)
    return [dataclasses.replace(first, footnotes=(*first.footnotes, *left_out)), *decisions]


def _beside(source: Source, decision: Decision, terms: Terms, asked: str | None) -> list[Decision]:
    """Return a decision and, where items of its metric are flagged, the same one without these items."""
    clean = source_without_contaminated(source, asked)
    if clean is None:
        return [decision]
    known = None if terms.target is not None else decision.baseline
    same = dataclasses.replace(terms, baseline=known, lower_is_better=not decision.higher_is_better, guards=())
    try:
        if clean.emptied:
            raise StatisticsError("no other item is left" + "".join(f" of {task}" for task in clean.emptied if task))
        again = _decide(clean.source.results(asked), same)
    except WorkbenchError as error:
        note = f"{clean.note.removesuffix(', and are left out in every run')}; without them nothing is decided: "
        return [dataclasses.replace(decision, footnotes=(*decision.footnotes, note + error.what))]
    again = dataclasses.replace(again, footnotes=(clean.note, *again.footnotes), title=again.title + CLEARED)
    name = decision.metric + CLEAN
    contrasts = tuple(dataclasses.replace(contrast, metric=name) for contrast in again.contrasts)
    return [decision, _exploratory(dataclasses.replace(again, metric=name, contrasts=contrasts))]


def _exploratory(decision: Decision) -> Decision:
    contrasts = tuple(dataclasses.replace(contrast, exploratory=True) for contrast in decision.contrasts)
    return dataclasses.replace(decision, exploratory=True, contrasts=contrasts)


def compare_methods(source: Source, terms: Terms, decision: Decision) -> tuple[list[Beside], list[Sizes]]:
    """Judge the same complete seeds by every method the workbench knows, and measure effects in the usual currencies.

    Raises:
        StatisticsError: where no two seeds have a finished run of every variant.
    """
    results = source.results(None if decision.metric == "value" else decision.metric)
    paired = pair_results(results, terms, decision.baseline, decision.higher_is_better)
    items = pair_items_of(results, decision.baseline, decision.higher_is_better) if results.scores else None
    return judge_beside(paired, terms.alpha, items), measure_sizes(paired, terms.smallest_effect)


def _guarded(source: Source, primary: Decision, terms: Terms) -> Decision:
    """Add the joint claim that the guards allow to every contrast."""
    if terms.target is not None or terms.history is not None or terms.new_items:
        raise DataError("a guard needs a baseline and runs under new seeds", where="--guard", got="another question")
    alone = dataclasses.replace(terms, lower_is_better=None)
    guards, footnotes = [], list(primary.footnotes)
    for name, margin in terms.guards:
        results = source.results(name)
        lower = _lower(results.metric)
        guards.append(Guard(pair_results(results, alone, primary.baseline, not lower), margin))
        footnotes.append(f"guard: {'lower' if lower else 'higher'} {results.metric} is taken to be better")
    own = pair_results(source.results(primary.metric), terms, primary.baseline, primary.higher_is_better)
    claims = claim_all(own, guards, alpha=terms.alpha)
    together = zip(primary.contrasts, claims, strict=True)
    contrasts = tuple(dataclasses.replace(contrast, guard=claim) for contrast, claim in together)
    return dataclasses.replace(primary, contrasts=contrasts, footnotes=tuple(footnotes))


def _lower(metric: str) -> bool:
    return LOWER.search(metric.lower()) is not None


def _decide(results: Results, terms: Terms) -> Decision:
    footnotes = list(results.notes)
    lower = terms.lower_is_better
    if lower is None:
        lower = _lower(results.metric)
        footnotes.append(
            f"{'lower' if lower else 'higher'} {results.metric} is taken to be better; "
            f"{'--higher-is-better' if lower else '--lower-is-better'} says otherwise"
        )
    if terms.smallest_effect is None:
        footnotes.append("no variant can be called equivalent, because no --smallest-effect that matters was named")
    baseline = None
    if terms.target is None:
        baseline, reason = _baseline(results, terms.baseline)
        footnotes = [reason, *footnotes] if reason else footnotes
    found = answer(results, terms, baseline, not lower)
    if found.label is not None:
        footnotes = [found.label, *footnotes]
    for contrast in found.contrasts:
        footnotes += [f"{contrast.arm}: {note}" for note in contrast.notes if note != found.label]
    return Decision(
        title=f"{_name(results)}: {results.metric.replace('_', ' ')}",
        question=found.question,
        metric=results.metric,
        unit="",
        higher_is_better=not lower,
        baseline=found.baseline,
        alpha=terms.alpha,
        smallest_effect=terms.smallest_effect,
        exploratory=False,
        contrasts=found.contrasts,
        arms={name: {} for name in (found.baseline, *(contrast.arm for contrast in found.contrasts))},
        method=found.method,
        footnotes=tuple(footnotes),
        facts={"File": _name(results), "SHA-256": results.sha256, **found.facts},
        complete=True,
        cells_done=len(results.rows),
        cells_planned=len(results.rows),
    )


def _baseline(results: Results, asked: str | None) -> tuple[str, str | None]:
    """Find the baseline and say why, where it was not named."""
    variants = sorted(results.variants, key=natural)
    if asked is not None:
        return _matching(asked, variants), None
    named = [name for name in variants if name.lower() == "baseline"]
    if len(named) == 1:
        return named[0], f"{named[0]} is taken as the baseline, by its name"
    if len(variants) == 2:
        return variants[0], f"{variants[0]} is taken as the baseline, first of two by name; --baseline chooses"
    if len(variants) == 1:
        raise DataError(
            "there is nothing to compare",
            where=results.origin,
            expected="a baseline and one more variant",
            got=variants[0],
        )
    shown = ", ".join(variants[:20]) + (f" and {len(variants) - 20} more" if len(variants) > 20 else "")
    raise DataError(
        "which variant is the baseline?",
        where=results.origin,
        expected="--baseline with one of " + shown,
        got="no choice",
        fix=f"--baseline '{variants[0]}'" if " " in variants[0] else f"--baseline {variants[0]}",
    )


def _matching(asked: str, variants: list[str]) -> str:
    """Find a variant by its name, or by settings that no other one has."""
    if asked in variants:
        return asked
    parts = {part.strip() for part in asked.split(",")}
    fitting = [name for name in variants if parts <= set(name.split(", "))]
    if len(fitting) > 1:
        raise StatisticsError(
            "more than one variant fits the baseline", expected="one of " + ", ".join(fitting), got=asked
        )
    if not fitting:
        raise unknown_baseline(asked, variants)
    return fitting[0]


def _name(results: Results) -> str:
    return results.origin if results.origin.startswith("mlflow:") else Path(results.origin).name
