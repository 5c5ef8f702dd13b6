"""Runs on several devices from the command line: their records, and what is said when a device dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from workbench.launching import _visible_devices
from workbench.records import Status
from workbench.running import Runner, Stopped
from workbench.session import open_session
from workbench.store import Store
from workbench.together import STOPPED, process_command, run_together

DEVICE = """
import json, os, signal, sys, time
rank, meeting = int(os.environ["RANK"]), os.environ["WORKBENCH_MEETING"]
assert os.environ["WORLD_SIZE"] == "2" and os.environ["GLOO_SOCKET_IFNAME"].startswith("lo")
def say(reason):
    try:
        with open(meeting + ".failed", "x") as sink:
            sink.write(json.dumps({{"rank": rank, "reason": reason}}))
    except FileExistsError:
        pass
def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.01)
{body}
"""


def devices(sweep_file: Path, home: Path, body: str, stop: Callable[[], bool] = lambda: False) -> tuple[Any, Runner]:
    """Run the first cell on two devices whose processes do what `body` says."""
    session = open_session(str(sweep_file), home, devices=2)
    runner = Runner(session.plan, session.store)
    command = [sys.executable, "-c", DEVICE.format(body=body)]
    return run_together(runner, session.plan.trials[0], command, stop), runner


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("(open('dying', 'x'), os.kill(os.getpid(), signal.SIGKILL)) if rank else "
         "(wait_for('dying'), time.sleep(0.3), say('lost'), sys.exit(1))",
         "device 1 of 2 was killed by SIGKILL (exit code -9); out of memory?"),
        ("(say('RuntimeError: no memory'), time.sleep(0.3), sys.exit(1)) if rank else "
         "(wait_for(meeting + '.failed'), sys.exit(1))",
         "device 1 of 2 ended with exit code 1: RuntimeError: no memory"),
        ("sys.exit(7) if rank else time.sleep(600)", "device 1 of 2 ended with exit code 7; see "),
    ],
    ids=["killed", "thrown", "silent"],
)  # fmt: skip
def test_a_device_that_dies_ends_the_run_with_a_record_that_names_it(
    sweep_file: Path, tmp_path: Path, body: str, reason: str
) -> None:
    began = time.monotonic()
    record, runner = devices(sweep_file, tmp_path / "home", body)
    assert time.monotonic() - began < 60
    assert record.status is Status.FAILED
    assert reason in record.reason
    assert record.numerics.devices == 2
    assert runner.store.record(record.run_id) == record


LISTENS = "signal.signal(signal.SIGTERM, lambda *_: sys.exit({stopped})); open(f'listens-{{rank}}', 'x')"


@pytest.mark.parametrize("deaf", [(), (0,), (0, 1)])
def test_devices_that_are_asked_to_stop_leave_no_record_even_where_they_do_not_listen_yet(
    sweep_file: Path, tmp_path: Path, deaf: tuple[int, ...]
) -> None:
    listens = LISTENS.format(stopped=STOPPED)
    body = f"open(f'starts-{{rank}}', 'x') if rank in {deaf} else exec({listens!r}); time.sleep(600)"

    def ready() -> bool:
        return all(Path(f"{'starts' if rank in deaf else 'listens'}-{rank}").exists() for rank in range(2))

    with pytest.raises(Stopped):
        devices(sweep_file, tmp_path / "home", body, ready)
    assert not list(tmp_path.glob("home/runs/*/record.json"))
    assert not [child for child in psutil.Process().children() if "WORKBENCH_MEETING" in " ".join(child.cmdline())]


def start(sweep: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "workbench", "run", str(sweep), "--devices", "2", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def rank_of(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.NoSuchProcess):  # such as one that asks the machine its name and ends
        return process.environ().get("RANK")
    return None


def scores(home: Path) -> dict[tuple[str, int], float]:
    store = Store(home)
    records = [store.record(path.parent.name) for path in home.glob("runs/*/record.json")]
    found = {}
    for record in records:
        assert record is not None
        assert record.status is Status.FINISHED, record.reason
        assert record.numerics is not None
        table = store.scores(record).to_pandas()
        bits = table[table["metric"] == "bits_per_byte"]
        found[record.arm, record.seed] = float((bits["value"] * bits["weight"]).sum() / bits["weight"].sum())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("option", [(), ("--sharded",)])
def test_a_cell_on_two_devices_scores_as_on_one(sweep_file: Path, tmp_path: Path, option: tuple[str, ...]) -> None:
    process = start(sweep_file, "--home", "two", "--cell", "0", *option)
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    session = open_session(str(sweep_file), tmp_path / "one")
    Runner(session.plan, session.store).run(session.plan.trials[0])
    assert scores(Path("two")) == pytest.approx(scores(tmp_path / "one"), abs=1e-4)
    (record,) = Path("two/runs").glob("*/record.json")
    numerics = json.loads(record.read_text())["numerics"]
    assert (numerics["devices"], numerics["sharded"]) == (2, bool(option))


@pytest.mark.slow
def test_a_sweep_on_two_devices_is_judged_and_survives_the_death_of_a_worker(sweep_file: Path, tmp_path: Path) -> None:
    text = sweep_file.read_text().replace("tokens=2048, batch=4", "tokens=8_000, batch=4, checkpoint_seconds=0.1")
    again = 'Arm(name="again", axis="seeds", seed_offset=100, configuration=BASELINE),'
    assert again in text
    sweep_file.write_text(text.replace(again, ""))
    process = start(sweep_file, "--home", "home", "--workers", "1")
    while process.poll() is None and not list(Path("home/models").glob("*/step-*.json")):
        time.sleep(0.02)
    worker = next(one for one in psutil.Process(process.pid).children() if "work" in one.cmdline())
    ranks = worker.children()
    assert len(ranks) == 2
    worker.kill()
    _, alive = psutil.wait_procs(ranks, timeout=60)  # devices left behind end by themselves
    assert not alive
    told, _ = process.communicate(timeout=500)
    assert process.returncode == 0, told
    assert len(scores(Path("home"))) == 4


@pytest.mark.slow
def test_a_device_killed_while_it_trains_leaves_a_record_and_the_next_start_goes_on(sweep_file: Path) -> None:
    text = sweep_file.read_text().replace("tokens=2048, batch=4", "tokens=20_000, batch=4, checkpoint_seconds=0.1")
    sweep_file.write_text(text)
    process = start(sweep_file, "--home", "home", "--cell", "0")
    while process.poll() is None and not list(Path("home/models").glob("*/step-*.json")):
        time.sleep(0.02)
    second = next(one for one in psutil.Process(process.pid).children() if rank_of(one) == "1")
    os.kill(second.pid, signal.SIGKILL)
    told, _ = process.communicate(timeout=120)
    assert "device 1 of 2 was killed by SIGKILL" in told
    (path,) = Path("home/runs").glob("*/record.json")
    assert json.loads(path.read_text())["status"] == "failed"
    reached = max(path.stem for path in Path("home/models").glob("*/step-*.json"))
    again = start(sweep_file, "--home", "home", "--cell", "0")
    told, _ = again.communicate(timeout=300)
    assert "finished" in told, told
    assert reached > "step-000000000"
    assert json.loads(path.read_text())["status"] == "finished"


def test_workers_are_given_gpus_of_their_own_for_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert [_visible_devices(slot, 2) for slot in range(2)] == ["4,5", "6,7"]
    assert [_visible_devices(slot, 1) for slot in range(5)] == ["4", "5", "6", "7", "4"]


def test_a_worker_and_its_devices_plan_what_the_command_line_said(sweep_file: Path, tmp_path: Path) -> None:
    told = open_session(str(sweep_file), tmp_path, devices=2, sharded=True)
    for name in ("work", "rank"):
        command = process_command(name, told.sweep, told.plan, told.store, None)
        assert command[3:5] == [name, str(sweep_file)]
        assert command[-3:] == ["--devices", "2", "--sharded"]
    assert told.plan.hash != open_session(str(sweep_file), tmp_path).plan.hash
    text = sweep_file.read_text()
    sweep_file.write_text(
        text.replace("import Arm, Metric,", "import Arm, Metric, NumericsRequest,").replace(
            "    seeds=2,", "    seeds=2,\n    numerics=NumericsRequest(devices=2, sharded=True),"
        )
    )
    assert open_session(str(sweep_file), tmp_path).plan.hash == told.plan.hash
