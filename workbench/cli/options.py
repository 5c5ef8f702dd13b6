"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from workbench.errors import WorkbenchError

SweepName = Annotated[
    str, typer.Argument(metavar="SWEEP", help="A name from `workbench sweeps`, or a .py, .yaml or .json file.")
]
Home = Annotated[
    Path,
    typer.Option("--home", envvar="WORKBENCH_HOME", help="Runtime folder: caches, runs, MLflow file, reports."),
]
Corpus = Annotated[
    str | None,
    typer.Option(
        "--corpus",
        help="Train on this file, folder or glob of .txt, .jsonl or .parquet instead, or on hub:tinystories "
        "(hub:? tells the other names), or hub:OWNER/NAME of the Hugging Face hub.",
    ),
]
Devices = Annotated[
    int | None,
    typer.Option(
        "--devices",
        min=1,
        help="GPUs (without one: processes) that train each run together, each with its share of every batch.",
    ),
]
Sharded = Annotated[
    bool,
    typer.Option(
        "--sharded", help="Each of these devices keeps a share of weights and optimizer (FSDP2), not all of it (DDP)."
    ),
]
Execution = Annotated[
    Literal["loop", "stacked"] | None,
    typer.Option(
        "--execution",
        help="Train the seeds of an arm one after the other (loop), or as one stack of models, for a GPU that one of "
        "them leaves idle (stacked).",
    ),
]
HOME = Path(".workbench")


def resolve_device(name: str) -> str:
    """Return the device that --device names, "auto" being what there is.

    Raises:
        WorkbenchError: if there is none of that name.
    """
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise WorkbenchError("there is no such device", where="--device", expected="auto, cpu or cuda", got=name)
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise WorkbenchError("there is no CUDA device", where="--device", got="none on this machine")
    return "cuda" if there and name != "cpu" else "cpu"
