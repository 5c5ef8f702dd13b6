"""What a verdict costs: 20 variants, 10 seeds, with a cold reference distribution and with a cached one."""

from __future__ import annotations

import statistics
import time

import numpy as np

from workbench.statistics import contrast_all, pair
from workbench.statistics.reference import reference

VARIANTS, SEEDS = 20, 10


def main() -> None:
    """Print both times as Markdown."""
    scores = np.random.Generator(np.random.Philox(3)).standard_normal((1 + VARIANTS, SEEDS))
    rows = [(f"v{v}", s, score) for (v, s), score in np.ndenumerate(scores)]
    paired = pair(rows, baseline="v0", metric="loss", higher_is_better=False)
    reference.cache_clear()
    cold, *warm = [_seconds(paired) for _ in range(12)]
    print(f"{VARIANTS} variants, {SEEDS} seeds, difference and equivalence:\n")
    print("| what | measured | bar |\n|---|--:|--:|")
    print(f"| a verdict, reference distribution simulated | {cold:.1f} s | 10 s |")
    print(f"| a verdict, reference cached (median of {len(warm)}) | {1e3 * statistics.median(warm):.0f} ms | 50 ms |")


def _seconds(paired: object) -> float:
    began = time.perf_counter()
    contrast_all(paired, smallest_effect=1.0)  # type: ignore[arg-type]
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
