from __future__ import annotations

import pytest

from workbench.errors import DataError, WorkbenchError
from workbench.reporting import analyze
from workbench.sources import open_experiment, open_source, read_results
from workbench.statistics import Cell

HEADER = (
    '"Name","State","Notes","User","Tags","Created","Runtime","Sweep","position","seed","width","eval/loss","_step"\n'
)


def line(name, position, seed, loss, state="finished", tags="", width=128):
    fields = (name, state, "-", "ada", tags, "2026-01-01", 60, "", position, seed, width, loss, 1000)
    return ",".join(f'"{field}"' for field in fields) + "\n"


def export(*extra, positions=("alibi", "rope"), seeds=(0, 1, 2)):
    runs = [line(f"{p}-{s}", p, s, 3 + 0.1 * (p == "alibi") + 0.013 * s * s) for p in positions for s in seeds]
    return HEADER + "".join([*runs, *extra])


def test_a_runs_table_of_wandb_is_grouped_by_what_varies_except_the_seed(write):
    results = read_results(write(export()))
    assert results.variants == ("position=alibi", "position=rope")
    assert results.metric == "eval/loss"
    assert [row.seed for row in results.rows] == ["0", "1", "2"] * 2
    assert any("a variant is a combination of position" in note for note in results.notes)


def test_constant_settings_are_no_part_of_the_name_and_varying_ones_are(write):
    runs = [line("wide", "rope", seed, 2.7 + 0.01 * seed, width=256) for seed in (0, 1, 2)]
    results = read_results(write(export(*runs)), metric="eval/loss")
    assert results.variants == (
        "position=alibi, width=128",
        "position=rope, width=128",
        "position=rope, width=256",
    )
    mapped = read_results(write(export(*runs)), {"variant": "width+position"}, metric="eval/loss")
    assert mapped.variants[0] == "width=128, position=alibi"


def test_the_fate_of_every_run_is_recognised(write):
    path = write(
        export(
            line("a3", "alibi", 3, "", state="crashed"),
            line("a4", "alibi", 4, 9.0, state="failed"),
            line("a5", "alibi", 5, "NaN"),
            line("a6", "alibi", 6, 3.1, tags="old, diverged"),
            line("r3", "rope", 3, "NaN", state="failed"),
            line("r4", "rope", 4, 3.0, state="running"),
            line("r5", "rope", 5, ""),
        )
    )
    results = read_results(path)
    fates = {(row.variant[9:], row.seed): row.status for row in results.rows if row.status != "finished"}
    assert fates == {
        ("alibi", "3"): "failed",
        ("alibi", "4"): "failed",
        ("alibi", "5"): "diverged",
        ("alibi", "6"): "diverged",
        ("rope", "3"): "diverged",
    }
    assert {"4", "5"}.isdisjoint(row.seed for row in results.rows if row.variant == "position=rope")
    told = "\n".join(results.notes)
    assert "left out because unfinished: run r4" in told
    assert "not for an outcome: runs a3" in told
    assert "1 finished run reports no eval/loss" in told


def test_a_run_repeated_after_a_crash_counts_once(write):
    results = read_results(write(export(line("again", "rope", 2, "", state="crashed"))))
    assert [row for row in results.rows if row.seed == "2"] == [
        Cell("position=alibi", "2", pytest.approx(3.152)),
        Cell("position=rope", "2", pytest.approx(3.052)),
    ]
    assert any("another run repeats it: run again" in note for note in results.notes)
    with pytest.raises(DataError, match=r"given twice[\s\S]*again"):
        read_results(write(export(line("again", "rope", 2, 3.0))))


def test_a_diverged_run_cannot_be_repeated_until_it_ends_well(write):
    with pytest.raises(DataError, match=r"given twice[\s\S]*seed 2"):
        read_results(write(export(line("first", "rope", 2, "NaN", state="crashed"))), metric="eval/loss")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (export().replace('"seed"', '"cfg.seed"'), r"no column 'seed'[\s\S]*--map seed=cfg.seed"),
        (export(line("x", "rope", 9, 3.0, state="exploded")), r"unknown state[\s\S]*exploded"),
        (export(line("x", "rope", 9, 3.0, width=64)), r"is 'width' a setting or a result[\s\S]*position\+width"),
        (export(positions=("rope",)), r"no column 'variant'[\s\S]*a setting that differs"),
        (export(line("x", "rope", 9, "high")), "no column of numbers"),
    ],
)
def test_tables_that_leave_a_doubt_are_refused(write, content, message):
    with pytest.raises(DataError, match=message):
        read_results(write(content))


def test_a_metric_named_by_the_user_is_never_a_setting(write):
    lines = [line(f"{p}-{s}", p, s, loss) for p, loss in (("a", 0.5), ("b", 0.25)) for s in (0, 1, 2)]
    assert read_results(write(HEADER + "".join(lines)), metric="eval/loss").variants == ("position=a", "position=b")


def test_a_file_with_a_state_column_alone_is_no_runs_table(write):
    path = write("Name,State,variant,seed,value\nx,done,a,1,2\n")
    assert read_results(path, metric="value").rows == (Cell("a", "1", 2.0),)


def test_the_baseline_may_be_named_by_the_setting_only_it_has(write):
    runs = [line("wide", "rope", seed, 2.7 + 0.01 * seed, width=256) for seed in (0, 1, 2)]
    path = write(export(*runs))
    assert analyze(path, metric="eval/loss", baseline="position=alibi").baseline == "position=alibi, width=128"
    with pytest.raises(WorkbenchError, match="more than one variant fits"):
        analyze(path, metric="eval/loss", baseline="width=128")
    with pytest.raises(WorkbenchError, match="the baseline does not exist"):
        analyze(path, metric="eval/loss", baseline="width=512")


def mlflow_runs(seeds=(0, 1, 2)):
    return [
        {
            "name": f"{kind}-{seed}",
            "status": "FINISHED",
            "params": {"seed": str(seed), "position": kind, "depth": "4", "data_seed": str(seed + 100)},
            "metrics": {"loss": 3 + 0.1 * (kind == "alibi") + 0.013 * seed * seed, "tokens": 1e6},
        }
        for kind in ("alibi", "rope")
        for seed in seeds
    ]


def test_an_experiment_is_grouped_by_its_parameters_except_the_seed():
    results = open_experiment("mlflow:positions", mlflow_runs()).results("loss")
    assert results.variants == ("position=alibi", "position=rope")
    assert (results.origin, len(results.rows), len(results.sha256)) == ("mlflow:positions", 6, 64)
    assert open_experiment("mlflow:positions", mlflow_runs()).metrics() == ["loss"]


def test_failed_and_killed_runs_of_an_experiment_are_failures_and_a_loss_of_nan_is_a_divergence():
    runs = mlflow_runs()
    runs[0] = {**runs[0], "status": "KILLED", "metrics": {}}
    runs[1] = {**runs[1], "metrics": {"loss": float("nan")}}
    runs[2] = {**runs[2], "status": "RUNNING"}
    rows = open_experiment("mlflow:positions", runs).results("loss").rows
    assert [row.status for row in rows] == ["failed", "diverged", "finished", "finished", "finished"]


def test_a_parameter_and_a_metric_of_one_name_are_told_apart():
    runs = [{**run, "params": {**run["params"], "loss": run["params"]["position"]}} for run in mlflow_runs()]
    source = open_experiment("mlflow:x", runs, {"variant": "params.loss"})
    assert source.results("loss").variants == ("alibi", "rope")


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "has no runs"),
        ([{**run, "params": {"train.seed": "1"}} for run in mlflow_runs()], "--map seed=train.seed"),
        ([{**run, "status": "LOST"} for run in mlflow_runs()], r"unknown state[\s\S]*run alibi-0"),
    ],
)
def test_experiments_without_what_is_needed_are_refused(runs, message):
    with pytest.raises(DataError, match=message):
        open_experiment("mlflow:positions", runs)


def test_open_source_knows_a_runs_table_by_its_header(write):
    assert open_source(write(export())).table.tracked
