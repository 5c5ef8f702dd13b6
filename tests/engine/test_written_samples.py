"""Texts written at the end of a run: asked for by the evaluation, kept with the record, carried wherever it goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from architectures.bytes import Bytes
from architectures.presets import tiny
from workbench.configuration import Configuration
from workbench.errors import PlanError, StoreError
from workbench.evaluation.tasks import Evaluation, Samples
from workbench.identity import canonical
from workbench.running import Runner
from workbench.session import Session, merge, open_session
from workbench.store import Store

ASKED = """
from workbench.evaluation.tasks import Samples
EVALUATION = BASELINE.evaluation.model_copy(update={"samples": Samples(prompts=("We the", ""), tokens=12)})
BASELINE = BASELINE.model_copy(update={"evaluation": EVALUATION})
ALIBI = Arm(name="ALiBi", axis="position", configuration=BASELINE.vary(position=Alibi()))
SWEEP = SWEEP.model_copy(update={"baseline": BASELINE, "arms": (ALIBI,)})
"""


@pytest.fixture
def session(sweep_file: Path, tmp_path: Path) -> Session:
    """The small sweep, its first cell run, and the same with samples asked for, not run yet."""
    session = open_session(str(sweep_file), tmp_path / "home")
    Runner(session.plan, session.store).run(session.plan.trials[0])
    sweep_file.write_text(sweep_file.read_text() + ASKED)
    return open_session(str(sweep_file), tmp_path / "home")


def test_who_asks_for_no_samples_keeps_the_identity_there_was_before_them() -> None:
    assert set(canonical(Evaluation())) == {"tasks"}
    assert set(canonical(Evaluation(samples=Samples(prompts=("The",))))) == {"tasks", "samples"}


def test_samples_are_kept_with_the_record_and_retrain_nothing(session: Session) -> None:
    trial, store, steps = session.plan.trials[0], session.store, list[int]()
    record = Runner(session.plan, store, watch=lambda step, *rest: steps.append(step)).run(trial)
    assert steps == []
    samples = store.samples(record)
    assert [sample["prompt"] for sample in samples] == ["We the", ""]
    assert all(sample["text"] for sample in samples)
    (before,) = (folder for folder in (store.home / "runs").iterdir() if folder.name != record.run_id)
    assert not (before / "samples.jsonl").exists()


def test_samples_go_where_the_record_goes(session: Session, tmp_path: Path) -> None:
    store = session.store
    record = Runner(session.plan, store).run(session.plan.trials[0])
    other = Store(tmp_path / "other")
    merge(other, [store.home])
    assert other.samples(record) == store.samples(record)
    (store.run_folder(record.run_id) / "samples.jsonl").write_text("{")
    with pytest.raises(StoreError, match="texts of a run are damaged"):
        store.samples(record)


def test_an_arm_over_bytes_cannot_be_asked_for_samples() -> None:
    asked = Configuration(
        architecture=tiny().vary(embedding=Bytes()), evaluation=Evaluation(samples=Samples(prompts=("The",)))
    )
    with pytest.raises(PlanError, match="cannot write samples of text"):
        asked.refuse_unanswerable("arm 'bytes'")
