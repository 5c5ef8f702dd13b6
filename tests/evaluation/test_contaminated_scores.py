"""Items that stand in the training text are flagged with their scores, and only those."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from architectures.transformer import Transformer
from workbench.data.benchmarks import Benchmark
from workbench.data.prepared import Prepared
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.searched import texts_of
from workbench.evaluation.tasks import BenchmarkItems, BitsPerByte, Evaluation, LmEval
from workbench.records import CONTAMINATED


def test_an_item_of_the_training_text_is_flagged_and_one_of_the_held_out_text_is_not(
    model: Transformer, prepared: Prepared, tmp_path: Path
) -> None:
    start, stop = prepared.train.offsets[:2]
    trained = prepared.tokenizer.decode(prepared.train.tokens[start:stop]).split(" ")
    held_out = prepared.held_out[0].text.split(" ")
    rows = [
        {"id": name, "question": " ".join(words[:20]), "choices": {"text": ["yes", "no"], "label": ["A", "B"]}}
        for name, words in (("trained", trained), ("held out", held_out))
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps({**row, "answerKey": "A"}) + "\n" for row in rows))
    task = BenchmarkItems(benchmark=Benchmark(name="arc_easy", path=str(path)))
    evaluation = Evaluation(tasks=(BitsPerByte(documents=2), task))
    scores = evaluate(model, prepared, evaluation, score_id="score", context=16).to_pylist()
    flagged = {(row["task"], row["item"]) for row in scores if row["flags"] & CONTAMINATED}
    assert flagged == {("arc_easy", "trained")}
    assert {row["metric"] for row in scores if row["item"] == "trained" and row["flags"] & CONTAMINATED} == set(
        task.produces
    )


def fake(asked: object, target: object, choices: list[str] | None = None) -> SimpleNamespace:
    """Return what a task of lm-evaluation-harness says of any document."""
    return SimpleNamespace(
        OUTPUT_TYPE="multiple_choice" if choices else "generate_until",
        doc_to_text=lambda document: asked,
        doc_to_target=lambda document: target,
        doc_to_choice=lambda document: choices,
    )


def test_what_the_harness_asks_is_searched_with_every_answer_and_without_short_fields() -> None:
    long = "one two three four five six seven eight nine ten eleven twelve thirteen"
    document = {"subject": "elementary mathematics for everyone", "passage": long, "tags": ["a", long + " fourteen"]}
    assert texts_of(fake("Who?", 1, ["he", "she"]), document) == ("Who? he", "Who? she", long, long + " fourteen")
    assert texts_of(fake(0, "was late.", ["Ann", "Bob"]), {}) == ("Ann was late.", "Bob was late.")
    assert texts_of(fake("Why?", ["no", "yes"]), {}) == ("Why? no", "Why? yes")
    assert texts_of(fake("", 3), {}) == (" ",)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_document_of_the_harness_is_flagged_too(
    model: Transformer, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="needs the extra 'eval'")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    start, stop = prepared.train.offsets[:2]
    trained = prepared.tokenizer.decode(prepared.train.tokens[start:stop]).split(" ")
    questions = [" ".join(prepared.held_out[0].text.split(" ")[:16]), " ".join(trained[:16])]
    lines = [json.dumps({"question": question, "choices": ["yes", "no"], "gold": 0}) for question in questions]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    (tmp_path / "mine.yaml").write_text(
        f"""
task: mine
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path / "mine.jsonl"}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: gold
num_fewshot: 0
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
    )
    evaluation = Evaluation(tasks=(LmEval(task=str(tmp_path / "mine.yaml"), scored=("acc",)),))
    scores = evaluate(model, prepared, evaluation, score_id="score", context=16).to_pylist()
    flagged = {row["item"][:6] for row in scores if row["flags"] & CONTAMINATED}
    assert flagged == {"000001"}
