"""Commands on results, from here or from elsewhere: analyze, calibrate, variance. None of them needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from workbench.cli import questions as ask
from workbench.cli.options import HOME, Home
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.reporting import Decision
    from workbench.sources import Source


def analyze(
    source: ask.Source,
    baseline: ask.Baseline = None,
    metric: ask.Metric = None,
    lower_is_better: ask.LowerIsBetter = None,
    smallest_effect: ask.SmallestEffect = None,
    alpha: ask.Alpha = 0.05,
    columns: ask.Columns = None,
    target: ask.Target = None,
    unpaired: ask.Unpaired = False,
    new_items: ask.NewItems = False,
    anytime: ask.Anytime = False,
    guard: ask.Guard = None,
    methods: ask.Methods = False,
    history: ask.History = None,
    history_sd: ask.HistorySd = None,
    history_df: ask.HistoryDf = None,
    tracking_uri: ask.TrackingUri = None,
    out: ask.Out = None,
) -> None:
    """Judge results from elsewhere by the same statistics. Needs no torch."""
    from workbench.reporting.analysis import analyze_all, compare_methods
    from workbench.reporting.answers import Terms
    from workbench.reporting.beside import beside_markdown
    from workbench.reporting.report import write_report, write_text
    from workbench.sources.history import declare_history
    from workbench.terminal import console, show_beside, show_decision

    mapping, metrics = _mapping(columns or []), metric or []
    terms = Terms(
        baseline=baseline,
        lower_is_better=lower_is_better,
        smallest_effect=smallest_effect,
        alpha=alpha,
        target=target,
        history=declare_history(history, history_sd, history_df, mapping, metrics[0] if metrics else None),
        unpaired=unpaired,
        new_items=new_items,
        anytime=anytime,
        guards=tuple(_guard(text) for text in guard or []),
    )
    wanted = [*metrics, *(name for name, _ in terms.guards if name not in metrics)] if metrics else []
    opened = _open(source, mapping, wanted, tracking_uri)
    decisions = analyze_all(opened, terms, metrics=metrics)
    for decision in decisions:
        show_decision(decision)
    beside = compare_methods(opened, terms, decisions[0]) if methods else None
    if beside:
        show_beside(*beside)
    if out:
        written = write_report(decisions, out)
        written += [write_text(out / "methods.md", beside_markdown(*beside))] if beside else []
        for path in written:
            console.print(str(path), soft_wrap=True)


def calibrate(
    source: ask.CalibrateSource = None,
    seeds: ask.Seeds = None,
    arms: ask.Arms = None,
    method: ask.Method = "seed-block bootstrap",
    noise: ask.Noise = None,
    pool: ask.Pool = False,
    baseline: ask.Baseline = None,
    metric: ask.CalibrateMetric = None,
    columns: ask.CalibrateColumns = None,
    alpha: ask.CalibrateAlpha = 0.05,
    simulations: ask.Simulations = 20_000,
    out: ask.CalibrateOut = None,
    home: Home = HOME,
) -> None:
    """Ask how often a method calls identical arms different: its whole procedure on data without any difference.

    `workbench calibrate --seeds 5 --arms 6` asks it of a design; `workbench calibrate RESULTS.csv --baseline NAME` of
    your design with noise like yours; `--pool` of real runs of one variant. `--method "percentile bootstrap"` shows
    what another method would have done.
    """
    from workbench.reporting import calibrating
    from workbench.reporting.calibration import describe, terminal_plot, write_calibration
    from workbench.terminal import console

    question = calibrating.Question(method, seeds, arms, noise, alpha, simulations)
    if source is None:
        if pool or baseline or metric or columns:
            raise WorkbenchError("there are no results to read", expected="RESULTS, or a design alone", got="options")
        found = calibrating.calibrate_design(question)
    elif _is_sweep(source):
        if pool or baseline or columns:
            raise WorkbenchError("a sweep knows its baseline and columns", expected="SWEEP alone, or with --metric")
        blocks = calibrating.blocks_of_decision(_decision(source, metric, home))
        found = calibrating.calibrate_blocks(blocks, question)
    else:
        held = _open(source, _mapping(columns or []), [metric] if metric else [], None).results(metric)
        found = calibrating.calibrate_results(held, baseline, question, pool=pool)
    for line in [*describe(found, method), "", *terminal_plot(found)]:
        console.print(line, soft_wrap=True, markup=False)
    for path in write_calibration(found, method, out) if out else []:
        console.print(str(path), soft_wrap=True)


def variance(
    source: ask.VarianceSource,
    factor: ask.Factor = None,
    variant: ask.Variant = None,
    metric: ask.VarianceMetric = None,
    columns: ask.VarianceColumns = None,
    cost: ask.Cost = None,
    fixed: ask.Fixed = None,
    checkpoint: ask.Checkpoint = None,
    last: ask.Last = None,
    signal: ask.Signal = False,
    scale: ask.Scale = None,
    out: ask.VarianceOut = None,
) -> None:
    """Say where the noise of a score comes from, and what the next unit of compute should buy.

    `workbench variance runs.csv --factor init_seed --factor data_seed --factor item` takes the noise apart: every
    variant must have a score for every combination. With `--cost init_seed=3600 --cost item=0.2` it says which of them
    makes the difference between two variants more precise. `--checkpoint step --last 5` shows what averaging the last
    five checkpoints would buy; `workbench variance runs.csv --signal` which benchmarks can tell variants apart at all.
    """
    if last is not None and checkpoint is None:
        raise WorkbenchError("which column tells the checkpoint?", where="--last", expected="--checkpoint COLUMN")
    mapping, metrics = _mapping(columns or []), metric or []
    if signal:
        for option, given in (("--factor", factor), ("--variant", variant), ("--cost", cost), ("--fixed", fixed)):
            if given:
                raise WorkbenchError("--signal asks another question", where=option, got=given[0])
        _show_signal(source, mapping, metrics, scale, checkpoint, last, out)
        return
    if scale is not None or len(metrics) > 1:
        raise WorkbenchError(
            "one question at a time",
            where="--scale" if scale else "--metric",
            expected="one metric; --signal for several, and for scales",
            got=scale or ", ".join(metrics),
        )
    from workbench.reporting import variance as noise
    from workbench.reporting import variance_sheets
    from workbench.sources.designs import read_design
    from workbench.terminal import console, show_sheets

    costs = _costs(cost or [])
    design = read_design(
        source,
        mapping,
        factors=factor or [],
        variants=variant or [],
        metric=metrics[0] if metrics else None,
        checkpoint=checkpoint,
        last=last,
    )
    explained = noise.explain_variance(design, costs=costs, fixed=fixed or [], checkpoint=checkpoint)
    show_sheets(variance_sheets.title(explained), variance_sheets.sheets(explained), variance_sheets.closing(explained))
    for path in variance_sheets.write_variance(explained, out) if out else []:
        console.print(str(path), soft_wrap=True)


def _show_signal(
    source: str,
    mapping: dict[str, str],
    metrics: list[str],
    scale: str | None,
    checkpoint: str | None,
    last: int | None,
    out: Path | None,
) -> None:
    from workbench.reporting.benchmarks import rank_benchmarks, signal_sheet, write_signal
    from workbench.terminal import console, show_sheets

    opened = _open(source, mapping, metrics, None)
    found = rank_benchmarks(opened, metrics=metrics, scale=scale, checkpoint=checkpoint, last=last)
    show_sheets(None, [signal_sheet(found)], opened.table.notes)
    for path in write_signal(found, opened, out) if out else []:
        console.print(str(path), soft_wrap=True)


def _costs(texts: list[str]) -> dict[str, float]:
    costs: dict[str, float] = {}
    for text in texts:
        name, _, amount = text.rpartition("=")
        try:
            costs[name.strip()] = float(amount)
        except ValueError:
            costs[name.strip()] = 0.0
        if not 0 < costs[name.strip()] < float("inf"):
            raise WorkbenchError(
                "a cost is a factor and a positive number", where="--cost", expected="init_seed=3600", got=text
            )
    return costs


def _is_sweep(source: str) -> bool:
    return not (source.startswith("mlflow:") or Path(source).suffix or Path(source).exists())


def _decision(sweep: str, metric: str | None, home: Path) -> Decision:
    from workbench.results import Results
    from workbench.session import decide
    from workbench.store import Store

    results = Results(Store(home))
    decisions = {decision.metric: decision for decision in decide(results, results.plan(sweep))}
    if metric is not None and metric not in decisions:
        raise WorkbenchError("the sweep decides no such metric", expected=", ".join(decisions), got=metric)
    return decisions[metric] if metric else next(iter(decisions.values()))


def _guard(text: str) -> tuple[str, float]:
    name, _, margin = text.rpartition("=")
    try:
        return name.strip(), float(margin)
    except ValueError:
        raise WorkbenchError(
            "a guard is a metric and what it may lose", where="--guard", expected="accuracy=0.02", got=text
        ) from None


def _mapping(columns: list[str]) -> dict[str, str]:
    pairs = [pair.partition("=") for text in columns for pair in text.split(",") if pair.strip()]
    if wrong := [name for name, equals, column in pairs if not (equals and column)]:
        raise WorkbenchError("--map cannot be read", expected="variant=model,seed=run", got=wrong[0])
    return {name.strip(): column.strip() for name, _, column in pairs}


def _open(source: str, mapping: dict[str, str], metrics: list[str], tracking_uri: str | None) -> Source:
    from workbench.sources import open_experiment, open_source

    kind, colon, experiment = source.partition(":")
    if not (kind == "mlflow" and colon):
        return open_source(source, mapping, metrics=metrics)
    from workbench.tracking import Unavailable, read_experiment

    try:
        runs = read_experiment(experiment, tracking_uri)
    except Unavailable as error:
        raise WorkbenchError(
            "the tracking server does not answer", where="--tracking-uri or MLFLOW_TRACKING_URI", got=error
        ) from None
    return open_experiment(source, runs, mapping, metrics=metrics)
