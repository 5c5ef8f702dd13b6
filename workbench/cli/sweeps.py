"""Commands on sweeps: list, plan, prepare, run, deliver, export, look."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.options import HOME, Corpus, Devices, Execution, Home, Sharded, SweepName
from workbench.errors import MissingExtra, PlanError, WorkbenchError

if TYPE_CHECKING:
    from workbench.launching import Deliverer
    from workbench.planning import Trial
    from workbench.session import Session


def sweeps() -> None:
    """List the sweeps that come with the workbench."""
    import ast

    from workbench.loading import known_sweeps
    from workbench.terminal import console

    for name, path in known_sweeps().items():
        told = ast.get_docstring(ast.parse(path.read_text())) or ""
        console.print(f"[bold]{name}[/bold]  {told.splitlines()[0]}\n    [dim]{path}[/dim]", soft_wrap=True)


def plan(
    sweep: SweepName,
    budget: Annotated[
        str | None, typer.Option(help="Device time to spend, as 120h or 90min: shows seeds against tokens.")
    ] = None,
    devices: Devices = None,
    sharded: Sharded = False,
    execution: Execution = None,
    corpus: Corpus = None,
    home: Home = HOME,
) -> None:
    """Show what a sweep would run, what exactly differs, what it costs and what it can detect; write plan.json."""
    from workbench.budgeting import parse_budget, propose
    from workbench.estimating import epochs, seconds_per_cell, sources_read
    from workbench.launching import default_workers
    from workbench.session import open_session
    from workbench.terminal import console, show_plan, show_proposals, show_sources_read

    device_seconds = parse_budget(budget) if budget else None
    session = open_session(sweep, home, corpus, devices=devices, sharded=sharded, execution=execution)
    session.store.ensure_writable()
    seconds = seconds_per_cell(session.plan, session.store)
    show_plan(session.plan, seconds, default_workers(session.plan), epochs(session.plan, session.store))
    show_sources_read(sources_read(session.plan, session.store))
    if device_seconds:
        show_proposals(session.plan, propose(session.plan, seconds, device_seconds), budget or "")
    path = session.store.save_plan(session.plan.hash, session.plan.document())
    console.print(f"Plan written to {path}\nNext: workbench run {sweep}", soft_wrap=True)


def prepare(
    sweep: Annotated[str, typer.Argument(metavar="[SWEEP]")] = "quickstart", corpus: Corpus = None, home: Home = HOME
) -> None:
    """Do all downloads and builds a sweep needs (corpus, tokens, teachers), so that `run` needs no network."""
    from workbench.running import Runner
    from workbench.session import open_session
    from workbench.terminal import console

    session = open_session(sweep, home, corpus)
    session.store.ensure_writable()
    prepared = Runner(session.plan, session.store, say=console.print).prepare(teachers=True)
    if not prepared:
        console.print("Nothing to prepare: every arm is a command of yours.")
    for facts in prepared:
        console.print(
            f"{facts.training_documents:,} documents to train on ({facts.training_tokens:,} tokens, "
            f"{facts.bytes_per_token:.2f} bytes each), {facts.held_out_documents:,} held out"
        )


def run(
    sweep: SweepName,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one per GPU or core unless told.")] = None,
    cell: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Run this one cell in this process, without queue or MLflow (Slurm arrays). Stopped by SIGTERM it "
            "writes a checkpoint and exits with code 130; the same command goes on from there.",
        ),
    ] = None,
    devices: Devices = None,
    sharded: Sharded = False,
    execution: Execution = None,
    corpus: Corpus = None,
    home: Home = HOME,
) -> None:
    """Plan, train, evaluate, deliver to MLflow, decide and report. Run it again to go on after an interruption.

    How the arithmetic is done (device, precision, threads, devices, torch.compile, recomputed activations) the sweep
    says in `numerics=NumericsRequest(...)`.
    """
    from workbench.session import open_session

    session = open_session(sweep, home, corpus, devices=devices, sharded=sharded, execution=execution)
    session.store.ensure_writable()
    if cell is not None:
        _run_cell(session, cell)
    else:
        _run_sweep(session, workers)


def work(
    sweep: SweepName,
    corpus: Corpus = None,
    home: Home = HOME,
    plan_hash: Annotated[str | None, typer.Option("--plan", help="Refuse to work on any other plan.")] = None,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
    devices: Devices = None,
    sharded: Sharded = False,
    execution: Execution = None,
) -> None:
    """Add one worker to a sweep that runs; it may be killed at any time."""
    from workbench.session import open_session
    from workbench.together import process_command
    from workbench.working import work as work_on

    session = open_session(sweep, home, corpus, devices=devices, sharded=sharded, execution=execution)
    _refuse_another(session, plan_hash)
    work_on(session.plan, session.store, parent, process_command("rank", sweep, session.plan, session.store, corpus))


def rank(
    sweep: SweepName,
    cell: Annotated[int, typer.Option(min=0, help="The cell that is trained.")],
    devices: Devices = None,
    sharded: Sharded = False,
    corpus: Corpus = None,
    home: Home = HOME,
    plan_hash: Annotated[str | None, typer.Option("--plan", help="Refuse to work on any other plan.")] = None,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Be one of the devices that train a cell together, as `run --devices` starts them on one machine.

    For several machines, on each of them: `torchrun --nnodes 2 --nproc-per-node 8 ... -m workbench rank SWEEP --cell 0
    --devices 16`, with a runtime folder that all of them see.
    """
    from workbench.session import open_session
    from workbench.single import DECLARED, open_declared
    from workbench.working import work_as_device

    session = (
        open_declared(sweep, home)
        if Path(sweep).name == DECLARED
        else open_session(sweep, home, corpus, devices=devices, sharded=sharded, execution="loop")
    )
    _refuse_another(session, plan_hash)
    raise typer.Exit(work_as_device(session.plan, session.store, _trial(session, cell), parent))


def sync(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Runtime folders of other machines, merged into this one.")
    ] = None,
    home: Home = HOME,
) -> None:
    """Merge runs from other runtime folders and deliver what MLflow does not have yet."""
    from workbench.session import deliver, merge
    from workbench.store import Store
    from workbench.terminal import console
    from workbench.tracking import Unavailable

    store = Store(home)
    store.ensure_writable()
    if folders:
        console.print(f"{merge(store, folders)} runs merged into {store.home}", soft_wrap=True)
    try:
        written, present = deliver(store)
    except Unavailable as error:
        raise WorkbenchError(
            "the tracking server does not answer", where="MLFLOW_TRACKING_URI", got=error, fix="workbench sync, later"
        ) from None
    console.print(f"{written} runs delivered to MLflow, {present} were there already")


def export(
    sweep: Annotated[
        str | None, typer.Argument(metavar="[SWEEP]", help="A sweep's name or the start of a plan's hash.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the files.")] = None,
    home: Home = HOME,
) -> None:
    """Write the report, the tables (LaTeX, Markdown, CSV) and the forest plot of the newest plan, or of SWEEP's."""
    import json

    from workbench.reporting.report import portable
    from workbench.results import Results
    from workbench.session import publish
    from workbench.store import Store
    from workbench.terminal import console

    results = Results(Store(home))
    document = results.plan(sweep)
    folder = out or results.store.reports(document["sweep"])
    _, paths = publish(results, document, folder)
    plan_path = folder / "plan.json"
    plan_path.write_text(json.dumps(portable(document, Path.cwd()), indent=2) + "\n")
    for path in [*paths, plan_path]:
        console.print(str(path), soft_wrap=True)


def dashboard(
    port: Annotated[int, typer.Option(help="Port on this machine; the server listens to localhost only.")] = 8501,
    home: Home = HOME,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser window.")] = True,
) -> None:
    """Open the dashboard on this runtime folder and its MLflow store; it follows a running sweep."""
    import importlib.util

    if importlib.util.find_spec("streamlit") is None:
        raise MissingExtra("streamlit", "dashboard")
    from dashboard import app as page

    arguments = [
        *(sys.executable, "-m", "streamlit", "run", str(page.PATH)),
        *("--server.address", "localhost", "--server.port", str(port)),
        *("--server.headless", "false" if browser else "true", "--server.fileWatcherType", "none"),
        *("--browser.gatherUsageStats", "false"),
        *("--", str(home.absolute())),
    ]
    os.execv(sys.executable, arguments)  # noqa: S606 - a list of arguments, no shell


def _refuse_another(session: Session, plan_hash: str | None) -> None:
    found = session.plan.hash
    if plan_hash is not None and found != plan_hash:
        where, expected = session.sweep, f"plan {plan_hash}"
        raise PlanError("the sweep changed while it was running", where=where, expected=expected, got=found)


def _trial(session: Session, cell: int) -> Trial:
    trials = session.plan.trials
    if cell >= len(trials):
        raise PlanError("there is no such cell", where="--cell", expected=f"0 to {len(trials) - 1}", got=cell)
    return trials[cell]


def _run_cell(session: Session, cell: int) -> None:
    from workbench.session import Frontier
    from workbench.terminal import console
    from workbench.together import process_command
    from workbench.working import run_one

    trial = _trial(session, cell)
    session.store.save_plan(session.plan.hash, session.plan.document())
    if trial not in Frontier(session.plan, session.store)():
        console.print(f"cell {cell} ({trial.arm}, seed {trial.seed}) is not asked for, or not yet: nothing to run")
        return
    devices = process_command("rank", session.sweep, session.plan, session.store, session.corpus)
    record = run_one(session.plan, session.store, trial, lambda *news: None, devices)
    if record is None:
        console.print(f"cell {cell} was stopped, or another process works on it; run it again to go on")
        raise typer.Exit(130)
    console.print(f"cell {cell} ({trial.arm}, seed {trial.seed}): {record.status}, {record.costs.total_seconds:.1f} s")
    if record.reason:
        console.print(record.reason, soft_wrap=True, markup=False)
    console.print("When all cells are done: workbench sync, then workbench export")


def _run_sweep(session: Session, workers: int | None) -> None:
    from workbench import terminal
    from workbench.estimating import epochs, seconds_per_cell, sources_read
    from workbench.launching import Deliverer, Interrupted, default_workers, launch, worker_command
    from workbench.running import Runner
    from workbench.session import Frontier

    plan, store, console = session.plan, session.store, terminal.console
    document = plan.document()
    store.save_plan(plan.hash, document)
    workers = workers or default_workers(plan)
    seconds = seconds_per_cell(plan, store)
    terminal.show_plan(plan, seconds, workers, epochs(plan, store))
    Runner(plan, store, say=lambda text: console.print(f"[dim]{text}[/dim]")).prepare()
    terminal.show_sources_read(sources_read(plan, store))
    finished = {trial.cell for trial, record in session.cells() if record and record.status != "failed"}
    if finished:
        console.print(f"{len(finished)} of {len(plan.trials)} runs are done already.")
    deliverer = Deliverer(plan, store)
    for trial, record in session.cells():
        if record:
            deliverer.put(trial)
    board = terminal.Board(plan, seconds, finished)

    def tell(news: dict[str, object]) -> None:
        board.tell(news)
        if news["event"] == "done":
            deliverer.put(plan.trials[int(str(news["cell"]))])

    try:
        with board:
            command = worker_command(session.sweep, plan, store, session.corpus)
            launch(plan, store, command, workers, tell, Frontier(plan, store, board.tell))
    except Interrupted:
        deliverer.close()
        again = shlex.join(["workbench", *sys.argv[1:]])
        console.print(f"Interrupted; what is done is kept. To go on: {again}", soft_wrap=True)
        raise typer.Exit(130) from None
    _conclude(session, deliverer, board.troubles)


def _conclude(session: Session, deliverer: Deliverer, troubles: list[str]) -> None:
    from workbench import terminal
    from workbench.results import Results
    from workbench.session import clear_reports, publish

    console = terminal.console
    results = Results(session.store, tracked=False)
    folder = clear_reports(session.store, session.plan.sweep.name)
    decisions, paths = publish(results, session.plan.document(), folder)
    for trial in session.plan.trials:  # those of workers added by hand, too; what is there already is not written again
        deliverer.put(trial)
    deliverer.close(folder)
    if deliverer.trouble:
        troubles.append(
            f"MLflow could not be written ({deliverer.trouble}); results are kept here; to deliver them: workbench sync"
        )
    for trouble in troubles:
        terminal.note(trouble)
    for decision in decisions:
        terminal.show_decision(decision)
    console.print("\nReport: " + str(next(path for path in paths if path.suffix == ".html")), soft_wrap=True)
    home = "" if session.store.home == HOME.absolute() else f" --home {shlex.quote(str(session.store.home))}"
    console.print(f"Next:   workbench dashboard{home}        look at curves, seeds and verdicts", soft_wrap=True)
    name = shlex.quote(session.plan.sweep.name)
    console.print(f"        workbench export {name} --out FOLDER{home}   tables and figure for a paper", soft_wrap=True)
