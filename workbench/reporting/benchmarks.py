"""Which benchmarks can tell variants apart: what `workbench variance --signal` finds and how it reads.

Promises noise measured within variants only (never over variants flattened together, which would count the signal as
noise), beside every ratio what equal variants would show, and an F test adjusted for the number of benchmarks. A
benchmark that cannot be measured stays in the table with the reason.

The F test takes runs as independent: noise that variants share through their seeds counts as noise within, so it errs
on the side of finding less than the paired tests of `workbench analyze`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from workbench.errors import DataError, StatisticsError
from workbench.reporting import wording
from workbench.reporting.report import write_text
from workbench.reporting.sheets import Sheet, records_csv, sheets_markdown
from workbench.sources import Results, Source
from workbench.sources.designs import last_levels, order_by_size
from workbench.sources.table import Table, combine
from workbench.statistics.multiplicity import holm
from workbench.statistics.pairing import natural
from workbench.statistics.signal import DecisionAccuracy, Signal, decision_accuracy, measure_signal

ALPHA = 0.05
TITLE = "Which benchmarks can tell the variants apart"
TARGETS = ("target", "large", "full")  # names of a scale that need no number


class Repeats(NamedTuple):
    """Scores of one benchmark at one scale: float64[variants, repeats]."""

    variants: tuple[str, ...]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Benchmark:
    """What one benchmark at one scale can tell.

    Attributes:
        metric: Its name.
        scale: Label of the scale; None where the file has none.
        repeats: What was measured; None where it could not be.
        signal: Signal and noise; None likewise.
        p_adjusted: Its F test, by Holm over all benchmarks and scales.
        accuracy: How well its decisions hold at the largest scale; None at that scale, and where it cannot be told.
        refused: Why there is no signal, in words.
    """

    metric: str
    scale: str | None
    repeats: Repeats | None
    signal: Signal | None
    p_adjusted: float | None = None
    accuracy: DecisionAccuracy | None = None
    refused: str | None = None


def rank_benchmarks(
    source: Source,
    *,
    metrics: Sequence[str] = (),
    scale: str | None = None,
    checkpoint: str | None = None,
    last: int | None = None,
) -> list[Benchmark]:
    """Measure every benchmark of a source, the largest signal first, those that cannot be measured last.

    Args:
        source: Results with a variant and a seed per run; items are averaged first.
        metrics: Which; all unless given.
        scale: Column that tells the scale of a run; the one with the largest number, or called "target", decides.
        checkpoint: Column of checkpoints; the scores of a run's last ones are averaged.
        last: How many; all unless given.

    Raises:
        DataError: for a column that is not there, a single scale or scales without order, or no metric at all.
    """
    table = _averaged(source.table, checkpoint, last)
    found: list[Benchmark] = []
    scales = _scales(table, scale) if scale is not None else {None: table}
    target, largest = {}, list(scales)[-1]
    for label, part in reversed(scales.items()):
        held = Source(part)
        for metric in metrics or held.metrics():
            measured = _measure(held, metric, label)
            if label == largest:
                target[metric] = measured
            elif measured.repeats and (aim := target.get(metric)) and aim.repeats:
                measured = replace(measured, accuracy=_accuracy(measured.repeats, aim.repeats))
            found.append(measured)
    if not found:
        raise DataError("the file holds no metric", where=table.origin, expected="a column 'value' or one per metric")
    return sorted(_adjusted(found), key=lambda one: (-one.signal.ratio if one.signal else np.inf, one.metric))


def signal_sheet(found: Sequence[Benchmark]) -> Sheet:
    """Return the table with its reading."""
    scaled, judged = any(one.scale for one in found), any(one.accuracy for one in found)
    heads = ["benchmark", *(["scale"] if scaled else []), "runs", "noise", "signal/noise"]
    heads += ["if equal", "F", "p (Holm)", "ICC", *(["as target"] if judged else []), "tells apart"]
    rows = []
    for one in found:
        cells = [one.metric, *([one.scale or ""] if scaled else []), *_figures(one)]
        if judged:
            right = one.accuracy
            told = f"{right.share:.0%} ({_interval(100 * right.low, 100 * right.high, 0)})" if right else wording.NONE
            cells.append(told)
        rows.append((*cells, _reading(one)))
    return Sheet(TITLE, tuple(heads), tuple(rows), _summary(found))


def write_signal(found: Sequence[Benchmark], source: Source, folder: Path | str) -> list[Path]:
    """Write signal.md and signal.csv, and return their paths.

    Raises:
        StoreError: if the folder cannot be written.
    """
    folder, table = Path(folder), source.table
    notes = [*table.notes, f"From {table.origin}, SHA-256 {table.sha256}."]
    return [
        write_text(folder / "signal.md", sheets_markdown(TITLE, [signal_sheet(found)], notes)),
        write_text(folder / "signal.csv", records_csv([_record(one) for one in found])),
    ]


def expected_range(variants: int, repeats: int) -> float:
    """Return the ratio that equal variants show on average: the range of that many normal means, in sd of one run.

    Tippett (1925): E[range of V] = ∫ 1 - Φ(x)^V - (1 - Φ(x))^V dx.
    """
    x = np.linspace(-9.0, 9.0, 3601)
    density = 1 - ndtr(x) ** variants - ndtr(-x) ** variants
    return float(density.sum() * (x[1] - x[0]) / np.sqrt(repeats))


def _averaged(table: Table, checkpoint: str | None, last: int | None) -> Table:
    """Make checkpoints further items of their run: their scores are averaged with the others."""
    if checkpoint is None:
        return table
    table.require(checkpoint)
    kept = last_levels(table, checkpoint, last or len(table.labels(checkpoint)[1]))
    columns = dict(kept.columns)
    columns["item"] = combine(kept, ["item", checkpoint]) if "item" in columns else columns[checkpoint]
    columns.pop(checkpoint)
    return replace(kept, columns=columns)


def _scales(table: Table, column: str) -> dict[str | None, Table]:
    """Split the rows by scale, the target scale last."""
    table.require(column)
    codes, labels = table.labels(column)
    where = f"{table.origin}, column {column}"
    if len(labels) < 2:
        raise DataError("there is only one scale", where=where, expected="a small and a target scale", got=labels[0])
    named = [label for label in labels if label.lower() in TARGETS]
    if len(named) == 1:
        ordered = [label for label in labels if label not in named] + named
    else:
        ordered = order_by_size(labels, where)
    columns = {name: held for name, held in table.columns.items() if name != column}
    plain = replace(table, columns=columns)
    return {label: plain.take(np.flatnonzero(codes == labels.index(label))) for label in ordered}


def _measure(source: Source, metric: str, scale: str | None) -> Benchmark:
    try:
        repeats = _repeats(source.results(metric if metric != "value" or not source.tidy else None))
    except (DataError, StatisticsError) as error:
        return Benchmark(metric, scale, None, None, refused=_told(error))
    try:
        signal = measure_signal(repeats.scores)
    except StatisticsError as error:
        return Benchmark(metric, scale, repeats, None, refused=_told(error))
    if not np.isfinite(signal.ratio):
        return Benchmark(metric, scale, repeats, None, refused="no noise: the seeds change nothing")
    return Benchmark(metric, scale, repeats, signal)


def _repeats(results: Results) -> Repeats:
    """Arrange the finished runs as variants by repeats: equally many each, or the seeds that all variants share."""
    runs: dict[str, dict[str, float]] = {name: {} for name in sorted(results.variants)}
    for row in results.rows:
        if row.value is not None and row.status == "finished":
            runs[row.variant][str(row.seed)] = row.value
    if len({len(seeds) for seeds in runs.values()}) > 1:
        shared = set.intersection(*(set(seeds) for seeds in runs.values()))
        runs = {name: {seed: seeds[seed] for seed in shared} for name, seeds in runs.items()}
    if not all(runs.values()):
        raise StatisticsError("the variants share no seed that all of them finished", expected="two shared seeds")
    table = [[seeds[seed] for seed in sorted(seeds, key=natural)] for seeds in runs.values()]
    return Repeats(tuple(runs), np.array(table))


def _accuracy(small: Repeats, target: Repeats) -> DecisionAccuracy | None:
    shared = [name for name in small.variants if name in target.variants]
    if len(shared) < 3:
        return None
    means = (dict(zip(held.variants, held.scores.mean(axis=1), strict=True)) for held in (small, target))
    one, other = ([held[name] for name in shared] for held in means)
    return decision_accuracy(one, other)


def _adjusted(found: Sequence[Benchmark]) -> list[Benchmark]:
    measured = [one for one in found if one.signal is not None]
    adjusted: Sequence[float] = (
        holm([float(one.signal.p) for one in measured if one.signal]).tolist() if measured else []
    )
    p = {id(one): float(value) for one, value in zip(measured, adjusted, strict=True)}
    return [replace(one, p_adjusted=p.get(id(one))) for one in found]


def _told(error: DataError | StatisticsError) -> str:
    got = error.details["got"]
    return error.what if got is None else f"{error.what}: {got}"


def _figures(one: Benchmark) -> list[str]:
    if one.repeats is None:
        return [wording.NONE] * 7
    variants, runs = one.repeats.scores.shape
    if one.signal is None:
        return [f"{variants} × {runs}", *[wording.NONE] * 6]
    signal = one.signal
    return [
        f"{variants} × {runs}",
        f"{float(signal.noise):.3g}",
        f"{float(signal.ratio):.3g}",
        f"{expected_range(variants, runs):.3g}",
        f"{float(signal.f):.3g}",
        wording.p_value(one.p_adjusted),
        f"{float(signal.icc):.2f} ({_interval(float(signal.icc_low), float(signal.icc_high), 2)})",
    ]


def _reading(one: Benchmark) -> str:
    if one.signal is None:
        return wording.NONE
    return "yes" if _tells(one) else "not shown"


def _interval(low: float, high: float, places: int) -> str:
    return f"{low:.{places}f}–{high:.{places}f}"


def _tells(one: Benchmark) -> bool:
    return one.p_adjusted is not None and one.p_adjusted <= ALPHA


def _summary(found: Sequence[Benchmark]) -> tuple[str, ...]:
    measured, judged = [one for one in found if one.signal], [one.accuracy for one in found if one.accuracy]
    lines = [
        "Signal is the range of the variants' means, noise the sd of one run within its variant; 'if equal' is the "
        "ratio that variants without any difference show on average. ICC: share of a run's variance that the variants "
        "account for (95 % interval).",
        *(
            f"Not measured: {one.metric}{f' at {one.scale}' if one.scale else ''}: {one.refused}."
            for one in found
            if one.refused
        ),
    ]
    if measured:
        telling = sum(_tells(one) for one in measured)
        lines.insert(
            0, f"{telling} of {len(measured)} tell the variants apart (F test, family-wise error {ALPHA:.0%})."
        )
    if judged:
        better = sum(accuracy.low > 0.5 for accuracy in judged)
        lines.append(
            "'As target': share of pairs of variants that the largest scale orders the same way (95 % interval, for "
            f"other variants of this kind); {better} of {len(judged)} surely beat a coin."
        )
    return tuple(lines)


def _record(one: Benchmark) -> dict[str, object]:
    variants, runs = one.repeats.scores.shape if one.repeats else (None, None)
    found: dict[str, object] = {"metric": one.metric, "scale": one.scale, "variants": variants, "runs_each": runs}
    signal = one.signal._asdict() if one.signal else dict.fromkeys(Signal._fields)
    names = {"ratio": "signal_to_noise", "f": "f", "p": "p"}
    found |= {names.get(name, name): None if value is None else float(value) for name, value in signal.items()}
    found["p_holm"] = one.p_adjusted
    accuracy = one.accuracy._asdict() if one.accuracy else dict.fromkeys(DecisionAccuracy._fields)
    found |= {f"decision_accuracy_{name}": value for name, value in accuracy.items()}
    found["not_measured_because"] = one.refused
    return found
