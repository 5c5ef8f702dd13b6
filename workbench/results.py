"""Where results are read from: committed run folders first, the tracking server for what is not here.

A reader (the dashboard, `workbench export`) asks for plans, records, scores and curves and need not know which of the
two answered. Both verify the hash of the scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from workbench.errors import MissingExtra, PlanError
from workbench.records import Record
from workbench.store import Store

if TYPE_CHECKING:
    from workbench.tracking import Tracking


class Results:
    """A runtime folder and, where it answers, its tracking server, read as one.

    Attributes:
        silence: Why the tracking server was not read, or None where it was.
    """

    def __init__(self, store: Store, tracked: bool = True) -> None:
        self.store = store
        self.silence: str | None = None
        self._tracking = self._open() if tracked else None

    def plans(self) -> list[dict[str, Any]]:
        """Return every known plan, oldest first; those of the server that are not here come before."""
        here = self.store.plans()
        hashes = {plan["hash"] for plan in here}
        elsewhere = self._tracking.plans() if self._tracking else []
        return [plan for plan in elsewhere if plan["hash"] not in hashes] + here

    def plan(self, name: str | None) -> dict[str, Any]:
        """Return the newest plan of a sweep, or the one whose hash begins so; for None the newest that compares arms.

        Raises:
            PlanError: if there is none.
        """
        plans = self.plans()
        fitting = [plan for plan in plans if name and (plan["sweep"] == name or plan["hash"].startswith(name))]
        if name is None:
            fitting = [plan for plan in plans if plan.get("design") != "single"]
        if fitting:
            return fitting[-1]
        raise PlanError(
            "there is no such plan" if name else "there is no plan yet",
            where=self.store.home,
            expected=", ".join(sorted({plan["sweep"] for plan in plans})) or "a sweep that was run",
            got=name,
            fix="workbench run SWEEP",
        )

    def records(self, plan: dict[str, Any]) -> list[Record]:
        """Return the records of a plan's cells, in the plan's order."""
        wanted = [trial["run_id"] for trial in plan["trials"]]
        found = {record.run_id: record for record in self.store.records(wanted)}
        if self._tracking and len(found) < len(set(wanted)):
            found = {record.run_id: record for record in self._tracking.records(plan)} | found
        return [found[run_id] for run_id in wanted if run_id in found]

    def scores(self, plan: dict[str, Any], record: Record) -> pa.Table:
        """Return the verified item scores of a record."""
        if self._tracking and not self.store.holds(record):
            return self._tracking.scores(plan, record)
        return self.store.scores(record)

    def curve(self, plan: dict[str, Any], record: Record) -> pa.Table | None:
        """Return the learning curve of a record, or None where it left none."""
        if self._tracking and not self.store.holds(record):
            return self._tracking.curve(plan, record)
        return self.store.curve(record)

    def samples(self, plan: dict[str, Any], record: Record) -> list[dict[str, Any]]:
        """Return the texts that the model of a record wrote; none where its evaluation asks for none."""
        if self._tracking and not self.store.holds(record):
            return self._tracking.samples(plan, record)
        return self.store.samples(record)

    def _open(self) -> Tracking | None:
        try:
            from workbench.tracking import Tracking, Unavailable
        except MissingExtra as error:
            self.silence = str(error)
            return None
        try:
            tracking = Tracking(self.store.home)
            tracking.plans()
        except Unavailable as error:
            self.silence = str(error)
            return None
        return tracking
