"""What may be asked of results: the arguments and options of analyze, calibrate and variance, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[
    str,
    typer.Argument(
        help="CSV or parquet with columns variant, seed, value (and metric, task, item, cluster, weight, status) "
        "or a column per metric; a W&B runs table; a folder of lm-eval sample logs; or mlflow:EXPERIMENT."
    ),
]
Baseline = Annotated[str | None, typer.Option(help="The variant every other is compared with.")]
Metric = Annotated[
    list[str] | None,
    typer.Option(help="Which metric, where there are several; more of them, or 'all', are explored beside the first."),
]
LowerIsBetter = Annotated[
    bool | None,
    typer.Option("--lower-is-better/--higher-is-better", help="Guessed from the metric's name unless told."),
]
SmallestEffect = Annotated[float | None, typer.Option(help="Smallest difference that matters; allows 'equivalent'.")]
Alpha = Annotated[float, typer.Option(min=0.0001, max=0.5, help="Family-wise error rate.")]
Columns = Annotated[list[str] | None, typer.Option("--map", help="Other column names: variant=model,seed=config.seed.")]
Target = Annotated[
    float | None, typer.Option(help="Compare every variant with this number instead of with a baseline.")
]
Unpaired = Annotated[bool, typer.Option("--unpaired", help="Equal seeds share nothing between variants.")]
NewItems = Annotated[
    bool, typer.Option("--new-items", help="The answer shall hold for other items too, not only for these.")
]
Anytime = Annotated[
    bool, typer.Option("--anytime", help="Judge by e-values: look after every seed, add seeds as you like.")
]
Guard = Annotated[
    list[str] | None,
    typer.Option(help="METRIC=MARGIN: also claim 'better without being worse on METRIC by MARGIN or more'."),
]
Methods = Annotated[
    bool, typer.Option("--methods", help="Also show what every other known method makes of the same data.")
]
History = Annotated[
    Path | None, typer.Option(help="Earlier runs whose noise a single run may borrow: a file like SOURCE.")
]
HistorySd = Annotated[float | None, typer.Option(help="That noise as a number: sd of one run.")]
HistoryDf = Annotated[float | None, typer.Option(help="Its degrees of freedom: runs less groups.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(help="MLflow server, file or folder; MLFLOW_TRACKING_URI or MLflow's default unless told."),
]
Out = Annotated[Path | None, typer.Option(help="Also write report, tables and forest plot into this folder.")]
CalibrateSource = Annotated[
    str | None,
    typer.Argument(
        metavar="RESULTS",
        help="Results as `analyze` reads them, or a sweep that was run: their design, their noise.",
    ),
]
Seeds = Annotated[int | None, typer.Option(min=2, help="Seeds of every data set; 5 unless RESULTS tell.")]
Arms = Annotated[int | None, typer.Option(min=1, help="Arms beside the baseline; 6 unless RESULTS tell.")]
Method = Annotated[str, typer.Option(help="Method by name; a wrong one lists them all.")]
Noise = Annotated[
    str | None,
    typer.Option(
        help="A scenario by name ('one arm 3x', 'exponential', 't3'; a wrong one lists them all), or with RESULTS "
        "'measured' (each arm's noise as it is, the default) or 'equal' (all arms alike)."
    ),
]
Pool = Annotated[bool, typer.Option("--pool", help="Deal identical arms from all runs of the baseline.")]
CalibrateMetric = Annotated[str | None, typer.Option(help="Which metric, where there are several.")]
CalibrateColumns = Annotated[
    list[str] | None, typer.Option("--map", help="Other column names: variant=model,seed=run.")
]
CalibrateAlpha = Annotated[float, typer.Option(min=0.0001, max=0.5, help="Family-wise error that is promised.")]
Simulations = Annotated[int, typer.Option(min=100, help="Data sets to judge.")]
CalibrateOut = Annotated[Path | None, typer.Option(help="Also write the p-value plot (SVG, HTML) into this folder.")]
VarianceSource = Annotated[
    str,
    typer.Argument(metavar="RESULTS", help="CSV or parquet with a row per score, or a folder of lm-eval sample logs."),
]
Factor = Annotated[
    list[str] | None,
    typer.Option(help="A column that is a source of noise; once per source. seed and item, if there, unless told."),
]
Variant = Annotated[list[str] | None, typer.Option(help="Look at this variant alone, or at these; at all unless told.")]
VarianceMetric = Annotated[list[str] | None, typer.Option(help="Which metric, where there are several.")]
VarianceColumns = Annotated[
    list[str] | None, typer.Option("--map", help="Other column names: variant=model,value=accuracy.")
]
Cost = Annotated[
    list[str] | None,
    typer.Option(help="FACTOR=COST of one more level, all else as it is, in any one unit: init_seed=3600."),
]
Fixed = Annotated[
    list[str] | None,
    typer.Option(help="A factor that a repetition would not draw anew: the items of a fixed benchmark."),
]
Checkpoint = Annotated[
    str | None, typer.Option(help="Column of checkpoints: also show what averaging the last ones would buy.")
]
Last = Annotated[int | None, typer.Option(min=1, help="Read the last so many checkpoints only.")]
Signal = Annotated[bool, typer.Option("--signal", help="Rank the benchmarks of RESULTS by signal over noise instead.")]
Scale = Annotated[str | None, typer.Option(help="With --signal: column of scales; do decisions hold at the largest?")]
VarianceOut = Annotated[Path | None, typer.Option(help="Also write the tables (Markdown, CSV) into this folder.")]
