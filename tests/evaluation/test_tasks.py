"""Tasks: declarations without torch, and what of them is identity."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_rows import write
from pydantic import ValidationError

from workbench.data.benchmarks import Benchmark, read_items
from workbench.evaluation.benchmark_tasks import CHOICES
from workbench.evaluation.tasks import BenchmarkItems, BitsPerByte, Evaluation, SwappedWords
from workbench.identity import digest


def test_the_batch_changes_cost_and_not_identity() -> None:
    assert digest(Evaluation(batch=1)) == digest(Evaluation(batch=10_000))


def test_what_is_asked_is_identity() -> None:
    asked = [
        Evaluation(),
        Evaluation(tasks=(BitsPerByte(),)),
        Evaluation(tasks=(BitsPerByte(stride=1),)),
        Evaluation(tasks=(BitsPerByte(documents=1),)),
        Evaluation(tasks=(SwappedWords(items=1),)),
    ]
    assert len(set(map(digest, asked))) == len(asked)


def test_an_evaluation_survives_json() -> None:
    evaluation = Evaluation(tasks=(SwappedWords(items=7), BitsPerByte(stride=3)))
    assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation


def test_a_task_asked_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="each task can be asked once"):
        Evaluation(tasks=(BitsPerByte(), BitsPerByte(stride=1)))


def test_declaring_tasks_loads_no_torch() -> None:
    program = "import sys, workbench.evaluation.tasks; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_guessing_scores_one_of_as_many_choices_as_items_have(name: str, tmp_path: Path) -> None:
    benchmark = Benchmark.model_validate({"name": name, "path": write(tmp_path, name)})
    task = BenchmarkItems(benchmark=benchmark)
    metric = "stereotype" if name == "winobias" else "accuracy"
    assert {len(item.truths) / len(item.choices) for item in read_items(benchmark)} == {task.chance(metric)}
    assert [task.chance(name) for name in ("margin", "preference", "truth_log_probability")] == [None] * 3
