"""Benchmarks and a metric of one's own in a sweep: planned, scored, part of identity, decided like any metric."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest
from benchmark_rows import ROWS, write

from architectures.embeddings import Bytes
from architectures.presets import tiny
from workbench.configuration import Configuration
from workbench.data.benchmarks import Benchmark
from workbench.errors import DataError, PlanError
from workbench.estimating import _evaluated_tokens
from workbench.evaluation.tasks import BenchmarkItems, BitsPerByte, Evaluation, SwappedWords
from workbench.planning import Plan, plan
from workbench.records import Numerics
from workbench.results import Results
from workbench.running import Runner
from workbench.session import decide, open_session
from workbench.sweep import Arm, Metric, Sweep
from workbench.training.recipe import Pretraining

METRIC = "def brier(item, log_probabilities):\n    return float(len(log_probabilities)) + len(item.name) / 100\n"
PRIMARY = 'Metric(name="blimp/margin", smallest_effect=0.25)'
FURTHER = 'Metric(name="brier", smallest_effect=0.1, higher_is_better=False)'


@pytest.fixture
def asking(sweep_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small sweep, asked minimal pairs from a file beside it, with a metric from a module beside it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file is edited twice within a second here
    (sweep_file.parent / "metric_beside.py").write_text(METRIC)
    path = write(sweep_file.parent, "blimp", file="pairs.jsonl")
    task = f'BenchmarkItems(benchmark=Benchmark(name="blimp", path={path!r}), own=(OwnMetric(function=brier),))'
    text = sweep_file.read_text()
    for old, new in (
        ("SwappedWords(items=8)", task),
        ("import BitsPerByte, Evaluation, SwappedWords", "import BenchmarkItems, BitsPerByte, Evaluation"),
        ('Metric(name="bits_per_byte", smallest_effect=0.02)', PRIMARY),
        ('Metric(name="accuracy", smallest_effect=0.02)', FURTHER),
    ):
        assert old in text
        text = text.replace(old, new)
    imports = "from workbench.data.benchmarks import Benchmark\nfrom workbench.evaluation.own import OwnMetric\n"
    sweep_file.write_text(f"from metric_beside import brier\n{imports}{text}")
    return sweep_file


def scores(path: Path) -> set[str]:
    return {trial.score_id for trial in open_session(str(path), path.parent / "home").plan.trials}


def models(path: Path) -> set[str | None]:
    return {trial.model_id for trial in open_session(str(path), path.parent / "home").plan.trials}


def test_a_sweep_is_decided_by_a_benchmark_and_a_metric_of_ones_own(asking: Path, tmp_path: Path) -> None:
    session = open_session(str(asking), tmp_path / "home")
    runner = Runner(session.plan, session.store)
    records = [runner.run(trial) for trial in session.plan.trials[:2]]
    table = session.store.scores(records[0])
    items = table.filter(pc.and_(pc.equal(table["task"], "blimp"), pc.equal(table["metric"], "brier"))).to_pylist()
    assert {row["item"]: row["value"] for row in items} == {
        f"{row['UID']}/{row['pairID']}": 2 + len(f"{row['UID']}/{row['pairID']}") / 100 for row in ROWS["blimp"]
    }
    assert {row["cluster"] for row in items} == {"plural_sailors", "this_and_these"}
    decisions = decide(Results(session.store, tracked=False), session.plan.document())
    assert [decision.metric for decision in decisions] == ["blimp/margin", "brier"]


def test_items_and_own_metrics_are_identity_of_scores_and_never_of_models(asking: Path) -> None:
    before, trained = scores(asking), models(asking)
    beside, pairs = asking.parent / "metric_beside.py", asking.parent / "pairs.jsonl"
    beside.write_text(METRIC.replace("100", "99"))
    assert scores(asking).isdisjoint(before)
    beside.write_text(METRIC)
    assert scores(asking) == before
    write(asking.parent, "blimp", ROWS["blimp"][:-1], file="pairs.jsonl")
    assert scores(asking).isdisjoint(before)
    pairs.rename(asking.parent / "elsewhere.jsonl")
    write(asking.parent, "blimp", file="moved.jsonl")
    asking.write_text(asking.read_text().replace("pairs.jsonl", "moved.jsonl"))
    assert scores(asking) == before
    assert models(asking) == trained
    (asking.parent / "moved.jsonl").unlink()
    with pytest.raises(DataError, match="there are no such files"):
        scores(asking)


# --- plans


def planned(tmp_path: Path, name: str, metric: str, *, benchmark: str = "blimp", **fields: object) -> Plan:
    task = BenchmarkItems.model_validate(
        {"benchmark": {"name": benchmark, "path": write(tmp_path, benchmark)}, **fields}
    )
    evaluation = Evaluation(tasks=(task, SwappedWords()))
    baseline = Configuration(architecture=tiny(), evaluation=evaluation)
    changes = {"embedding": Bytes()} if name == "embedding" else {"layers": 3}
    arm = Arm(name="arm", axis=name, configuration=baseline.vary(**changes))
    sweep = Sweep(
        question="?", baseline=baseline, arms=(arm,), seeds=2, metric=Metric(name=metric, smallest_effect=0.1)
    )
    return plan(sweep, Numerics(attention="sdpa", precision="float32", device="cpu", threads=1), lambda variant: "c")


def test_a_metric_that_several_tasks_leave_needs_the_name_of_one(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="several tasks of the evaluation leave this metric") as raised:
        planned(tmp_path, "layers", "accuracy")
    assert "one of blimp/accuracy, swapped_words/accuracy, */accuracy" in str(raised.value)
    for name in ("blimp/accuracy", "*/accuracy", "swapped_words/accuracy", "accuracy_per_token"):
        assert planned(tmp_path, "layers", name).document()["metric"] == name


def test_an_arm_over_bytes_cannot_be_asked_for_the_likeliest_token(tmp_path: Path) -> None:
    planned(tmp_path, "embedding", "blimp/accuracy")
    for benchmark, metric in (("lambada", "answer_nats"), ("gsm8k", "exact_match")):
        with pytest.raises(PlanError, match="needs the likeliest token") as raised:
            planned(tmp_path, "embedding", metric, benchmark=benchmark)
        assert f"evaluation.tasks.{benchmark}" in str(raised.value)


def test_the_estimate_counts_items_examples_and_what_is_written(tmp_path: Path) -> None:
    def tokens(name: str, **fields: object) -> float:
        benchmark = Benchmark.model_validate({"name": name, "path": write(tmp_path, name), **fields.pop("files", {})})  # type: ignore[arg-type]
        task = BenchmarkItems.model_validate({"benchmark": benchmark, **fields})
        return _evaluated_tokens(Configuration(architecture=tiny(), evaluation=Evaluation(tasks=(task,))))

    alone = tokens("mmlu")
    assert alone > 0
    assert tokens("mmlu", shots=1, files={"examples": write(tmp_path, "mmlu")}) == 2 * alone
    assert tokens("gsm8k", tokens=100) - tokens("gsm8k", tokens=50) == 50 * len(ROWS["gsm8k"])


def test_the_estimate_counts_every_weight_on_the_way_in_the_first_view_of_each_task() -> None:
    def tokens(trajectory: int, **views: object) -> float:
        tasks = (BitsPerByte.model_validate({"documents": 3, **views}), SwappedWords(items=5))
        evaluation = Evaluation(tasks=tasks, trajectory=trajectory)
        stage = Pretraining(tokens=200_000, checkpoints=4)
        return _evaluated_tokens(Configuration(architecture=tiny(), stages=(stage,), evaluation=evaluation))

    end, wide = tokens(0), tokens(0, contexts=(2,), exits=(1,))
    assert wide > end
    assert tokens(3) == pytest.approx(4 * end)
    assert tokens(3, contexts=(2,), exits=(1,)) == pytest.approx(wide + 3 * end)
