from __future__ import annotations

import invented_store
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dashboard import measures
from workbench.records import Status, scores_table
from workbench.statistics import contrast_all, pair


def a_table(values: list[float], items: list[str], weights: list[float] | None = None, task: str = "t"):
    count = len(values)
    columns = {"task": [task] * count, "view": ["v"] * count, "metric": ["loss"] * count, "item": items}
    return scores_table("s", {**columns, "value": values, "weight": weights or [1.0] * count})


def test_a_run_score_is_the_weighted_mean_over_items() -> None:
    table = a_table([1.0, 4.0], ["a", "b"], [3.0, 1.0])
    assert measures.run_score(table, "loss") == pytest.approx(1.75)
    assert measures.run_score(table, "t/loss") == pytest.approx(1.75)
    assert measures.run_score(table, "accuracy") is None
    assert measures.run_score(table, "other/loss") is None


def test_only_seeds_in_which_both_finished_are_paired() -> None:
    scores = {("base", 0): 1.0, ("base", 1): 2.0, ("arm", 1): 2.5, ("arm", 2): 9.0}
    paired = measures.pairs(scores, "base", "arm", [0, 1, 2])
    assert paired.seeds == (1,)
    assert paired.arm - paired.baseline == pytest.approx(0.5)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=3, max_size=8))
def test_pairing_agrees_with_the_contrast_and_with_scipy(values: list[tuple[float, float]]) -> None:
    rounded = np.round(np.array(values), 3)
    ours, theirs = rounded[:, 0] + np.arange(len(values)), rounded[:, 1] + np.arange(len(values))
    if min(np.ptp(ours), np.ptp(theirs), np.ptp(ours - theirs)) < 1e-2:
        return
    found = measures.pairing(measures.Pairs(tuple(range(len(values))), ours, theirs))
    rows = [(name, seed, x) for name, held in (("base", ours), ("arm", theirs)) for seed, x in enumerate(held)]
    (contrast,) = contrast_all(pair(rows, baseline="base", metric="m", higher_is_better=True))
    assert found.difference_sd == pytest.approx(contrast.sd)
    assert found.correlation == pytest.approx(stats.pearsonr(ours, theirs).statistic, abs=1e-9)
    assert found.unpaired_seeds == pytest.approx((ours.var(ddof=1) + theirs.var(ddof=1)) / (theirs - ours).var(ddof=1))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_pairs_say_what_they_can_and_no_more(count: int) -> None:
    found = measures.pairing(measures.Pairs(tuple(range(count)), np.arange(count) * 1.0, np.arange(count) * 3.0))
    assert found.correlation is None
    assert (found.difference_sd is None) == (count < 2)


def test_item_differences_average_over_seeds_and_keep_only_items_that_all_answered() -> None:
    tables = {
        ("base", 0): a_table([1.0, 2.0], ["a", "b"]),
        ("base", 1): a_table([1.0, 2.0], ["a", "b"]),
        ("base", 2): a_table([0.0, 0.0], ["a", "b"]),  # the arm has no such run
        ("arm", 0): a_table([1.5, 1.0], ["a", "b"]),
        ("arm", 1): a_table([1.1, 9.0], ["a", "c"]),
    }
    table = measures.item_differences(tables, "loss", "base", "arm")
    assert table["item"].tolist() == ["a"]
    assert table["difference"].tolist() == pytest.approx([0.3])
    assert table["sd"].tolist() == pytest.approx([np.std([0.5, 0.1], ddof=1)])
    assert table["agree"].tolist() == [1.0]
    assert measures.item_differences({}, "loss", "base", "arm").empty


def test_runs_are_grouped_by_everything_except_the_seed() -> None:
    document = invented_store.plan(("base", "arm"), (0, 1, 2))
    records = {}
    for trial in document["trials"][:5]:
        status = Status.DIVERGED if (trial["arm"], trial["seed"]) == ("arm", 1) else Status.FINISHED
        records[trial["run_id"]] = status
    scores = {("base", 0): 1.0, ("base", 1): 2.0, ("base", 2): 6.0, ("arm", 0): 4.0}
    cells = [(trial, None) for trial in document["trials"]]
    runs = measures.single_runs(cells, scores, {"run-0-0": "m0"})
    runs["status"] = [str(records.get(run_id, measures.TO_COME)) for run_id in runs["run_id"]]
    grouped = measures.grouped_runs(runs, ["base", "arm"]).set_index("arm")
    assert grouped.loc["base", ["mean", "sd"]].tolist() == pytest.approx([3.0, np.std([1, 2, 6], ddof=1)])
    assert grouped.loc["arm", ["finished", "diverged", "failed", "to come"]].tolist() == [1, 1, 0, 1]
    assert np.isnan(grouped.loc["arm", "sd"])
    assert runs["mlflow_run_id"].iloc[0] == "m0"
    assert runs["tokens"].isna().all(), "what was not measured is empty, never zero"


@given(st.lists(st.floats(-100, 100), max_size=40), st.integers(1, 50))
def test_smoothing_is_the_mean_of_the_last_points(values: list[float], window: int) -> None:
    smoothed = measures.smooth(np.array(values), window)
    expected = [np.mean(values[max(0, end - window) : end]) for end in range(1, len(values) + 1)]
    assert smoothed == pytest.approx(np.array(expected), abs=1e-9)


def test_curves_are_subtracted_at_equal_tokens_only() -> None:
    ours = pd.DataFrame({"tokens": [10, 20, 30], "loss": [3.0, 2.0, 1.0]})
    theirs = pd.DataFrame({"tokens": [20, 30, 40], "loss": [2.5, 2.0, 0.0]})
    difference = measures.curve_difference(ours, theirs, "loss")
    assert difference.to_dict("list") == {"tokens": [20, 30], "loss": [0.5, 1.0]}


def test_a_quantity_recorded_at_some_points_only_is_drawn_at_those() -> None:
    probed = pd.DataFrame({"step": [1, 2, 3], "tokens": [5, 10, 15], "loss": 1.0, "weight_norm": [np.nan, 2.0, np.nan]})
    held = {("base", 0): probed, ("base", 1): probed[["step", "tokens", "loss"]]}
    assert measures.quantities(held) == ["loss", "weight_norm"]
    drawn = measures.curves_of(held, "weight_norm")
    assert {cell: curve.to_dict("list") for cell, curve in drawn.items()} == {
        ("base", 0): {"tokens": [10], "weight_norm": [2.0]}
    }


def test_rollbacks_are_told_where_any_run_went_back() -> None:
    document = invented_store.plan(("base", "arm"), (0, 1))
    records = [invented_store.a_record(document, trial) for trial in document["trials"]]
    told = measures.single_runs(zip(document["trials"], records, strict=True), {}, {})
    assert told["rollbacks"].isna().all()
    records[1] = records[1].model_copy(update={"costs": records[1].costs.model_copy(update={"rollbacks": 3})})
    told = measures.single_runs(zip(document["trials"], records, strict=True), {}, {})
    assert sorted(told["rollbacks"]) == [0, 0, 0, 3]
    assert measures.grouped_runs(told, ["base", "arm"])["rollbacks"].sum() == 1.5


def test_a_mean_curve_ends_with_the_shortest_run() -> None:
    long = pd.DataFrame({"tokens": [1, 2, 3], "loss": [1.0, 1.0, 1.0]})
    short = pd.DataFrame({"tokens": [1, 2], "loss": [3.0, 5.0]})
    assert measures.mean_curve([long, short], "loss")["loss"].tolist() == [2.0, 3.0]
    assert measures.mean_curve([], "loss").empty


def test_thinning_keeps_both_ends() -> None:
    curve = pd.DataFrame({"tokens": np.arange(10_001)})
    kept = measures.thin(curve)["tokens"].tolist()
    assert (len(kept), kept[0], kept[-1]) == (400, 0, 10_000)


def test_how_often_a_model_was_evaluated_is_told_where_it_was_counted() -> None:
    document = invented_store.plan(("base", "arm"), (0, 1))
    records = [invented_store.a_record(document, trial) for trial in document["trials"]]
    records[1:3] = [record.model_copy(update={"evaluations": 2}) for record in records[1:3]]
    told = measures.single_runs(zip(document["trials"], records, strict=True), {}, {})["evaluations"]
    assert told.fillna(0).to_list() == [0, 2, 2, 0]
