"""Scores of benchmark items: hand-computed models, ties, truncation, batches of any size, and metrics of one's own."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_rows import ROWS, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from architectures.transformer import Batch, Transformer
from workbench.data.benchmarks import Benchmark, read_items
from workbench.data.items import Item
from workbench.data.prepared import Prepared
from workbench.errors import DataError
from workbench.evaluation import benchmarks, choosing
from workbench.evaluation.asking import Asked
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.own import OwnMetric
from workbench.evaluation.requests import Request, encode, encode_whole, fitted, measured
from workbench.evaluation.scoring import Score, evaluating
from workbench.evaluation.tasks import BenchmarkItems, Evaluation, View
from workbench.identity import digest
from workbench.records import TRUNCATED

CONTEXT = 16
ONE_VIEW = View()


def task(folder: Path, name: str, rows: Any = None, **fields: Any) -> BenchmarkItems:
    benchmark = Benchmark.model_validate({"name": name, "path": write(folder, name, rows)})
    return BenchmarkItems(benchmark=benchmark, **fields)


class Bigrams:
    """A model whose log-probabilities are known: a token costs by itself and the one before it."""

    training = False

    def __init__(self, vocabulary: int) -> None:
        random = np.random.Generator(np.random.Philox(7))
        logits = random.normal(size=(vocabulary, vocabulary)) * 2
        self.table = torch.from_numpy(logits - np.log(np.exp(logits).sum(1, keepdims=True)))

    def train(self, mode: bool = True) -> Any:
        return self

    def __call__(self, batch: Batch) -> Any:
        return SimpleNamespace(hidden=self.table[batch.tokens])

    def nats(self, output: Any, batch: Batch) -> torch.Tensor:
        return -output.hidden.gather(-1, batch.targets[..., None])[..., 0].float()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    def log_probability(self, tokens: np.ndarray, first: int) -> float:
        return float(sum(self.table[tokens[place - 1], tokens[place]] for place in range(first, len(tokens))))


def values(scores: list[Score]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        found[score.metric].append(score.value)
    return found


def bigrams(prepared: Prepared, context: int = 500) -> tuple[Bigrams, Asked]:
    model = Bigrams(prepared.tokenizer.vocabulary)
    return model, Asked(model, prepared.tokenizer, context)


def scored(asking: BenchmarkItems, prepared: Prepared, asked: Asked) -> list[Score]:
    return benchmarks.ask(asking, benchmarks.draw(asking, prepared, asked.context), ONE_VIEW, asked)


# --- values


def test_choices_are_compared_by_the_log_probability_of_the_answer_alone(prepared: Prepared, tmp_path: Path) -> None:
    model, asked = bigrams(prepared)
    asking = task(tmp_path, "arc_easy")
    found = values(scored(asking, prepared, asked))
    for number, item in enumerate(read_items(asking.benchmark)):
        question = prepared.tokenizer.encode(f"Question: {item.question}\nAnswer:")
        whole = [prepared.tokenizer.encode(f"Question: {item.question}\nAnswer: {choice}") for choice in item.choices]
        held = np.array([model.log_probability(tokens, len(question)) for tokens in whole])
        truth = item.truths[0]
        lengths = {
            "accuracy": np.ones(len(held)),
            "accuracy_per_character": np.array([len(choice) for choice in item.choices]),
            "accuracy_per_byte": np.array([len(choice.encode()) for choice in item.choices]),
            "accuracy_per_token": np.array([len(tokens) - len(question) for tokens in whole]),
        }
        for metric, length in lengths.items():
            assert found[metric][number] == float(np.argmax(held / length) == truth)
        assert found["margin"][number] == pytest.approx(held[truth] - np.delete(held, truth).max(), abs=1e-5)
        assert found["truth_probability"][number] == pytest.approx(np.exp(held[truth]) / np.exp(held).sum(), abs=1e-6)
        assert found["truth_log_probability"][number] == pytest.approx(held[truth], abs=1e-5)


def test_super_tiny_language_models_scores_the_question_and_the_end_too(prepared: Prepared, tmp_path: Path) -> None:
    model, asked = bigrams(prepared)
    asking = task(tmp_path, "winogrande", protocol="stlm")
    found = values(scored(asking, prepared, asked))
    assert set(found) == {"accuracy", "margin", "truth_probability", "truth_log_probability"}
    for number, item in enumerate(read_items(asking.benchmark)):
        texts = [" " + item.question.replace("_", choice) for choice in item.choices]
        tokens = [np.append(prepared.tokenizer.encode(text), prepared.tokenizer.end_of_text) for text in texts]
        held = [model.log_probability(one, 1) for one in tokens]
        truth = item.truths[0]
        assert found["margin"][number] == pytest.approx(held[truth] - held[1 - truth], abs=1e-5)


def test_equal_sentences_are_a_tie_that_counts_half(prepared: Prepared, tmp_path: Path) -> None:
    _, asked = bigrams(prepared)
    found = values(scored(task(tmp_path, "blimp"), prepared, asked))
    assert found["accuracy"][-1] == found["accuracy_per_token"][-1] == 0.5
    assert found["margin"][-1] == 0
    assert set(found["accuracy"][:-1]) <= {0.0, 1.0}


def test_a_tie_counts_by_the_share_of_truths_wherever_they_stand() -> None:
    assert choosing.accuracy([-1.0, -1.0, -2.0], (0,)) == choosing.accuracy([-2.0, -1.0, -1.0], (2,)) == 0.5
    assert choosing.accuracy([-1.0, -1.0, -1.0], (1, 2)) == pytest.approx(2 / 3)
    assert choosing.accuracy([-1.0, -1.0, -3.0], (2,)) == 0
    assert choosing.margin([-1.0, -4.0, -2.0, -3.0], (1, 3)) == -2
    assert choosing.truth_log_probability([-2.0, -9.0, -2.0], (0, 2)) == pytest.approx(math.log(2) - 2)
    assert choosing.truth_probability([-1000.0, -1000.0, -1000.0], (0, 1)) == pytest.approx(2 / 3)


def test_truthfulqa_with_several_truths_is_the_mass_on_them(prepared: Prepared, tmp_path: Path) -> None:
    _, asked = bigrams(prepared)
    asking = task(tmp_path, "truthfulqa_mc2")
    (posed,) = benchmarks.draw(asking, prepared, asked.context)
    held = [-one.nats for one in measured(asked, posed.requests)]
    mass = np.exp(held) / np.exp(held).sum()
    expected = mass[np.array(ROWS["truthfulqa"][0]["mc2_targets"]["labels"]) == 1].sum()
    assert values(scored(asking, prepared, asked))["truth_probability"] == [pytest.approx(expected)]


def test_lambada_asks_whether_the_last_word_would_be_written(prepared: Prepared, tmp_path: Path) -> None:
    model, asked = bigrams(prepared)
    asking = task(tmp_path, "lambada")
    found = values(scored(asking, prepared, asked))
    for number, item in enumerate(read_items(asking.benchmark)):
        whole, given = (
            prepared.tokenizer.encode(f"{item.question} {item.answer}"),
            prepared.tokenizer.encode(item.question),
        )
        likeliest = [int(model.table[token].argmax()) for token in whole]
        assert found["accuracy"][number] == float(likeliest[len(given) - 1 : -1] == whole[len(given) :].tolist())
        assert found["answer_nats"][number] == pytest.approx(-model.log_probability(whole, len(given)), abs=1e-5)
    certain = Bigrams(prepared.tokenizer.vocabulary)
    for before, after in pairwise(whole[len(given) - 1 :].tolist()):
        certain.table[before, after] = -0.001
    sure = values(scored(asking, prepared, Asked(certain, prepared.tokenizer, 500)))
    assert sure["accuracy"][-1] == 1


def test_winobias_asks_which_of_two_sentences_is_the_likelier(prepared: Prepared, tmp_path: Path) -> None:
    model, asked = bigrams(prepared)
    asking = task(tmp_path, "winobias")
    found = values(scored(asking, prepared, asked))
    for number, item in enumerate(read_items(asking.benchmark)):
        end = prepared.tokenizer.end_of_text
        pro, anti = (
            model.log_probability(np.append(end, prepared.tokenizer.encode(sentence)), 1) for sentence in item.choices
        )
        assert found["preference"][number] == pytest.approx(pro - anti, abs=1e-5)
        assert found["stereotype"][number] == float(pro > anti)


def test_written_answers_are_compared_by_their_final_number(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, asked = bigrams(prepared)
    texts = [" 3 times 4.\n#### 12\nQuestion: and then? #### 13", " It keeps 1200 dollars"]
    monkeypatch.setattr(Asked, "write", lambda *_, **__: [prepared.tokenizer.encode(text) for text in texts])
    found = values(scored(task(tmp_path, "gsm8k"), prepared, asked))
    assert found == {"exact_match": [1.0, 0.0], "exact_match_flexible": [1.0, 1.0]}


def test_a_model_writes_its_answers(prepared: Prepared, model: Transformer, tmp_path: Path) -> None:
    asked = Asked(model, prepared.tokenizer, CONTEXT)
    asking = task(tmp_path, "gsm8k", tokens=8)
    with evaluating(model):
        scores = scored(asking, prepared, asked)
    assert {score.value for score in scores} <= {0.0, 1.0}
    assert {score.flags for score in scores} == {TRUNCATED}  # both questions are longer than 16 tokens


# --- requests


def test_white_space_at_the_end_of_a_context_belongs_to_the_continuation(prepared: Prepared) -> None:
    apart, joined = encode([Request("The old", " ship"), Request("The old ", "ship")], prepared.tokenizer, 100)
    assert apart.tokens.tolist() == joined.tokens.tolist()
    assert apart.first_scored == joined.first_scored == len(prepared.tokenizer.encode("The old"))
    (empty,) = encode([Request("", "The old ship")], prepared.tokenizer, 100)
    assert empty.tokens[0] == prepared.tokenizer.end_of_text
    assert (empty.first_scored, empty.scored) == (1, len(prepared.tokenizer.encode("The old ship")))


@given(st.integers(2, 40), st.data())
def test_only_the_beginning_of_a_context_is_ever_cut(length: int, data: Any) -> None:
    first = data.draw(st.integers(1, length - 1))
    context = data.draw(st.integers(1, 45))
    request = fitted(np.arange(length), first, context)
    assert request.fits == (length - first <= context)
    assert request.truncated == (request.fits and length > context + 1)
    if request.fits:
        assert len(request.tokens) == min(length, context + 1)
        assert request.tokens[request.first_scored :].tolist() == list(range(first, length))


def test_a_continuation_longer_than_the_context_is_refused_unless_shortened(prepared: Prepared) -> None:
    _, asked = bigrams(prepared, 4)
    long = encode([Request("The", " old ship sailed over a calm sea")], prepared.tokenizer, 4)
    assert not long[0].fits
    with pytest.raises(ValueError, match="fit the context"):
        measured(asked, long)
    (whole,) = encode_whole(["The old ship sailed over a calm sea"], prepared.tokenizer, 4)
    assert (len(whole.tokens), whole.truncated, whole.fits) == (5, True, True)
    assert whole.tokens[-1] == prepared.tokenizer.end_of_text


def test_items_longer_than_the_context_are_cut_from_the_left_and_flagged(prepared: Prepared, tmp_path: Path) -> None:
    asking, plenty = task(tmp_path, "piqa"), bigrams(prepared)[1]
    whole = [request for posed in benchmarks.draw(asking, prepared, 500) for request in posed.requests]
    asked = bigrams(prepared, max(request.scored for request in whole))[1]
    assert {score.flags for score in scored(asking, prepared, asked)} == {TRUNCATED}
    assert {score.flags for score in scored(asking, prepared, plenty)} == {0}
    assert values(scored(asking, prepared, asked)) == values(
        scored(asking, prepared, plenty)
    )  # bigrams look no further
    shortest = scored(asking, prepared, bigrams(prepared, 3)[1])
    assert {score.flags for score in shortest} == {TRUNCATED}
    assert len(shortest) == len(scored(asking, prepared, plenty))


def test_equal_sequences_pass_through_the_model_once(prepared: Prepared) -> None:
    seen: list[int] = []

    class Counting(Bigrams):
        def __call__(self, batch: Batch) -> Any:
            seen.append(len(batch.tokens))
            return super().__call__(batch)

    asked = Asked(Counting(prepared.tokenizer.vocabulary), prepared.tokenizer, 100)
    requests = [Request("The old", " ship"), Request("The", " old ship"), Request("The old", " sea")]
    found = measured(asked, encode(requests * 5, prepared.tokenizer, 100))
    assert sum(seen) <= 2
    assert found[:3] == found[3:6]
    assert found[1].nats > found[0].nats
    assert found[0].tokens == found[1].tokens - len(prepared.tokenizer.encode(" old"))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.integers(1, 4000))
def test_the_size_of_a_batch_changes_no_log_probability_and_no_choice(
    batch: int, prepared: Prepared, model: Transformer, tmp_path: Path
) -> None:
    asking = task(tmp_path, "blimp")
    items = benchmarks.draw(asking, prepared, CONTEXT)
    requests = [request for posed in items for request in posed.requests]
    alone, together = (Asked(model, prepared.tokenizer, CONTEXT, batch=size) for size in (1, batch))
    with evaluating(model):
        for first, second in zip(measured(alone, requests), measured(together, requests), strict=True):
            assert first.nats == pytest.approx(second.nats, rel=1e-5, abs=1e-5)
        scores = [benchmarks.ask(asking, items, ONE_VIEW, asked) for asked in (alone, together)]
    margins = values(scores[0])["margin"]
    for margin, first, second in zip(margins, *(values(one)["accuracy"] for one in scores), strict=True):
        assert first == second or abs(margin) <= 1e-4


# --- declarations


def test_what_decides_the_meaning_of_a_score_is_in_the_label(tmp_path: Path) -> None:
    path = write(tmp_path, "mmlu")
    plain = Benchmark(name="mmlu", path=path)
    shown = plain.model_copy(update={"examples": path})
    labels = [
        BenchmarkItems(benchmark=plain).label,
        BenchmarkItems(benchmark=shown, shots=5).label,
        BenchmarkItems(benchmark=plain, protocol="stlm").label,
        BenchmarkItems(benchmark=plain.model_copy(update={"called": "mmlu of 2026"})).label,
    ]
    assert labels == ["mmlu", "mmlu, 5-shot", "mmlu (stlm)", "mmlu of 2026"]
    Evaluation(tasks=(BenchmarkItems(benchmark=plain), BenchmarkItems(benchmark=shown, shots=5)))
    with pytest.raises(ValidationError, match="each task can be asked once"):
        Evaluation(tasks=(BenchmarkItems(benchmark=plain), BenchmarkItems(benchmark=plain)))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("gsm8k", {"protocol": "stlm"}, "expected lm-eval for gsm8k"),
        ("blimp", {"shots": 2}, "expected 0 for blimp"),
        ("mmlu", {"shots": 2}, "expected files for 2 shots, got none"),
        ("truthfulqa_mc1", {"shots": 2}, "expected 0 for truthfulqa_mc1"),
    ],
)
def test_what_cannot_be_asked_is_refused(name: str, fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=message):
        task(tmp_path, name, **fields)


def test_every_task_leaves_the_metrics_it_names(prepared: Prepared, model: Transformer, tmp_path: Path) -> None:
    tasks = tuple(task(tmp_path / name, name, tokens=4) for name in ROWS if name != "truthfulqa")
    table = evaluate(model, prepared, Evaluation(tasks=tasks), score_id="s", context=CONTEXT)
    found = {(row["task"], row["metric"]) for row in table.to_pylist()}
    assert found == {(one.label, metric) for one in tasks for metric in one.produces}
    assert set(table["flags"].to_pylist()) == {0, TRUNCATED}


# --- metrics of one's own


def test_a_metric_of_ones_own_is_asked_of_every_item(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "metrics_for_tests.py"
    module.write_text(
        "import math\n\ndef brier(item, log_probabilities):\n    '''Squared distance from certainty.'''\n"
        "    total = sum(map(math.exp, log_probabilities))\n"
        "    held = [math.exp(one) / total for one in log_probabilities]\n"
        "    return sum((p - (k in item.truths)) ** 2 for k, p in enumerate(held))\n"
        "\ndef nothing(item, answer):\n    return None\n\ndef endless(item, answer):\n    return float('inf')\n"
        "\ndef broken(item, answer):\n    return answer['x']\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own = OwnMetric(function="metrics_for_tests:brier")
    _, asked = bigrams(prepared)
    asking = task(tmp_path, "arc_easy", own=(own,))
    found = values(scored(asking, prepared, asked))
    assert asking.produces[-1] == "brier"
    probability = found["truth_probability"][0]
    assert (1 - probability) ** 2 <= found["brier"][0] <= 2
    before = digest(own)
    item, answer = Item("1", "1", "?", ("a", "b"), (0,)), (math.log(0.75), math.log(0.25))
    assert own.value(item, answer) == pytest.approx(0.125)
    import metrics_for_tests

    assert OwnMetric(function=metrics_for_tests.brier) == own
    for name, message in (("nothing", "returns no number"), ("endless", "returns no number"), ("broken", "fails")):
        with pytest.raises(DataError, match=message) as raised:
            OwnMetric(function=f"metrics_for_tests:{name}").value(item, answer)
        assert f"metrics_for_tests:{name}, item 1" in str(raised.value)
    assert f"{module}:16)" in str(raised.value)
    monkeypatch.delitem(sys.modules, "metrics_for_tests")
    module.write_text(module.read_text().replace("** 2", "** 4"))
    assert digest(OwnMetric(function="metrics_for_tests:brier")) != before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"function": "no_such_module:metric"}, "expected a module that can be imported"),
        ({"function": "math:no_such_function"}, "expected a function 'no_such_function'"),
        ({"function": "brier"}, "module:function"),
    ],
)
def test_a_metric_that_is_not_there_is_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OwnMetric.model_validate(fields)


def test_metrics_of_one_name_are_refused(tmp_path: Path) -> None:
    own = OwnMetric(function="math:dist", name="margin")
    with pytest.raises(ValidationError, match="expected names that no other metric has, got margin"):
        task(tmp_path, "blimp", own=(own,))
