"""How long a training step waits for its data: what reading takes, as a share of the step, on the quickstart's model.

Reads and steps take turns in one process, so that both see the same machine. What a GPU reads while it computes is not
waited for; here everything is.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

from sweeps.quickstart import SWEEP
from workbench.configuration import Configuration
from workbench.data.answers import Answers
from workbench.data.prepared import Prepared, prepare
from workbench.records import Numerics, Seeds
from workbench.training.feeding import Feed
from workbench.training.loop import build
from workbench.training.numerics import settle
from workbench.training.objective import Objective
from workbench.training.optimizers import make_optimizer
from workbench.training.recipe import FineTuning, Pretraining, Training
from workbench.training.stepping import take_step

STEPS, SKIPPED = 60, 10
BAR = 0.02
NUMERICS = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1)


def main() -> None:
    """Print the shares."""
    settle(NUMERICS)
    configuration = SWEEP.baseline
    assert isinstance(configuration, Configuration)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(configuration.data, Path(folder))
        path = Path(folder) / "answers.jsonl"
        rows = ({"prompt": f"What is {a} and {b}?", "answer": str(a + b)} for a in range(50) for b in range(50))
        path.write_text("\n".join(map(json.dumps, rows)))
        plain, batch = configuration.pretraining, configuration.pretraining.batch
        stages: dict[str, Training] = {
            "windows of the stream": plain,
            "documents hidden from each other": Pretraining(batch=batch, packing="documents"),
            "examples with answers": FineTuning(batch=batch, answers=Answers(path=str(path))),
        }
        print("| a step reads | reading, ms | step, ms | share |\n|---|--:|--:|--:|")
        for name, stage in stages.items():
            read, whole = measure(configuration, stage, prepared)
            print(f"| {name} | {1e3 * read:.2f} | {1e3 * whole:.1f} | {read / whole:.2%} |")
    print(f"\nbar: {BAR:.0%} of a step, reading included")


def measure(configuration: Configuration, stage: Training, prepared: Prepared) -> tuple[float, float]:
    """Return the median seconds of reading a step's sequences, and of the whole step."""
    context = configuration.architecture.context
    feed: Feed = stage.feed(prepared, Seeds.all(0), context)
    model = build(configuration.architecture, Seeds.all(0), NUMERICS)
    objective, optimizer = Objective(model, stage.terms()), make_optimizer(model, stage.optimizer)
    reading, whole = [], []
    for step in range(SKIPPED + STEPS):
        began = time.perf_counter()
        fed = feed.sequences(step * stage.batch, stage.batch)
        read = time.perf_counter()
        take_step(objective, optimizer, [fed], NUMERICS, stage.clip, step / (SKIPPED + STEPS), step)
        reading.append(read - began)
        whole.append(time.perf_counter() - began)
    return statistics.median(reading[SKIPPED:]), statistics.median(whole[SKIPPED:])


if __name__ == "__main__":
    main()
