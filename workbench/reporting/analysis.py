"""From results made elsewhere to decisions: what `workbench analyze` does.

Promises the statistics of a planned sweep on results from anywhere, a footnote for everything it had to assume (the
baseline, the metric's direction, what a variant is) and a label on every answer that covers less than retraining.
Refuses to guess a baseline among several variants, and to test single runs on noise they do not have.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.errors import DataError, StatisticsError
from workbench.reporting.beside import Beside, Sizes, judge_beside, measure_sizes
from workbench.reporting.decision import Decision
from workbench.reporting.describing import describe_method, describe_residual
from workbench.sources import Results, Source, open_source
from workbench.statistics.contrasts import Contrast, contrast_all
from workbench.statistics.guards import Guard, claim_all
from workbench.statistics.items import ItemRun, PairedItems, pair_items
from workbench.statistics.new_items import contrast_new_items
from workbench.statistics.pairing import ItemScores, Paired, natural, pair, unknown_baseline
from workbench.statistics.single import (
    History,
    contrast_items_only,
    contrast_target,
    contrast_with_history,
)

LOWER = re.compile(r"(loss|perplexity|ppl|bits|bpb|bpc|nll|nats|error|wer|cer|cross_?entropy|latency|seconds|cost)")
EVERY = "all"  # stands for every metric not yet named


@dataclass(frozen=True)
class Terms:
    """What is asked of the results.

    Attributes:
        baseline: The variant to compare with; chosen where one is called "baseline" or there are just two. Settings
            that only one variant has ("position=rope") name it too.
        lower_is_better: The metric's direction; taken from its name ("loss", "perplexity", ...) unless said.
        smallest_effect: Smallest difference that matters, in units of the metric; None offers no equivalence.
        alpha: Family-wise error.
        target: A number to compare every variant with, instead of a baseline.
        history: Noise of one run from earlier runs, for arms with a single run.
        unpaired: Equal seed labels mean nothing: no arm shares its noise with the baseline.
        new_items: The answer shall hold for other items too, not only for these under other seeds.
        guards: (metric, margin): "better" is also claimed jointly with "worse on that metric by less than the margin".
    """

    baseline: str | None = None
    lower_is_better: bool | None = None
    smallest_effect: float | None = None
    alpha: float = 0.05
    target: float | None = None
    history: History | None = None
    unpaired: bool = False
    new_items: bool = False
    guards: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class _Answer:
    """The contrasts of one metric and how they are to be described."""

    baseline: str
    contrasts: tuple[Contrast, ...]
    question: str
    method: tuple[str, ...]
    facts: dict[str, str]
    label: str | None = None


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
    A secondary metric that cannot be decided is left out, and the primary decision says why.

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
    decisions, left_out = [], []
    rest = dataclasses.replace(terms, baseline=primary.baseline, lower_is_better=None, smallest_effect=None, guards=())
    for name in others:
        try:
            decision = _decide(opened.results(name), rest)
        except (DataError, StatisticsError) as error:
            left_out.append(f"metric {name} is not decided: {error.what}")
            continue
        contrasts = tuple(dataclasses.replace(contrast, exploratory=True) for contrast in decision.contrasts)
        decisions.append(dataclasses.replace(decision, exploratory=True, contrasts=contrasts))
    return [dataclasses.replace(primary, footnotes=(*primary.footnotes, *left_out)), *decisions]


def compare_methods(source: Source, terms: Terms, decision: Decision) -> tuple[list[Beside], list[Sizes]]:
    """Judge the same complete seeds by every method the workbench knows, and measure effects in the usual currencies.

    Raises:
        StatisticsError: where no two seeds have a finished run of every variant.
    """
    results = source.results(None if decision.metric == "value" else decision.metric)
    paired = _pair(results, terms, decision.baseline, decision.higher_is_better)
    items = _pair_items(results, decision.baseline, decision.higher_is_better) if results.scores else None
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
        guards.append(Guard(_pair(results, alone, primary.baseline, not lower), margin))
        footnotes.append(f"guard: {'lower' if lower else 'higher'} {results.metric} is taken to be better")
    own = _pair(source.results(primary.metric), terms, primary.baseline, primary.higher_is_better)
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
    if terms.target is not None:
        answer = _against_target(results, terms, not lower)
    else:
        baseline, reason = _baseline(results, terms.baseline)
        footnotes = [reason, *footnotes] if reason else footnotes
        answer = _against_baseline(results, terms, baseline, not lower)
    if answer.label is not None:
        footnotes = [answer.label, *footnotes]
    for contrast in answer.contrasts:
        footnotes += [f"{contrast.arm}: {note}" for note in contrast.notes if note != answer.label]
    return Decision(
        title=f"{_name(results)}: {results.metric.replace('_', ' ')}",
        question=answer.question,
        metric=results.metric,
        unit="",
        higher_is_better=not lower,
        baseline=answer.baseline,
        alpha=terms.alpha,
        smallest_effect=terms.smallest_effect,
        exploratory=False,
        contrasts=answer.contrasts,
        arms={name: {} for name in (answer.baseline, *(contrast.arm for contrast in answer.contrasts))},
        method=answer.method,
        footnotes=tuple(footnotes),
        facts={"File": _name(results), "SHA-256": results.sha256, **answer.facts},
        complete=True,
        cells_done=len(results.rows),
        cells_planned=len(results.rows),
    )


def _against_target(results: Results, terms: Terms, higher_is_better: bool) -> _Answer:
    target = terms.target or 0.0
    if terms.baseline is not None:
        raise DataError(
            "a question has either a baseline or a target",
            where="--target",
            expected="one of them",
            got=f"--baseline {terms.baseline} --target {target:g}",
            fix="ask twice; being beyond a target says nothing about the baseline",
        )
    contrasts = contrast_target(
        results.rows,
        target,
        metric=results.metric,
        higher_is_better=higher_is_better,
        history=terms.history,
        smallest_effect=terms.smallest_effect,
        alpha=terms.alpha,
    )
    first = f"Differences are a variant's mean minus the target {target:g}, which is taken as exact."
    return _Answer(
        baseline=contrasts[0].baseline,
        contrasts=contrasts,
        question=f"Which variants are beyond {target:g} in {results.metric.replace('_', ' ')}?",
        method=_describe(contrasts, terms, first, "variants"),
        facts={"Runs": _runs(results)},
        label=contrasts[0].notes[0],
    )


def _against_baseline(results: Results, terms: Terms, baseline: str, higher_is_better: bool) -> _Answer:
    question = f"Which variants differ from {baseline} in {results.metric.replace('_', ' ')}?"
    if terms.history is not None:
        contrasts = contrast_with_history(
            results.rows,
            terms.history,
            baseline=baseline,
            metric=results.metric,
            higher_is_better=higher_is_better,
            smallest_effect=terms.smallest_effect,
            alpha=terms.alpha,
        )
        first = (
            "Differences are an arm's mean minus the baseline's; seeds need not be shared, and their noise is borrowed."
        )
        method = _describe(contrasts, terms, first, "arms")
        return _Answer(baseline, contrasts, question, method, {"Runs": _runs(results)}, contrasts[0].notes[0])
    if results.scores is not None and _single(results):
        return _over_items(results, terms, baseline, higher_is_better, question)
    return _over_seeds(results, terms, baseline, higher_is_better, question)


def _over_seeds(results: Results, terms: Terms, baseline: str, higher_is_better: bool, question: str) -> _Answer:
    _refuse_lonely_runs(results, baseline, terms.unpaired)
    paired = _pair(results, terms, baseline, higher_is_better)
    facts = {"Seeds": ", ".join(paired.seeds)}
    if results.items:
        facts["Items"] = f"{results.items:,} per run"
    pairing = "none: declared unpaired" if terms.unpaired else "declared by equal seed labels, not proven"
    facts["Pairing"] = pairing
    if terms.new_items:
        table = _pair_items(results, baseline, higher_is_better)
        contrasts = contrast_new_items(table, smallest_effect=terms.smallest_effect, alpha=terms.alpha)
        first = f"Differences are arm minus baseline under the same seed; the estimand is {contrasts[0].estimand}."
        return _Answer(
            baseline, contrasts, question, _describe(contrasts, terms, first, "arms"), facts, contrasts[0].notes[0]
        )
    contrasts = contrast_all(paired, smallest_effect=terms.smallest_effect, alpha=terms.alpha)
    method = tuple(describe_method(contrasts, terms.alpha, terms.smallest_effect, ""))
    return _Answer(baseline, contrasts, question, method, {**facts, **describe_residual(contrasts[0])})


def _pair(results: Results, terms: Terms, baseline: str, higher_is_better: bool) -> Paired:
    arms = [name for name in results.variants if name != baseline]
    return pair(
        results.rows,
        baseline=baseline,
        metric=results.metric,
        higher_is_better=higher_is_better,
        unpaired=arms if terms.unpaired else None,
    )


def _pair_items(results: Results, baseline: str, higher_is_better: bool) -> PairedItems:
    scores = results.scores
    if scores is None:
        raise DataError(
            "new items need scores of single items",
            where=results.origin,
            expected="a column 'item'",
            got="one score per run",
        )
    held = {
        run: ItemScores(f"variant {run[0]}, seed {run[1]}", scores.items, scores.values[row], scores.weights)
        for row, run in enumerate(scores.runs)
    }
    rows = [ItemRun(row.variant, row.seed, held.get((row.variant, str(row.seed))), row.status) for row in results.rows]
    clusters = None if scores.clusters is None else dict(zip(scores.items, scores.clusters, strict=True))
    return pair_items(
        rows, baseline=baseline, metric=results.metric, higher_is_better=higher_is_better, clusters=clusters
    )


def _over_items(results: Results, terms: Terms, baseline: str, higher_is_better: bool, question: str) -> _Answer:
    scores = results.scores
    assert scores is not None  # noqa: S101 - told apart by the caller
    lost = [f"{row.variant} ({row.status})" for row in results.rows if row.status != "finished"]
    if lost:
        raise DataError(
            "a variant with a single run has no score",
            where=results.origin,
            expected="one finished run per variant",
            got=", ".join(lost),
        )
    clusters = None if scores.clusters is None else np.unique(scores.clusters, return_inverse=True)[1]
    contrasts = contrast_items_only(
        {variant: scores.values[row] for row, (variant, _) in enumerate(scores.runs)},
        baseline=baseline,
        metric=results.metric,
        higher_is_better=higher_is_better,
        weights=None if (scores.weights == scores.weights[0]).all() else scores.weights,
        clusters=clusters,
        smallest_effect=terms.smallest_effect,
        alpha=terms.alpha,
    )
    first = "Differences are arm minus baseline item by item, one run each; the estimand is these runs on new items."
    facts = {"Items": f"{results.items:,}, one run per variant"}
    if clusters is not None:
        facts["Clusters"] = f"{len(set(scores.clusters or ())):,}"
    method = _describe(contrasts, terms, first, "arms")
    return _Answer(baseline, contrasts, question, method, facts, contrasts[0].notes[0])


def _describe(contrasts: Sequence[Contrast], terms: Terms, first: str, what: str) -> tuple[str, ...]:
    """Say in sentences how contrasts without paired seeds were decided."""
    family = contrasts[0].family
    each = what.removesuffix("s")
    every = f"all {family} {what}" if family > 1 else f"the one {each}"
    test = contrasts[0].method.partition(", Holm")[0]
    margin = terms.smallest_effect
    return (
        first,
        f"p: {test}, two-sided, adjusted by Holm over {every}: the chance of any false better or worse is at most "
        f"{100 * terms.alpha:.3g} %.",
        f"Intervals are simultaneous: {100 * (1 - terms.alpha):.4g} % over {every} (Bonferroni).",
        f"Equivalent means within ±{margin:g}, by two one-sided tests with Holm over {every}."
        if margin is not None
        else f"No smallest effect that matters was named, so that no {each} can be called equivalent.",
        "MDE is the true difference this test would have shown with 80 % power at the corrected level.",
    )


def _refuse_lonely_runs(results: Results, baseline: str, unpaired: bool) -> None:
    """Name the way out where the runs leave no paired test, and there is one."""
    if _single(results):
        raise DataError(
            "every variant has a single run, which says nothing about another",
            where=results.origin,
            expected="two seeds per variant, better five",
            got=_runs(results),
            fix="repeat the runs under more seeds; or borrow the noise of earlier runs: --history FILE, or "
            "--history-sd SD --history-df DF",
        )
    seeds: dict[str, set[str]] = {}
    for row in results.rows:
        seeds.setdefault(row.variant, set()).add(str(row.seed))
    others = [held for name, held in seeds.items() if name != baseline]
    if unpaired or not others or any(held & seeds[baseline] for held in others):
        return
    raise DataError(
        f"no variant shares a seed with {baseline}",
        where=results.origin,
        expected="runs of both under the same seeds",
        got="; ".join(
            f"{name}: seeds {', '.join(sorted(held, key=natural)[:5])}" for name, held in list(seeds.items())[:4]
        ),
        fix="label runs that belong together with the same seed; or, where nothing is shared, say so: --unpaired",
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


def _single(results: Results) -> bool:
    return len(results.variants) == len(results.rows)


def _runs(results: Results) -> str:
    counts = Counter(row.variant for row in results.rows if row.status == "finished")
    names = sorted(results.variants, key=natural)
    if len({counts[name] for name in names}) == 1:
        return f"{counts[names[0]]} per variant"
    return ", ".join(f"{name} {counts[name]}" for name in names)


def _name(results: Results) -> str:
    return results.origin if results.origin.startswith("mlflow:") else Path(results.origin).name
