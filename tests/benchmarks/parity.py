"""Whether our adapter answers as lm-evaluation-harness's own model does, on the real items of six benchmarks.

Both hold the same exported weights, random and far from uniform, and are put the same requests, which the harness's own
definitions make. The files are no part of the project: without them nothing is measured.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.parity import FILES, REAL, compare, exported

ITEMS = {"blimp": 2000, "hellaswag": 500, "mmlu": 500}  # of the others, all
BAR = 1e-4


def main(arguments: list[str] | None = None) -> None:
    """Print the largest difference and both accuracies, by task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, help="of each task, at most")
    most = parser.parse_args(arguments).items
    if not REAL.is_dir():
        print(f"not measured: the items are not there ({REAL.name})")
        return
    print(
        "| task | items | requests | largest difference of a log-probability | accuracy, ours | the harness's model |"
    )
    print("|---|--:|--:|--:|--:|--:|")
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        asked, theirs = exported(Path(name) / "model")
        for task in FILES:
            count = ITEMS.get(task) if most is None else min(most, ITEMS.get(task, most))
            found = compare(task, Path(name) / task, count, asked, theirs)
            worst = max(worst, found.difference)
            scores = f"{found.accuracy:.6f} | {found.theirs:.6f}"
            print(f"| {task} | {found.items:,} | {found.requests:,} | {found.difference:.1e} | {scores} |", flush=True)
    print(f"\nlargest of all: {worst:.1e} (bar: {BAR:g}, {'met' if worst <= BAR else '**missed**'})")


if __name__ == "__main__":
    main()
