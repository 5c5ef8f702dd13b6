"""One run on several devices of this machine: a process for each, and a record whatever becomes of them.

The processes are given torchrun's environment variables and meet in a file, so that nothing listens to the network but
what connects them, on the loopback interface. When one dies the others are ended, and the run is recorded as failed,
with the number of the device that died first and its exit code. `torchrun ... -m workbench rank ...` starts the same
processes on several machines; a device that dies then leaves no record, and the cell is run again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.planning import Plan, Trial
from workbench.records import Record, Status
from workbench.running import Runner, Stopped, told
from workbench.store import Store

STOPPED = os.EX_TEMPFAIL  # exit code of a device that was asked to stop and wrote its checkpoint
LOOK = 0.05  # seconds between two looks at the processes
GRACE = 60.0  # seconds a device has to write its checkpoint when asked to end
COMPLAINTS = 2.0  # seconds in which devices that lost another one may end by themselves
MEETING = "WORKBENCH_MEETING"  # the file in which the processes meet; beside it lies what the first that failed said


def process_command(name: str, sweep: str, plan: Plan, store: Store, corpus: str | None) -> list[str]:
    """Return the arguments that start `workbench work` or `workbench rank` on this plan with this interpreter."""
    extra = ["--corpus", corpus] if corpus else []
    if plan.numerics is not None and name == "work":
        extra += ["--execution", plan.numerics.execution]
    if plan.numerics is not None and plan.numerics.devices > 1:
        extra += ["--devices", str(plan.numerics.devices), *(["--sharded"] if plan.numerics.sharded else [])]
    return [sys.executable, "-m", "workbench", name, sweep, "--plan", plan.hash, "--home", str(store.home), *extra]


def run_together(
    runner: Runner,
    trial: Trial,
    command: Sequence[str],
    stop: Callable[[], bool],
    *,
    quiet: bool = False,
    heard: Callable[[dict[str, Any]], None] | None = None,
) -> Record:
    """Run one cell on the devices its plan names; return its committed record, as `Runner.run` does.

    Args:
        runner: Of the plan.
        trial: The cell.
        command: Arguments that start one device's process.
        stop: Asked all the time; when true every device writes what it has and ends.
        quiet: Whether the news of the leading device are not passed on.
        heard: Called with each of these news, in a thread of its own, instead of their passing on.

    Raises:
        Stopped: if `stop` said so, or somebody else stopped the devices.
        WorkbenchError: if a device refuses to go on.
    """
    known = runner.store.record(trial.run_id)
    if known is not None and known.status is not Status.FAILED:
        return known
    assert runner.plan.numerics is not None  # noqa: S101 - a cell that is trained has numerics
    runner.prepare_for(trial)
    if known is not None:
        runner.store.forget_failure(trial.run_id)
    logs = runner.store.run_folder(trial.run_id)
    logs.mkdir(parents=True, exist_ok=True)
    numerics = runner.plan.numerics
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        news = subprocess.PIPE if heard is not None else subprocess.DEVNULL if quiet else None
        with (
            _started(command, numerics.devices, numerics.threads, meeting, logs, news) as processes,
            _overheard(processes[0], heard),
        ):
            codes = _followed(processes, stop)
        first = _said(meeting)
    record = runner.store.record(trial.run_id)
    if record is not None:
        return record
    if not _failed(codes):
        raise Stopped
    rank = _first(codes, first)
    if codes[rank] == WorkbenchError.exit_code:
        written = (logs / f"device-{rank}.log").read_text(errors="replace").strip()
        raise WorkbenchError(f"device {rank} refuses to go on", where=logs, got=written.removeprefix("error: "))
    return runner.fail(trial, _reason(rank, codes[rank], numerics.devices, first, logs))


def lead_or_follow(runner: Runner, trial: Trial, leads: bool) -> int:
    """Do one device's part of a cell; return the exit code of its process.

    Raises:
        WorkbenchError: if the runtime folder or the data cannot be used.
    """
    try:
        if leads:
            runner.run(trial)
        else:
            runner.follow(trial)
    except Stopped:
        return STOPPED
    except WorkbenchError as error:
        _say(str(error))
        raise
    except Exception as error:
        _say(told(error))
        raise
    return 0


def _say(reason: str) -> None:
    """Leave the reason for whoever started the devices, unless another device failed before."""
    meeting = os.environ.get(MEETING)
    if meeting is None:
        return
    content = json.dumps({"rank": int(os.environ["RANK"]), "reason": reason})
    with contextlib.suppress(FileExistsError), open(f"{meeting}.failed", "x") as sink:
        sink.write(content)


def _said(meeting: Path) -> dict[str, Any] | None:
    try:
        said: dict[str, Any] = json.loads(Path(f"{meeting}.failed").read_text())
    except (OSError, ValueError):
        return None
    return said


@contextlib.contextmanager
def _started(
    command: Sequence[str], devices: int, threads: int, meeting: Path, logs: Path, news: int | None
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the processes, what the leading one tells going to `news`; none of them outlives the block."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(devices):
            with open(logs / f"device-{rank}.log", "wb") as sink:
                process = subprocess.Popen(
                    [*command, "--parent", str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=news if rank == 0 else subprocess.DEVNULL,
                    stderr=sink,
                    env={**os.environ, **_environment(rank, devices, threads, meeting)},
                    start_new_session=True,  # Ctrl-C reaches the parent alone, which then asks the devices to end
                )
            processes.append(process)
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


@contextlib.contextmanager
def _overheard(leading: subprocess.Popen[bytes], heard: Callable[[dict[str, Any]], None] | None) -> Iterator[None]:
    """Hand on what the leading device tells, line by line, for as long as it lives."""

    def listen() -> None:
        assert leading.stdout is not None  # noqa: S101 - a pipe where somebody hears
        with leading.stdout as lines:
            for line in lines:
                with contextlib.suppress(ValueError):  # of a process that was killed while it told
                    hear(json.loads(line))

    if heard is None:
        yield
        return
    hear, listener = heard, threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        if leading.poll() is None:
            leading.kill()
        listener.join()


def _environment(rank: int, devices: int, threads: int, meeting: Path) -> Mapping[str, str]:
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(devices),
        "LOCAL_WORLD_SIZE": str(devices),
        "OMP_NUM_THREADS": str(threads),
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # else every device warns that no parameter was left out of a step
        MEETING: str(meeting),
    }


def _followed(processes: Sequence[subprocess.Popen[bytes]], stop: Callable[[], bool]) -> dict[int, int]:
    """Wait until all have ended, or one has failed; return exit codes, of those that ended first before others."""
    codes: dict[int, int] = {}
    deadline, asked = None, False
    while len(codes) < len(processes):
        ended = {rank: code for rank, one in enumerate(processes) if (code := one.poll()) is not None}
        codes |= dict(sorted(((rank, ended[rank]) for rank in ended.keys() - codes.keys()), key=lambda pair: pair[1]))
        if asked and (early := [rank for rank, code in codes.items() if code == -signal.SIGTERM]):
            codes |= dict.fromkeys(early, STOPPED)  # it did not listen yet: nothing has begun that could be written
            deadline = time.monotonic() + COMPLAINTS
        if deadline is None and _failed(codes):
            deadline = time.monotonic() + COMPLAINTS
        elif deadline is None and (stop() or STOPPED in codes.values()):
            deadline, asked = time.monotonic() + GRACE, True
            for one in processes:
                with contextlib.suppress(ProcessLookupError):
                    one.send_signal(signal.SIGTERM)
        if deadline is not None and time.monotonic() > deadline:
            break
        time.sleep(LOOK)
    return codes


def _failed(codes: Mapping[int, int]) -> list[int]:
    return [rank for rank, code in codes.items() if code not in (0, STOPPED)]


def _first(codes: Mapping[int, int], said: dict[str, Any] | None) -> int:
    """Return who failed first: who is killed says nothing, and who loses its company may end before it."""
    failed = _failed(codes)
    if codes[failed[0]] < 0 or said is None or said["rank"] not in failed:
        return failed[0]
    return int(said["rank"])


def _reason(rank: int, code: int, devices: int, said: dict[str, Any] | None, logs: Path) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            how = f"was killed by {signal.Signals(-code).name} (exit code {code})"
            return f"device {rank} of {devices} {how}" + ("; out of memory?" if code == -signal.SIGKILL else "")
    if said is not None and said["rank"] == rank:
        return f"device {rank} of {devices} ended with exit code {code}: {said['reason']}"
    return f"device {rank} of {devices} ended with exit code {code}; see {logs / f'device-{rank}.log'}"
