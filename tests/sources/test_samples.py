from __future__ import annotations

import hashlib
import json

import pytest

from workbench.errors import DataError, StatisticsError
from workbench.reporting import analyze
from workbench.sources import open_source, read_results

DATE = "2026-01-02T03-04-05.678901"


def sample(document, acc, *, text=None, filter_name="none", metrics=("acc", "acc_norm"), **more):
    """One line as lm-evaluation-harness 0.4 writes it."""
    asked = text or f"question {document}"
    hashed = hashlib.sha256(asked.encode()).hexdigest()
    scores = dict.fromkeys(metrics, float(acc))
    line = {
        "doc_id": document,
        "doc": {"query": asked},
        "target": "0",
        "arguments": {"gen_args_0": {"arg_0": asked, "arg_1": " yes"}},
        "resps": [[["-1.5", "False"]]],
        "filtered_resps": [["-1.5", "False"]],
        "filter": filter_name,
        "metrics": list(metrics),
        "doc_hash": hashed,
        "prompt_hash": hashed,
        "target_hash": hashed,
    }
    return json.dumps({**line, **scores, **more}) + "\n"


def log(scores, **options):
    return "".join(sample(document, score, **options) for document, score in enumerate(scores))


@pytest.fixture
def logs(write, tmp_path):
    """Two variants under two seeds, one task."""
    for place, scores in {
        "base/seed1": (1, 0, 0, 1),
        "base/seed2": (1, 0, 1, 1),
        "wide/seed1": (1, 1, 0, 1),
        "wide/seed2": (1, 1, 1, 1),
    }.items():
        write(log(scores), f"logs/{place}/org__model/samples_arc_easy_{DATE}.jsonl")
    return tmp_path / "logs"


def test_a_folder_per_run_names_variant_and_seed(logs):
    results = read_results(logs, metric="acc")
    assert [(row.variant, row.seed, row.value) for row in results.rows] == [
        ("base", "1", 0.5),
        ("base", "2", 0.75),
        ("wide", "1", 0.75),
        ("wide", "2", 1.0),
    ]
    assert (results.metric, results.items) == ("arc_easy/acc", 4)
    assert open_source(logs).metrics() == ["arc_easy/acc", "arc_easy/acc_norm"]


def test_tasks_and_filters_are_told_apart(logs, write):
    for seed in (1, 2):
        for variant in ("base", "wide"):
            write(
                log((1, 0), filter_name="strict", metrics=("exact_match",))
                + log((1, 1), filter_name="flexible", metrics=("exact_match",)),
                f"logs/{variant}/seed{seed}/org__model/samples_gsm8k_{DATE}.jsonl",
            )
    assert open_source(logs).metrics() == [
        "arc_easy/acc",
        "arc_easy/acc_norm",
        "gsm8k/exact_match,flexible",
        "gsm8k/exact_match,strict",
    ]
    assert read_results(logs, metric="gsm8k/exact_match,strict").rows[0].value == 0.5
    with pytest.raises(DataError, match="more than one such metric"):
        read_results(logs, metric="gsm8k")


def test_single_runs_are_compared_over_items_and_labelled(write, tmp_path):
    right = [int(document % 3 > 0) for document in range(60)]
    better = [1 if document % 5 == 0 else score for document, score in enumerate(right)]
    write(log(right), f"logs/base/samples_arc_easy_{DATE}.jsonl")
    write(log(better), f"logs/wide/samples_arc_easy_{DATE}.jsonl")
    decision = analyze(tmp_path / "logs", metric="acc", baseline="base")
    (contrast,) = decision.contrasts
    assert contrast.estimate == pytest.approx(sum(better) / 60 - sum(right) / 60)
    assert decision.footnotes[0] == "items only: says nothing about retraining"
    assert decision.facts["Items"] == "60, one run per variant"
    assert any("exact McNemar" in note for note in decision.footnotes)


def test_folder_levels_may_be_named(write, tmp_path):
    for seed in ("a", "b"):
        for variant in ("base", "wide"):
            write(log((1, 0, 1)), f"logs/{seed}/{variant}/samples_arc_{DATE}.jsonl")
    results = read_results(tmp_path / "logs", {"variant": "2", "seed": "1"}, metric="acc")
    assert [(row.variant, row.seed) for row in results.rows] == [
        ("base", "a"),
        ("wide", "a"),
        ("base", "b"),
        ("wide", "b"),
    ]
    with pytest.raises(DataError, match=r"two logs of one task[\s\S]*--map seed=2"):
        read_results(tmp_path / "logs", metric="acc")
    with pytest.raises(DataError, match="no folder that names its seed"):
        read_results(tmp_path / "logs", {"variant": "2", "seed": "3"}, metric="acc")
    with pytest.raises(DataError, match=r"cannot be read for a folder of logs[\s\S]*variant=model"):
        read_results(tmp_path / "logs", {"variant": "model"}, metric="acc")


def test_one_number_that_means_two_documents_is_refused(logs, write):
    changed = log((1, 0)) + sample(2, 1, text="another question") + sample(3, 1)
    write(changed, f"logs/wide/seed2/org__model/samples_arc_easy_{DATE}.jsonl")
    with pytest.raises(DataError, match=r"one number means two documents[\s\S]*line 3[\s\S]*doc_id 2 of arc_easy"):
        read_results(logs, metric="acc")


def test_runs_on_different_items_are_refused(logs, write):
    write(log((1, 0, 1)), f"logs/wide/seed2/org__model/samples_arc_easy_{DATE}.jsonl")
    with pytest.raises(StatisticsError, match="different items"):
        read_results(logs, metric="acc")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json\n", r"not a line of an lm-eval sample log[\s\S]*line 1[\s\S]*not json"),
        ('{"acc": 1}\n', "not a line of an lm-eval sample log"),
        (sample(0, 1) + sample(0, 1), r"scored twice[\s\S]*line 2[\s\S]*doc_id 0"),
    ],
)
def test_broken_logs_are_refused_with_their_line(logs, write, content, message):
    write(content, f"logs/wide/seed2/org__model/samples_arc_easy_{DATE}.jsonl")
    with pytest.raises(DataError, match=message):
        read_results(logs, metric="acc")


def test_logs_of_an_older_harness_without_hashes_are_read_with_a_note(write, tmp_path):
    for variant in ("base", "wide"):
        for seed in (1, 2):
            lines = [json.dumps({"doc_id": d, "target": "x", "acc": 0.5 * d, "perplexity": [1.0, 2]}) for d in range(3)]
            write("\n".join(lines), f"logs/{variant}/{seed}/samples_arc_{DATE}.jsonl")
    results = read_results(tmp_path / "logs")
    assert results.metric == "arc/acc"
    assert results.notes == ("logs without doc_hash: items are paired by number only",)


def test_a_folder_without_logs_is_refused_with_what_it_should_hold(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read[\s\S]*samples_TASK_DATE.jsonl"):
        read_results(tmp_path)
