"""Verdicts that hold for other items too: every arm against the baseline over new seeds and new items.

Promises the verdicts, vetoes and notes of any other contrast, on a standard error that counts the items as drawn.
Refuses what `items` refuses. It is the wider question, not the default: most comparisons are about a benchmark as it
is.
"""

from __future__ import annotations

from workbench.statistics.cases import Case, Question, conclude
from workbench.statistics.contrasts import Contrast, Verdict
from workbench.statistics.items import NEW_SEEDS_AND_ITEMS, IdleSeeds, PairedItems, two_way
from workbench.statistics.samples import Sample, divergence, losses, samples
from workbench.statistics.student import StudentT


def contrast_new_items(
    table: PairedItems, *, smallest_effect: float | None = None, alpha: float = 0.05
) -> tuple[Contrast, ...]:
    """Compare every arm with the baseline over new seeds and new items.

    Two-way random effects per arm (`items.two_way`), Holm over the arms, intervals jointly at 1 - alpha. Each arm is
    judged on the seeds in which it and the baseline finished.

    Args:
        table: Item scores of one metric.
        smallest_effect: Smallest difference that matters, in units of the metric; None offers no equivalence.
        alpha: Family-wise error.

    Raises:
        StatisticsError: for an alpha outside (0, 0.5), a smallest effect that is not positive, or fewer than two
            items or clusters.
    """
    paired = table.paired
    units = "items" if table.clusters is None else "clusters of items"
    question = Question(
        baseline=paired.baseline,
        metric=paired.metric,
        higher_is_better=paired.higher_is_better,
        smallest_effect=smallest_effect,
        alpha=alpha,
        estimand=NEW_SEEDS_AND_ITEMS,
        method=f"two-way random effects over seeds and {units}, Satterthwaite t",
        label="holds for other items of the same kind too, which costs precision",
    )
    cases = [_case(table, row, sample) for row, sample in enumerate(samples(paired), start=1)]
    return conclude(cases, question)


def _case(table: PairedItems, row: int, sample: Sample) -> Case:
    """Test one arm by itself; one arm at a time keeps the memory at that of the table."""
    test, blocked = _test(table, row) if sample.runs >= 2 else (None, "fewer than two complete pairs")
    vetoed: set[Verdict] = set()
    if sample.diverged("arm"):
        vetoed |= {"better", "equivalent"}
    if sample.diverged("baseline"):
        vetoed |= {"worse", "equivalent"}
    planned = len(table.paired.seeds)
    return Case(
        arm=sample.arm,
        runs=sample.runs,
        missing=planned - sample.runs,
        estimate=sample.estimate,
        test=test,
        sd=sample.sd,
        blocked=blocked,
        vetoed=frozenset(vetoed),
        veto=divergence(sample),
        settled_by="more seeds alone may not settle it: items count as drawn too",
        differences=tuple(zip(sample.seeds, sample.differences.tolist(), strict=True)),
        notes=tuple(losses(sample, planned)),
    )


def _test(table: PairedItems, row: int) -> tuple[StudentT | None, str | None]:
    kept = (table.paired.status[[0, row]] == "finished").all(axis=0)
    differences = table.scores[row, kept] - table.scores[0, kept]
    try:
        found = two_way(differences, weights=table.weights, clusters=table.clusters)
    except IdleSeeds:
        return None, "no noise between seeds to test against"
    if not found.standard_error > 0:
        return None, "scores equal to the baseline's on every item"
    return StudentT(found.estimate, found.standard_error, found.p, found.df), None
