"""What the engine costs: of a training step, and of a run.

Of a step: curve, default probes and checkpoints, against the bare steps of the same model on the same data, taken in
turns within one run and timed in seconds of the processor; a checkpoint in seconds of the wall, of the interval at
which it is written by default. Of a run: queue, checkpoints, records, MLflow and statistics. That runs two arms of the
quickstart under three seeds with one worker; between the first and the last committed run, whatever is not training or
evaluation is overhead.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from architectures.architecture import Architecture
from tests.benchmarks.step_speed import CASES
from workbench.data.order import Stream
from workbench.data.prepared import TokenFile
from workbench.records import Numerics, Seeds
from workbench.seeds import generator
from workbench.store import Store
from workbench.training.feeding import StreamFeed
from workbench.training.loop import CHECKPOINT_SHARE, Job, Run, Step, build
from workbench.training.numerics import settle
from workbench.training.objective import Objective
from workbench.training.optimizers import make_optimizer, set_rates
from workbench.training.recipe import Pretraining
from workbench.training.stepping import take_step

STEPS = 100  # the curve has a point at every one, probes are as dense as they get by default
BAR = 0.03
NUMERICS = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1)

SWEEP = """
from sweeps.quickstart import SWEEP as WHOLE
SWEEP = WHOLE.model_copy(update={"name": "overhead", "arms": WHOLE.arms[:1], "seeds": (0, 1, 2)})
"""


class Bare:
    """The steps of a run and nothing else; as a run's `watch` it takes as many as the run did since its last call.

    Attributes:
        seconds: Of the processor, in bare steps.
        others: Of the processor, between them.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._step = job, 0
        self._objective = Objective(build(job.architecture, job.seeds, job.numerics).train())
        self._optimizer = make_optimizer(self._objective.model, job.stage.optimizer)
        self.seconds, self.others, self._began = 0.0, 0.0, 0.0

    def __call__(self, news: Step) -> None:
        """Take the steps, once the first are behind, in which memory is still new."""
        began = time.process_time()
        stage, pace = self._job.stage, self._job.pace
        while self._step < news.step:
            set_rates(self._optimizer, stage.schedule.factor(self._step, pace.steps))
            fed = self._job.feed.sequences(pace.first(self._step), pace.size(self._step))
            share = self._step / pace.steps
            taken = take_step(self._objective, self._optimizer, [fed], self._job.numerics, stage.clip, share)
            self._step += 1
        taken.loss.item()
        ended = time.process_time()
        if self._began:
            self.seconds, self.others = self.seconds + ended - began, self.others + began - self._began
        self._began = ended


def shares(architecture: Architecture, batch: int, steps: int = STEPS) -> tuple[float, float, float]:
    """Return seconds of a bare step, and what curve and probes, and what checkpoints add to it, as shares of it."""
    settle(NUMERICS)
    tokens = generator(0, "overhead").integers(0, architecture.vocabulary, 2_000_000).astype(np.uint16)
    offsets = np.linspace(0, len(tokens), 1001).astype(np.int64)
    hashes = generator(0, "hashes").integers(0, 256, (1000, 32)).astype(np.uint8)
    feed = StreamFeed(Stream(TokenFile(tokens, offsets, hashes), 0), architecture.context)
    seldom = Pretraining(tokens=steps * batch * architecture.context, batch=batch, checkpoint_seconds=1e9)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(architecture, seldom, feed, Seeds.all(0), NUMERICS, Path(folder))
        bare = Bare(job)
        run = Run(job, build(architecture, job.seeds, NUMERICS), bare, lambda: False)
        run.go()
        saved = []
        for _ in range(5):
            began = time.perf_counter()
            run.save()
            saved.append(time.perf_counter() - began)
    checkpoints = min(statistics.median(saved) / Pretraining().checkpoint_seconds, CHECKPOINT_SHARE)
    return bare.seconds / steps, bare.others / bare.seconds - 1, checkpoints


def steps() -> None:
    """Print what a training step costs beyond itself."""
    print("| model | ms per step | curve and probes | checkpoints | together |\n|---|--:|--:|--:|--:|")
    for architecture, batch in CASES:
        seconds, telling, saving = shares(architecture, batch)
        name = f"E{architecture.width} L{architecture.layers} T{architecture.context} B{batch}"
        print(f"| {name} | {seconds * 1e3:.0f} | {telling:.2%} | {saving:.2%} | {telling + saving:.2%} |")
    print(f"\nbar: {BAR:.0%} together\n")


def main() -> None:
    """Run the sweep and print the shares."""
    steps()
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
