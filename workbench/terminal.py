"""What a person sees in the terminal: the plan before it runs, the sweep while it runs, the verdict after it.

On a terminal that is a live board; elsewhere (a log file, CI) one line per finished cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from workbench.budgeting import Proposal
from workbench.identity import sources
from workbench.planning import Plan
from workbench.records import Numerics
from workbench.reporting.beside import Beside, Sizes, beside_table, sizes_table
from workbench.reporting.decision import Decision
from workbench.reporting.describing import concise
from workbench.reporting.escaping import plain
from workbench.reporting.naming import spoken
from workbench.reporting.report import verdict_lines
from workbench.reporting.sequential import stop
from workbench.reporting.sheets import Sheet, sheet_table
from workbench.reporting.tables import to_terminal
from workbench.statistics.boundaries import Design
from workbench.statistics.sequential import forecast

CLEAR_EFFECT = 2.0  # residual standard deviations of one run

console = Console(highlight=False)
if not console.is_terminal:  # a log file has no width; tables should not be squeezed into 80 columns
    console.width = 120
errors = Console(stderr=True, highlight=False)


def show_plan(plan: Plan, seconds: dict[str, float | None], workers: int, epochs: dict[str, float]) -> None:
    """Print what will run: per arm what differs and what it costs, then what these seeds can detect.

    Args:
        plan: What will run.
        seconds: Expected seconds of one cell of every arm.
        workers: Processes.
        epochs: How often an arm reads its documents, where that is known.
    """
    sweep = plan.sweep
    console.print(f"[bold]{escape(sweep.question)}[/bold]")
    console.print(f"plan {plan.hash[:12]}: {len(plan.arms)} arms, {len(sweep.seeds)} seeds, {len(plan.trials)} runs\n")
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("arm", "what differs from the baseline"):
        table.add_column(column, overflow="fold")
    figures = {
        "parameters": [_count(arm.size["parameters"]) for arm in plan.arms],
        "FLOPs/token": [_count(arm.size["flops_per_token"]) for arm in plan.arms],
        "tokens": [_count(arm.size["tokens"]) for arm in plan.arms],
        "steps": [_count(arm.size["steps"]) for arm in plan.arms],
        "epochs": [f"{epochs[arm.name]:.3g}" if arm.name in epochs else "?" for arm in plan.arms],
        "starts equal": [f"{arm.coverage['total']:.0%}" if arm.coverage else "?" for arm in plan.arms],
        "a run takes": [duration(took) if (took := seconds.get(arm.name)) else "?" for arm in plan.arms],
    }
    known = {heading: cells for heading, cells in figures.items() if set(cells) != {"?"}}
    for heading in known:
        table.add_column(heading, justify="right")
    for index, arm in enumerate(plan.arms):
        differs = escape("\n".join(_difference(entry) for entry in concise(arm.difference, arm.axis))) or "(baseline)"
        table.add_row(escape(arm.name), differs, *(cells[index] for cells in known.values()))
    console.print(table)
    if any(arm.size["flops_formula"] for arm in plan.arms):
        console.print(
            "[dim]FLOPs per training token are counted exactly, head included; plan.json spells the formula out[/dim]"
        )
    if any(arm.pairing == "declared" for arm in plan.arms):
        console.print(
            "Pairing is declared by the shared seed: what your trainer does with it, the workbench cannot prove."
        )
    for kind, source in sorted({one for arm in plan.arms for one in sources(arm.configuration).items()}):
        console.print(f"{escape(kind)} is your own, source {source[:12]}: edited, it is another model.")
    for told in sorted({_teacher(teacher) for arm in plan.arms for teacher in arm.size.get("teachers", ())}):
        console.print(told)
    console.print(_detectable(plan))
    if sweep.secondary:
        told = "; ".join(spoken(metric.name) + " (guard)" * (metric.name in sweep.guards) for metric in sweep.secondary)
        console.print(f"Verdicts stand on {escape(spoken(sweep.metric.name))}. Reported beside: {escape(told)}.")
    if plan.sequential:
        console.print(_sequential(plan, plan.sequential))
    if plan.numerics is not None:
        console.print(_shared(plan.numerics))
    if all(seconds.get(arm.name) is not None for arm in plan.arms):
        total = sum(seconds[trial.arm] or 0.0 for trial in plan.trials) / workers
        at_most = "At most" if plan.sequential else "Expected:"
        console.print(f"{at_most} about {duration(total)} with {workers} worker{'s' if workers > 1 else ''}.")
    console.print()


def _shared(numerics: Numerics) -> str:
    products = "" if numerics.matmul == "same" else f" with {numerics.matmul} products in training"
    alone, kept = numerics.devices == 1, "model sharded over them" if numerics.sharded else "model on each"
    return (
        f"Every arm shares: {numerics.device}, {numerics.precision}{products}, attention by {numerics.attention}, "
        f"{numerics.threads} thread{'s' if numerics.threads > 1 else ''} a {'run' if alone else 'device'}, "
        + ("all seeds of an arm as one stack" if numerics.execution == "stacked" else "one run")
        + ("" if alone else f" on {numerics.devices} devices ({kept})")
        + " at a time per worker."
    )


def _detectable(plan: Plan) -> str:
    sweep, deviations, equivalent = plan.sweep, plan.detectable, plan.equivalent
    unit = sweep.metric.unit or sweep.metric.name
    told = f"{deviations:.1f} standard deviations of one run, seed effect removed"
    if sweep.noise:
        told = (
            f"{deviations * sweep.noise:.3g} {unit} (one run's noise in a pilot, seed effect removed: {sweep.noise:g})"
        )
    text = (
        f"With {len(sweep.seeds)} seeds and {len(sweep.arms)} arms these tests find, four times in five, a difference "
        f"of {told}. Smallest effect that matters: {sweep.metric.smallest_effect:g} {unit}; family-wise error "
        f"{sweep.alpha:.0%}."
    )
    if equivalent is None:
        return text
    needed = plan.seeds_needed
    enough = f"about {needed} seeds" if needed else "more than 1,000 seeds"
    return (
        f"{text} Of arms that change nothing, {equivalent:.0%} would be called equivalent. Finding the smallest effect "
        f"that matters would take {enough}."
    )


def _teacher(teacher: dict[str, Any]) -> str:
    trained = teacher["training_flops"]
    first = f"trained before its first student ({trained:.2g} FLOPs) and " if trained else ""
    source = f", source {teacher['source'][:12]}," if teacher["source"] else ""
    return (
        f"A teacher ({teacher['kind']}) of {teacher['parameters']:,} parameters{source} is {first}asked once about "
        f"every document that its students read ({teacher['flops_per_token']:.2g} FLOPs per token)."
    )


def _sequential(plan: Plan, design: Design) -> str:
    none, clear = (forecast(design, effect).runs for effect in (0.0, CLEAR_EFFECT))
    futile = " or will hardly be" if design.futility else ""
    return (
        f"Sequential: from {design.looks[0]} seeds on, arms that are decided{futile} run no further seed. Of at most "
        f"{len(plan.trials)} runs about {none:.0f} are expected if no arm differs, {clear:.0f} if all differ by "
        f"{CLEAR_EFFECT:g} standard deviations of one run."
    )


def show_proposals(plan: Plan, proposals: Sequence[Proposal], budget: str) -> None:
    """Print how a budget of device time can be spent, and what each way would detect."""
    noise, unit = plan.sweep.noise, plan.sweep.metric.unit or plan.sweep.metric.name
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    headings = ["seeds", "tokens a run", "of those declared", "detects"]
    if noise:
        headings.append("identical arms called equivalent")
    for heading in headings:
        table.add_column(heading, justify="right")
    for one in proposals:
        found = f"{one.detectable * noise:.2g} {unit}" if noise else f"{one.detectable:.2f} sd of one run"
        cells = [str(one.seeds), _count(one.tokens), f"×{one.share:.2g}", found]
        table.add_row(*cells, *([f"{one.equivalent:.0%}"] if one.equivalent is not None else []))
    console.print(f"[bold]{escape(budget)} of device time, all of it spent:[/bold]")
    console.print(table)
    console.print(
        "[dim]Longer runs and more seeds cost the same here; the noise is taken to be the same at every length, which "
        "a pilot at that length can check.[/dim]\n"
    )


def show_beside(rows: Sequence[Beside], sizes: Sequence[Sizes]) -> None:
    """Print what other methods make of the same data, what is known against each of them, and effect sizes."""
    console.print(sizes_table(sizes))
    console.print(beside_table(rows))
    for row in rows:
        console.print(f"[dim]{escape(row.method)}: {escape(row.refused or row.fails)}[/dim]")


def show_sheets(title: str | None, sheets: Sequence[Sheet], closing: Sequence[str]) -> None:
    """Print tables with their reading, and what closes them."""
    if title is not None:
        console.print(f"[bold]{escape(plain(title))}[/bold]\n")
    for sheet in sheets:
        console.print(f"[bold]{escape(plain(sheet.title))}[/bold]")
        console.print(sheet_table(sheet))
        for sentence in sheet.reading:
            console.print(f"  {escape(plain(sentence))}")
        console.print()
    for note_ in closing:
        console.print(f"[dim]{escape(plain(note_))}[/dim]")


class Board:
    """Follows a sweep: one bar for all of it with the time left, one line per worker.

    Args:
        plan: What runs.
        seconds: Expected seconds per arm, to weigh cells; equal where unknown.
        done: Cells that are finished already.
    """

    def __init__(self, plan: Plan, seconds: dict[str, float | None], done: set[int]) -> None:
        self._plan = plan
        self._weight = {trial.cell: seconds.get(trial.arm) or 1.0 for trial in plan.trials}
        self._done, self._at_start = set(done), set(done)
        self._share: dict[int, float] = {}
        self._lines: dict[int, str] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("runs, {task.fields[left]}"),
            console=console,
        )
        self._task = self._progress.add_task("training", total=len(plan.trials), completed=len(done), left="")
        self._live = Live(console=console, refresh_per_second=4, transient=True, get_renderable=self._render)
        self.troubles: list[str] = []

    def __enter__(self) -> Board:
        if console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *caught: object) -> None:
        if console.is_terminal:
            self._live.stop()

    def tell(self, news: dict[str, Any]) -> None:
        """Take in one piece of news from a worker."""
        event, cell, worker = news["event"], int(news.get("cell", -1)), int(news.get("worker", -1))
        if event == "lost":
            self.troubles.append(f"a worker died; its cell is tried again (log: {news['log']})")
            return
        if event == "stopped":
            console.print(escape(stop(news["arm"], news["seeds"], news["state"])))
            return
        label = f"{news['arm']}, seed {news['seed']}"
        if event == "start":
            self._lines[worker] = f"  {label}: starting"
        elif event == "said":
            self._lines[worker] = f"  {label}: {news['text']}"
        elif event == "step":
            self._share[cell] = news["step"] / news["steps"]
            self._lines[worker] = (
                f"  {label}: step {news['step']} of {news['steps']}, loss {news['loss']:.3f}, "
                f"{news['tokens_per_second']:,.0f} tokens/s"
            )
        elif event == "done":
            self._done.add(cell)
            self._share.pop(cell, None)
            self._lines.pop(worker, None)
            if not console.is_terminal:
                console.print(f"[{len(self._done)}/{len(self._plan.trials)}] {escape(label)}: {news['status']}")
            if news["status"] != "finished":
                first = (news.get("reason") or "").split("\n")[0]
                self.troubles.append(f"{label} {news['status']}: {first}")

    def _render(self) -> Group:
        self._progress.update(self._task, completed=len(self._done), left=self._left())
        return Group(self._progress, *(escape(line) for _, line in sorted(self._lines.items())))

    def _left(self) -> str:
        elapsed = self._progress.tasks[0].elapsed or 0.0
        total = sum(self._weight.values()) - sum(self._weight[cell] for cell in self._at_start)
        gone = sum(self._weight[cell] for cell in self._done - self._at_start)
        gone += sum(self._weight[cell] * share for cell, share in self._share.items() if cell not in self._done)
        if not gone or elapsed < 2:
            return "estimating the time left"
        return f"about {duration(elapsed * (total - gone) / gone)} left"


def note(text: str) -> None:
    """Tell, on standard error, something that went wrong and stops nothing."""
    errors.print(f"[yellow]note:[/yellow] {escape(text)}", soft_wrap=True)


def show_decision(decision: Decision) -> None:
    """Print a verdict table with its footnotes; the verdicts of a primary metric also as sentences."""
    console.print(to_terminal(decision, width=console.width))
    for line in () if decision.exploratory else verdict_lines(decision):
        console.print(f"  {escape(line)}")
    if not decision.exploratory:
        console.print(f"[dim]{escape(decision.method[0])}[/dim]")
    for note in decision.footnotes:
        console.print(f"[dim]{escape(note)}[/dim]")


def show_sources_read(read: dict[str, dict[str, float]]) -> None:
    """Print how often arms that weigh the sources of their corpus read each of them, by arm and source."""
    for arm, read_by in read.items():
        told = ", ".join(f"{source} {times:.3g} times" for source, times in read_by.items())
        console.print(f"{escape(arm)} reads {escape(told)}.")


def _difference(entry: dict[str, Any]) -> str:
    before = "none" if entry["baseline"] is None else entry["baseline"]
    return f"{entry['path'].removeprefix('architecture.')}: {before} → {entry['arm']}"


def _count(value: float | None) -> str:
    return f"{value:,.0f}" if value is not None else "?"


def duration(seconds: float) -> str:
    """Word a time as people do: 45 s, 12 min, 3:20 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return str(timedelta(seconds=round(seconds / 60) * 60)).removesuffix(":00") + " h"
