"""The queue: Optuna hands out cells, so that workers can be added to a sweep and killed; the only `import optuna`.

Optuna leases and nothing more. Whether a cell is done is said by its committed run folder, whether someone works on
it by a file lock that dies with the worker; a lease without either is lost and is handed out again, three times at
most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import MissingExtra

try:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState
except ModuleNotFoundError:
    raise MissingExtra("optuna", "track") from None

ATTEMPTS = 3


@dataclass(frozen=True)
class Lease:
    """A cell handed to one worker, and the Optuna trial that says so."""

    cell: int
    trial: int


class Queue:
    """The cells of one plan, as an Optuna study in a journal file that every worker opens for itself."""

    def __init__(self, folder: Path, plan: str) -> None:
        self._lost: Counter[int] = Counter()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        folder.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(folder / f"{plan}.journal")))
        # the sampler is never asked: every trial is enqueued with its cell
        sampler = optuna.samplers.RandomSampler(seed=0)
        self._study = optuna.create_study(storage=storage, study_name=plan, load_if_exists=True, sampler=sampler)

    def fill(self, cells: Iterable[int]) -> None:
        """Enqueue those cells that neither wait nor run already, in the order given."""
        present = {trial.user_attrs.get("cell") for trial in self._trials(TrialState.WAITING, TrialState.RUNNING)}
        for cell in cells:
            if cell not in present:
                self._study.enqueue_trial({}, user_attrs={"cell": cell})

    def lease(self) -> Lease | None:
        """Take the next waiting cell, or None where none waits."""
        if not self._trials(TrialState.WAITING):
            return None
        trial = self._study.ask()
        cell = trial.user_attrs.get("cell")
        if cell is None:  # another worker took the last one between the two lines above
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        return Lease(cell, trial.number)

    def finish(self, lease: Lease, value: float | None) -> None:
        """End a lease: with the run's value of the primary metric, or None where there is none."""
        if value is None:
            self._study.tell(lease.trial, state=TrialState.FAIL, skip_if_finished=True)
        else:
            self._study.tell(lease.trial, value, skip_if_finished=True)

    def recover(self, abandoned: Callable[[int], bool], *, blame: bool = True) -> list[int]:
        """Enqueue again every leased cell for which `abandoned(cell)`; return those lost too often instead.

        Args:
            abandoned: Whether nobody works on a leased cell any more.
            blame: Count the loss against the cell. What an earlier start left behind was not the cell's fault.
        """
        hopeless = []
        for trial in self._trials(TrialState.RUNNING):
            cell = trial.user_attrs.get("cell")
            if cell is None or not abandoned(cell):
                continue
            self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            self._lost[cell] += blame
            if self._lost[cell] >= ATTEMPTS:
                hopeless.append(cell)
            else:
                self._study.enqueue_trial({}, user_attrs={"cell": cell})
        return hopeless

    def waiting(self) -> int:
        """Return how many cells wait for a worker."""
        return len(self._trials(TrialState.WAITING))

    def running(self) -> int:
        """Return how many cells are leased."""
        return len(self._trials(TrialState.RUNNING))

    def _trials(self, *states: TrialState) -> list[optuna.trial.FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)
