from __future__ import annotations

import gc
import sys

import pytest

from workbench.cli import main
from workbench.errors import DataError
from workbench.sources import open_experiment
from workbench.tracking import MlflowClient, Unavailable, read_experiment

# MLflow's file store leaves folder iterators open; they are collected where this filter holds
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _collected():
    yield
    gc.collect()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """An experiment as any training script leaves it: a parent per variant, children with parameters and metrics."""
    folder = tmp_path_factory.mktemp("mlflow") / "mlruns"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        client = MlflowClient(tracking_uri=folder.as_uri())
        experiment = client.create_experiment("positions")
        for kind, shift in (("rope", 0.0), ("alibi", 0.1)):
            parent = client.create_run(experiment, run_name=kind).info.run_id
            for seed in range(4):
                tags = {"mlflow.parentRunId": parent}
                run = client.create_run(experiment, run_name=f"{kind}-{seed}", tags=tags).info.run_id
                for name, value in {"position": kind, "train.seed": seed, "depth": 4}.items():
                    client.log_param(run, name, value)
                for step, loss in enumerate((9.0, 3 + shift + 0.013 * seed * seed)):
                    client.log_metric(run, "loss", loss, step=step)
                client.set_terminated(run, "FAILED" if (kind, seed) == ("alibi", 3) else "FINISHED")
    return folder.as_uri()


def test_any_experiment_is_read_as_plain_runs(store):
    runs = read_experiment("positions", store)
    assert [run["name"] for run in runs] == [f"{kind}-{seed}" for kind in ("rope", "alibi") for seed in range(4)]
    assert runs[4]["params"] == {"position": "alibi", "train.seed": "0", "depth": "4"}
    assert runs[4]["metrics"] == {"loss": 3.1}  # the last value
    assert runs[7]["status"] == "FAILED"
    results = open_experiment("mlflow:positions", runs, {"seed": "train.seed"}).results()
    assert results.variants == ("position=rope", "position=alibi")
    assert results.rows[7].status == "failed"


def test_an_experiment_is_judged_from_the_command_line(store, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    asked = ["analyze", "mlflow:positions", "--map", "seed=train.seed", "--baseline", "position=rope"]
    monkeypatch.setattr(sys, "argv", ["workbench", *asked, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    told = " ".join(capsys.readouterr().out.split())
    assert not ended.value.code
    assert "mlflow:positions: loss (lower is better): difference to position=rope" in told
    assert "failed on its machine in seed 3; judged on 3 of 4 seeds" in told
    assert "mlflow:positions" in (tmp_path / "table.tex").read_text()


def test_what_is_not_there_is_said_with_what_is(store, tmp_path):
    with pytest.raises(DataError, match=r"experiment does not exist[\s\S]*Default, positions"):
        read_experiment("position", store)
    for uri in (f"sqlite:///{tmp_path / 'nowhere'}", (tmp_path / "nowhere").as_uri(), str(tmp_path / "nowhere")):
        with pytest.raises(DataError, match=r"there is no MLflow store[\s\S]*--tracking-uri"):
            read_experiment("positions", uri)
    assert not (tmp_path / "nowhere").exists()


def test_a_server_that_is_away_is_one_message(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Unavailable):
        read_experiment("positions", "http://127.0.0.1:9")
    asked = ["workbench", "analyze", "mlflow:positions", "--tracking-uri", "http://127.0.0.1:9"]
    monkeypatch.setattr(sys, "argv", asked)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2


def test_without_mlflow_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "workbench.tracking")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setattr(sys, "argv", ["workbench", "analyze", "mlflow:positions"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "pip install 'ablation-workbench[track]'" in capsys.readouterr().err
