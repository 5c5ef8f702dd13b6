"""One run, as a person sees it: a bar with the time left while it trains, and what came of it.

On a terminal that is one live line; elsewhere (a log file, CI) a line for every tenth of the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from workbench.planning import Plan
from workbench.records import Record
from workbench.reporting.naming import spoken
from workbench.statistics import ItemScores, run_means
from workbench.terminal import console, duration

LINES = 10  # of a run that is followed in a log


class Meter:
    """Follows one run through its stages.

    Args:
        clock: Seconds; tells how fast the run is.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[int, float] | None = None  # step and time of the first news of this stage
        self._told, self._last = 0, 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[told]}"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("training", total=None, told="")

    def __enter__(self) -> Meter:
        if console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *caught: object) -> None:
        if console.is_terminal:
            self._progress.stop()

    def tell(self, step: int, steps: int, loss: float, speed: float) -> None:
        """Take in that `step` of `steps` is done; speed in tokens per second."""
        if self._first is None or step < self._last:  # the first stage, or the next
            self._first, self._told = (step, self._clock()), 0
        self._last = step
        told = f"step {step:,}/{steps:,}, loss {loss:.3f}, {speed:,.0f} tokens/s"
        if console.is_terminal:
            description = "scoring" if step == steps else "training"
            text = f"{told}, {self._left(step, steps)}"
            self._progress.update(self._task, total=steps, completed=step, description=description, told=text)
        elif step * LINES // steps > self._told:
            self._told = step * LINES // steps
            console.print(f"{told}, {self._left(step, steps)}")

    def _left(self, step: int, steps: int) -> str:
        assert self._first is not None  # noqa: S101 - set by the first news
        begun, since = self._first
        if step == steps:
            return "all steps done"
        if step == begun:
            return "estimating the time left"
        return f"about {duration((self._clock() - since) * (steps - step) / (step - begun))} left"


def show_beginning(plan: Plan, adapted: list[str], tokens: int, epochs: float) -> None:
    """Print what is about to be trained, and on what.

    Args:
        plan: Of the one run.
        adapted: What differs from the preset or arm that was named.
        tokens: In the training documents.
        epochs: How often they are read.
    """
    arm, numerics = plan.arms[0], plan.numerics
    assert numerics is not None  # noqa: S101 - a plan with a configuration has numerics
    console.print(f"[bold]{escape(arm.name)}[/bold], seed {plan.sweep.seeds[0]}: {arm.size['parameters']:,} parameters")
    for change in adapted:
        console.print(f"  {escape(change)}", soft_wrap=True)
    threads = f"{numerics.threads} thread{'s' if numerics.threads > 1 else ''}"
    if numerics.devices > 1:
        threads += f" on each of {numerics.devices} devices" + (", each with its share" if numerics.sharded else "")
    console.print(
        f"{arm.size['tokens']:,} tokens in {arm.size['steps']:,} steps: {epochs:.3g} epochs of a corpus of {tokens:,}; "
        f"{numerics.device}, {numerics.precision}, attention by {numerics.attention}, {threads}",
        soft_wrap=True,
    )


def show_end(
    record: Record, scores: pa.Table, curve: pa.Table | None, *, utilisation: str | None, weights: str | None
) -> None:
    """Print how a run ended: loss, scores, speed, and where its weights lie.

    Args:
        record: Of the run.
        scores: Its item scores.
        curve: Its learning curve.
        utilisation: Of the device, with the formula's name; None where its peak is not known.
        weights: Path of the trained weights; None where there are none worth having.
    """
    costs = record.costs
    took = duration(costs.total_seconds)
    console.print(f"\n[bold]{escape(record.arm)}[/bold], seed {record.seed}: {record.status}, {took} in all")
    if record.reason:
        console.print(escape(record.reason))
    rows = []
    if curve is not None and len(curve):
        rows.append(("loss at the last step", f"{curve['loss'][-1].as_py():.4f} nats per token"))
    for metric, mean in means(scores).items():
        rows.append((spoken(metric), f"{mean:.4f} on held-out text"))
    if costs.tokens_per_second:
        rows.append(("speed", f"{costs.tokens_per_second:,.0f} tokens/s" + (f", {utilisation}" if utilisation else "")))
    rows.append(("run", record.run_id))
    if weights is not None:
        rows.append(("weights", weights))
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def means(scores: pa.Table) -> dict[str, float]:
    """Return the weighted mean of every metric over its items, in the order of the scores."""
    frame, found = scores.to_pandas(), {}
    for (task, metric), rows in frame.groupby(["task", "metric"], observed=True, sort=False):
        names = rows["item"].astype(str).to_numpy(dtype=np.str_)
        items = ItemScores(str(task), names, rows["value"].to_numpy(), rows["weight"].to_numpy())
        found[f"{task}/{metric}" if metric in found else str(metric)] = float(run_means([items])[0])
    return found
