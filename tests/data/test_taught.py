"""Examples for fine-tuning that share words with the items of benchmarks: left out, or counted, as data declare."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from workbench.data.answers import Answers, read_answers
from workbench.data.benchmarks import Benchmark
from workbench.data.contamination import overlapping
from workbench.data.decontamination import Decontamination
from workbench.data.prepared import Data, Prepared, prepare
from workbench.data.taught import taught
from workbench.data.text_files import Files
from workbench.data.tokenizer import BytePairs
from workbench.errors import DataError
from workbench.records import Seeds
from workbench.training.recipe import FineTuning

ITEM = "Which of the many animals that live in the sea and breathe air is the largest"
ROWS = [
    {"id": "whales", "question": ITEM, "choices": {"text": ["the whale", "the cod"], "label": ["A", "B"]}},
    {"id": "moons", "question": "How many moons turn around a planet which has none of its own at all by night",
     "choices": {"text": ["none", "one"], "label": ["A", "B"]}},
]  # fmt: skip


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps({**row, "answerKey": "A"}) + "\n" for row in ROWS))
    return Benchmark(name="arc_easy", path=str(path))


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    """Thirty examples; the last asks an item, the one before it spreads words of it over two turns."""
    path = tmp_path / "answers.jsonl"
    plain = [{"prompt": f"What is {number} and {number}?", "answer": str(2 * number)} for number in range(28)]
    spread = {"prompt": "Which of the many animals that live in", "answer": "the sea and breathe air is the largest."}
    told = {"messages": [{"role": "user", "content": ITEM + "?"}, {"role": "assistant", "content": "The whale."}]}
    path.write_text("".join(json.dumps(row) + "\n" for row in [*plain, spread, told]))
    return Answers(path=str(path), held_out=0)


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    path = tmp_path / "corpus.txt"
    path.write_text("\n<|endoftext|>\n".join(f"It was calm on day {number} of that year." for number in range(40)))
    data = Data(corpus=Files(path=str(path)), tokenizer=BytePairs(vocabulary=270), held_out=0.1)
    return prepare(data, tmp_path / "cache")


def declaring(prepared: Prepared, benchmark: Benchmark, action: str) -> Prepared:
    spec = Decontamination.model_validate({"benchmarks": (benchmark,), "action": action})
    return replace(prepared, decontamination=spec)


@pytest.mark.parametrize(("action", "left_out"), [("remove", 2), ("cut", 2), ("flag", 0)])
def test_an_example_that_shares_words_with_an_item_is_left_out_or_counted(
    action: str, left_out: int, prepared: Prepared, benchmark: Benchmark, answers: Answers
) -> None:
    declared = declaring(prepared, benchmark, action)
    found, every = taught(answers, declared), read_answers(answers, prepared.tokenizer).training
    assert (found.of, found.overlapping, found.left_out) == (30, 2, left_out)
    assert found.examples.lines.tolist() == every.lines.tolist()[: 30 - left_out]
    assert np.array_equal(found.examples.tokens, every.tokens[: found.examples.offsets[-1]])
    feed = FineTuning(answers=answers).feed(declared, Seeds.all(0), 64)
    assert len(feed.examples.lengths) == 30 - left_out
    said = FineTuning(answers=answers).check(declared, 64)
    assert said.endswith(f"2 share words with a benchmark and are {'left out' if left_out else 'kept'}")
    assert overlapping(declared, benchmark, [found.searchable]) == (set() if left_out else {"whales"})
    assert overlapping(declared, benchmark) == frozenset()


def test_without_a_declaration_every_example_is_trained_on_and_its_items_are_flagged(
    prepared: Prepared, benchmark: Benchmark, answers: Answers
) -> None:
    found = taught(answers, prepared)
    assert (found.of, found.overlapping, found.left_out) == (30, 0, 0)
    assert "benchmark" not in FineTuning(answers=answers).check(prepared, 64)
    assert overlapping(prepared, benchmark, [found.searchable]) == {"whales"}


def test_held_out_examples_are_neither_searched_nor_left_out(
    prepared: Prepared, benchmark: Benchmark, answers: Answers
) -> None:
    held = {share: answers.model_copy(update={"held_out": share}) for share in (0.5, 0.9)}
    for asked in held.values():
        split, found = read_answers(asked, prepared.tokenizer), taught(asked, declaring(prepared, benchmark, "remove"))
        trained = {29, 30} & set(split.training.lines.tolist())
        assert found.left_out == len(trained)
        assert set(found.examples.lines.tolist()) == set(split.training.lines.tolist()) - {29, 30}


def test_a_benchmark_or_a_file_that_changed_is_searched_again(
    prepared: Prepared, benchmark: Benchmark, answers: Answers
) -> None:
    declared = declaring(prepared, benchmark, "remove")
    assert taught(answers, declared).left_out == 2
    rows = Path(benchmark.path).read_text().splitlines()
    Path(benchmark.path).write_text(rows[1] + "\n")
    assert taught(answers, declared).left_out == 0
    with open(answers.path, "a") as file:
        file.write(json.dumps({"prompt": ROWS[1]["question"], "answer": "none"}) + "\n")
    assert taught(answers, declared).left_out == 1


def test_where_nothing_would_be_left_it_says_so(prepared: Prepared, benchmark: Benchmark, tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps({"prompt": ITEM, "answer": "the whale"}) + "\n")
    with pytest.raises(DataError, match="leaves nothing to fine-tune on"):
        taught(Answers(path=str(path), held_out=0), declaring(prepared, benchmark, "cut"))
