"""Kill anything at any moment, type the command again: nothing is repeated, nothing is lost, nothing changes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from workbench.running import Runner
from workbench.session import deliver, open_session
from workbench.store import Store

pytestmark = pytest.mark.slow


def start(sweep: Path, home: str, *options: str, hash_seed: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "workbench", "run", str(sweep), "--home", home, *options]
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def scores(home: Path) -> dict[str, str | None]:
    plan = json.loads(next(home.glob("plans/*/plan.json")).read_text())
    records = Store(home).records(trial["run_id"] for trial in plan["trials"])
    assert len(records) == len(plan["trials"])
    assert {record.status for record in records} == {"finished"}
    return {record.run_id: record.scores_sha256 for record in records}


@pytest.fixture
def longer(sweep_file: Path) -> Path:
    """The small sweep with runs of some seconds and a checkpoint every half second."""
    text = sweep_file.read_text()
    sweep_file.write_text(text.replace("tokens=2048, batch=4", "tokens=100_000, batch=4, checkpoint_seconds=0.5"))
    return sweep_file


def checkpoints(home: Path) -> set[tuple[str, int]]:
    found = set()
    for path in home.glob("models/*/step-*.json"):
        try:
            found.add((str(path), path.stat().st_mtime_ns))
        except FileNotFoundError:  # the run went on and wrote a newer one
            continue
    return found


def test_a_sweep_killed_at_random_moments_ends_with_the_scores_of_one_left_alone(longer: Path, tmp_path: Path) -> None:
    calm = open_session(str(longer), tmp_path / "calm")
    alone = Runner(calm.plan, calm.store)
    undisturbed = {trial.run_id: alone.run(trial).scores_sha256 for trial in calm.plan.trials}

    draw, home, kills = random.Random(4), tmp_path / "stormy", 0
    for attempt in range(4):
        before = checkpoints(home)
        process = start(longer, "stormy", "--workers", "2", hash_seed=2 + attempt)
        while process.poll() is None and not checkpoints(home) - before:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 1))
        if process.poll() is not None:
            process.communicate()
            break
        family = psutil.Process(process.pid).children(recursive=True)
        victims = [[process.pid], [child.pid for child in family[:1]], [child.pid for child in family]][attempt % 3]
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):  # it ended between the two lines
                os.kill(victim, signal.SIGKILL)
        kills += 1
        if attempt == 0:  # workers left behind by a killed parent end by themselves
            _, alive = psutil.wait_procs(family, timeout=60)
            assert family
            assert not alive
        if process.pid not in victims:  # it lost workers: it must start others and go on by itself
            time.sleep(draw.uniform(1, 4))
            process.kill()
        process.communicate()
    assert kills >= 2, "the sweep ended before it could be killed: the test proves nothing"
    last = start(longer, "stormy", "--workers", "2", hash_seed=99)
    told, _ = last.communicate(timeout=400)
    assert last.returncode == 0, told
    assert scores(home) == undisturbed


def test_a_cell_that_is_preempted_writes_a_checkpoint_says_so_and_goes_on_where_it_was(
    longer: Path, tmp_path: Path
) -> None:
    text = longer.read_text().replace("tokens=100_000", "tokens=60_000")
    longer.write_text(text.replace("checkpoint_seconds=0.5", "checkpoint_seconds=1000"))
    calm = open_session(str(longer), tmp_path / "calm")
    trial = calm.plan.trials[0]
    alone = Runner(calm.plan, calm.store).run(trial)

    store = Store("home")
    folder = store.model_folder(trial.model_key)
    asking = start(longer, "home", "--cell", "0")
    while not (store.home / "locks" / f"model-{trial.model_key}").exists():
        time.sleep(0.02)
    time.sleep(0.1)
    os.kill(asking.pid, signal.SIGTERM)
    told, _ = asking.communicate(timeout=240)
    assert asking.returncode == 130, told
    assert "run it again" in told
    assert store.record(trial.run_id) is None
    (left,) = folder.glob("step-*.json")
    assert 0 < json.loads(left.read_text())["step"] < 469

    again = start(longer, "home", "--cell", "0")
    told, _ = again.communicate(timeout=300)
    assert again.returncode == 0, told
    record = store.record(trial.run_id)
    assert record is not None
    assert record.scores_sha256 == alone.scores_sha256
    weights = (folder, calm.store.model_folder(trial.model_key))
    assert len({(one / "final.safetensors").read_bytes() for one in weights}) == 1


def test_a_worker_added_by_hand_takes_its_share(longer: Path) -> None:
    process = start(longer, "home", "--workers", "1")
    for _ in range(600):
        if list(Path("home/queue").glob("*")) and list(Path("home/models").glob("*")):
            break
        time.sleep(0.1)
    command = [sys.executable, "-m", "workbench", "work", str(longer), "--home", "home"]
    helped = subprocess.run(command, capture_output=True, text=True, timeout=300)
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert helped.returncode == 0, helped.stderr
    news = [json.loads(line) for line in helped.stdout.splitlines()]
    assert any(one["event"] == "done" and one["status"] == "finished" for one in news)
    assert len(scores(Path("home"))) == 6
    assert deliver(Store("home")) == (0, 6), "the runs of the added worker were not delivered to MLflow"


def test_a_cell_that_always_kills_its_worker_becomes_a_failed_record_and_the_rest_is_judged(sweep_file: Path) -> None:
    text = sweep_file.read_text()
    sweep_file.write_text(
        "import os, signal, sys\n"
        + text
        + "\nif 'work' in sys.argv:\n"
        + "    from workbench.evaluation import evaluate as module\n"
        + "    real = module.evaluate\n"
        + "    def deadly(model, *rest, **named):\n"
        + "        if type(model.position).__name__ == 'AlibiModule':\n"
        + "            os.kill(os.getpid(), signal.SIGKILL)\n"
        + "        return real(model, *rest, **named)\n"
        + "    module.evaluate = deadly\n"
    )
    process = start(sweep_file, "home", "--workers", "2")
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert "died 3 times" in told
    records = [json.loads(path.read_text()) for path in Path("home/runs").glob("*/record.json")]
    statuses = {(record["arm"], record["status"]) for record in records}
    assert statuses == {("baseline", "finished"), ("again", "finished"), ("ALiBi", "failed")}
