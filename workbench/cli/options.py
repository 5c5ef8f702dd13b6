"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SweepName = Annotated[
    str, typer.Argument(metavar="SWEEP", help="A name from `workbench sweeps`, or a .py, .yaml or .json file.")
]
Home = Annotated[
    Path,
    typer.Option("--home", envvar="WORKBENCH_HOME", help="Runtime folder: caches, runs, MLflow file, reports."),
]
Corpus = Annotated[
    str | None, typer.Option("--corpus", help="Train on this .txt, .jsonl or .parquet file (or folder) instead.")
]
HOME = Path(".workbench")
