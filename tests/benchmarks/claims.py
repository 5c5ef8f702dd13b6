"""The figures of the README that are no result of a sweep, measured.

How often a percentile bootstrap and a paired t test call two identical variants different at five seeds, and how much
of two variants starts equal under one global generator.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from math import factorial

import numpy as np
import torch

from sweeps.quickstart import SWEEP
from workbench.seeds import generator
from workbench.statistics.student import paired_t

SEEDS, SIMULATIONS = 5, 20_000


def false_positives() -> tuple[float, float]:
    """Return the share of identical variants called different by (percentile bootstrap, paired t), nominal 5 %."""
    differences = generator(0, "claims").standard_normal((SIMULATIONS, SEEDS))
    draws = list(combinations_with_replacement(range(SEEDS), SEEDS))  # every bootstrap sample, with its probability
    counts = np.array([np.bincount(draw, minlength=SEEDS) for draw in draws])
    ways = np.array([factorial(SEEDS) / np.prod([factorial(count) for count in row]) for row in counts])
    means = differences @ counts.T / SEEDS
    order = np.argsort(means, axis=1)
    mass = np.cumsum((ways / ways.sum())[order], axis=1)
    sorted_means = np.take_along_axis(means, order, axis=1)
    low = sorted_means[np.arange(SIMULATIONS), (mass < 0.025).sum(axis=1)]
    high = sorted_means[np.arange(SIMULATIONS), (mass < 0.975).sum(axis=1)]
    return float(((low > 0) | (high < 0)).mean()), float((paired_t(differences).p < 0.05).mean())


def shared_starts() -> dict[str, tuple[float, float]]:
    """Return, per arm of the quickstart, the share of its weights that start as the baseline's do.

    First under `torch.manual_seed` with weights drawn in the order of the model, then under named streams.
    """
    baseline = SWEEP.baseline.architecture  # type: ignore[attr-defined]
    ours = _drawn_in_order(baseline)
    shares = {}
    for arm in SWEEP.arms:
        architecture = arm.configuration.architecture  # type: ignore[attr-defined]
        if architecture == baseline:
            continue
        theirs = _drawn_in_order(architecture)
        equal = sum(value.numel() for name, value in theirs.items() if name in ours and _same(ours[name], value))
        named = arm.configuration.paired_with(SWEEP.baseline, same_seeds=True)["coverage"]["total"]
        shares[arm.name] = equal / sum(value.numel() for value in theirs.values()), named
    return shares


def _drawn_in_order(architecture: object) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = architecture.outline()  # type: ignore[attr-defined]
    return {name: torch.randn(value.shape) for name, value in model.named_parameters() if value.ndim >= 2}


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def main() -> None:
    """Print both as Markdown."""
    bootstrap, student = false_positives()
    print(f"Identical variants called different, {SEEDS} seeds, {SIMULATIONS:,} simulations, nominal 5 %:")
    print(f"percentile bootstrap {bootstrap:.1%}, paired t {student:.1%}\n")
    print("| arm | weights that start equal under torch.manual_seed | under named streams |\n|---|--:|--:|")
    for arm, (ordered, named) in shared_starts().items():
        print(f"| {arm} | {ordered:.0%} | {named:.0%} |")


if __name__ == "__main__":
    main()
