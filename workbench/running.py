"""Plan → records, in this process: train, score, commit, cell by cell.

A cell ends as a committed record: finished, diverged or failed, with the reason. Only an interruption and trouble
with the runtime folder itself leave a cell without one. Neither Optuna nor MLflow is needed here.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa

from workbench.command import Command
from workbench.commanding import Ended, run_command
from workbench.errors import NotFinite, WorkbenchError
from workbench.identity import digest, sources
from workbench.planning import Plan, Trial, model_key
from workbench.provenance import provenance
from workbench.records import Costs, Record, Screening, Status, empty_scores, joined, together, total_costs
from workbench.stacking import stacked
from workbench.store import Store
from workbench.teaching import Teaching

WAIT = 0.1  # seconds between two looks whether another worker has trained a model that two arms share


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
        parallel: The devices that train every run together, where this process is one of several.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        *,
        watch: Callable[[int, int, float, float], None] = lambda *news: None,
        stop: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda text: None,
        parallel: Any = None,
    ) -> None:
        self.plan, self.store = plan, store
        self._watch, self._stop, self._say, self._parallel = watch, stop, say, parallel
        self._teaching = Teaching(plan, store, self._data, self._train, self._report)
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
        screening = None if status is Status.FAILED else self._screen(trial, scores)
        return self.store.commit(self._record(trial, status, reason, costs, screening), scores, curve)

    def follow(self, trial: Trial) -> None:
        """Train a cell together with the device that leads, which scores and records it.

        Raises:
            Stopped: if `stop` said so, here or on another device.
        """
        from workbench.training.numerics import settle

        configuration: Any = self.plan.arm(trial.arm).configuration
        assert self.plan.numerics is not None  # noqa: S101 - a plan with a configuration has numerics
        settle(self.plan.numerics)
        self._train(trial, configuration, self._data(configuration))

    def prepare_for(self, trial: Trial) -> None:
        """Build what the devices that train a cell together need beforehand: the corpus cache, teachers' answers."""
        from workbench.training.numerics import settle

        configuration: Any = self.plan.arm(trial.arm).configuration
        assert self.plan.numerics is not None  # noqa: S101 - a plan with a configuration has numerics
        prepared = self._data(configuration)
        if configuration.teachers:
            settle(self.plan.numerics)
            self._job(trial, configuration, prepared, 0)

    def prepare(self, *, teachers: bool = False) -> list[Any]:
        """Build every corpus cache the plan needs, check that it suffices, and return facts about each.

        Args:
            teachers: Also train the teachers of distilled arms and ask them about all that any run will read; without
                this the first run that needs a teacher does.
        """
        trained: list[Any] = [arm.configuration for arm in self.plan.arms if not isinstance(arm.configuration, Command)]
        facts = {digest(configuration.data): self._data(configuration).facts for configuration in trained}
        if teachers:
            for arm in self.plan.arms:
                if not isinstance(arm.configuration, Command):
                    self._teaching.ask(arm.name, arm.configuration)
        return list(facts.values())

    def fail(self, trial: Trial, reason: str) -> Record:
        """Commit a failed record for a cell that could not be run."""
        return self.store.commit(self._record(trial, Status.FAILED, reason, Costs()), empty_scores())

    def _end(self, trial: Trial) -> Ended:
        """Carry a cell to its end, whatever that is."""
        configuration = self.plan.arm(trial.arm).configuration
        try:
            if isinstance(configuration, Command):
                folder, metric = self.store.run_folder(trial.run_id), self.plan.sweep.metric.name
                ended = run_command(configuration, trial.seeds, folder, trial.score_id, metric, self._stop)
                if ended is None:
                    raise Stopped
                return ended
            return self._train_and_score(trial, configuration)
        except NotFinite as error:  # trained to the end, and answers nothing: an outcome of the arm
            return Status.DIVERGED, str(error), empty_scores(), None, Costs()
        except (Stopped, WorkbenchError):
            raise
        except Exception as error:  # what a model or a library throws ends this cell, not the sweep
            if self._parallel is not None:  # which device failed first, only who started them knows
                raise
            folder = self.store.run_folder(trial.run_id)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "error.txt").write_text(traceback.format_exc())
            return Status.FAILED, told(error), empty_scores(), None, Costs()

    def _screen(self, trial: Trial, scores: pa.Table) -> Screening | None:
        """Count what was done to the text of a run that was trained here."""
        configuration: Any = self.plan.arm(trial.arm).configuration
        if isinstance(configuration, Command):
            return None
        from workbench.evaluation.screened import screen

        return screen(self._data(configuration), configuration.answers, configuration.evaluation, scores)

    def _record(
        self, trial: Trial, status: Status, reason: str | None, costs: Costs, screening: Screening | None = None
    ) -> Record:
        configuration = self.plan.arm(trial.arm).configuration
        command, own = isinstance(configuration, Command), sources(configuration)
        lineage, paired = self._lineage(trial)
        scored = status is Status.FINISHED and not command
        evaluations = self.store.evaluations(model_key(trial.model_id, self.plan.numerics)) if scored else []
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
            lineage=lineage,
            paired_tokens=paired,
            evaluations=len(evaluations),
            screening=screening,
            costs=costs,
            provenance={**provenance(), **({"sources": own} if own else {})},
        )

    def _lineage(self, trial: Trial) -> tuple[list[dict[str, Any]], int | None]:
        """Return the model after every stage, with where it went back, and after how many tokens pairing ended."""
        lineage: list[dict[str, Any]] = [
            {"stage": stage, "model_id": model_id} for stage, model_id in enumerate(trial.lineage)
        ]
        configuration: Any = self.plan.arm(trial.arm).configuration
        before, paired = 0, None
        if isinstance(configuration, Command):
            return lineage, None
        for entry, key, stage in zip(lineage, trial.model_keys, configuration.training, strict=False):
            if rollbacks := self.store.rollbacks(key):
                entry["rollbacks"] = rollbacks
                paired = before + rollbacks[0]["tokens"] if paired is None else paired
            before += stage.pace(configuration.architecture.context).tokens
        return lineage, paired

    def _data(self, configuration: Any) -> Any:
        from workbench.data.prepared import check, prepare
        from workbench.evaluation.evaluate import draw_items

        key = digest(configuration.data)
        if key not in self._prepared:
            self._prepared[key] = prepare(configuration.data, self.store.cache, self._say)
        prepared, context = self._prepared[key], configuration.architecture.context
        check(prepared, context)
        stages = configuration.training
        if (checked := digest(configuration.data, configuration.evaluation, stages, context)) not in self._checked:
            draw_items(prepared, configuration.evaluation, context)  # refuses a task the corpus has no items for
            for read in filter(None, (stage.check(prepared, context) for stage in stages)):
                self._say(read)
            self._checked.add(checked)
        return prepared

    @contextmanager
    def _alone(self, model_key: str) -> Iterator[None]:
        """Hold the right to train a model; where another worker is training it for another arm, wait for the weights.

        Raises:
            Stopped: if `stop` said so meanwhile.
        """
        parallel = self._devices()
        while not any(parallel.most(self._stop())):
            with self.store.lock(f"model-{model_key}") if parallel.leads else nullcontext(False) as mine:
                if any(parallel.most(mine)):
                    yield
                    return
            time.sleep(WAIT)
        raise Stopped

    def _devices(self) -> Any:
        from workbench.training.stepping import ALONE

        return self._parallel or ALONE

    def _train_and_score(self, trial: Trial, configuration: Any) -> Ended:
        from workbench.data.taught import taught
        from workbench.evaluation.evaluate import evaluate
        from workbench.revisiting import visit
        from workbench.training.numerics import autocast, settle

        assert self.plan.numerics is not None  # noqa: S101 - a plan with a configuration has numerics
        settle(self.plan.numerics)
        prepared = self._data(configuration)
        trained, costs, curve = self._train(trial, configuration, prepared)
        if trained.status is not Status.FINISHED:
            return trained.status, trained.reason, empty_scores(), curve, costs
        began = time.perf_counter()
        folder = self.store.model_folder(trial.model_key)
        further = [taught(answers, prepared).searchable for answers in configuration.answers]
        scores = [
            evaluate(
                trained.model,
                prepared,
                configuration.evaluation,
                score_id=trial.score_id,
                context=configuration.architecture.context,
                device=self.plan.numerics.device,
                autocast=autocast(self.plan.numerics),
                tokens=tokens,
                further=further,
            )
            for tokens in visit(configuration, folder, trained.model)
        ]
        self._write_samples(trial, configuration, trained.model, prepared)
        self._count(trial, configuration)
        costs = costs.model_copy(update={"evaluation_seconds": time.perf_counter() - began})
        return Status.FINISHED, None, together(scores), curve, costs

    def _count(self, trial: Trial, configuration: Any) -> None:
        """Remember that a model was evaluated."""
        tasks = [task.label for task in configuration.evaluation.tasks]
        told = {"tasks": tasks, "by": self.plan.sweep.name, "plan": self.plan.hash}
        self.store.count_evaluation(model_key(trial.model_id, self.plan.numerics), trial.score_id, told)

    def _write_samples(self, trial: Trial, configuration: Any, model: Any, prepared: Any) -> None:
        from workbench.evaluation.generation import generate
        from workbench.training.numerics import autocast

        asked, numerics = configuration.evaluation.samples, self.plan.numerics
        if asked is None or numerics is None:
            return
        texts = generate(
            model,
            prepared.tokenizer,
            asked.prompts,
            context=configuration.architecture.context,
            drawing=asked,
            device=numerics.device,
            autocast=autocast(numerics),
        )
        samples = [{"prompt": prompt, "text": text} for prompt, text in zip(asked.prompts, texts, strict=True)]
        self.store.keep_samples(trial.run_id, samples)

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
                with ExitStack() as held:
                    together = stacked(self.plan, self.store, trial, place)
                    # in one order for all workers, so that no two wait for each other
                    for one in sorted({key, *(cell.model_keys[place] for cell in together)}):
                        held.enter_context(self._alone(one))
                    self._train_together(together, configuration, prepared, place)
                    ended.append(
                        train(
                            self._job(trial, configuration, prepared, place),
                            watch=lambda news: self._watch(news.step, news.steps, news.loss, news.tokens_per_second),
                            stop=self._stop,
                            parallel=self._devices(),
                        )
                    )
            except Interrupted:
                raise Stopped from None
            if ended[-1].status is not Status.FINISHED:
                break
        return ended[-1], total_costs([one.costs for one in ended], flops), joined([one.curve for one in ended])

    def _train_together(self, cells: list[Trial], configuration: Any, prepared: Any, place: int) -> None:
        """Train the models of several seeds in one stack; each is then loaded by its cell."""
        if not cells:
            return
        from workbench.training.cohort import train_together

        train_together(
            [self._job(cell, configuration, prepared, place) for cell in cells],
            watch=lambda news: self._watch(news.step, news.steps, news.loss, news.tokens_per_second),
            stop=self._stop,
            say=self._say,
        )

    def _job(self, trial: Trial, configuration: Any, prepared: Any, place: int) -> Any:
        """Describe the training of one stage."""
        from workbench.training.loop import Job

        assert self.plan.numerics is not None  # noqa: S101 - a plan with a configuration has numerics
        stage, architecture = configuration.training[place], configuration.architecture
        feed = stage.feed(prepared, trial.seeds, architecture.context)
        terms = self._teaching.terms(configuration, place)
        folder = self.store.model_folder(trial.model_keys[place])
        if not (folder / "final.json").exists():
            for term in terms:
                term.gather([(feed, stage.pace(architecture.context))])
        return Job(
            architecture,
            stage,
            feed,
            trial.seeds,
            self.plan.numerics,
            folder,
            spelling=prepared.tokenizer.spelling if architecture.embedding.reads_bytes else None,
            parent=self.store.model_folder(trial.model_keys[place - 1]) if place else None,
            terms=terms,
            data=prepared.key,
        )

    def _report(self, text: str) -> None:
        """Tell what is being done before a run can begin, unless it is to stop.

        Raises:
            Stopped: if `stop` said so.
        """
        if self._stop():
            raise Stopped
        self._say(text)


def told(error: Exception) -> str:
    """Return what was thrown, and where, in one line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
