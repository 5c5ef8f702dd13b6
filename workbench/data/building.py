"""Building a folder of a cache once: whole or not at all, however many processes ask at the same time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

Report = Callable[[str], None]


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
