"""`make bench`: every bar that is a ratio or a cost, measured in one run and printed as Markdown."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time

from tests.benchmarks import (
    asking,
    claims,
    components,
    crossed,
    encoding,
    overhead,
    parity,
    precision,
    reading,
    stacked,
    step_speed,
    verdict,
)
from workbench.provenance import provenance


def main() -> None:
    """Print where this runs, then every measurement."""
    about = provenance()
    print(
        f"{about['processor']}, {about['system']}, Python {platform.python_version()}, "
        f"torch {about['packages']['torch']}\n"
    )
    print("## Training step against others of the same arithmetic\n")
    step_speed.main([])
    print("\n## Waiting for data\n")
    reading.main()
    print("\n## Writing tokens\n")
    encoding.main()
    print("\n## Every component\n")
    components.main([])
    print("\n## bfloat16 on this CPU\n")
    precision.main()
    print("\n## Seeds as one stack\n")
    stacked.main()
    print("\n## What a run costs beyond training and evaluation\n")
    overhead.main()
    print("\n## Minimal pairs against lm-evaluation-harness\n")
    asking.main([])
    print("\n## The same answers as lm-evaluation-harness\n")
    parity.main([])
    print("\n## Figures of the README\n")
    claims.main()
    print("\n## A verdict\n")
    verdict.main()
    print("\n## Seeds and items drawn again\n")
    crossed.main()
    print("\n## `workbench --help`\n")
    print(f"median of 5: {statistics.median(_help_seconds() for _ in range(5)):.2f} s (bar: 0.5 s)")


def _help_seconds() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "workbench", "--help"], check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
