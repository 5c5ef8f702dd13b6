from __future__ import annotations

import html
import json
import shutil
import subprocess
import sys
from pathlib import Path

import invented_store
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import app, frame
from workbench.records import Status
from workbench.store import Store


def open_page(monkeypatch: pytest.MonkeyPatch, home: Path, page: str = "verdicts") -> AppTest:
    monkeypatch.setattr(sys, "argv", [str(app.PATH), str(home)])
    test = AppTest.from_file(str(app.PATH), default_timeout=60).run()
    if page != "verdicts":
        test.switch_page(f"views/{page}.py").run()
    assert not test.exception
    return test


def told(test: AppTest) -> str:
    """Everything that stands on the page as text of ours, unescaped."""
    return html.unescape("\n".join(element.proto.body for element in test.get("html")))


def test_importing_the_dashboard_starts_nothing_and_loads_no_torch() -> None:
    code = (
        "import sys, importlib, pkgutil, dashboard\n"
        "for found in pkgutil.walk_packages(dashboard.__path__, 'dashboard.'): importlib.import_module(found.name)\n"
        "from workbench.results import Results; from workbench.store import Store\n"
        "import workbench.tracking\n"
        "ours = ('planning', 'session', 'running', 'training', 'evaluation', 'study')\n"
        "banned = ['torch', 'optuna', 'architectures', *('workbench.' + name for name in ours)]\n"
        "assert 'dashboard.views.seeds' in sys.modules\n"
        "print([name for name in banned if name in sys.modules])"
    )
    root = Path(app.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_verdict_board_says_question_verdicts_method_and_losses(
    finished_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = open_page(monkeypatch, finished_home)
    text = told(test)
    assert "Which position scheme <should> a *small* model of speeches use?" in text
    assert "plan 3f9c1b7a52e0 · 25 of 25 runs · bits per byte" in text
    assert "worse: 0.1554 bits per byte more" in text
    assert "seed-block bootstrap, step-down over" in text
    assert "half the tokens, seed 3 diverged: the loss is not a number at step 61 of 200" in text
    assert len(test.get("plotly_chart")) == 2  # forest plot, and the calibration behind its badge
    assert len(test.get("download_button")) == 3


def test_a_running_sweep_shows_estimates_and_why_there_is_no_verdict(
    running_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = told(open_page(monkeypatch, running_home))
    assert "12 of 25 runs, live" in text
    assert "Interim: 12 of 25 cells are in" in text
    assert "10 to 23 % of identical arms" in text
    assert "difference so far" in text
    for word in ("p adj", '<li class="worse"', "undecided"):
        assert word not in text


def test_a_secondary_metric_is_marked_exploratory(finished_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = open_page(monkeypatch, finished_home)
    test.selectbox(key="metric").select("accuracy").run()
    assert not test.exception
    text = told(test)
    assert "25 of 25 runs · accuracy, exploratory" in text
    assert "settles nothing" in text


def test_a_metric_that_no_run_reports_is_one_clear_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"metric": "perplexity", "higher_is_better": False, "unit": "", "smallest_effect": None}
    invented_store.write(tmp_path / "home", secondary=[absent])
    test = open_page(monkeypatch, tmp_path / "home")
    test.selectbox(key="metric").select("perplexity").run()
    assert len(test.error) == 1
    assert "This metric cannot be decided" in told(test)


@pytest.mark.parametrize(
    ("page", "runs"), [*((page, 0) for page in frame.PAGES), ("verdicts", 1), ("curves", 1), ("seeds", 1)]
)
def test_every_page_opens_before_anything_can_be_compared(
    page: str, runs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invented_store.write(tmp_path / "home", runs=runs)
    test = open_page(monkeypatch, tmp_path / "home", page)
    assert not test.error
    assert f"{runs} of 25 runs, live" in told(test)


def test_learning_curves_show_every_seed_and_paired_differences(
    finished_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = open_page(monkeypatch, finished_home, "curves")
    traces = json.loads(test.get("plotly_chart")[0].proto.spec)["data"]
    assert len([trace for trace in traces if trace["line"]["width"] == 1]) == 25
    test.multiselect[0].set_value(["ALiBi"]).run()
    test.get("button_group")[0].set_value("difference to the baseline at the same seed").run()
    traces = json.loads(test.get("plotly_chart")[0].proto.spec)["data"]
    assert len([trace for trace in traces if trace["line"]["width"] == 1]) == 5
    assert "under the same seed" in told(test)


def test_the_seed_page_says_what_pairing_saves_and_which_items_differ(
    finished_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = open_page(monkeypatch, finished_home, "seeds")
    assert "times as many" in told(test)
    assert "24 items, each averaged over 5 seeds" in told(test)
    best, worst = (frame.value for frame in test.dataframe)
    assert best["difference"].max() <= worst["difference"].min()


def test_runs_are_grouped_and_listed_one_by_one(finished_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = open_page(monkeypatch, finished_home, "runs")
    grouped, single = (frame.value for frame in test.dataframe)
    assert grouped["arm"].tolist() == list(invented_store.EFFECTS)
    assert grouped["diverged"].tolist() == [0, 0, 0, 0, 1]
    assert len(single) == 25
    assert single["peak_memory_bytes"].iloc[0] == pytest.approx(612.0)
    assert "half the tokens, seed 3 diverged" in told(test)
    test.multiselect[0].set_value([invented_store.NASTY]).run()
    assert len(test.dataframe[1].value) == 5


def test_delivered_runs_carry_their_mlflow_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.tracking import Tracking

    store, document = invented_store.write(tmp_path / "home", runs=2)
    delivery = Tracking(store.home).delivery(document)
    for trial in document["trials"][:2]:
        record = store.record(trial["run_id"])
        assert record is not None
        delivery.deliver(record, trial["arm"], trial["seed"], store.run_folder(record.run_id))
    test = open_page(monkeypatch, store.home, "runs")
    ids = test.dataframe[1].value["mlflow_run_id"]
    assert ids.notna().sum() == 2
    assert "MLflow file of this folder is read" in told(test)


def test_the_plan_page_shows_what_was_declared_and_how_results_were_made(
    finished_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = open_page(monkeypatch, finished_home, "provenance")
    text = told(test)
    for fact in (
        "3f9c1b7a52e04d6c8a1b90e2d7f4c853",
        "0.03 bits per byte",
        "9d1f9d1f",
        "1f6ad2c",
        "torch 2.13.0",
        "754,304",
    ):
        assert fact in text
    assert test.dataframe[0].value["Field"].unique().tolist() == ["architecture.position.kind"]


def test_an_empty_folder_says_what_to_type_and_stays_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = open_page(monkeypatch, tmp_path / "nothing")
    assert "There is no plan here yet" in told(test)
    assert test.code[0].value == "workbench run quickstart"
    assert not (tmp_path / "nothing").exists(), "looking must not write"


def test_changed_scores_are_one_clear_box(finished_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(finished_home, tmp_path / "home")
    path = Store(tmp_path / "home").run_folder("run-1-0") / "scores.parquet"
    path.write_bytes(path.read_bytes() + b" ")
    test = open_page(monkeypatch, tmp_path / "home")
    assert len(test.error) == 1
    assert "Scores are not those of the record." in told(test)
    assert str(path) in told(test)


@pytest.mark.parametrize(
    ("damaged", "page", "told_so"),
    [
        ("runs/run-1-0/record.json", "verdicts", "A committed record is damaged."),
        ("runs/run-1-0/curve.parquet", "curves", "A learning curve is damaged."),
        ("plans/3f9c1b7a52e04d6c8a1b90e2d7f4c853/plan.json", "verdicts", "A plan is damaged."),
    ],
)
def test_a_damaged_file_is_one_clear_box(
    damaged: str, page: str, told_so: str, finished_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished_home, tmp_path / "home")
    path = tmp_path / "home" / damaged
    path.write_bytes(path.read_bytes()[:60])
    test = open_page(monkeypatch, tmp_path / "home", page)
    assert len(test.error) == 1
    assert told_so in told(test)


def test_a_silent_tracking_server_is_told_without_its_password_and_the_folders_are_read(
    finished_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    test = open_page(monkeypatch, finished_home)
    text = told(test)
    assert "MLflow is not read" in text
    assert "secret" not in text
    assert "worse: 0.1554 bits per byte more" in text
    assert [button.label for button in test.sidebar.button] == ["Try MLflow again"]


def test_a_failed_run_that_was_tried_again_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, document = invented_store.write(tmp_path / "home", lost={("ALiBi", 0): Status.FAILED})
    assert "ALiBi, seed 0 failed" in told(open_page(monkeypatch, store.home))
    store.forget_failure("run-1-0")
    invented_store.commit(store, document, document["trials"][1])
    assert "ALiBi, seed 0 failed" not in told(open_page(monkeypatch, store.home))


def test_the_sidebar_offers_every_plan_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    invented_store.write(home, runs=3)
    invented_store.write(home, runs=0, hash="b" * 32, sweep="norms")
    test = open_page(monkeypatch, home)
    assert test.selectbox(key="plan").options == ["norms · bbbbbbbb", "positions · 3f9c1b7a"]
    test.selectbox(key="plan").select("3f9c1b7a52e04d6c8a1b90e2d7f4c853").run()
    assert "positions · plan 3f9c1b7a52e0 · 3 of 25 runs, live" in told(test)


def test_a_choice_of_arms_holds_while_their_first_runs_come_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, document = invented_store.write(tmp_path / "home", runs=1)
    test = open_page(monkeypatch, store.home, "curves")
    assert test.multiselect[0].value == list(invented_store.EFFECTS)
    invented_store.commit(store, document, document["trials"][1])
    test.run()
    assert {trace["name"] for trace in json.loads(test.get("plotly_chart")[0].proto.spec)["data"]} == {
        "rotary",
        "ALiBi",
    }


def test_what_the_models_wrote_is_shown_as_they_wrote_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"evaluation": {"samples": {"prompts": ["We", "<i>"]}}}
    arms = [{**arm, "spec": {**arm["spec"], **asked}} for arm in invented_store.plan()["arms"]]
    store, document = invented_store.write(tmp_path, runs=3, arms=arms)
    for trial in document["trials"][:3]:
        texts = [{"prompt": prompt, "text": f"<script>{trial['arm']} wrote\nthis"} for prompt in ("We", "<i>")]
        store.keep_samples(trial["run_id"], texts)
    page = open_page(monkeypatch, tmp_path, "runs")
    assert page.expander[-1].label == "What the models write"
    raw = "\n".join(element.proto.body for element in page.get("html"))
    assert "&lt;script&gt;ALiBi wrote this" in raw
    assert "<script>" not in raw
    page.selectbox(key="prompt").select("<i>").run()
    assert not page.exception
