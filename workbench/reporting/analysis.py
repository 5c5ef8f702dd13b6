"""From a file of results to a decision: what `workbench analyze` does.

Promises the statistics of a planned sweep on results from anywhere, and a footnote for everything it had to assume:
the baseline, the metric's direction. Refuses to guess a baseline among several variants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from workbench.errors import DataError
from workbench.reporting.decision import Decision, describe_method
from workbench.sources import Results, read_results
from workbench.statistics import contrast_all, pair
from workbench.statistics.pairing import natural, unknown_baseline

LOWER = re.compile(r"(loss|perplexity|ppl|bits|bpb|bpc|nll|nats|error|wer|cer|cross_?entropy|latency|seconds|cost)")


def analyze(
    path: Path | str,
    *,
    baseline: str | None = None,
    metric: str | None = None,
    lower_is_better: bool | None = None,
    smallest_effect: float | None = None,
    alpha: float = 0.05,
    mapping: Mapping[str, str] | None = None,
) -> Decision:
    """Decide a file of results: every variant against the baseline on one metric.

    Args:
        path: A CSV or parquet file; see `workbench.sources.read_results`.
        baseline: The variant to compare with; chosen where one is called "baseline" or there are just two.
        metric: Which metric, where the file holds several.
        lower_is_better: The metric's direction; taken from its name ("loss", "perplexity", ...) unless said.
        smallest_effect: Smallest difference that matters, in units of the metric; None offers no equivalence.
        alpha: Family-wise error.
        mapping: Our column name -> the file's.

    Raises:
        DataError: for a file that cannot be read, or a baseline that is not given and not evident.
        StatisticsError: for results no honest test accepts.
    """
    results = read_results(path, mapping, metric=metric)
    footnotes = []
    if baseline is None:
        baseline, reason = _choose_baseline(results)
        footnotes.append(reason)
    elif baseline not in results.variants:
        raise unknown_baseline(baseline, sorted(results.variants, key=natural))
    if lower_is_better is None:
        lower_is_better = LOWER.search(results.metric.lower()) is not None
        footnotes.append(
            f"{'lower' if lower_is_better else 'higher'} {results.metric} is taken to be better; "
            f"{'--higher-is-better' if lower_is_better else '--lower-is-better'} says otherwise"
        )
    if smallest_effect is None:
        footnotes.append("no variant can be called equivalent, because no --smallest-effect that matters was named")
    paired = pair(results.rows, baseline=baseline, metric=results.metric, higher_is_better=not lower_is_better)
    contrasts = contrast_all(paired, smallest_effect=smallest_effect, alpha=alpha)
    footnotes += [f"{contrast.arm}: {note}" for contrast in contrasts for note in contrast.notes]
    return Decision(
        title=f"{results.path.name}: {results.metric.replace('_', ' ')}",
        question=f"Which variants differ from {baseline} in {results.metric.replace('_', ' ')}?",
        metric=results.metric,
        unit="",
        higher_is_better=not lower_is_better,
        baseline=baseline,
        alpha=alpha,
        smallest_effect=smallest_effect,
        exploratory=False,
        contrasts=contrasts,
        arms={name: {} for name in (baseline, *paired.arms)},
        method=tuple(describe_method(contrasts, alpha, smallest_effect, "")),
        footnotes=tuple(footnotes),
        facts=_facts(results, paired.seeds),
        complete=True,
        cells_done=len(results.rows),
        cells_planned=len(results.rows),
    )


def _choose_baseline(results: Results) -> tuple[str, str]:
    variants = sorted(results.variants, key=natural)
    named = [name for name in variants if name.lower() == "baseline"]
    if len(named) == 1:
        return named[0], f"{named[0]} is taken as the baseline, by its name"
    if len(variants) == 2:
        return variants[0], f"{variants[0]} is taken as the baseline, first of two by name; --baseline chooses"
    raise DataError(
        "which variant is the baseline?",
        where=results.path,
        expected="--baseline with one of " + ", ".join(variants),
        got="no choice",
        fix=f"--baseline {variants[0]}",
    )


def _facts(results: Results, seeds: tuple[str, ...]) -> dict[str, str]:
    facts = {"File": results.path.name, "SHA-256": results.sha256, "Seeds": ", ".join(seeds)}
    if results.items:
        facts["Items"] = f"{results.items:,} per run"
    facts["Pairing"] = "declared by equal seed labels, not proven"
    return facts
