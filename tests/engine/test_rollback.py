"""A spike of the loss takes a run back, and on with other text; when and where is a function of the seeds alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_jobs import BATCH, CONTEXT, Poisoned, job, same, stream

from workbench.configuration import Configuration
from workbench.errors import PlanError
from workbench.identity import digest
from workbench.planning import plan
from workbench.records import Status
from workbench.reporting.describing import footnotes
from workbench.running import Runner
from workbench.seeds import generator
from workbench.session import open_session
from workbench.sweep import Arm, Sweep
from workbench.training.checkpoints import read_state
from workbench.training.feeding import Fed, StreamFeed
from workbench.training.loop import Interrupted, Job, Step, Trained, train
from workbench.training.recipe import AdamW, Pretraining
from workbench.training.rollback import Rollback

RULE = Rollback(window=8, threshold=8, every=5, tries=2)
TOKENS = BATCH * CONTEXT
NAN = float("nan")
FAST = AdamW(learning_rate=0.02)


pytestmark = pytest.mark.usefixtures("deterministic", "checkpoints_may_cost_anything")


def poisoned(steps: dict[int, int], weight: float = NAN) -> Poisoned:
    return Poisoned(steps, StreamFeed(stream(), CONTEXT), weight)


@dataclass(frozen=True)
class Deaf:
    """A feed that reads the first order again after a rollback, only without the poison."""

    inner: Poisoned

    def sequences(self, first: int, count: int) -> Fed:
        return self.inner.sequences(first, count)

    def restarted(self, number: int) -> Deaf:
        return Deaf(replace(self.inner, rollbacks=number))


def interrupted(at: int) -> Callable[[], bool]:
    asked: Iterator[bool] = iter([False] * (at - 1) + [True])
    return lambda: next(asked)


# --- the detector


@given(st.lists(st.floats(0, 10), min_size=8, max_size=20), st.floats(0, 50))
def test_a_spike_is_what_lies_far_above_the_median_of_the_steps_before(before: list[float], loss: float) -> None:
    last = np.array(before[-8:])
    deviation = max(1.4826 * float(np.median(np.abs(last - np.median(last)))), 1e-3)
    found = RULE.trouble(before, loss, 1.0)
    assert (found is not None) == ((loss - float(np.median(last))) / deviation > 8)


def test_nothing_is_a_spike_before_the_window_is_full_except_what_is_not_finite() -> None:
    assert RULE.trouble([1.0] * 7, 1e6, 1.0) is None
    assert RULE.trouble([1.0] * 8, 1e6, 1.0) is not None
    for loss, norm in ((NAN, 1.0), (1.0, NAN), (float("inf"), 1.0), (1.0, float("inf"))):
        assert RULE.trouble([], loss, norm) is not None


def test_ordinary_noise_is_no_spike() -> None:
    losses = generator(0, "losses").normal(3.0, 0.1, 5000).tolist()
    rule = Rollback()
    assert not [step for step in range(64, 5000) if rule.trouble(losses[:step], losses[step], 1.0)]


# --- going back


@pytest.mark.parametrize("weight", [1.0, NAN])
def test_a_poisoned_step_takes_the_run_back_to_the_point_before_it(tmp_path: Path, weight: float) -> None:
    trained = train(job(tmp_path, 30, feed=poisoned({23: 1}, weight), rollback=RULE, optimizer=FAST))
    (lineage,) = trained.rollbacks
    assert trained.status is Status.FINISHED
    assert {name: lineage[name] for name in ("number", "step", "back_to", "tokens", "lost_tokens")} == {
        "number": 1, "step": 24, "back_to": 20, "tokens": 20 * TOKENS, "lost_tokens": 4 * TOKENS,
    }  # fmt: skip
    assert ("nan" in lineage["reason"]) == (weight != 1.0)
    assert trained.curve["step"].to_pylist() == list(range(1, 31))
    losses = trained.curve["loss"].to_pylist()
    assert losses[23] < statistics.median(losses[15:23]) + 1
    assert (trained.costs.rollbacks, trained.costs.tokens, trained.costs.lost_tokens) == (1, 30 * TOKENS, 4 * TOKENS)


def test_after_a_rollback_the_run_reads_what_the_rollback_says_and_drops_out_anew(tmp_path: Path) -> None:
    rolled = train(job(tmp_path / "rolled", 14, feed=poisoned({12: 1}), rollback=RULE))
    calm = train(job(tmp_path / "calm", 14, rollback=RULE))
    first, second = (one.curve["loss"].to_pylist() for one in (rolled, calm))
    assert calm.rollbacks == []
    assert first[:10] == second[:10]
    assert all(one != other for one, other in zip(first[10:], second[10:], strict=True))
    dropout = job(tmp_path / "dropout", 14, feed=Deaf(poisoned({12: 1})), rollback=RULE)
    deaf = train(dropout).curve["loss"].to_pylist()
    assert deaf[:10] == second[:10]
    assert all(one != other for one, other in zip(deaf[10:], second[10:], strict=True))


def test_a_rule_that_finds_nothing_changes_no_bit(tmp_path: Path) -> None:
    plain, watched = train(job(tmp_path / "a")), train(job(tmp_path / "b", rollback=RULE))
    assert same(plain, watched)
    assert plain.curve.equals(watched.curve)


def test_a_learning_rate_that_blows_up_a_run_is_found_and_the_tries_are_bounded(tmp_path: Path) -> None:
    blown = job(tmp_path, 20, rollback=RULE, optimizer=AdamW(learning_rate=1e4))
    trained = train(blown)
    assert trained.status is Status.DIVERGED
    assert trained.reason is not None
    assert trained.reason.endswith("of 20, after 2 rollbacks")
    assert [one["number"] for one in trained.rollbacks] == [1, 2]
    assert f"at step {trained.costs.tokens // TOKENS} of 20" in trained.reason
    assert train(blown).rollbacks == trained.rollbacks


def test_a_spike_in_the_first_steps_goes_back_to_the_beginning(tmp_path: Path) -> None:
    trained = train(job(tmp_path, 8, feed=poisoned({3: 2}), rollback=RULE))
    assert [(one["step"], one["back_to"]) for one in trained.rollbacks] == [(4, 0), (4, 0)]
    assert trained.status is Status.FINISHED


def rolling(folder: Path, **fields: Any) -> Job:
    """A run of 18 steps that goes back from the 13th to the 10th, and from the 17th to the 15th."""
    return job(folder, 18, feed=poisoned({12: 1, 16: 2}), rollback=RULE, **fields)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(rolling(tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize("stops", [(12,), (13,), (14, 3), (11, 1, 1, 1, 1), (19, 3, 1), (3, 11, 7)])
def test_an_interrupted_run_goes_back_where_an_uninterrupted_one_does(
    tmp_path: Path, whole: Trained, stops: tuple[int, ...]
) -> None:
    assert [(one["step"], one["back_to"]) for one in whole.rollbacks] == [(13, 10), (17, 15)]
    for after in stops:
        with pytest.raises(Interrupted):
            train(rolling(tmp_path), stop=interrupted(after))
    parts = train(rolling(tmp_path))
    assert parts.rollbacks == whole.rollbacks
    assert parts.curve.equals(whole.curve)
    assert same(whole, parts)


def test_checkpoints_by_the_clock_decide_nothing(tmp_path: Path, whole: Trained) -> None:
    busy = train(rolling(tmp_path, checkpoint_seconds=1e-9))
    assert busy.rollbacks == whole.rollbacks
    assert same(whole, busy)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["final.json", "final.safetensors"]


def test_the_point_a_checkpoint_needs_is_there_and_older_ones_are_not(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(job(tmp_path, 20, rollback=RULE, checkpoint_seconds=1e-9), stop=interrupted(12))
    assert [path.stem for path in sorted(tmp_path.glob("point-*.json"))] == ["point-000000010"]
    assert [path.stem for path in sorted(tmp_path.glob("step-*.json"))] == ["step-000000011", "step-000000012"]


def test_a_checkpoint_whose_point_is_damaged_is_passed_over(tmp_path: Path, whole: Trained) -> None:
    for after in (8, 3):
        with pytest.raises(Interrupted):
            train(rolling(tmp_path), stop=interrupted(after))
    newest = sorted(tmp_path.glob("point-*.safetensors"))[-1]
    assert newest.stem == "point-000000010"
    newest.write_bytes(newest.read_bytes()[:-3])
    assert read_state(newest.with_suffix("")) is None
    news: list[Step] = []
    resumed = train(rolling(tmp_path), watch=news.append)
    assert news[0].step == 9
    assert resumed.rollbacks == whole.rollbacks
    assert same(whole, resumed)


# --- in a sweep


def test_a_rule_is_part_of_identity_where_there_is_one_and_each_of_its_fields_counts() -> None:
    stages = [Pretraining(), Pretraining(rollback=None), Pretraining(rollback=RULE)]
    changed = {"window": 9, "threshold": 7.0, "every": 11, "tries": 3}
    stages += [Pretraining(rollback=RULE.model_copy(update={name: value})) for name, value in changed.items()]
    hashes = [digest(stage) for stage in stages]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == len(hashes) - 1


def test_an_arm_with_another_rule_must_declare_it(sweep_file: Path, tmp_path: Path) -> None:
    sweep = open_session(str(sweep_file), tmp_path / "home").plan.sweep
    baseline = sweep.baseline
    assert isinstance(baseline, Configuration)
    other = baseline.vary(position=sweep.arms[0].configuration.architecture.position, rollback=RULE)
    silent = Sweep(**{**dict(sweep), "arms": (Arm(name="ALiBi", axis="position", configuration=other),)})
    with pytest.raises(PlanError, match="does not declare"):
        plan(silent, None, lambda variant: "")
    arm = Arm(name="rule", axis="rollback", configuration=baseline.vary(rollback=RULE))
    assert plan(Sweep(**{**dict(sweep), "arms": (arm,)}), None, lambda variant: "").arms[1].axis


def test_a_record_says_where_the_run_went_back_and_where_pairing_ended(
    sweep_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = sweep_file.read_text().replace("batch=4)", "batch=4, rollback=Rollback(every=5))")
    sweep_file.write_text("from workbench.training.rollback import Rollback\n" + text)
    session = open_session(str(sweep_file), tmp_path / "home")
    plain = StreamFeed.sequences

    def sequences(feed: StreamFeed, first: int, count: int) -> object:
        fed = plain(feed, first, count)
        if first == 4 * 12 and feed.stream.rollback == 0:
            fed.batch.weights[:] = NAN
        return fed

    monkeypatch.setattr(StreamFeed, "sequences", sequences)
    record = Runner(session.plan, session.store).run(session.plan.trials[0])
    assert record.status is Status.FINISHED
    (entry,) = record.lineage
    assert [one["back_to"] for one in entry["rollbacks"]] == [10]
    assert record.paired_tokens == 10 * 4 * 32
    assert record.costs.rollbacks == 1
    told = list(footnotes({"trials": [{"cell": 0, "arm": "baseline", "seed": 0}], "arms": []}, {0: record}, ()))
    assert told == [
        "baseline, seed 0 went back from a loss spike once; after 1,280 tokens it read other text than its seeds say, "
        "unpaired with the baseline"
    ]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    calm = Runner(session.plan, session.store).run(session.plan.trials[1])
    assert (calm.paired_tokens, calm.costs.rollbacks) == (None, 0)
    assert "rollbacks" not in calm.lineage[0]
