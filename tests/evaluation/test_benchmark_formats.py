"""The words in which items are asked, against lm-evaluation-harness's own tasks, and the rules by which it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_rows import ROWS, write

from workbench.data.benchmarks import Benchmark, read_examples, read_items
from workbench.errors import DataError
from workbench.evaluation import numbers
from workbench.evaluation.benchmarks import Posed, _chosen, asked_of, examples
from workbench.evaluation.formats import asked_whole
from workbench.evaluation.requests import Encoded, Request
from workbench.evaluation.tasks import BenchmarkItems

FILES = {
    "blimp": "blimp/adjunct_island.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "winogrande": "winogrande/default.yaml",
    "piqa": "piqa/piqa.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "mmlu": "mmlu/default/mmlu_anatomy.yaml",
    "truthfulqa_mc1": "truthfulqa/truthfulqa_mc1.yaml",
    "truthfulqa_mc2": "truthfulqa/truthfulqa_mc2.yaml",
    "gsm8k": "gsm8k/gsm8k.yaml",
    "lambada": "lambada/lambada_openai.yaml",
}
SHOWN = ("hellaswag", "arc_easy", "winogrande", "piqa", "openbookqa", "mmlu", "gsm8k", "lambada")


def harness(name: str, rows: list[dict[str, Any]]) -> Any:
    """Return a task of the harness that reads these rows, everything else as in its YAML file."""
    lm_eval = pytest.importorskip("lm_eval")
    import datasets
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / FILES[name])
    if name == "mmlu":
        config["description"] = config["description"].replace("anatomy", rows[0]["subject"].replace("_", " "))
    parts = {config.get(f"{part}_split") for part in ("training", "validation", "test", "fewshot")} - {None}
    held = datasets.DatasetDict(dict.fromkeys(parts, datasets.Dataset.from_list(rows)))
    return ConfigurableTask(config=config | {"custom_dataset": lambda **_: held})


def requests(task: Any, doc: Any, shown: list[Any]) -> list[Request]:
    """Return what the harness asks of one of its documents after these examples."""
    if shown:
        task.sampler.sample = lambda **_: shown
    asked = task.construct_requests(doc, task.fewshot_context(doc, num_fewshot=len(shown)))
    arguments = [one.args for one in (asked if isinstance(asked, list) else [asked])]
    if task.OUTPUT_TYPE == "generate_until":  # the answer follows from the examples' form only
        return [Request(arguments[0][0], " " + task.doc_to_target(doc))]
    return [Request(*one) for one in arguments]


@pytest.mark.parametrize(
    "name",
    [
        *sorted(FILES.keys() - {"truthfulqa_mc2"}),
        pytest.param("truthfulqa_mc2", marks=pytest.mark.slow),  # its module imports much
    ],
)
def test_items_are_asked_in_the_words_of_the_harness(name: str, tmp_path: Path) -> None:
    rows = [row for row in ROWS[name] if name != "mmlu" or row["subject"] == "knots"]
    task = harness(name, rows)
    documents = list(task.eval_docs)
    benchmark = Benchmark.model_validate({"name": name, "path": write(tmp_path, name, rows)})
    for item, document in zip(read_items(benchmark), documents, strict=True):
        assert asked_of(BenchmarkItems(benchmark=benchmark), item) == requests(task, document, [])
        truth = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
        if item.truths:
            assert item.truths[0] == truth


@pytest.mark.parametrize("name", SHOWN)
def test_examples_stand_before_a_question_as_in_the_harness(name: str, tmp_path: Path) -> None:
    rows = [row for row in ROWS[name] if name != "mmlu" or row["subject"] == "knots"]
    task, path = harness(name, rows), write(tmp_path, name, rows)
    documents = list(task.eval_docs)
    benchmark = Benchmark.model_validate({"name": name, "path": path, "examples": path})
    items, pool = read_items(benchmark), read_examples(benchmark)
    asking = BenchmarkItems(benchmark=benchmark, shots=1)
    for number, item in enumerate(items):
        (shown,) = examples(asking, item, pool)
        expected = requests(task, documents[number], [documents[items.index(shown)]])
        assert asked_of(asking, item, pool) == expected


# --- which examples


def mmlu(tmp_path: Path, shots: int) -> BenchmarkItems:
    rows = [{"subject": "knots", "question": f"{n}?", "choices": [*"wxyz"], "answer": 0} for n in range(9)]
    path = write(tmp_path, "mmlu", [*rows, ROWS["mmlu"][0]], file="dev.jsonl")
    return BenchmarkItems(benchmark=Benchmark(name="mmlu", path=write(tmp_path, "mmlu"), examples=path), shots=shots)


def test_mmlu_shows_the_first_of_its_subject(tmp_path: Path) -> None:
    task = mmlu(tmp_path, 5)
    knots, pool = read_items(task.benchmark)[1], read_examples(task.benchmark)
    assert [one.question for one in examples(task, knots, pool)] == ["0?", "1?", "2?", "3?", "4?"]
    with pytest.raises(DataError, match="too few examples") as raised:
        examples(task, read_items(task.benchmark)[0], pool)
    assert "5 of the subject sailing_boats" in str(raised.value)


def test_other_examples_are_drawn_for_every_item_and_never_show_the_question(tmp_path: Path) -> None:
    rows = [{**ROWS["arc_easy"][0], "id": f"{n}", "question": f"{n}?"} for n in range(12)]
    path = write(tmp_path, "arc_easy", rows)
    task = BenchmarkItems(benchmark=Benchmark(name="arc_easy", path=path, examples=path), shots=4)
    items = read_items(task.benchmark)
    shown = [[one.question for one in examples(task, item, items)] for item in items]
    assert shown == [[one.question for one in examples(task, item, items)] for item in items]
    assert all(len(set(one)) == 4 for one in shown)
    assert all(item.question not in one for item, one in zip(items, shown, strict=True))
    assert len({tuple(one) for one in shown}) > 9


# --- the protocol of Super Tiny Language Models


def test_super_tiny_language_models_scores_question_and_choice_as_one_text(tmp_path: Path) -> None:
    def asked(name: str) -> list[str]:
        return asked_whole(name, read_items(Benchmark.model_validate({"name": name, "path": write(tmp_path, name)}))[0])

    assert asked("blimp") == [" The sailors sing.", " The sailors sings."]
    assert asked("arc_easy")[1] == "What do sails catch? wind"
    assert asked("hellaswag")[0] == "A woman sits on the quay. she pulls the torn net closer."
    assert asked("winogrande")[1] == " Ewa thanked Marta because Marta had mended the net."
    assert asked("mmlu")[3] == "How many masts has a ketch?  Options: none;one;two;nine\n Answer: nine"


# --- numbers in what was written


WRITTEN = [
    "3 boats with 4 nets make 12.\n#### 12",
    "#### 1,200\nQuestion: and 7?",
    "It is $12.50, I think.",
    "#### -5. Or #### 6",
    "no number",
    "",
    "So 3 and 4",
    "####12",
    "the answer is 12.",
    "#### .",
    "1,200</s> 9",
]


def test_numbers_are_found_and_compared_as_by_the_harness() -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter
    from lm_eval.models.utils import postprocess_generated_text

    strict = RegexFilter(r"#### (\-?[0-9\.\,]+)")
    flexible = RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)
    ignored = {"regexes_to_ignore": [",", r"\$", r"(?s).*#### ", r"\.$"], "ignore_case": True}
    for text in WRITTEN:
        kept = numbers.ended(text)
        assert kept == postprocess_generated_text(text, list(numbers.STOPS), None)
        for ours, theirs in ((numbers.strict, strict), (numbers.flexible, flexible)):
            found = ours(kept)
            assert found == theirs.apply([[kept]], [{}])[0][0]
            for answer in ("12", "Some 3 boats\n#### 1,200", "12.50", "#### -5", "[invalid]"):
                expected = exact_match_hf_evaluate([found], [answer], **ignored)["exact_match"]
                assert numbers.same(found, answer) == bool(expected), (found, answer)


# --- what is made of log-probabilities


@pytest.mark.parametrize("name", ["arc_easy", "hellaswag", "piqa", "openbookqa", "truthfulqa_mc1", "blimp"])
def test_choices_are_judged_as_by_the_harness_where_there_is_no_tie(name: str, tmp_path: Path) -> None:
    task = harness(name, ROWS[name])
    task._metric_fn_list |= dict.fromkeys(("acc", "acc_norm", "acc_bytes"))
    asking = BenchmarkItems(benchmark=Benchmark.model_validate({"name": name, "path": write(tmp_path, name)}))
    judged = {"acc": "accuracy", "acc_norm": "accuracy_per_character", "acc_bytes": "accuracy_per_byte"}
    random = np.random.Generator(np.random.Philox(3))
    for item, document in zip(read_items(asking.benchmark), list(task.eval_docs), strict=True):
        posed = Posed(item, tuple(Encoded(np.arange(3), 1) for _ in item.choices))
        for _ in range(20):
            held = tuple((-20 * random.random(len(item.choices))).tolist())
            theirs = task.process_results(document, [(one, False) for one in held])
            ours = _chosen(asking, posed, held)
            if len(set(item.choices)) == len(item.choices):
                assert {metric: ours[judged[metric]] for metric in judged} == {k: theirs[k] for k in judged}
