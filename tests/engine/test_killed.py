"""A run killed at any moment and started again ends with the weights of one left alone, to the bit."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from pathlib import Path

import pytest
from small_jobs import CONTEXT, NUMERICS, Poisoned, job, stream

from workbench.training import loop
from workbench.training.feeding import StreamFeed
from workbench.training.loop import Job, train
from workbench.training.numerics import settle
from workbench.training.rollback import Rollback

pytestmark = pytest.mark.slow
KILLS = 20


def long(folder: Path, checkpoint_seconds: float) -> Job:
    """A run that goes back twice."""
    feed = Poisoned({60: 1, 150: 2}, StreamFeed(stream(), CONTEXT), float("nan"))
    rule = Rollback(threshold=1000, every=25)
    return job(folder, 400, feed=feed, rollback=rule, checkpoints=3, checkpoint_seconds=checkpoint_seconds)


def run(folder: Path, checkpoint_seconds: float) -> None:
    settle(NUMERICS)
    loop.CHECKPOINT_SHARE = float("inf")
    train(long(folder, checkpoint_seconds))


def ended(folder: Path) -> dict[str, str]:
    """Return the hash of everything a run leaves."""
    return {path.name: json.loads(path.read_text())["sha256"] for path in folder.glob("*.json")}


def test_a_run_killed_at_twenty_random_moments_ends_with_the_weights_of_one_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", loop.CHECKPOINT_SHARE)  # put back what `run` sets
    run(tmp_path / "calm", 1000.0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["workbench.training.loop"])
    draw, stormy, reached = random.Random(1), tmp_path / "stormy", set()
    for kill in range(KILLS):
        before = {path.name for path in stormy.glob("step-*.json")}
        process = context.Process(target=run, args=(stormy, 1e-9))  # half of its time it writes
        process.start()
        while process.is_alive() and {path.name for path in stormy.glob("step-*.json")} <= before:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.1))
        assert process.is_alive(), f"the run ended before kill {kill + 1} of {KILLS}: the test proves nothing"
        process.kill()
        process.join()
        reached |= {path.name for path in stormy.glob("step-*.json")} - before
    assert len(reached) >= KILLS
    run(stormy, 1.0)
    assert ended(stormy) == ended(tmp_path / "calm")
    assert len(json.loads((stormy / "final.json").read_text())["rollbacks"]) == 2
    assert not list(stormy.glob(".*"))
