"""Plan → records, in this process: train, score, commit, cell by cell.

A cell ends as a committed record: finished, diverged or failed, with the reason. Only an interruption and trouble
with the runtime folder itself leave a cell without one. Neither Optuna nor MLflow is needed here.
"""

from __future__ import annotations

import csv
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from workbench.command import Command
from workbench.errors import DataError, NotFinite, WorkbenchError
from workbench.identity import digest, sources
from workbench.planning import Plan, Trial
from workbench.provenance import provenance
from workbench.records import Costs, Record, Status, empty_scores, joined, scores_table, total_costs
from workbench.store import Store

Ended = tuple[Status, str | None, pa.Table, pa.Table | None, Costs]
WAIT = 0.1  # seconds between two looks whether another worker has trained a model that two arms share
SHOWN = 15  # last lines of a failed command's output that are kept in the record


class Stopped(Exception):
    """A cell was asked to stop; what it had is kept and the next run goes on from there."""


class Runner:
    """Runs cells of one plan into one store, keeping prepared data between cells.

    Args:
        plan: What to run.
        store: Where checkpoints and committed runs lie.
        watch: Called with (step, steps, loss, tokens per second) while a model trains.
        stop: Asked after every step.
        say: Called with a sentence when data are being prepared.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        *,
        watch: Callable[[int, int, float, float], None] = lambda *news: None,
        stop: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.plan, self.store = plan, store
        self._watch, self._stop, self._say = watch, stop, say
        self._prepared: dict[str, Any] = {}
        self._checked: set[str] = set()

    def run(self, trial: Trial) -> Record:
        """Run one cell and return its committed record; return the one that is there unless it says "failed".

        Raises:
            Stopped: if `stop` said so.
            WorkbenchError: if the runtime folder or the data cannot be used.
        """
        known = self.store.record(trial.run_id)
        if known is not None and known.status is not Status.FAILED:
            return known
        began = time.perf_counter()
        status, reason, scores, curve, costs = self._end(trial)
        costs = costs.model_copy(update={"total_seconds": time.perf_counter() - began})
        return self.store.commit(self._record(trial, status, reason, costs), scores, curve)

    def prepare(self) -> list[Any]:
        """Build every corpus cache the plan needs, check that it suffices, and return facts about each."""
        trained: list[Any] = [arm.configuration for arm in self.plan.arms if not isinstance(arm.configuration, Command)]
        facts = {digest(configuration.data): self._data(configuration).facts for configuration in trained}
        return list(facts.values())

    def fail(self, trial: Trial, reason: str) -> Record:
        """Commit a failed record for a cell that could not be run."""
        return self.store.commit(self._record(trial, Status.FAILED, reason, Costs()), empty_scores())

    def _end(self, trial: Trial) -> Ended:
        """Carry a cell to its end, whatever that is."""
        configuration = self.plan.arm(trial.arm).configuration
        try:
            if isinstance(configuration, Command):
                return self._run_command(trial, configuration)
            return self._train_and_score(trial, configuration)
        except NotFinite as error:  # trained to the end, and answers nothing: an outcome of the arm
            return Status.DIVERGED, str(error), empty_scores(), None, Costs()
        except (Stopped, WorkbenchError):
            raise
        except Exception as error:  # what a model or a library throws ends this cell, not the sweep
            last = traceback.extract_tb(error.__traceback__)[-1]
            folder = self.store.run_folder(trial.run_id)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "error.txt").write_text(traceback.format_exc())
            reason = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
            return Status.FAILED, reason, empty_scores(), None, Costs()

    def _record(self, trial: Trial, status: Status, reason: str | None, costs: Costs) -> Record:
        configuration = self.plan.arm(trial.arm).configuration
        command, own = isinstance(configuration, Command), sources(configuration)
        return Record(
            source="command" if command else "workbench",
            run_id=trial.run_id,
            plan=self.plan.hash,
            sweep=self.plan.sweep.name,
            arm=trial.arm,
            seed=trial.seed,
            seeds=trial.seeds,
            model_id=trial.model_id,
            score_id=trial.score_id,
            numerics=None if command else self.plan.numerics,
            status=status,
            reason=reason,
            spec=configuration.model_dump(mode="json"),
            lineage=[{"stage": stage, "model_id": model_id} for stage, model_id in enumerate(trial.lineage)],
            costs=costs,
            provenance={**provenance(), **({"sources": own} if own else {})},
        )

    def _data(self, configuration: Any) -> Any:
        from workbench.data.prepared import check, prepare
        from workbench.evaluation.evaluate import draw_items

        key = digest(configuration.data)
        if key not in self._prepared:
            self._prepared[key] = prepare(configuration.data, self.store.cache, self._say)
        prepared, context = self._prepared[key], configuration.architecture.context
        check(prepared, context)
        if (checked := digest(configuration.data, configuration.evaluation, context)) not in self._checked:
            draw_items(prepared, configuration.evaluation, context)  # refuses a task the corpus has no items for
            self._checked.add(checked)
        return prepared

    @contextmanager
    def _alone(self, model_key: str) -> Iterator[None]:
        """Hold the right to train a model; where another worker is training it for another arm, wait for the weights.

        Raises:
            Stopped: if `stop` said so meanwhile.
        """
        while not self._stop():
            with self.store.lock(f"model-{model_key}") as mine:
                if mine:
                    yield
                    return
            time.sleep(WAIT)
        raise Stopped

    def _train_and_score(self, trial: Trial, configuration: Any) -> Ended:
        from workbench.evaluation.evaluate import evaluate
        from workbench.training.numerics import autocast, settle

        assert self.plan.numerics is not None  # noqa: S101 - a plan with a configuration has numerics
        settle(self.plan.numerics)
        prepared = self._data(configuration)
        trained, costs, curve = self._train(trial, configuration, prepared)
        if trained.status is not Status.FINISHED:
            return trained.status, trained.reason, empty_scores(), curve, costs
        began = time.perf_counter()
        for stage in configuration.after:
            stage.apply(trained.model)
        scores = evaluate(
            trained.model,
            prepared,
            configuration.evaluation,
            score_id=trial.score_id,
            context=configuration.architecture.context,
            device=self.plan.numerics.device,
            autocast=autocast(self.plan.numerics),
        )
        costs = costs.model_copy(update={"evaluation_seconds": time.perf_counter() - began})
        return Status.FINISHED, None, scores, curve, costs

    def _train(self, trial: Trial, configuration: Any, prepared: Any) -> tuple[Any, Costs, pa.Table]:
        """Train stage after stage; return the last that was trained, the costs of all, and one curve over them.

        Raises:
            Stopped: if `stop` said so.
        """
        from workbench.training.loop import Interrupted, train

        flops = configuration.size()["flops_per_token"]
        ended: list[Any] = []
        for place, key in enumerate(trial.model_keys):
            try:
                with self._alone(key):
                    ended.append(
                        train(
                            self._job(trial, configuration, prepared, place),
                            watch=lambda news: self._watch(news.step, news.steps, news.loss, news.tokens_per_second),
                            stop=self._stop,
                        )
                    )
            except Interrupted:
                raise Stopped from None
            if ended[-1].status is not Status.FINISHED:
                break
        return ended[-1], total_costs([one.costs for one in ended], flops), joined([one.curve for one in ended])

    def _job(self, trial: Trial, configuration: Any, prepared: Any, place: int) -> Any:
        """Describe the training of one stage."""
        from workbench.training.loop import Job

        assert self.plan.numerics is not None  # noqa: S101 - a plan with a configuration has numerics
        stage, architecture = configuration.training[place], configuration.architecture
        return Job(
            architecture,
            stage,
            stage.feed(prepared, trial.seeds, architecture.context),
            trial.seeds,
            self.plan.numerics,
            self.store.model_folder(trial.model_keys[place]),
            spelling=prepared.tokenizer.spelling if architecture.embedding.reads_bytes else None,
            parent=self.store.model_folder(trial.model_keys[place - 1]) if place else None,
            data=prepared.key,
        )

    def _run_command(self, trial: Trial, command: Command) -> Ended:
        out = self.store.run_folder(trial.run_id) / "out"
        out.mkdir(parents=True, exist_ok=True)
        for stale in out.glob("scores.*"):
            stale.unlink()
        arguments = command.arguments(trial.seeds.initialisation, out)
        log = out.parent / "command.log"
        began = time.perf_counter()
        try:
            with open(log, "wb") as sink:
                process = subprocess.Popen(arguments, cwd=command.folder, stdout=sink, stderr=subprocess.STDOUT)
                while process.poll() is None:
                    if self._stop():
                        process.terminate()
                        process.wait()
                        raise Stopped
                    time.sleep(0.05)
        except OSError as error:
            return Status.FAILED, f"the command cannot be started: {error}", empty_scores(), None, Costs()
        costs = Costs(training_seconds=time.perf_counter() - began)
        if process.returncode != 0:
            lines = log.read_text(errors="replace").strip().splitlines()[-SHOWN:]
            reason = f"the command ended with exit code {process.returncode}: " + "\n".join(lines)
            return Status.FAILED, reason, empty_scores(), None, costs
        try:
            scores = command_scores(out, trial.score_id, self.plan.sweep.metric.name)
        except NotFinite:
            raise
        except DataError as error:
            return Status.FAILED, str(error), empty_scores(), None, costs
        return Status.FINISHED, None, scores, None, costs


def command_scores(out: Path, score_id: str, metric: str) -> pa.Table:
    """Read the scores a command left: `scores.parquet` or `scores.csv` with a column `value`.

    Columns `metric`, `task`, `item`, `cluster`, `view` and `weight` are used where present; without `metric` the
    values are the sweep's primary metric, without `item` the rows are items in their order.

    Raises:
        NotFinite: if a value is not finite, which is how a diverged run shows.
        DataError: if there is no such file, no column `value`, or a value that is no number.
    """
    found = [path for path in (out / "scores.parquet", out / "scores.csv") if path.exists()]
    if not found:
        raise DataError(
            "the command left no scores", where=out, expected="scores.csv or scores.parquet", got="neither of them"
        )
    try:
        table = pq.read_table(found[0]) if found[0].suffix == ".parquet" else _read_csv(found[0])
        columns = {name: table[name].to_pylist() for name in table.column_names}
        values = [float(value) for value in columns["value"]]
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(
            "the command's scores cannot be read", where=found[0], expected="a column 'value' of numbers", got=error
        ) from None
    if not values:
        raise DataError("the command's scores are empty", where=found[0], expected="at least one row", got="none")
    count = len(values)
    given = {name: columns[name] for name in ("task", "view", "metric", "cluster", "weight") if name in columns}
    defaults: dict[str, list[Any]] = {
        "task": ["command"] * count,
        "view": ["final"] * count,
        "metric": [metric] * count,
        "item": [str(item) for item in columns.get("item", range(count))],
    }
    return scores_table(score_id, {**defaults, **given, "value": values})


def _read_csv(path: Path) -> pa.Table:
    # by default "nan" would be read as missing, and a diverged run as a malformed one
    return pacsv.read_csv(path, convert_options=pacsv.ConvertOptions(null_values=[""]))
