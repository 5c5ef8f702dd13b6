"""The command that asks a trained model tasks, outside a sweep."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from workbench.cli.options import HOME, Corpus, Home, resolve_device
from workbench.errors import MissingExtra

if TYPE_CHECKING:
    from workbench.examining import Progress


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A run's id, SWEEP:ARM, SWEEP:ARM:SEED, a folder of weights, or a folder of a Hugging Face model.",
    ),
]
Tasks = Annotated[
    list[str],
    typer.Option(
        help="What it is asked, with commas between: blimp=FILE (and other benchmarks in their public schema), "
        "lm_eval:NAME or lm_eval:FILE.yaml, bits_per_byte (or =FILE of other text), swapped_words; repeatable."
    ),
]
FewShot = Annotated[int | None, typer.Option(min=0, help="Examples before every question.")]
Examples = Annotated[
    list[str] | None, typer.Option(help="BENCHMARK=FILE from which examples are taken, as mmlu=dev.jsonl.")
]
Items = Annotated[int | None, typer.Option(min=1, help="At most so many of each task, always the same.")]
Protocol = Annotated[
    Literal["lm-eval", "stlm"],
    typer.Option(help="How benchmarks are asked: as lm-eval does, or by the whole text's probability (stlm)."),
]
IncludePath = Annotated[
    Path | None, typer.Option(help="Folder of task definitions for lm_eval:NAME, before the harness's own.")
]
Against = Annotated[
    list[str] | None,
    typer.Option(
        help="Text that the model may have learned from, as FILE, FOLDER or GLOB: items found in it are flagged, like "
        "those in its own training text, and analyze shows results without them too; repeatable."
    ),
]
Name = Annotated[str | None, typer.Option(help="What results call the model; its arm or folder unless told.")]
Out = Annotated[
    Path | None, typer.Option(help="Folder for scores.parquet and summary.json, shared by models to be compared.")
]
Format = Annotated[Literal["table", "json"], typer.Option(help="How the summary is printed.")]
Batch = Annotated[int, typer.Option(min=1, help="Tokens at once: speed and memory, never the result.")]
Device = Annotated[str, typer.Option(help="cpu or cuda; auto takes what there is.")]


def evaluate(
    model: Model,
    tasks: Tasks,
    few_shot: FewShot = None,
    examples: Examples = None,
    items: Items = None,
    protocol: Protocol = "lm-eval",
    include_path: IncludePath = None,
    against: Against = None,
    name: Name = None,
    out: Out = None,
    format: Format = "table",
    batch: Batch = 2048,
    device: Device = "auto",
    corpus: Corpus = None,
    home: Home = HOME,
) -> None:
    """Ask a trained model, ours or of Hugging Face, benchmarks item by item, and keep the scores.

    Two models that are asked the same into one folder are compared by `workbench analyze`. A benchmark looked at often
    is fitted: evaluations of a model of a sweep are counted, and reports show how many there were.

        workbench evaluate quickstart:SwiGLU --tasks bits_per_byte,swapped_words
    """
    try:
        from workbench import examining
        from workbench.opening import open_asked
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "train") from None
    from workbench.store import Store

    asking = examining.read_tasks(
        tasks,
        shots=few_shot,
        items=items,
        protocol=protocol,
        examples=examples,
        include_path=None if include_path is None else str(include_path),
        against=against,
    )
    store = Store(home)
    askable = open_asked(model, store, corpus=corpus)
    with _bar(len(asking.tasks)) as progress:
        placed = resolve_device(device)
        scores = examining.examine(askable, asking, store, batch=batch, device=placed, progress=progress)
    folder = out or store.home / "evaluated"
    variants = examining.keep(folder, askable, name or askable.variant, scores, asking)
    rows = examining.summarise(scores)
    if format == "json":
        _print_json(askable.told, name or askable.variant, rows, folder)
        return
    _print(askable.told, rows)
    _print_next(folder, variants, rows[0])


def _print_json(told: str, variant: str, rows: list[dict[str, Any]], folder: Path) -> None:
    import json

    print(  # noqa: T201 - for a program to read, not for a terminal
        json.dumps({"model": told, "variant": variant, "scores": rows, "folder": str(folder)}, indent=2)
    )


def _print(told: str, rows: list[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from workbench.terminal import console

    console.print(f"[bold]{escape(told)}[/bold]")
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    shown = [name for name in ("truncated", "contaminated") if any(row[name] for row in rows)]
    for place, heading in enumerate(("task", "metric", "value", "standard error", "items", "clusters", *shown)):
        table.add_column(heading, justify="left" if place < 2 else "right", overflow="fold")
    for row in rows:
        error = "–" if row["standard_error"] is None else f"{row['standard_error']:.4f}"
        counts = (f"{row[name]:,}" for name in ("items", "clusters", *shown))
        table.add_row(escape(row["task"]), escape(row["metric"]), f"{row['value']:.4f}", error, *counts)
    console.print(table)
    console.print("[dim]standard error: over new items like these, by cluster; not over new training runs[/dim]")


def _print_next(folder: Path, variants: list[str], row: dict[str, Any]) -> None:
    from workbench.terminal import console

    place = shlex.quote(str(folder / "scores.parquet"))
    metric = shlex.quote(f"{row['task']}/{row['metric']}" if row["task"] != row["metric"] else row["metric"])
    if len(variants) > 1:
        command = f"workbench analyze {place} --baseline {shlex.quote(variants[0])} --metric {metric}"
        console.print(f"Next: {command}", soft_wrap=True, markup=False)
    else:
        told = f"Scores: {place}. Next: evaluate another model with the same --tasks and --out, and compare them."
        console.print(told, soft_wrap=True, markup=False)


@contextmanager
def _bar(tasks: int) -> Iterator[Progress]:
    """Show how far a task is and how long it still takes, on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description}"), BarColumn(bar_width=12), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task("reading", total=None)
        seen = -1

        def follow(number: int, label: str, done: int, total: int) -> None:
            nonlocal seen
            if number != seen:
                bar.reset(shown, description=f"{number + 1}/{tasks} {label}", total=total)
                seen = number
            bar.update(shown, completed=done, total=total)

        yield follow
