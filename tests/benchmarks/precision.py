"""Whether bfloat16 autocast makes a training step faster on this CPU: why `numerics.resolve` leaves it to the user."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.feedforward import Gelu
from architectures.presets import tiny
from architectures.transformer import Batch
from workbench.records import Numerics, Seeds
from workbench.seeds import generator
from workbench.training.feeding import Fed
from workbench.training.loop import build
from workbench.training.objective import Objective
from workbench.training.optimizers import make_optimizer
from workbench.training.recipe import AdamW
from workbench.training.stepping import take_step

ROUNDS = 6


def milliseconds(architecture: Architecture) -> dict[str, float]:
    """Return the median training step per precision, taken in turns on one thread."""
    shape = (4, architecture.context)
    tokens = torch.from_numpy(generator(0, "precision").integers(0, architecture.vocabulary, shape, dtype=np.int64))
    parts = [Fed(Batch(tokens, tokens, torch.ones(shape)))]
    steps, times = {}, {}
    for precision in ("float32", "bfloat16"):
        numerics = Numerics.model_validate({"attention": "sdpa", "precision": precision, "device": "cpu", "threads": 1})
        model = build(architecture, Seeds.all(0), numerics)
        steps[precision], times[precision] = (
            (Objective(model), make_optimizer(model, AdamW()), parts, numerics, 1.0, 0.0),
            [],
        )
    for turn in range(1 + ROUNDS):
        for precision, step in steps.items():
            began = time.perf_counter()
            take_step(*step)
            if turn:  # the first warms up
                times[precision].append(time.perf_counter() - began)
    return {precision: 1000 * statistics.median(taken) for precision, taken in times.items()}


def main() -> None:
    """Print the comparison as Markdown."""
    torch.set_num_threads(1)
    print("| model | float32, ms a step | bfloat16 autocast, ms a step | speed-up |\n|---|--:|--:|--:|")
    wide = tiny().vary(width=512, feed_forward=Gelu(width=1536), attention=MultiHead(heads=8))
    for name, architecture in (("quickstart, width 128", tiny()), ("width 512", wide)):
        took = milliseconds(architecture)
        speed_up = took["float32"] / took["bfloat16"]
        print(f"| {name} | {took['float32']:.0f} | {took['bfloat16']:.0f} | {speed_up:.2f} |")


if __name__ == "__main__":
    main()
