"""One question about one metric, answered: what `analyze` may be asked, and which contrasts answer it.

Promises that the test follows from the question and the data (a target, borrowed noise, single runs with items, shared
seeds, new items, any number of looks), never from a p-value, and that an answer which covers less than retraining is
labelled. Refuses questions that exclude each other, and names the way out where the runs leave no test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.errors import DataError
from workbench.reporting.describing import describe_method, describe_residual
from workbench.sources import Results
from workbench.statistics.anytime import LABEL, contrast_anytime
from workbench.statistics.contrasts import Contrast, contrast_all
from workbench.statistics.items import ItemRun, PairedItems, pair_items
from workbench.statistics.new_items import contrast_new_items
from workbench.statistics.pairing import ItemScores, Paired, natural, pair
from workbench.statistics.single import History, contrast_items_only, contrast_target, contrast_with_history


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
        anytime: Seeds are added as long as one likes: the answer holds at every look.
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
    anytime: bool = False
    guards: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Answer:
    """The contrasts of one metric and how they are to be described; `label` is what every one of them leaves out."""

    baseline: str
    contrasts: tuple[Contrast, ...]
    question: str
    method: tuple[str, ...]
    facts: dict[str, str]
    label: str | None = None


def answer(results: Results, terms: Terms, baseline: str | None, higher_is_better: bool) -> Answer:
    """Answer a question about one metric.

    Args:
        results: The scores.
        terms: What is asked.
        baseline: The variant to compare with; None where a target is asked about.
        higher_is_better: Direction of the metric.

    Raises:
        DataError: for questions that exclude each other, or runs that leave no test; with the way out.
        StatisticsError: for results no honest test accepts.
    """
    wider = [name for name, asked in (("--new-items", terms.new_items), ("--anytime", terms.anytime)) if asked]
    if len(wider) > 1 or (wider and (baseline is None or terms.history is not None)):
        raise DataError("one question at a time", where=", ".join(wider), got="questions that exclude each other")
    if baseline is None:
        return _against_target(results, terms, higher_is_better)
    return _against_baseline(results, terms, baseline, higher_is_better)


def _against_target(results: Results, terms: Terms, higher_is_better: bool) -> Answer:
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
    return Answer(
        baseline=contrasts[0].baseline,
        contrasts=contrasts,
        question=f"Which variants are beyond {target:g} in {results.metric.replace('_', ' ')}?",
        method=_describe(contrasts, terms, first, "variants"),
        facts={"Runs": _runs(results)},
        label=contrasts[0].notes[0],
    )


def _against_baseline(results: Results, terms: Terms, baseline: str, higher_is_better: bool) -> Answer:
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
        return Answer(baseline, contrasts, question, method, {"Runs": _runs(results)}, contrasts[0].notes[0])
    if results.scores is not None and _single(results):
        return _over_items(results, terms, baseline, higher_is_better, question)
    return _over_seeds(results, terms, baseline, higher_is_better, question)


def _over_seeds(results: Results, terms: Terms, baseline: str, higher_is_better: bool, question: str) -> Answer:
    _refuse_lonely_runs(results, baseline, terms.unpaired)
    paired = pair_results(results, terms, baseline, higher_is_better)
    facts = {"Seeds": ", ".join(paired.seeds)}
    if results.items:
        facts["Items"] = f"{results.items:,} per run"
    pairing = "none: declared unpaired" if terms.unpaired else "declared by equal seed labels, not proven"
    facts["Pairing"] = pairing
    if terms.new_items:
        table = pair_items_of(results, baseline, higher_is_better)
        contrasts = contrast_new_items(table, smallest_effect=terms.smallest_effect, alpha=terms.alpha)
        first = f"Differences are arm minus baseline under the same seed; the estimand is {contrasts[0].estimand}."
        return Answer(
            baseline, contrasts, question, _describe(contrasts, terms, first, "arms"), facts, contrasts[0].notes[0]
        )
    if terms.anytime:
        contrasts = contrast_anytime(paired, smallest_effect=terms.smallest_effect, alpha=terms.alpha)
        return Answer(baseline, contrasts, question, _describe_anytime(contrasts, terms), facts, LABEL)
    contrasts = contrast_all(paired, smallest_effect=terms.smallest_effect, alpha=terms.alpha)
    method = tuple(describe_method(contrasts, terms.alpha, terms.smallest_effect, ""))
    return Answer(baseline, contrasts, question, method, {**facts, **describe_residual(contrasts[0])})


def pair_results(results: Results, terms: Terms, baseline: str, higher_is_better: bool) -> Paired:
    """Arrange the runs of one metric as arms by seeds."""
    arms = [name for name in results.variants if name != baseline]
    return pair(
        results.rows,
        baseline=baseline,
        metric=results.metric,
        higher_is_better=higher_is_better,
        unpaired=arms if terms.unpaired else None,
    )


def pair_items_of(results: Results, baseline: str, higher_is_better: bool) -> PairedItems:
    """Arrange the item scores of one metric as arms by seeds by items.

    Raises:
        DataError: where the source has one score per run.
    """
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


def _over_items(results: Results, terms: Terms, baseline: str, higher_is_better: bool, question: str) -> Answer:
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
    return Answer(baseline, contrasts, question, method, facts, contrasts[0].notes[0])


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


def _describe_anytime(contrasts: Sequence[Contrast], terms: Terms) -> tuple[str, ...]:
    every = f"all {contrasts[0].family} arms" if contrasts[0].family > 1 else "the one arm"
    rate = f"{100 * terms.alpha:.3g} %"
    return (
        "Differences are arm minus baseline under the same seed, seeds in their order; the estimand is "
        f"{contrasts[0].estimand}.",
        f"p is the inverse of the largest e-value an arm ever reached, stepping down over {every}: the chance of any "
        f"false better or worse, over all looks at any number of seeds, is at most {rate}.",
        f"Intervals are confidence sequences, {100 - 100 * terms.alpha:g} % over {every} and all looks together.",
        f"Equivalent means an interval within ±{terms.smallest_effect:g}."
        if terms.smallest_effect is not None
        else "No smallest effect that matters was named, so that no arm can be called equivalent.",
        "The price: for one arm 2 sd away, ten seeds show 74 % where a design with a last seed shows 93 %.",
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


def _single(results: Results) -> bool:
    return len(results.variants) == len(results.rows)


def _runs(results: Results) -> str:
    counts = Counter(row.variant for row in results.rows if row.status == "finished")
    names = sorted(results.variants, key=natural)
    if len({counts[name] for name in names}) == 1:
        return f"{counts[names[0]]} per variant"
    return ", ".join(f"{name} {counts[name]}" for name in names)
