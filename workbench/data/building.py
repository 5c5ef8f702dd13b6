"""Building a folder of a cache once: whole or not at all, however many processes ask at the same time; and its pace."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from workbench.errors import DataError

Report = Callable[[str], None]
SECONDS = 2.0  # between two reports of long work


class Pace:
    """Says how far long work has got, how fast, and how long it will take: every other second, and when it ends.

    Args:
        report: Told in words.
        sentence: With {} where the amount goes: "encoded {} of the training text".
        total: The amount at the end; None where nobody knows.
        done: The amount that is there already.
        unit: "bytes", or a plural noun.
    """

    def __init__(self, report: Report, sentence: str, total: int | None, done: int = 0, unit: str = "bytes") -> None:
        self._report, self._sentence, self._total, self._unit = report, sentence, total, unit
        self._before, self._began = done, time.monotonic()
        self._told = self._began

    def reached(self, done: int) -> None:
        """Say it, unless it was said a moment ago."""
        now = time.monotonic()
        if now - self._told >= SECONDS and done != self._total:
            self._told = now
            self._tell(done, now)

    def ended(self, done: int) -> None:
        """Say it for the last time."""
        self._tell(done, time.monotonic(), last=True)

    def _tell(self, done: int, now: float, last: bool = False) -> None:
        rate = (done - self._before) / max(now - self._began, 1e-9)
        of = f" of {self._amount(self._total)} ({done / self._total:.0%})" if self._total and not last else ""
        told = self._sentence.format(self._amount(done) + of) + f", {self._amount(rate)} a second"
        if self._total and not last and rate > 0:
            told += f", {duration((self._total - done) / rate)} left"
        self._report(told)

    def _amount(self, amount: float) -> str:
        return f"{amount / 1e6:,.1f} MB" if self._unit == "bytes" else f"{amount:,.0f} {self._unit}"


def duration(seconds: float) -> str:
    """Write a time as people say it: "40 s", "3 min", "2.5 h"."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextlib.contextmanager
def sole_builder(folder: Path, report: Report, waiting_for: str) -> Iterator[None]:
    """Hold the folder's lock, waiting for whoever builds it now; the system frees the lock when its holder dies.

    Args:
        folder: What is to be built; its parent is made.
        report: Told when somebody else is building it.
        waiting_for: What that other process does, to complete "waiting for another process that ...".
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f".{folder.name}.lock"), "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting for another process that {waiting_for}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write into; what is in it becomes `folder` when all of it is on disk.

    Called under the folder's lock (`sole_builder`): what an interrupted build left is removed.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    yield part
    for path in part.iterdir():  # to disk, so that the rename never outlives the content it promises
        with open(path, "rb") as handle:
            os.fsync(handle.fileno())
    part.rename(folder)


def damaged(place: Path, error: Exception) -> DataError:
    """Return what to raise where something in the cache cannot be read."""
    return DataError(
        "prepared data is damaged",
        where=place,
        got=str(error).splitlines()[0],
        fix="remove this folder; it is built again",
    )
