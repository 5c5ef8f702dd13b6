from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.errors import DataError, StatisticsError, WorkbenchError
from workbench.reporting import analyze
from workbench.sources import open_source, read_results
from workbench.sources.table import _parse_fast, _parse_slowly
from workbench.statistics import Cell

TIDY = "variant,seed,value\nbase,1,2.50\nbase,2,2.54\nbase,3,2.47\nwide,1,2.31\nwide,2,2.36\nwide,3,2.29\n"


def test_a_tidy_file_gives_one_row_per_run(write):
    results = read_results(write(TIDY))
    assert results.rows[0] == Cell("base", "1", 2.5)
    assert results.variants == ("base", "wide")
    assert (results.metric, results.items, len(results.sha256)) == ("value", 0, 64)


@pytest.mark.parametrize(
    "content",
    [
        TIDY.replace(",", ";"),
        TIDY.replace(",", "\t"),
        "\ufeff" + TIDY,
        TIDY.replace("\n", "\r\n"),
        TIDY.replace("\n", "\n\n"),
        TIDY.replace("base,1,", "base,1.0,"),
        TIDY.replace(",seed,", ", seed ,"),
    ],
)
def test_what_spreadsheets_do_to_a_file_changes_nothing(write, content):
    assert read_results(write(content)).rows == read_results(write(TIDY)).rows


def test_parquet_says_the_same_as_csv(tmp_path, write):
    rows = read_results(write(TIDY)).rows
    table = pa.table(
        {"model": [r.variant for r in rows], "seed": [int(r.seed) for r in rows], "y": [r.value for r in rows]}
    )
    pq.write_table(table, tmp_path / "results.parquet")
    assert read_results(tmp_path / "results.parquet", {"variant": "model", "value": "y"}).rows == rows


def test_whatever_a_parquet_file_holds_is_an_answer_or_a_message(tmp_path):
    path = tmp_path / "odd.parquet"
    odd = pa.table(
        {
            "variant": pa.array(["a", "b", "a", "b"]).dictionary_encode(),
            "seed": pa.array([1.0, 1.0, 2.0, 2.0]),
            "loss": pa.array([2, 3, 4, 5], pa.int8()),
            "log": pa.array([[1], [2], None, []]),
            "when": pa.array([1, 2, 3, 4], pa.timestamp("s")),
        }
    )
    pq.write_table(odd, path)
    assert read_results(path).rows[1] == Cell("b", "1", 3.0)
    with pytest.raises(DataError, match=r"not a number[\s\S]*row 1, column when"):
        read_results(path, metric="when")
    with pytest.raises(DataError, match=r"names no variant[\s\S]*row 3"):
        read_results(path, {"variant": "log"}, metric="loss")
    pq.write_table(odd.slice(0, 0), path)
    with pytest.raises(DataError, match="no results"):
        read_results(path, metric="loss")


def test_a_wide_file_has_a_column_per_metric(write):
    path = write("variant,seed,loss,accuracy,comment\na,1,2.0,0.5,ok\na,2,2.1,0.6,ok\n")
    assert [row.value for row in read_results(path, metric="accuracy").rows] == [0.5, 0.6]
    with pytest.raises(DataError, match=r"more than one metric[\s\S]*loss, accuracy"):
        read_results(path)


def test_a_metric_may_be_named_by_task_by_metric_or_by_both(write):
    path = write("variant,seed,task,metric,value\na,1,blimp,acc,.7\na,1,arc,acc,.3\na,1,arc,bits,1.2\n")
    assert read_results(path, metric="blimp").rows[0].value == 0.7
    assert read_results(path, metric="bits").rows[0].value == 1.2
    assert read_results(path, metric="arc/acc").rows[0].value == 0.3
    with pytest.raises(DataError, match=r"more than one such metric[\s\S]*arc/acc, arc/bits, blimp/acc"):
        read_results(path, metric="acc")
    with pytest.raises(DataError, match="does not hold that metric"):
        read_results(path, metric="loss")


def test_items_are_averaged_with_their_weights(write):
    path = write("variant,seed,item,weight,value\na,1,x,1,1.0\na,1,y,3,2.0\na,2,y,3,4.0\na,2,x,1,0.0\n")
    results = read_results(path)
    assert [row.value for row in results.rows] == [1.75, 3.0]
    assert results.items == 2


def test_items_that_differ_between_runs_are_refused(write):
    with pytest.raises(StatisticsError, match="different items"):
        read_results(write("variant,seed,item,value\na,1,x,1\na,1,y,2\nb,1,x,1\n"))


def test_item_scores_are_kept_in_one_order_whatever_the_order_of_the_rows(write):
    lines = [f"{v},{s},q{i},p{i % 2},{i + s / 10 + (v == 'b')}" for v in "ab" for s in (1, 2) for i in range(12)]
    header = "variant,seed,item,cluster,value\n"
    scores = read_results(write(header + "\n".join(lines))).scores
    again = read_results(write(header + "\n".join(reversed(lines)))).scores
    assert scores.runs == again.runs == (("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"))
    assert scores.items == tuple(sorted(f"q{i}" for i in range(12)))
    assert scores.clusters == tuple(f"p{int(item[1:]) % 2}" for item in scores.items)
    np.testing.assert_array_equal(scores.values, again.values)
    assert scores.values[3, scores.items.index("q7")] == 8.2


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("b,1,z,p,1,1", StatisticsError, r"different items[\s\S]*variant b, seed 1"),
        ("b,1,y,q,1,1", DataError, r"different clusters[\s\S]*line 5, column cluster[\s\S]*item y in cluster 'p'"),
        ("b,1,y,p,2,1", StatisticsError, r"weigh the same item differently"),
        ("b,1,y,p,-1,1", StatisticsError, r"cannot be averaged"),
        ("b,1,y,p,x,1", DataError, r"not a number[\s\S]*line 5, column weight"),
        ("b,1,x,p,1,1", StatisticsError, "scores an item twice"),
    ],
)
def test_items_that_do_not_fit_the_other_runs_are_refused(write, line, error, message):
    head = "variant,seed,item,cluster,weight,value\na,1,x,p,1,1\na,1,y,p,1,2\nb,1,x,p,1,1\n"
    with pytest.raises(error, match=message):
        read_results(write(head + line + "\n"))


def test_items_without_seeds_are_single_runs_and_said_so(write):
    results = read_results(write("variant,item,value\na,x,1\na,y,2\nb,x,3\nb,y,4\n"))
    assert results.rows == (Cell("a", "1", 1.5), Cell("b", "1", 3.5))
    assert results.notes == ("the source names no seeds: each variant is taken as one run",)
    with pytest.raises(DataError, match=r"no column 'seed'[\s\S]*--map seed=random_seed"):
        read_results(write("variant,item,random_seed,value\na,x,1,1\n"))


@pytest.mark.parametrize(
    ("header", "fix"),
    [
        ("model,cfg.seed,loss", "--map variant=model,seed=cfg.seed"),
        ("run,random_seed,loss", "--map variant=run,seed=random_seed"),
        ("arm,seed,loss", "--map variant=arm"),
        ("Model,arm,seed,loss", "--map variant=Model or variant=arm"),
        ("kind,seed,loss", "if another column means the same, say so: --map variant=NAME"),
    ],
)
def test_a_column_of_another_name_is_suggested_and_never_guessed(write, header, fix):
    fields = ",".join(["1"] * len(header.split(",")))
    with pytest.raises(DataError, match="no column 'variant'") as refused:
        read_results(write(f"{header}\n{fields}\n"))
    assert refused.value.details["fix"] == fix


def test_two_columns_may_make_the_variant(write):
    path = write("position,width,seed,loss\nalibi,64,1,2\nalibi,,1,3\n")
    rows = read_results(path, {"variant": "position+width"}, metric="loss").rows
    assert [row.variant for row in rows] == ["position=alibi, width=64", "position=alibi, width=none"]


def test_a_decimal_comma_is_recognised(write):
    with pytest.raises(DataError, match=r"not a number[\s\S]*decimals with a point"):
        read_results(write("variant;seed;value\na;1;2,5\n"))


def test_metrics_are_those_that_vary(write):
    wide = open_source(write("variant,seed,loss,acc,width,comment\na,1,2,3,64,x\na,2,3,4,64,y\n"))
    assert wide.metrics() == ["loss", "acc"]
    tidy = open_source(write("variant,seed,task,metric,value\na,1,arc,acc,1\na,1,bits,bits,2\n"))
    assert tidy.metrics() == ["arc/acc", "bits"]


FIELD = st.text(st.sampled_from('ab1.- "\n,é'), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(FIELD, FIELD), max_size=8))
def test_the_fast_reader_of_csv_reads_what_the_careful_one_reads(tmp_path, rows):
    import csv
    import io

    sink = io.StringIO()
    csv.writer(sink, quoting=csv.QUOTE_ALL).writerows([("name", "value"), *rows])
    fast = _parse_fast(sink.getvalue().encode(), ",", 2)
    careful = _parse_slowly(tmp_path, sink.getvalue(), ",", 2)
    assert fast is not None
    assert [column.to_pylist() for column in fast] == [column.to_pylist() for column in careful]


def test_a_late_mistake_in_a_long_file_is_told_with_its_line(write):
    lines = [f"a,{seed},{seed / 7}" for seed in range(50_000)]
    lines[40_000] = "\n\na,40000,oops"
    with pytest.raises(DataError, match=r"not a number[\s\S]*line 40004, column value"):
        read_results(write("variant,seed,value\n" + "\n".join(lines)))


def test_a_run_may_say_that_it_diverged_or_failed(write):
    path = write("variant,seed,value,status\na,1,2.0,finished\na,2,,diverged\nb,1,2.0,\nb,2,nan,failed\n")
    assert [(row.value, row.status) for row in read_results(path).rows] == [
        (2.0, "finished"),
        (None, "diverged"),
        (2.0, "finished"),
        (None, "failed"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("variant,seed,value\n", "no results"),
        ("seed,value\n1,2\n", r"no column 'variant'[\s\S]*columns seed, value[\s\S]*--map variant=NAME"),
        ("variant,seed\na,1\n", "no column 'value'"),
        (TIDY + "wide,4,high\n", r"not a number[\s\S]*line 8, column value[\s\S]*'high'"),
        (TIDY + "wide,4,1_000\n", "not a number"),
        (TIDY + "wide,4,\n", r"not a number[\s\S]*line 8"),
        (TIDY + "wide,4,NaN\n", r"not finite[\s\S]*line 8[\s\S]*'diverged'"),
        (TIDY + "wide,4,-inf\n", "not finite"),
        (TIDY + "wide,3,2.2\n", r"given twice[\s\S]*line 8[\s\S]*first in line 7"),
        (TIDY + "wide,4,2.2,extra\n", r"does not fit the header[\s\S]*line 8[\s\S]*4 fields"),
        (TIDY + ",4,2.2\n", r"names no variant[\s\S]*line 8"),
        ("variant,seed,seed\na,1,2\n", "stands twice"),
        ("variant,seed,value,status\na,1,2,crashed\n", "unknown status"),
        (",,\n,,\n", "stands twice|no column"),
        ("just some words\n", r"no column 'variant'[\s\S]*columns just some words"),
        (TIDY + '"wide,4,2.2\n', "does not fit the header|not a CSV"),
        (b"variant,seed,value\ncaf\xe9,1,2\n", r"not UTF-8[\s\S]*byte 22"),
    ],
)
def test_bad_files_are_refused_with_line_and_column(write, content, message):
    with pytest.raises(DataError, match=message):
        read_results(write(content))


def test_a_mapping_that_names_nothing_is_refused(write):
    with pytest.raises(DataError, match="no column 'model'"):
        read_results(write(TIDY), {"variant": "model"})
    with pytest.raises(DataError, match=r"does not exist here[\s\S]*--map variant=model"):
        read_results(write(TIDY), {"arm": "variant"})


def test_what_is_no_parquet_file_or_no_file_is_said_so(write, tmp_path):
    with pytest.raises(DataError, match="not a parquet file"):
        read_results(write(TIDY, "results.parquet"))
    with pytest.raises(DataError, match="cannot be read"):
        read_results(tmp_path / "nowhere.csv")


def test_analyze_decides_a_file_and_says_what_it_assumed(write):
    decision = analyze(write(TIDY.replace("value", "loss")))
    (contrast,) = decision.contrasts
    assert (decision.baseline, decision.direction, contrast.verdict) == ("base", "lower is better", "better")
    assert contrast.p == pytest.approx(0.0021, abs=2e-3)
    assert any("first of two by name" in note for note in decision.footnotes)
    assert any("lower loss is taken to be better" in note for note in decision.footnotes)
    assert any("no variant can be called equivalent" in note for note in decision.footnotes)


def test_analyze_takes_direction_and_smallest_effect_at_their_word(write):
    decision = analyze(write(TIDY), lower_is_better=True, smallest_effect=0.05, baseline="wide")
    assert decision.contrasts[0].verdict == "worse"
    assert decision.contrasts[0].relevance == "beyond"
    assert decision.footnotes == ()


def test_a_variant_called_baseline_is_the_baseline(write):
    path = write(TIDY.replace("wide", "Baseline") + "deep,1,2.4\ndeep,2,2.3\ndeep,3,2.2\n")
    assert analyze(path, lower_is_better=True).baseline == "Baseline"


@pytest.mark.parametrize(
    ("baseline", "message"), [(None, "which variant is the baseline"), ("bas", "did you mean base")]
)
def test_an_unclear_baseline_is_asked_for_with_the_choices(write, baseline, message):
    path = write(TIDY + "deep,1,2.4\ndeep,2,2.3\n")
    with pytest.raises(WorkbenchError, match=message) as refused:
        analyze(path, baseline=baseline)
    assert "base, deep, wide" in str(refused.value)


def test_missing_runs_restrict_the_contrast_and_are_counted(write):
    decision = analyze(write(TIDY + "base,4,2.6\n"), lower_is_better=True)
    assert (decision.contrasts[0].pairs, decision.contrasts[0].missing) == (3, 1)
    assert "wide: has no score in seed 4; judged on 3 of 4 seeds" in decision.footnotes
    assert not math.isnan(decision.contrasts[0].estimate)
