"""What the engine costs: queue, checkpoints, records, MLflow and statistics, as a share of a quickstart run.

Runs two arms of the quickstart under three seeds with one worker. Between the first and the last committed run,
whatever is not training or evaluation is overhead.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from workbench.store import Store

SWEEP = """
from sweeps.quickstart import SWEEP as WHOLE
SWEEP = WHOLE.model_copy(update={"name": "overhead", "arms": WHOLE.arms[:1], "seeds": (0, 1, 2)})
"""


def main() -> None:
    """Run the sweep and print the shares."""
    with tempfile.TemporaryDirectory() as folder:
        sweep, home = Path(folder) / "overhead.py", Path(folder) / "home"
        sweep.write_text(SWEEP)
        command = [sys.executable, "-m", "workbench"]
        where = [str(sweep), "--home", str(home)]
        subprocess.run([*command, "prepare", *where], check=True, capture_output=True)
        began = time.perf_counter()
        subprocess.run([*command, "run", *where, "--workers", "1"], check=True, capture_output=True)
        whole = time.perf_counter() - began
        paths = sorted((home / "runs").glob("*/record.json"), key=lambda path: path.stat().st_mtime)
        records = Store(home).records(path.parent.name for path in paths)
        between = paths[-1].stat().st_mtime - paths[0].stat().st_mtime
    worked = [record.costs.training_seconds + record.costs.evaluation_seconds for record in records]
    share = 1 - sum(worked[1:]) / between
    print("| what | seconds |\n|---|--:|")
    print(f"| training and evaluation, {len(records)} runs | {sum(worked):.1f} |")
    print(f"| the whole command | {whole:.1f} |")
    print(f"\noverhead per run, once running: {share:.1%} of a run (bar: 5 %)")


if __name__ == "__main__":
    main()
