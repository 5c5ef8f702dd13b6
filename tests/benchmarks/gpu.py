"""What a GPU makes of a training step: tokens per second, MFU and peak memory per choice, and seeds as one stack.

Run by `make bench-gpu` on a machine with a CUDA device; ends with a message where there is none. A step is that of the
training loop, with its determinism. MFU is of the device's dense bfloat16 peak, FLOPs counted exactly, the head
included. A choice that the machine refuses stands in the table with its reason, and does not end the run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from architectures.architecture import Architecture
from architectures.compute import memory, mfu
from architectures.dropout import Dropout
from architectures.presets import preset
from tests.benchmarks.step_speed import random_batch
from workbench.records import Numerics, Seeds
from workbench.training.cohort import Abreast, Stack, together
from workbench.training.execution import prepared
from workbench.training.feeding import Fed
from workbench.training.loop import build
from workbench.training.lowbit import refuse_unsupported
from workbench.training.numerics import settle
from workbench.training.objective import Objective
from workbench.training.optimizers import AdamW, make_optimizer
from workbench.training.stepping import take_step

MFU_BAR, MEMORY_BAR, STACKED_BAR = 0.45, 1.2, 3.0
WARMUP = 3  # steps before the first that is timed; the first compiles
SEEDS = 8
Step = Callable[[], object]


@dataclass(frozen=True)
class Measured:
    """Of one choice.

    Attributes:
        tokens_per_second: Median over steps.
        mfu: None for a device whose peak is not known.
        peak: Bytes allocated at most in a step.
        predicted: Bytes by `architectures.compute.memory`.
    """

    tokens_per_second: float
    mfu: float | None
    peak: int
    predicted: int


def choices(published: Architecture, device: str) -> Iterator[tuple[str, Architecture, Numerics]]:
    """Yield (name, architecture, numerics): every backend of the device, plain and compiled, and every switch.

    All but the last are without the dropout of the published model, which flash and flex attention do not have.
    """
    architecture = published.vary(dropout=Dropout())
    base = Numerics(attention="sdpa", precision="bfloat16", device=device, threads=torch.get_num_threads())
    for backend, objection in architecture.backends(device, torch.bfloat16, training=True).items():
        if objection is None:
            plain = base.model_copy(update={"attention": backend})
            yield f"{backend}, bfloat16", architecture, plain
            yield f"{backend}, bfloat16, compiled", architecture, plain.model_copy(update={"compiled": True})
    yield "sdpa, float32", architecture, base.model_copy(update={"precision": "float32"})
    yield "sdpa, bfloat16, activations recomputed", architecture, base.model_copy(update={"recompute": True})
    for matmul in ("fp8", "int8"):
        update = {"compiled": True, "matmul": matmul}
        yield f"sdpa, bfloat16, compiled, {matmul} products", architecture, base.model_copy(update=update)
    if published != architecture:
        yield "sdpa, bfloat16, compiled, with dropout", published, base.model_copy(update={"compiled": True})


def measure(architecture: Architecture, numerics: Numerics, sequences: int, steps: int) -> Measured:
    """Time the steps of one choice."""
    settle(numerics)
    refuse_unsupported([_Trained(architecture)], numerics)
    seconds, peak = _timed(_single(architecture, numerics, sequences, seed=0), numerics.device, steps)
    rate = sequences * architecture.context / seconds
    name = torch.cuda.get_device_name() if numerics.device == "cuda" else "a CPU"
    needed = memory(architecture, sequences, precision=numerics.precision)
    return Measured(rate, mfu(rate, architecture, name), peak, needed.states + needed.activations)


def stacked_gain(architecture: Architecture, numerics: Numerics, sequences: int, steps: int, seeds: int) -> float:
    """Return by how much `seeds` models train faster as one stack than one after the other, all seeds together."""
    settle(numerics)
    alone, _ = _timed(_single(architecture, numerics, sequences, seed=0), numerics.device, steps)
    stack, _ = _timed(_stacked(architecture, numerics, sequences, seeds), numerics.device, steps)
    return seeds * alone / stack


@dataclass(frozen=True)
class _Trained:
    """What `refuse_unsupported` looks at."""

    architecture: Architecture
    training: tuple[()] = ()


def _single(architecture: Architecture, numerics: Numerics, sequences: int, seed: int) -> Step:
    objective = Objective(build(architecture, Seeds.all(seed), numerics)).train()
    optimizer = make_optimizer(objective.model, AdamW())
    objective = prepared(objective, numerics)
    parts = [Fed(random_batch(architecture, sequences)).to(numerics.device)]
    return lambda: take_step(objective, optimizer, parts, numerics, 1.0, 0.0)


def _stacked(architecture: Architecture, numerics: Numerics, sequences: int, seeds: int) -> Step:
    objectives = [Objective(build(architecture, Seeds.all(seed), numerics)).train() for seed in range(seeds)]
    optimizers = [make_optimizer(objective.model, AdamW()) for objective in objectives]
    stack = Stack(objectives, optimizers, AdamW())
    fed = Fed(random_batch(architecture, sequences)).to(numerics.device)
    parts, abreast = [together([fed] * seeds)], Abreast()
    return lambda: take_step(stack, stack.optimizer, parts, numerics, 1.0, 0.0, 0, abreast)


def _timed(step: Step, device: str, steps: int) -> tuple[float, int]:
    """Return the median seconds of a step, and the bytes that were allocated at most."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    taken = []
    for turn in range(WARMUP + steps):
        if turn == WARMUP and device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        wait()
        began = time.perf_counter()
        step()
        wait()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[WARMUP:]), torch.cuda.max_memory_allocated() if device == "cuda" else 0


def show_choices(architecture: Architecture, device: str, sequences: int, steps: int) -> None:
    """Print a row per choice; one that fails has its reason in place of figures."""
    print("| choice | tokens/s | MFU (exact FLOPs) | peak memory, GB | predicted, GB | peak / predicted |")
    print("|---|--:|--:|--:|--:|--:|")
    best, ratio = 0.0, None
    for name, varied, numerics in choices(architecture, device):
        try:
            found = measure(varied, numerics, sequences, steps)
        except Exception as error:  # one choice must not cost the hour of all
            print(f"| {name} | {type(error).__name__}: {_first_line(error)} | | | | |")
            continue
        finally:
            torch.compiler.reset()
            torch.cuda.empty_cache()
        best = max(best, found.mfu or 0.0)
        if name == "sdpa, bfloat16":
            ratio = found.peak / found.predicted
        share = "?" if found.mfu is None else f"{found.mfu:.1%}"
        sizes = f"{found.peak / 1e9:.2f} | {found.predicted / 1e9:.2f} | {found.peak / found.predicted:.2f}"
        print(f"| {name} | {found.tokens_per_second:,.0f} | {share} | {sizes} |", flush=True)
    print(f"\nbest MFU {best:.1%} (bar: {MFU_BAR:.0%}, {_met(best >= MFU_BAR)})")
    if ratio is not None:
        print(f"peak / predicted of sdpa, bfloat16 {ratio:.2f} (bar: {MEMORY_BAR}, {_met(ratio <= MEMORY_BAR)})")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0].replace("|", "/")[:200]


def _met(met: bool) -> str:
    return "met" if met else "**missed**"


def main(given: Sequence[str] | None = None) -> None:
    """Print everything as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=32, help="of stlm-50m in a step")
    parser.add_argument("--stacked-sequences", type=int, default=8, help="of each seed of stlm-10m in a step")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args(given)
    if not torch.cuda.is_available():
        raise SystemExit("make bench-gpu measures a CUDA device, and torch sees none on this machine")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}\n")
    large, small = preset("stlm-50m").architecture, preset("stlm-10m").architecture.vary(dropout=Dropout())
    print(f"## stlm-50m, {arguments.sequences} sequences of {large.context} tokens a step\n")
    show_choices(large, "cuda", arguments.sequences, arguments.steps)
    print(f"\n## stlm-10m, {SEEDS} seeds, {arguments.stacked_sequences} sequences of {small.context} tokens a step\n")
    for precision in ("bfloat16", "float32"):
        numerics = Numerics.model_validate(
            {"attention": "sdpa", "precision": precision, "device": "cuda", "threads": torch.get_num_threads()}
        )
        gain = stacked_gain(small, numerics, arguments.stacked_sequences, arguments.steps, SEEDS)
        print(
            f"{precision}: as one stack {gain:.2f} times as fast as in a row (bar: {STACKED_BAR:.0f}, "
            f"{_met(gain >= STACKED_BAR)})"
        )


if __name__ == "__main__":
    main()
