"""What is compared, each in a process of its own, as its users run it: settings of one are not given to the others."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch

PAUSE = 0.02


class Apart:
    """Work that is done again and again in a process of its own, with as many threads as here.

    One thread is timed in seconds of the processor, so that another process does not count; several in seconds of the
    wall.
    """

    def __init__(self, prepare: Callable[..., Callable[[], Any]], *arguments: Any) -> None:
        """Start it, and wait until `prepare`, of a module, which returns the work given the arguments, is done."""
        context = get_context("forkserver")
        context.set_forkserver_preload([prepare.__module__])  # libraries are read once
        self._here, there = context.Pipe()
        threads = torch.get_num_threads()
        self._process = context.Process(target=_serve, args=(there, threads, prepare, arguments), daemon=True)
        self._process.start()
        self._here.recv()

    def run(self) -> tuple[float, Any]:
        """Have the work done once; return the seconds it took and what came of it."""
        time.sleep(PAUSE)  # until threads of the one before have gone to sleep
        self._here.send(None)
        seconds, found = self._here.recv()
        return float(seconds), found

    def end(self) -> None:
        """Let it go."""
        self._here.close()
        self._process.join()


def clock_of(threads: int) -> Callable[[], float]:
    """Return what work on so many threads is timed by."""
    return time.process_time if threads == 1 else time.perf_counter


def _serve(asked: Connection, threads: int, prepare: Callable[..., Callable[[], Any]], arguments: Any) -> None:
    torch.set_num_threads(threads)
    work = prepare(*arguments)
    asked.send(None)
    clock = clock_of(threads)
    with contextlib.suppress(EOFError):
        while True:
            asked.recv()
            began = clock()
            found = work()
            asked.send((clock() - began, found))
