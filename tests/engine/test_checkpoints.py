"""What a killed, damaged or full disk leaves behind is told apart, and the run goes on from what is sound."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_jobs import BATCH, CONTEXT, NUMERICS, SMALL, job, same

from workbench.errors import StoreError
from workbench.records import Seeds, Status
from workbench.running import Runner
from workbench.session import open_session
from workbench.training import loop
from workbench.training.checkpoints import Progress, kept, kept_steps, load_checkpoint, load_kept, read_state
from workbench.training.loop import Interrupted, Step, Trained, build, train
from workbench.training.optimizers import make_optimizer
from workbench.training.pace import curve_interval
from workbench.training.recipe import AdamW, Lion, Muon

pytestmark = pytest.mark.usefixtures("deterministic", "checkpoints_may_cost_anything")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(job(tmp_path_factory.mktemp("whole")))


def interrupted(at: int) -> Callable[[], bool]:
    asked: Iterator[bool] = iter([False] * (at - 1) + [True])
    return lambda: next(asked)


def first_step(one: Any) -> tuple[int, Trained]:
    """Go on with a run; return the first step that it does, and what it ends with."""
    news: list[Step] = []
    trained = train(one, watch=news.append)
    return news[0].step, trained


# --- damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """Turn one bit: in JSON that of a number, so that it still parses."""
    content = bytearray(path.read_bytes())
    place = content.index(b'"step": ') + 8 if path.suffix == ".json" else len(content) - 1
    content[place] ^= 1
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize("damage", [cut, empty, flip, remove])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, whole: Trained, damage: Callable[[Path], None], suffix: str
) -> None:
    for after in (3, 2):
        with pytest.raises(Interrupted):
            train(job(tmp_path), stop=interrupted(after))
    newest = sorted(tmp_path.glob("step-*.json"))[-1]
    assert newest.stem == "step-000000005"
    damage(newest.with_suffix(suffix))
    step, trained = first_step(job(tmp_path))
    assert step == 4
    assert same(whole, trained)


def test_without_a_sound_checkpoint_a_run_begins_anew(tmp_path: Path, whole: Trained) -> None:
    with pytest.raises(Interrupted):
        train(job(tmp_path), stop=interrupted(5))
    cut(next(tmp_path.glob("step-*.safetensors")))
    step, trained = first_step(job(tmp_path))
    assert step == 1
    assert same(whole, trained)


def test_what_a_killed_writer_left_is_removed(tmp_path: Path, whole: Trained) -> None:
    for name in (".step-000000003.safetensors.77.part", ".final.json.77.part"):
        (tmp_path / name).write_bytes(b"half")
    trained = train(job(tmp_path))
    assert same(whole, trained)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["final.json", "final.safetensors"]


@pytest.mark.parametrize("recipe", [AdamW(), Lion(), Muon()])
def test_a_checkpoint_holds_all_that_an_optimizer_remembers(tmp_path: Path, recipe: AdamW | Lion | Muon) -> None:
    straight = train(job(tmp_path / "whole", 6, optimizer=recipe))
    with pytest.raises(Interrupted):
        train(job(tmp_path / "parts", 6, optimizer=recipe), stop=interrupted(3))
    step, resumed = first_step(job(tmp_path / "parts", 6, optimizer=recipe))
    assert step == 4
    assert same(straight, resumed)


# --- a full disk


class Full:
    """A disk that takes `room` more files and is full then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room, self._sync = room, os.fsync
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, handle: int) -> None:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= 1
        self._sync(handle)


@pytest.mark.parametrize("room", [2, 3, 4, 5])
def test_a_full_disk_ends_a_run_clearly_and_leaves_the_checkpoint_before_it(
    tmp_path: Path, whole: Trained, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = job(tmp_path, checkpoint_seconds=1e-9)
    with monkeypatch.context() as patched:
        Full(patched, room)
        with pytest.raises(StoreError, match="a checkpoint could not be written") as told:
            train(busy)
    assert "No space left on device" in str(told.value)
    assert "make room" in str(told.value)
    assert not list(tmp_path.glob(".*.part"))
    done = room // 2  # a checkpoint is two files
    sound = [path for path in tmp_path.glob("step-*.json") if read_state(path.with_suffix(""))]
    assert max(path.stem for path in sound) == f"step-{done:09d}"
    step, trained = first_step(busy)
    assert step == done + 1
    assert same(whole, trained)


def test_a_cell_that_meets_a_full_disk_leaves_no_record_and_goes_on_when_there_is_room(
    sweep_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_file.write_text(sweep_file.read_text().replace("batch=4)", "batch=4, checkpoint_seconds=1e-9)"))
    session = open_session(str(sweep_file), tmp_path / "home")
    runner, trial = Runner(session.plan, session.store), session.plan.trials[0]
    runner.prepare()
    with monkeypatch.context() as patched:
        Full(patched, 8)
        with pytest.raises(StoreError, match="make room"):
            runner.run(trial)
    assert session.store.record(trial.run_id) is None
    assert runner.run(trial).status is Status.FINISHED


def test_checkpoints_by_the_clock_take_no_more_than_their_share_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def slow(folder: Path, model: object, optimizer: object, progress: Progress, keep: int, leads: bool) -> None:
        written.append(progress.step)
        time.sleep(0.01)

    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", 0.02)
    monkeypatch.setattr(loop, "save_checkpoint", slow)
    trained = train(job(tmp_path, checkpoint_seconds=1e-9))
    assert written[0] == 1
    assert len(written) <= 1 + 0.02 * trained.costs.training_seconds / 0.01


# --- what is kept


@given(st.integers(1, 12), st.integers(1, 5000))
def test_kept_steps_are_points_of_the_curve_before_the_end_and_evenly_spaced(count: int, steps: int) -> None:
    every = curve_interval(steps)
    places = sorted(kept_steps(count, steps, every))
    assert all(0 < place < steps and place % every == 0 for place in places)
    assert len(places) <= count
    if steps > 4 * (count + 1) * every:
        gaps = [after - before for before, after in zip([0, *places], [*places, steps], strict=True)]
        assert len(places) == count
        assert max(gaps) - min(gaps) <= 2 * every


def test_weights_kept_on_the_way_are_those_of_their_step_and_outlive_the_run(tmp_path: Path) -> None:
    one = job(tmp_path / "whole", checkpoints=3)
    trained = train(one)
    found = kept(one.folder)
    assert [(held.step, held.tokens) for held in found] == [(step, step * BATCH * CONTEXT) for step in (3, 6, 9)]
    losses = trained.curve["loss"].to_pylist()
    assert found[1].loss == pytest.approx(sum(losses[3:6]) / 3)
    with pytest.raises(Interrupted):
        train(job(tmp_path / "parts"), stop=interrupted(6))
    model, other = (build(SMALL, Seeds.all(0), NUMERICS) for _ in range(2))
    load_checkpoint(tmp_path / "parts", model, make_optimizer(model, one.stage.optimizer))
    load_kept(found[1], other)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), other.parameters(), strict=True))
    flip(found[1].path)
    with pytest.raises(StoreError, match="damaged"):
        load_kept(found[1], other)


def test_a_trained_model_is_trained_again_for_weights_it_did_not_keep(tmp_path: Path, whole: Trained) -> None:
    train(job(tmp_path))
    one = job(tmp_path, checkpoints=2)
    step, again = first_step(one)
    assert step == 1
    assert same(whole, again)
    assert [held.step for held in kept(tmp_path)] == [4, 8]
    news: list[Step] = []
    train(one, watch=news.append)
    assert news == []


def test_as_many_checkpoints_are_kept_as_the_stage_says(tmp_path: Path) -> None:
    for keep in (1, 3):
        one = replace(job(tmp_path / str(keep), keep=keep, checkpoint_seconds=1e-9))
        with pytest.raises(Interrupted):
            train(one, stop=interrupted(7))
        steps = [int(path.stem[5:]) for path in sorted(one.folder.glob("step-*.json"))]
        assert steps == list(range(8 - keep, 8))
