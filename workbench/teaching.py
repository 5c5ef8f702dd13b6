"""Teachers of a plan's arms: trained where they have to be, and asked about what students read, once for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.errors import DataError
from workbench.planning import Plan, Trial, model_key
from workbench.records import Seeds, Status
from workbench.store import Store


class Teaching:
    """What the runner of a plan does for distilled arms.

    Args:
        plan: What runs.
        store: Where models and caches lie.
        data: Returns the prepared data of a configuration.
        train: Trains a cell of a configuration on prepared data, or loads what has been trained.
        report: Told, in words, what is being done; may end it by raising.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        data: Callable[[Any], Any],
        train: Callable[[Trial, Any, Any], tuple[Any, ...]],
        report: Callable[[str], None],
    ) -> None:
        self._plan, self._store, self._data, self._train, self._report = plan, store, data, train, report

    def ask(self, arm: str, configuration: Any) -> None:
        """Ask the teachers of an arm about all that its runs will read."""
        from workbench.training.numerics import settle

        if not configuration.teachers:
            return
        assert self._plan.numerics is not None  # noqa: S101 - a plan with a configuration has numerics
        settle(self._plan.numerics)
        prepared, context = self._data(configuration), configuration.architecture.context
        stage = configuration.pretraining
        feeds = [stage.feed(prepared, trial.seeds, context) for trial in self._plan.trials if trial.arm == arm]
        for term in self.terms(configuration, 0):
            term.gather([(feed, stage.pace(context)) for feed in feeds])

    def terms(self, configuration: Any, place: int) -> tuple[Any, ...]:
        """Return what the stage at `place` minimises beside its own terms."""
        if place or not configuration.teachers:
            return ()
        from workbench.training.distillation import distilled

        assert self._plan.numerics is not None  # noqa: S101 - a plan with a configuration has numerics
        return (
            distilled(
                configuration.pretraining.distillation,
                self._data(configuration),
                self._store.cache,
                self._plan.numerics,
                lambda teacher: self._grow(configuration, teacher),
                self._report,
            ),
        )

    def _grow(self, configuration: Any, teacher: Any) -> Path:
        """Train a teacher, unless that has been done, and return the folder of its model.

        Raises:
            DataError: if it diverged.
        """
        alone, seeds = configuration.grown(teacher), Seeds.all(teacher.seed)
        model_id = alone.model_id(configuration.data.fingerprint(), seeds)
        key = model_key(model_id, self._plan.numerics)
        trial = Trial(-1, "teacher", teacher.seed, seeds, model_id, "", (key,), "", (model_id,))
        self._report("training a teacher")
        trained = self._train(trial, alone, self._data(alone))[0]
        if trained.status is not Status.FINISHED:
            raise DataError(
                "a teacher diverged",
                where="stages.0.distillation.teachers",
                expected="a teacher that trains to the end",
                got=trained.reason,
                fix="lower its learning rate, or give it another seed",
            )
        return self._store.model_folder(key)
