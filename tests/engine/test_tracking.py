from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from workbench.errors import StoreError
from workbench.records import Status
from workbench.results import Results
from workbench.running import Runner
from workbench.session import Session, deliver, open_session
from workbench.store import Store
from workbench.tracking import Tracking, Unavailable


@pytest.fixture(scope="module")
def ran(sweep_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runtime folder with two cells, one finished and one failed, and an MLflow file that holds no run yet."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "small.py").write_text(sweep_text)
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("MLFLOW_TRACKING_URI", raising=False)
        session = open_session(str(folder / "small.py"), folder / "home")
        runner = Runner(session.plan, session.store)
        runner.run(session.plan.trials[0])
        runner.fail(session.plan.trials[1], "no memory")
        session.store.save_plan(session.plan.hash, session.plan.document())
        assert Tracking(session.store.home).plans() == []
    return session.store.home


@pytest.fixture
def session(ran: Path, sweep_file: Path, tmp_path: Path) -> Session:
    """A session with two cells run: one finished, one failed."""
    shutil.copytree(ran, tmp_path / "home")
    return open_session(str(sweep_file), tmp_path / "home")


def test_what_is_delivered_is_read_back_and_delivering_again_writes_nothing(session: Session) -> None:
    assert deliver(session.store) == (2, 0)
    assert deliver(session.store) == (0, 2)
    tracking, document = Tracking(session.store.home), session.plan.document()
    assert tracking.plans() == [document]
    records = {record.run_id: record for record in tracking.records(document)}
    finished, failed = (session.store.record(trial.run_id) for trial in session.plan.trials[:2])
    assert finished is not None
    assert failed is not None
    assert records == {finished.run_id: finished, failed.run_id: failed}
    assert tracking.scores(document, finished).equals(session.store.scores(finished))
    curve = tracking.curve(document, finished)
    assert curve is not None
    assert curve.equals(session.store.curve(finished))
    assert tracking.curve(document, failed) is None


def test_samples_are_delivered_and_read_back(session: Session) -> None:
    finished, failed = (session.store.record(trial.run_id) for trial in session.plan.trials[:2])
    assert finished is not None
    assert failed is not None
    texts = [{"prompt": "We", "text": " the people\n"}]
    session.store.keep_samples(finished.run_id, texts)
    deliver(session.store)
    (session.store.run_folder(finished.run_id) / "record.json").unlink()  # so that only the server has it
    results, document = Results(session.store), session.plan.document()
    assert results.samples(document, finished) == texts
    assert results.samples(document, failed) == []


def test_the_run_in_mlflow_tells_what_it_is(session: Session) -> None:
    deliver(session.store)
    tracking = Tracking(session.store.home)
    cells = list(tracking.search([tracking.experiment("small")], "cell"))
    run = next(cell for cell in cells if cell.data.tags["workbench.status"] == "finished")
    assert run.data.tags["workbench.arm"] == "baseline"
    assert run.data.params["architecture.position.kind"] == "rotary"
    assert run.data.metrics["scores/bits_per_byte/bits_per_byte"] > 1
    assert run.data.metrics["costs/tokens"] == 2048
    losses = tracking.client.get_metric_history(run.info.run_id, "training/loss")
    assert [metric.step for metric in losses] == list(range(1, 17))


def test_a_curve_of_more_values_than_mlflow_takes_at_once_is_delivered_with_all_its_columns(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.tracking.MOST_METRICS", 7)
    deliver(session.store)
    tracking, record = Tracking(session.store.home), session.store.record(session.plan.trials[0].run_id)
    assert record is not None
    cells = tracking.search([tracking.experiment("small")], "cell")
    run = next(cell for cell in cells if cell.data.tags["workbench.run"] == record.run_id)
    curve = session.store.curve(record)
    assert curve is not None
    for name in set(curve.column_names) - {"step"}:
        history = tracking.client.get_metric_history(run.info.run_id, f"training/{name}")
        told = [(row["step"], row[name]) for row in curve.to_pylist() if row[name] is not None]
        assert [(metric.step, metric.value) for metric in history] == told
    assert len(tracking.client.get_metric_history(run.info.run_id, "training/update_ratio/attention")) == 1


def test_an_incomplete_delivery_is_not_read_and_is_replaced(session: Session) -> None:
    deliver(session.store)
    tracking, document = Tracking(session.store.home), session.plan.document()
    for run in tracking.search([tracking.experiment("small")], "cell"):
        tracking.client.delete_tag(run.info.run_id, "workbench.commit")
    assert tracking.records(document) == []
    assert deliver(session.store) == (2, 0)
    assert len(tracking.records(document)) == 2


def test_a_failed_run_that_was_tried_again_replaces_its_delivery(session: Session) -> None:
    deliver(session.store)
    trial = session.plan.trials[1]
    session.store.forget_failure(trial.run_id)
    Runner(session.plan, session.store).run(trial)
    assert deliver(session.store) == (1, 1)
    statuses = {
        record.run_id: record.status for record in Tracking(session.store.home).records(session.plan.document())
    }
    assert statuses[trial.run_id] is Status.FINISHED


def test_conflicting_deliveries_are_refused(session: Session, tmp_path: Path) -> None:
    deliver(session.store)
    tracking, document = Tracking(session.store.home), session.plan.document()
    trial = session.plan.trials[0]
    (run,) = [
        run
        for run in tracking.search([tracking.experiment("small")], "cell")
        if run.data.tags["workbench.run"] == trial.run_id
    ]
    record = session.store.record(trial.run_id)
    assert record is not None
    forged = record.model_copy(update={"scores_sha256": "0" * 64})
    copy = tracking.client.create_run(run.info.experiment_id, tags=run.data.tags)
    tracking.client.log_text(copy.info.run_id, forged.model_dump_json(), "record.json")
    with pytest.raises(StoreError, match="different scores"):
        tracking.records(document)


def test_results_are_read_from_the_server_where_the_folder_is_gone(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(session.store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", Tracking(session.store.home).uri)
    elsewhere = Results(Store(tmp_path / "laptop"))
    document = elsewhere.plan("small")
    assert document["hash"] == session.plan.hash
    records = elsewhere.records(document)
    assert [record.status for record in records] == [Status.FINISHED, Status.FAILED]
    assert elsewhere.scores(document, records[0]).equals(session.store.scores(records[0]))


def test_a_server_that_does_not_answer_is_said_to_be_away(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as reserved:  # bound and never listening: every connection is refused at once
        reserved.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{reserved.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # seconds of waiting between them
        with pytest.raises(Unavailable):
            deliver(session.store)
        results = Results(session.store)
        assert results.silence is not None
        assert len(results.records(session.plan.document())) == 2
