"""What the sequential design promises, measured: error over all looks, power, and the runs it needs.

`python -m tests.benchmarks.sequential` prints Markdown; `results/calibration/sequential.md` is its output.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from workbench.statistics.boundaries import SHARE, Design
from workbench.statistics.evalues import evalue_t
from workbench.statistics.scenarios import NoiseModel, scenario
from workbench.statistics.sequential import ABOVE, BELOW, EQUIVALENT, FUTILE, Course, follow

BAR = 0.065
SCENARIOS = (
    *("normal", "one arm 2x", "one arm 3x", "one arm 5x", "baseline 2x", "baseline 3x", "baseline 0.3x"),
    *("exponential", "t3"),
)
PUBLISHED = (
    *("half the arms 2x", "two arms 3x", "ladder from 0.4x to 2.7x", "10 % diverging"),
    *("exponential and one arm 3x", "exponential and baseline 2x"),
)
SIMULATIONS, CHUNK = 20_000, 2_500
DESIGN = Design(seeds=10, arms=6)


class Use(NamedTuple):
    """How arms fared: shares of arms, seeds of an arm and of the baseline, runs as a share of the fixed design's."""

    right: float
    wrong: float
    futile: float
    seeds: float
    baseline_seeds: float
    runs: float


def family_wise_error(name: str, design: Design, simulations: int = SIMULATIONS) -> float:
    """Return the share of sweeps of identical arms in which any is ever called better or worse."""
    return float(
        np.mean(_any_different(_follow(scenario(name, design.arms), design, np.zeros(design.arms), simulations)))
    )


def false_equivalence(name: str, design: Design, simulations: int = SIMULATIONS) -> float:
    """Return the share of sweeps in which an arm at the margin is called equivalent, arms at its two ends in turn."""
    assert design.margin is not None
    ends = design.margin * (-1.0) ** np.arange(design.arms)
    state = _follow(scenario(name, design.arms), design, ends, simulations).state
    return float((state == EQUIVALENT).any(axis=1).mean())


def simulated_use(design: Design, effects: tuple[float, ...], simulations: int = SIMULATIONS) -> Use:
    """Follow sweeps of equal noise with these true effects, in residual standard deviations of one run."""
    truth = np.array(effects)
    course = _follow(scenario("normal", design.arms), design, truth, simulations)
    right = np.where(truth > 0, course.state == ABOVE, course.state == EQUIVALENT)
    counted = truth > 0 if (truth > 0).any() else truth == 0
    called_equal = (course.state == EQUIVALENT) & (design.margin is not None and truth >= design.margin)
    wrong = np.where(truth > 0, (course.state == BELOW) | called_equal, np.isin(course.state, (ABOVE, BELOW)))
    longest = course.seeds.max(axis=1)
    return Use(
        float(right[:, counted].mean()),
        float(wrong.any(axis=1).mean()),
        float((course.state == FUTILE).mean()),
        float(course.seeds.mean()),
        float(longest.mean()),
        float((course.seeds.sum(axis=1) + longest).mean() / ((1 + design.arms) * design.seeds)),
    )


def evidence_use(effect: float, seeds: int, simulations: int = SIMULATIONS) -> tuple[float, float]:
    """Return the share of single arms that an e-value finds within so many seeds, and the seeds it takes."""
    runs = scenario("normal", 1).draw(_generator(), simulations, seeds)
    differences = runs[:, 1] - runs[:, 0] + effect
    enough = np.array([evalue_t(differences[:, :n]).e >= 20 for n in range(2, seeds + 1)])
    taken = np.where(enough.any(axis=0), 2 + enough.argmax(axis=0), seeds)
    return float(enough.any(axis=0).mean()), float(taken.mean())


def _follow(noise: NoiseModel, design: Design, effects: np.ndarray, simulations: int) -> Course:
    generator, parts = _generator(), []
    for start in range(0, simulations, CHUNK):
        scores = noise.draw(generator, min(CHUNK, simulations - start), design.seeds)
        scores[:, 1:] += effects[:, None]
        parts.append(follow(scores, design))
    return Course(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def _generator() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=20260))


def _any_different(course: Course) -> np.ndarray:
    return np.asarray(np.isin(course.state, (ABOVE, BELOW)).any(axis=1))


def _print_errors() -> None:
    print(f"## Chance of any false better or worse, {DESIGN.arms} identical arms, looks at 4 to {DESIGN.seeds} seeds\n")
    print(f"{SIMULATIONS:,} sweeps a row; nominal {DESIGN.alpha:.0%}, boundaries at {SHARE:.0%} of that; bar {BAR}.\n")
    print("| noise | error | ± 1.96 se | bar |\n|---|--:|--:|---|")
    for name in (*SCENARIOS, *PUBLISHED):
        error = family_wise_error(name, DESIGN)
        met = "–" if name in PUBLISHED else "met" if error <= BAR else "missed"
        print(f"| {name} | {error:.4f} | {1.96 * np.sqrt(error * (1 - error) / SIMULATIONS):.4f} | {met} |", flush=True)
    at_margin = Design(DESIGN.seeds, DESIGN.arms, margin=1.5)
    print("\nFalse equivalence of any arm, all of them at ±1.5 sd: ", end="")
    print(
        ", ".join(
            f"{name} {false_equivalence(name, at_margin):.3f}" for name in ("normal", "one arm 3x", "baseline 3x")
        )
    )


def _print_use() -> None:
    print("\n## What it finds and what it costs\n")
    print("Effects in residual sd of one run. Runs as a share of the fixed design's 70, the baseline's included.\n")
    print("| true effects | margin | futility | right | any wrong | futile | seeds per arm | baseline | runs |")
    print("|---|--:|---|--:|--:|--:|--:|--:|--:|")
    cases = [(0.0,) * 6, (1.0,) * 6, (2.0,) * 6, (2.83,) * 6, (3.0,) * 6, (2.0,) * 3 + (0.0,) * 3]
    for effects in cases:
        for margin, futility in ((None, False), (None, True), (1.5, False), (1.5, True)):
            use = simulated_use(Design(DESIGN.seeds, DESIGN.arms, margin=margin, futility=futility), effects)
            told = f"{effects[0]:g} in all" if len(set(effects)) == 1 else "2 in three, 0 in three"
            right = "–" if margin is None and not any(effects) else f"{use.right:.3f}"
            print(
                f"| {told} | {margin or '–'} | {'yes' if futility else 'no'} | {right} | {use.wrong:.3f} | "
                f"{use.futile:.2f} | {use.seeds:.2f} | {use.baseline_seeds:.2f} | {use.runs:.3f} |",
                flush=True,
            )


def _print_families() -> None:
    print("\n## Other sizes\n\n| arms | most seeds | normal | baseline 3x | one arm 5x | found at 2 sd in all | runs |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for arms, seeds in ((1, 10), (2, 10), (3, 10), (6, 6), (6, 8), (20, 10)):
        design, fewer = Design(seeds, arms), SIMULATIONS if arms < 20 else 5_000
        errors = [family_wise_error(name, design, fewer) for name in ("normal", "baseline 3x", "one arm 5x")]
        use = simulated_use(design, (2.0,) * arms, fewer)
        columns = " | ".join(f"{error:.4f}" for error in errors)
        print(f"| {arms} | {seeds} | {columns} | {use.right:.3f} | {use.runs:.3f} |", flush=True)


def _print_evidence() -> None:
    print("\n## Against an e-value, one arm, at most ten seeds\n")
    print("| true effect | sequential: found | seeds | e-value: found | seeds |\n|--:|--:|--:|--:|--:|")
    for effect in (0.0, 1.0, 2.0, 3.0):
        use = simulated_use(Design(10, 1), (effect,))
        found, seeds = evidence_use(effect, 10)
        right = use.wrong if effect == 0 else use.right
        print(f"| {effect:g} | {right:.3f} | {use.seeds:.2f} | {found:.3f} | {seeds:.2f} |", flush=True)


def main() -> None:
    """Print every table."""
    print("# The sequential design, measured\n\nRegenerate with `python -m tests.benchmarks.sequential`.\n")
    _print_errors()
    _print_use()
    _print_families()
    _print_evidence()


if __name__ == "__main__":
    main()
