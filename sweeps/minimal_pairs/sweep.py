"""Does a model that is not told where words stand know grammar less well?

`pairs.jsonl`, beside this file, holds 96 minimal pairs in BLiMP's schema (arXiv:1912.00582): a sentence, and the same
with a mistake in it, of six kinds that are the clusters of its items. Put BLiMP itself in its place, or name another
benchmark. `confidence.py` is a metric of one's own.
"""

from pathlib import Path

from confidence import brier

from architectures.positions import Alibi, NoPosition
from sweeps._laptop import BITS, LAPTOP
from workbench.data.benchmarks import Benchmark
from workbench.evaluation.own import OwnMetric
from workbench.evaluation.tasks import BenchmarkItems, BitsPerByte, Evaluation
from workbench.sweep import Arm, Metric, Sweep

PAIRS = Benchmark(name="blimp", path=str(Path(__file__).with_name("pairs.jsonl")), called="minimal pairs")
TASKS = (
    BenchmarkItems(benchmark=PAIRS, own=(OwnMetric(function=brier),)),
    BitsPerByte(documents=24, bytes_per_document=3000),
)
BASELINE = LAPTOP.vary(evaluation=Evaluation(tasks=TASKS))

SWEEP = Sweep(
    name="minimal_pairs",
    question="Does a small model without positions tell right sentences from wrong ones as well as one with them?",
    baseline=BASELINE,
    baseline_name="rotary",
    arms=(
        Arm(name="ALiBi", axis="position", configuration=BASELINE.vary(position=Alibi())),
        Arm(name="none", axis="position", configuration=BASELINE.vary(position=NoPosition())),
    ),
    seeds=5,
    metric=Metric(name="minimal pairs/margin", smallest_effect=0.25),
    secondary=(
        Metric(name="minimal pairs/accuracy", smallest_effect=0.03),
        Metric(name="minimal pairs/brier", smallest_effect=0.03, higher_is_better=False, unit="squared distance"),
        BITS,
    ),
)
