from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.command import Command
from workbench.planning import Plan
from workbench.records import Status
from workbench.running import Runner, Stopped
from workbench.session import Session, decide, merge, open_session
from workbench.store import Store
from workbench.sweep import Arm, Metric, Sweep

TRAINER = """
import argparse, random
from pathlib import Path
parser = argparse.ArgumentParser()
for name in ("--seed", "--width", "--out"):
    parser.add_argument(name)
given = parser.parse_args()
noise = random.Random(given.seed + given.width).gauss(0, 0.001)
{extra}
Path(given.out, "scores.csv").write_text("value\\n" + str(3.0 - int(given.width) / 100 + noise) + "\\n")
"""


@pytest.fixture
def session(sweep_file: Path, tmp_path: Path) -> Session:
    return open_session(str(sweep_file), tmp_path / "home")


def command_plan(folder: Path, extra: str = "") -> tuple[Plan, Store]:
    from workbench.planning import plan

    (folder / "train.py").write_text(TRAINER.format(extra=extra))
    baseline = Command(
        command=f"{sys.executable} train.py --seed {{seed}} --width {{width}} --out {{out}}",
        fields={"width": 10},
        files=("train.py",),
        folder=str(folder),
    )
    sweep = Sweep(
        name="mine",
        question="Does width help?",
        baseline=baseline,
        arms=(Arm(name="wide", axis="width", configuration=baseline.vary(width=20)),),
        seeds=3,
        metric=Metric(name="loss", higher_is_better=False, smallest_effect=0.01),
    )
    return plan(sweep, None, lambda variant: ""), Store(folder / "home")


def run_all(plan: Plan, store: Store) -> list[Any]:
    runner = Runner(plan, store)
    return [runner.run(trial) for trial in plan.trials]


def test_a_cell_leaves_a_record_with_scores_curve_costs_and_provenance(session: Session) -> None:
    trial = session.plan.trials[0]
    record = Runner(session.plan, session.store).run(trial)
    assert (record.status, record.arm, record.seed, record.run_id) == ("finished", "baseline", 0, trial.run_id)
    scores = session.store.scores(record).to_pandas()
    assert set(scores["metric"]) == {"bits_per_byte", "accuracy", "margin"}
    assert scores.loc[scores["metric"] == "bits_per_byte", "value"].between(1, 9).all()
    curve = session.store.curve(record)
    assert curve is not None
    assert curve["step"].to_pylist()[-1] == 16
    assert record.costs.tokens == 2048
    assert record.costs.flops > 0
    assert record.provenance["packages"]["torch"]
    assert record.spec["architecture"]["position"]["kind"] == "rotary"


def test_a_finished_cell_is_not_run_again(session: Session) -> None:
    trial = session.plan.trials[0]
    first = Runner(session.plan, session.store).run(trial)
    news: list[Any] = []
    again = Runner(session.plan, session.store, watch=lambda *step: news.append(step)).run(trial)
    assert again == first
    assert news == []


def test_a_stopped_cell_goes_on_to_the_scores_of_one_that_was_not(session: Session, sweep_file: Path) -> None:
    whole = Runner(session.plan, session.store).run(session.plan.trials[1])
    other = Store(session.store.home.parent / "other")
    asked = iter([False] * 6 + [True])
    with pytest.raises(Stopped):
        Runner(session.plan, other, stop=lambda: next(asked)).run(session.plan.trials[1])
    assert other.record(whole.run_id) is None
    assert Runner(session.plan, other).run(session.plan.trials[1]).scores_sha256 == whole.scores_sha256


def test_a_model_that_was_trained_is_scored_anew_without_training(session: Session, sweep_file: Path) -> None:
    Runner(session.plan, session.store).run(session.plan.trials[0])
    sweep_file.write_text(sweep_file.read_text().replace("documents=4", "documents=3"))
    changed = open_session(str(sweep_file), session.store.home)
    assert changed.plan.hash != session.plan.hash
    news: list[Any] = []
    Runner(changed.plan, changed.store, watch=lambda *step: news.append(step)).run(changed.plan.trials[0])
    assert news == []


def test_what_a_cell_throws_becomes_a_failed_record(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*arguments: object, **named: object) -> None:
        raise MemoryError("the accelerator is full")

    with monkeypatch.context() as patch:
        patch.setattr("workbench.training.loop.train", explode)
        record = Runner(session.plan, session.store).run(session.plan.trials[0])
    assert record.status is Status.FAILED
    assert "the accelerator is full" in (record.reason or "")
    assert Runner(session.plan, session.store).run(session.plan.trials[0]).status is Status.FINISHED


def test_a_diverged_run_is_a_record_and_its_arm_is_neither_better_nor_equivalent(
    sweep_file: Path, tmp_path: Path
) -> None:
    text = sweep_file.read_text().replace(
        'axis="position", configuration=BASELINE.vary(position=Alibi())',
        'axis="learning_rate", configuration=BASELINE.vary(learning_rate=1e30)',
    )
    sweep_file.write_text(text)
    session = open_session(str(sweep_file), tmp_path / "home")
    records = run_all(session.plan, session.store)
    diverged = [record for record in records if record.status is Status.DIVERGED]
    assert [record.arm for record in diverged] == ["ALiBi", "ALiBi"]
    from workbench.results import Results

    decision = decide(Results(session.store, tracked=False), session.plan.document())[0]
    verdicts = {contrast.arm: contrast.verdict for contrast in decision.contrasts}
    assert verdicts["ALiBi"] in ("worse", "undecided")
    assert any("diverged" in note for note in decision.footnotes)


def test_a_users_own_trainer_is_planned_run_recorded_and_judged(tmp_path: Path) -> None:
    plan, store = command_plan(tmp_path)
    records = run_all(plan, store)
    assert {record.status for record in records} == {Status.FINISHED}
    assert {record.source for record in records} == {"command"}
    assert plan.arm("wide").pairing == "declared"
    from workbench.results import Results

    (decision,) = decide(Results(store, tracked=False), plan.document())
    (contrast,) = decision.contrasts
    assert contrast.estimate == pytest.approx(-0.1, abs=0.005)
    assert contrast.verdict == "better"


@pytest.mark.parametrize(
    ("extra", "status", "reason"),
    [
        ("raise SystemExit('no such device')", Status.FAILED, "no such device"),
        ("raise SystemExit(0)", Status.FAILED, "left no scores"),
        ("noise = float('nan')", Status.DIVERGED, "not finite"),
        ("Path(given.out, 'scores.csv').write_text('loss\\n1\\n'); raise SystemExit(0)", Status.FAILED, "'value'"),
    ],
)
def test_a_trainer_that_fails_leaves_a_record_that_says_how(
    tmp_path: Path, extra: str, status: Status, reason: str
) -> None:
    plan, store = command_plan(tmp_path, extra)
    record = Runner(plan, store).run(plan.trials[0])
    assert record.status is status
    assert reason in (record.reason or "")


def test_runs_of_another_folder_are_merged(session: Session, tmp_path: Path) -> None:
    record = Runner(session.plan, session.store).run(session.plan.trials[0])
    session.store.save_plan(session.plan.hash, session.plan.document())
    here = Store(tmp_path / "here")
    assert merge(here, [session.store.home]) == 1
    assert merge(here, [session.store.home]) == 0
    assert here.record(record.run_id) == record
    assert here.plans()[0]["hash"] == session.plan.hash
