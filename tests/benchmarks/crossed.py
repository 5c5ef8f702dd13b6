"""The crossed bootstrap and the two-way analysis of a large evaluation: seconds, memory, and SciPy on the same data.

20 variants and a baseline, 10 seeds, 67,000 binary items (the size of BLiMP), 10,000 resamples. SciPy has no crossed
bootstrap: it draws items only, which is less work. Runs in a process of its own, for an honest peak of memory.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from scipy import stats

from workbench.statistics.crossed import crossed_bootstrap
from workbench.statistics.items import PairedItems
from workbench.statistics.new_items import contrast_new_items
from workbench.statistics.pairing import Paired

ARMS, SEEDS, ITEMS = 20, 10, 67_000
RESAMPLES, SCIPY_RESAMPLES = 10_000, 20


def invented_scores() -> np.ndarray:
    """Return float64[1 + arms, seeds, items] of zeros and ones: able variants, easy items, lucky seeds."""
    draws = np.random.Generator(np.random.Philox(key=67))
    scores = np.empty((1 + ARMS, SEEDS, ITEMS))
    ease = draws.standard_normal(ITEMS)
    for arm in scores:
        luck = 0.05 * draws.standard_normal((SEEDS, 1))
        arm[:] = ease + luck + draws.standard_normal((SEEDS, ITEMS)) > 0
    return scores


def as_table(scores: np.ndarray) -> PairedItems:
    """Name the arms and seeds of the invented scores."""
    arms, seeds = tuple(f"arm {i}" for i in range(ARMS)), tuple(map(str, range(SEEDS)))
    status = np.full(scores.shape[:2], "finished")
    paired = Paired("accuracy", True, "base", arms, seeds, scores.mean(axis=-1), status)
    return PairedItems(paired, np.arange(ITEMS).astype(str), np.ones(ITEMS), None, scores)


def measure() -> None:
    """Print the rows of the table, in this process."""
    scores = invented_scores()
    analysis = _seconds(lambda: contrast_new_items(as_table(scores)))
    ours = _seconds(lambda: crossed_bootstrap(scores, resamples=RESAMPLES))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    differences = scores[1:] - scores[0]
    scipys = _seconds(
        lambda: stats.bootstrap(
            (differences,), np.mean, axis=-1, n_resamples=SCIPY_RESAMPLES, batch=1, method="percentile", rng=0
        )
    )
    per_resample, scipy_per_resample = ours / RESAMPLES, scipys / SCIPY_RESAMPLES
    print(f"| two-way analysis | {analysis:.2f} s | 2 s |")
    print(f"| crossed bootstrap, {RESAMPLES:,} resamples | {ours:.1f} s | 60 s |")
    print(f"| peak memory of both, scores included | {peak:.2f} GiB | 2 GB |")
    print(f"| a resample of ours | {1e3 * per_resample:.1f} ms | |")
    print(f"| a resample of `scipy.stats.bootstrap` (items only) | {1e3 * scipy_per_resample:.0f} ms | |")
    print(f"| SciPy's resample over ours | {scipy_per_resample / per_resample:.0f} times | |")


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measure in a fresh process and print Markdown."""
    print(f"{ARMS} arms, {SEEDS} seeds, {ITEMS:,} items:\n")
    print("| what | measured | bar |\n|---|--:|--:|", flush=True)
    command = [sys.executable, "-c", "from tests.benchmarks.crossed import measure; measure()"]
    print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")


if __name__ == "__main__":
    main()
