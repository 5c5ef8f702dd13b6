"""The best weights by a declared rule are those of their step, whatever happens to the run on its way there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_jobs import BATCH, CONTEXT, NUMERICS, SMALL, Poisoned, job, same, stream
from torch import nn

from workbench.errors import StoreError
from workbench.identity import digest
from workbench.records import Seeds
from workbench.training.checkpoints import Progress, load_checkpoint
from workbench.training.cohort import train_together
from workbench.training.feeding import StreamFeed
from workbench.training.keeping import KeepBest, Keeper, load_best
from workbench.training.loop import Interrupted, Job, Trained, build, train
from workbench.training.optimizers import make_optimizer
from workbench.training.recipe import AdamW, Constant, Pretraining
from workbench.training.rollback import Rollback

RULE = KeepBest(points=2, after=0.25)
STEPS = 16
TOKENS = BATCH * CONTEXT
# a rate at which the loss goes up and down, so that the best is not the last
ROUGH = AdamW(learning_rate=0.05)


pytestmark = pytest.mark.usefixtures("deterministic", "checkpoints_may_cost_anything")


def rough(folder: Path, **fields: object) -> Job:
    given = {"keep_best": RULE, "optimizer": ROUGH, "schedule": Constant(), **fields}
    return job(folder, STEPS, **given)  # type: ignore[arg-type]


def interrupted(at: int) -> Callable[[], bool]:
    asked: Iterator[bool] = iter([False] * (at - 1) + [True])
    return lambda: next(asked)


def fresh() -> nn.Module:
    return build(SMALL, Seeds.all(0), NUMERICS)


def best_of(folder: Path) -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    model = fresh()
    return load_best(folder, model), model.state_dict()


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(rough(folder))


@given(st.lists(st.floats(0, 9), min_size=1, max_size=30), st.integers(1, 8), st.floats(0, 0.99))
def test_the_best_is_the_earliest_least_mean_over_the_last_points(
    losses: list[float], points: int, after: float
) -> None:
    progress, model = Progress(), nn.Linear(1, 1)
    keeper = Keeper(KeepBest(points=points, after=after), Path(), model, progress, len(losses))
    for step, loss in enumerate(losses, 1):
        progress.step = step
        progress.curve.append({"step": step, "tokens": 10 * step, "loss": loss})
        keeper.look()
    means = {
        step: sum(losses[max(0, step - points) : step]) / min(step, points)
        for step in range(1, len(losses) + 1)
        if step >= after * len(losses)
    }
    step = min(means, key=means.__getitem__)
    assert progress.bests == [{"step": step, "tokens": 10 * step, "loss": pytest.approx(means[step])}]


def test_the_best_weights_are_those_that_the_run_had_then(tmp_path: Path, whole: tuple[Path, Trained]) -> None:
    folder, trained = whole
    losses = trained.curve["loss"].to_pylist()
    means = {step: (losses[step - 2] + losses[step - 1]) / 2 for step in range(4, STEPS + 1)}
    described, best = best_of(folder)
    step = min(means, key=means.__getitem__)
    assert 4 < step < STEPS  # else this would test little
    assert described == {
        "step": step, "tokens": step * TOKENS, "loss": pytest.approx(means[step]), "rule": RULE.model_dump(),
    }  # fmt: skip
    one = rough(tmp_path)
    with pytest.raises(Interrupted):
        train(one, stop=interrupted(step))
    model = fresh()
    load_checkpoint(tmp_path, model, make_optimizer(model, ROUGH))
    assert equal(best, model.state_dict())
    assert not equal(best, trained.model.state_dict())
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"best-{step:09d}.json", f"best-{step:09d}.safetensors", "final.json", "final.safetensors"]


@pytest.mark.parametrize("stops", [(3, 3, 3, 3), (9, 1, 1, 1), (15,)])
def test_an_interrupted_run_keeps_what_an_uninterrupted_one_does(
    tmp_path: Path, whole: tuple[Path, Trained], stops: tuple[int, ...]
) -> None:
    for after in stops:
        with pytest.raises(Interrupted):
            train(rough(tmp_path, checkpoint_seconds=1e-9), stop=interrupted(after))
    parts = train(rough(tmp_path))
    assert same(parts, whole[1])
    ours, theirs = best_of(tmp_path), best_of(whole[0])
    assert ours[0] == theirs[0]
    assert equal(ours[1], theirs[1])


def test_a_checkpoint_whose_best_weights_are_damaged_is_passed_over(
    tmp_path: Path, whole: tuple[Path, Trained]
) -> None:
    with pytest.raises(Interrupted):
        train(rough(tmp_path, checkpoint_seconds=1e-9, keep=9), stop=interrupted(12))
    newest = sorted(tmp_path.glob("best-*.safetensors"))[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    assert same(train(rough(tmp_path)), whole[1])
    assert equal(best_of(tmp_path)[1], best_of(whole[0])[1])


def test_after_a_rollback_the_best_is_one_of_what_was_not_taken_back(tmp_path: Path) -> None:
    spiking = Poisoned({13: 1}, StreamFeed(stream(), CONTEXT), float("nan"))
    rule = Rollback(window=8, every=8, tries=1)
    one = rough(tmp_path / "a", feed=spiking, rollback=rule, keep_best=KeepBest(points=1, after=0.5))
    trained = train(one)
    assert [(back["step"], back["back_to"]) for back in trained.rollbacks] == [(14, 8)]
    losses = trained.curve["loss"].to_pylist()
    described, best = best_of(tmp_path / "a")
    candidates = {step: losses[step - 1] for step in range(8, STEPS + 1)}
    assert described["step"] == min(candidates, key=candidates.__getitem__)
    for after in (9, 5):
        with pytest.raises(Interrupted):
            train(Job(**{**vars(one), "folder": tmp_path / "b"}), stop=interrupted(after))
    train(Job(**{**vars(one), "folder": tmp_path / "b"}))
    assert best_of(tmp_path / "b")[0] == described
    assert equal(best_of(tmp_path / "b")[1], best)


def test_a_falling_loss_is_best_at_the_end_and_nothing_is_held_twice(tmp_path: Path) -> None:
    trained = train(job(tmp_path, 12, keep_best=KeepBest(points=6, after=0.9)))
    described, best = best_of(tmp_path)
    assert described["step"] == 12
    assert equal(best, trained.model.state_dict())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["final.json", "final.safetensors"]


def test_a_model_is_trained_again_for_a_best_by_another_rule(tmp_path: Path, whole: tuple[Path, Trained]) -> None:
    plain = train(rough(tmp_path, keep_best=None))
    assert same(plain, whole[1])
    with pytest.raises(StoreError, match="kept no best weights"):
        load_best(tmp_path, fresh())
    news: list[object] = []
    for rule, taken in ((RULE, STEPS), (RULE, 0), (KeepBest(points=3, after=0.25), STEPS)):
        news.clear()
        train(rough(tmp_path, keep_best=rule), watch=news.append)
        assert len(news) == taken
    assert json.loads((tmp_path / "final.json").read_text())["best"]["rule"]["points"] == 3


def test_what_is_kept_is_no_part_of_the_models_identity() -> None:
    assert digest(Pretraining()) == digest(Pretraining(keep_best=RULE))


def test_a_stack_of_seeds_keeps_the_best_of_each(tmp_path: Path, whole: tuple[Path, Trained]) -> None:
    numerics = NUMERICS.model_copy(update={"execution": "stacked"})
    jobs = [
        Job(**{**vars(rough(tmp_path / str(seed))), "seeds": Seeds.all(seed), "numerics": numerics}) for seed in (0, 1)
    ]
    train_together(jobs)
    found = [best_of(one.folder) for one in jobs]
    assert found[0][0]["step"] == best_of(whole[0])[0]["step"]
    assert all(torch.allclose(value, best_of(whole[0])[1][name], atol=1e-4) for name, value in found[0][1].items())
    assert not equal(found[0][1], found[1][1])
