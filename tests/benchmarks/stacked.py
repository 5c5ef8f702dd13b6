"""What a stack of seeds gains on a CPU: 8 models as one stack, against the same 8 one after the other.

Both sides take the same training steps (`workbench.training.stepping.take_step`) on the same tokens with one thread, in
turns within one run, and are timed in seconds of the processor, so that a busy machine slows neither. What a GPU makes
of it is measured by `tests/benchmarks/gpu.py`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.feedforward import SwiGLU
from architectures.positions import Rotary
from architectures.transformer import Batch
from workbench.records import Numerics, Seeds
from workbench.training.cohort import Abreast, Stack, together
from workbench.training.feeding import Fed
from workbench.training.loop import build
from workbench.training.numerics import settle
from workbench.training.objective import Objective
from workbench.training.optimizers import AdamW, make_optimizer
from workbench.training.stepping import take_step

SEEDS, ROUNDS = 8, 7
NUMERICS = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1)
SHAPES = ((16, 1, 16, 4, 64), (32, 2, 32, 8, 256), (64, 2, 64, 8, 512), (128, 4, 128, 4, 1024))


def compare(architecture: Architecture, sequences: int) -> tuple[float, float]:
    """Return median processor seconds of a step of all seeds, in a row and as one stack."""
    settle(NUMERICS)
    feds = [_fed(architecture, sequences, seed) for seed in range(SEEDS)]
    singles, stacked = _objectives(architecture), _objectives(architecture)
    optimizers = [make_optimizer(one.model, AdamW()) for one in singles]
    stack = Stack(stacked, [make_optimizer(one.model, AdamW()) for one in stacked], AdamW())

    def in_a_row() -> None:
        for objective, optimizer, fed in zip(singles, optimizers, feds, strict=True):
            take_step(objective, optimizer, [fed], NUMERICS, 1.0, 0.0)

    def as_a_stack() -> None:
        take_step(stack, stack.optimizer, [together(feds)], NUMERICS, 1.0, 0.0, 0, Abreast())

    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(1 + ROUNDS):
        for step, taken in zip((in_a_row, as_a_stack), times, strict=True):
            taken.append(_seconds(step))
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def _objectives(architecture: Architecture) -> list[Objective]:
    return [Objective(build(architecture, Seeds.all(seed), NUMERICS)).train() for seed in range(SEEDS)]


def _fed(architecture: Architecture, sequences: int, seed: int) -> Fed:
    shape = sequences, architecture.context + 1
    tokens = torch.randint(0, architecture.vocabulary, shape, generator=torch.Generator().manual_seed(seed))
    return Fed(Batch(tokens[:, :-1], tokens[:, 1:], torch.ones(sequences, architecture.context)))


def _seconds(step: Callable[[], None]) -> float:
    began = time.process_time()
    step()
    return time.process_time() - began


def main() -> None:
    """Print a row per shape."""
    print(f"| {SEEDS} seeds of a model | in a row, ms | as one stack, ms | gain |\n|---|--:|--:|--:|")
    for width, layers, context, sequences, vocabulary in SHAPES:
        architecture = Architecture(
            width=width,
            layers=layers,
            context=context,
            vocabulary=vocabulary,
            position=Rotary(),
            attention=MultiHead(heads=2),
            feed_forward=SwiGLU(width=width * 8 // 3),
        )
        row, stack = compare(architecture, sequences)
        name = f"E{width} L{layers} T{context} B{sequences} V{vocabulary}"
        print(f"| {name} | {1e3 * row:.1f} | {1e3 * stack:.1f} | {row / stack:.2f}x |", flush=True)
    print("\nbar: none on a CPU; stacking is never chosen by itself")


if __name__ == "__main__":
    main()
