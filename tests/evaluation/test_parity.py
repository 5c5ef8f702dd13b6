"""The harness's own definitions on real items: our answers are those of its own model of the same exported weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity import FILES, REAL, compare, exported
from workbench.data.benchmarks import Benchmark, read_items
from workbench.evaluation.benchmarks import asked_of
from workbench.evaluation.tasks import BenchmarkItems

FEW = 24  # items of each task; tests/benchmarks/parity.py asks them all


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the real items in {REAL}")
@pytest.mark.filterwarnings("ignore")
def test_real_items_get_the_answers_of_the_harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="needs the extra 'eval'")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    asked, theirs = exported(tmp_path / "model")
    for name, definition in FILES.items():
        found = compare(name, tmp_path / name, FEW, asked, theirs)
        assert found.items == FEW, name
        assert found.difference < 1e-4, name
        assert found.greedy_alike == found.requests, name
        assert found.accuracy == pytest.approx(found.theirs, abs=1e-6), name
        # the built-in task of the same name asks in the same words
        data = tmp_path / name / f"{name}.jsonl"
        task = BenchmarkItems(benchmark=Benchmark(name=definition.benchmark, path=str(data)))
        assert {
            tuple(request) for item in read_items(task.benchmark) for request in asked_of(task, item)
        } == found.asked
