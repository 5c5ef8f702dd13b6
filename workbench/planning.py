"""Sweep → plan: what will run, what exactly differs, what it can detect. Pure; nothing here trains or reads a cache.

A plan is a preregistration: its hash covers the question, the arms, the seeds, the metric with its smallest effect, the
method, the numerics and the content of the corpus, and it is written before the first result exists. Refuses an arm
that differs from the baseline in anything it does not declare.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.differing import axis_path, check_compensation, compensated, covered, difference, refuse_idle_axis
from workbench.errors import PlanError
from workbench.identity import SCHEMA, digest, sources
from workbench.records import Numerics, Seeds
from workbench.statistics import EVERY_TASK, METHOD, SMALLEST_SEEDS, reference, seeds_needed
from workbench.statistics import sequential as sequentially
from workbench.statistics.boundaries import Design
from workbench.sweep import Arm, Metric, Sweep, Variant, seeds_of

MISSING = "complete blocks; an arm with a diverged seed is neither better nor equivalent"


@dataclass(frozen=True)
class Trial:
    """One cell of the plan: an arm under a seed. `seed` is the block's label, `seeds` what is really used.

    `lineage` holds the model after every stage, `model_id` last; `model_keys` those of the stages that train.
    """

    cell: int
    arm: str
    seed: int
    seeds: Seeds
    model_id: str
    score_id: str
    model_keys: tuple[str, ...]
    run_id: str
    lineage: tuple[str, ...]

    @property
    def model_key(self) -> str:
        """What is trained, after its last stage of training."""
        return self.model_keys[-1]


@dataclass(frozen=True)
class PlannedArm:
    """An arm with what the planner found out about it."""

    name: str
    configuration: Variant
    axis: tuple[str, ...]
    compensation: str | None
    difference: tuple[dict[str, Any], ...]
    size: dict[str, Any]
    pairing: str
    coverage: dict[str, float] | None

    def document(self) -> dict[str, Any]:
        """Return plain values for plan.json."""
        own = sources(self.configuration)
        return {
            "name": self.name,
            "axis": list(self.axis),
            "compensation": self.compensation,
            "diff": list(self.difference),
            **self.size,
            "pairing": self.pairing,
            "coverage": self.coverage,
            "spec": self.configuration.model_dump(mode="json"),
            **({"sources": own} if own else {}),
        }


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before the first result. The first arm is the baseline."""

    sweep: Sweep
    arms: tuple[PlannedArm, ...]
    trials: tuple[Trial, ...]
    numerics: Numerics | None
    corpus: str | None
    hash: str

    def arm(self, name: str) -> PlannedArm:
        """Return the planned arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def detectable(self) -> float:
        """Smallest effect found with probability 0.8, in residual standard deviations of one run (seed effect removed).

        Arms that share no seed with the baseline are judged apart, on their share of the error rate.
        """
        if self.sequential:
            return sequentially.minimum_detectable_effect(self.sequential)
        return reference(len(self.sweep.seeds), self.together).minimum_detectable_effect(self.share)

    @property
    def equivalent(self) -> float | None:
        """Share of truly identical arms these seeds would call equivalent; None where the sweep names no noise."""
        if not self.sweep.noise:
            return None
        if self.sequential:
            return sequentially.forecast(self.sequential, 0.0).equivalent
        null = reference(len(self.sweep.seeds), self.together)
        return null.share_called_equivalent(self.sweep.metric.smallest_effect / self.sweep.noise, self.share)

    @property
    def seeds_needed(self) -> int | None:
        """Seeds that find the smallest effect that matters four times in five; None for very many or unknown noise."""
        if not self.sweep.noise:
            return None
        return seeds_needed(self.sweep.metric.smallest_effect / self.sweep.noise, self.together, self.share)

    @property
    def sequential(self) -> Design | None:
        """The sequential design, its margin in residual standard deviations of one run; None for a fixed plan."""
        sweep = self.sweep
        if sweep.design != "sequential":
            return None
        margin = sweep.metric.smallest_effect / sweep.noise if sweep.noise else None
        return Design(len(sweep.seeds), len(sweep.arms), sweep.alpha, margin, sweep.futility)

    @property
    def together(self) -> int:
        """Arms judged together: those that share their seeds with the baseline."""
        paired = sum(arm.pairing != "none" for arm in self.arms[1:]) or 1
        return paired if len(self.sweep.seeds) >= SMALLEST_SEEDS else 1

    @property
    def share(self) -> float:
        """Their share of the family-wise error."""
        return self.sweep.alpha * self.together / len(self.sweep.arms)

    def document(self) -> dict[str, Any]:
        """Return the plan as plain JSON: what `plan.json` holds and every reader uses."""
        sweep = self.sweep
        return {
            "schema_version": SCHEMA,
            "hash": self.hash,
            "sweep": sweep.name,
            "question": sweep.question,
            **_metric(sweep.metric, sweep.baseline),
            "secondary": [_metric(metric, sweep.baseline) for metric in sweep.secondary],
            "guards": list(sweep.guards),
            "alpha": sweep.alpha,
            "design": sweep.design,
            "futility": sweep.futility,
            "method": _method(sweep),
            "missing": MISSING,
            "noise": sweep.noise,
            "detectable": None if sweep.design == "single" else self.detectable,
            "equivalent": self.equivalent,
            "numerics": self.numerics.model_dump() if self.numerics else None,
            "corpus": self.corpus,
            "seeds": list(sweep.seeds),
            "baseline": sweep.baseline_name,
            "arms": [arm.document() for arm in self.arms],
            "trials": [
                {"cell": trial.cell, "arm": trial.arm, "seed": trial.seed, "run_id": trial.run_id}
                for trial in self.trials
            ],
        }


def plan(sweep: Sweep, numerics: Numerics | None, fingerprint: Callable[[Variant], str]) -> Plan:
    """Resolve a sweep into a plan.

    Args:
        sweep: What the user declared.
        numerics: What all arms share; None where every arm is a command of the user's.
        fingerprint: Hash of the raw corpus a variant trains on (empty for a command).

    Raises:
        PlanError: if an arm differs in something it does not declare, in nothing, or its compensation does not hold; if
            it cannot answer its evaluation, or that leaves no such metric.
    """
    arms = (_baseline(sweep), *(_planned(sweep, arm) for arm in sweep.arms))
    for arm in arms:
        arm.configuration.refuse_unanswerable(f"arm '{arm.name}'")
        _refuse_missing_metrics(sweep, arm)
    if sweep.design == "sequential":
        _refuse_unpaired(arms)
    offsets = {arm.name: arm for arm in sweep.arms}
    trials: list[Trial] = []
    for seed in sweep.seeds:  # seed by seed, so that an interrupted sweep leaves complete blocks
        for arm in arms:
            seeds = seeds_of(offsets.get(arm.name), seed)
            lineage = arm.configuration.lineage(fingerprint(arm.configuration), seeds)
            score_id = arm.configuration.score_id(lineage[-1])
            trained = arm.configuration.trained_lineage(lineage)
            keys = tuple(model_key(model_id, numerics) for model_id in trained)
            run_id = digest("run", score_id, numerics)
            trials.append(Trial(len(trials), arm.name, seed, seeds, lineage[-1], score_id, keys, run_id, lineage))
    corpus = fingerprint(sweep.baseline) or None
    declared = {
        "question": sweep.question,
        "metrics": [sweep.metric, *sweep.secondary],
        "guards": sweep.guards,
        "alpha": sweep.alpha,
        "method": _method(sweep),
        "missing": MISSING,
        "arms": [(arm.name, arm.axis, arm.compensation) for arm in arms],
        "trials": [(trial.arm, trial.seed, trial.run_id) for trial in trials],
        "corpus": corpus,
    }
    return Plan(sweep, arms, tuple(trials), numerics, corpus, digest(SCHEMA, sweep.name, declared))


def model_key(model_id: str, numerics: Numerics | None) -> str:
    """Name the folder of a trained model: what it is, and how it was computed."""
    return digest("model", model_id, numerics)


def _method(sweep: Sweep) -> str:
    if sweep.design == "single":
        return "none: a single run is compared with nothing"
    if sweep.design == "fixed":
        return METHOD
    return sequentially.METHOD + (", stopping for futility" if sweep.futility else "")


def _refuse_missing_metrics(sweep: Sweep, arm: PlannedArm) -> None:
    """Refuse a metric that the arm's evaluation does not leave; a command's only its runs can tell."""
    produced = arm.configuration.produces()
    if produced is None:
        return
    names = [one.partition("/")[2] for one in produced]
    known = {*produced, *names, *(EVERY_TASK + name for name in names)}
    for metric in (sweep.metric, *sweep.secondary):
        if metric.name not in known:
            raise PlanError(
                "the evaluation leaves no such metric",
                where=f"arm '{arm.name}'",
                expected="one of " + ", ".join(names),
                got=metric.name,
                fix="correct the name, or have the evaluation ask for it, as BitsPerByte(contexts=(2,)) does",
            )
        if names.count(metric.name) > 1:
            asked = [one for one in produced if one.partition("/")[2] == metric.name]
            raise PlanError(
                "several tasks of the evaluation leave this metric",
                where=f"arm '{arm.name}'",
                expected="one of " + ", ".join([*asked, EVERY_TASK + metric.name]),
                got=metric.name,
            )


def _refuse_unpaired(arms: tuple[PlannedArm, ...]) -> None:
    if apart := [arm.name for arm in arms if arm.pairing == "none"]:
        raise PlanError(
            "a sequential design needs arms that share the baseline's seeds",
            where=", ".join(f"arm '{name}'" for name in apart),
            expected="the baseline's seeds",
            got="seeds of its own",
            fix='leave the arm out, or declare design="fixed"',
        )


def _baseline(sweep: Sweep) -> PlannedArm:
    paired = sweep.baseline.paired_with(sweep.baseline, same_seeds=True)  # with itself
    return PlannedArm(
        sweep.baseline_name,
        sweep.baseline,
        (),
        None,
        (),
        sweep.baseline.size(),
        paired["pairing"],
        paired["coverage"],
    )


def _planned(sweep: Sweep, arm: Arm) -> PlannedArm:
    found = difference(sweep.baseline, arm.configuration)
    if arm.axis == ("seeds",):
        axis: tuple[str, ...] = ("seeds",)
        if arm.seed_offset == 0:
            raise PlanError(
                "an A/A arm needs other seeds than the baseline",
                where=f"arm '{arm.name}'",
                expected="seed_offset other than 0",
                got="0",
            )
        if shared := sorted({seed + arm.seed_offset for seed in sweep.seeds} & set(sweep.seeds)):
            raise PlanError(
                "an A/A arm shares seeds with the baseline",
                where=f"arm '{arm.name}'",
                expected="seed_offset large enough that no seed is used twice",
                got=f"seeds {shared} twice",
            )
        accounted: set[str] = set()
    else:
        axis = tuple(axis_path(arm, name) for name in arm.axis)
        accounted = covered(axis, found)
        refuse_idle_axis(arm, axis, accounted, found)
    accounted |= compensated(arm, found)
    undeclared = [entry for entry in found if entry["path"] not in accounted]
    if undeclared or (arm.seed_offset and axis != ("seeds",)):
        shown = [f"{entry['path']}: {entry['baseline']} → {entry['arm']}" for entry in undeclared]
        shown += [f"seeds: shifted by {arm.seed_offset}"] if axis != ("seeds",) and arm.seed_offset else []
        raise PlanError(
            "an arm differs from the baseline in something it does not declare",
            where=f"arm '{arm.name}'",
            expected="a difference in "
            + ", ".join(axis)
            + (f" and {arm.compensation.path}" if arm.compensation else ""),
            got="\n            ".join(shown),
            fix="declare it (axis=(...) for a bundle, compensation=... for what holds a quantity equal) or remove it",
        )
    size = arm.configuration.size()
    if arm.compensation:
        check_compensation(sweep, arm, size)
    shown_difference = found or ({"path": "seeds", "baseline": "0", "arm": f"+{arm.seed_offset}"},)
    paired = arm.configuration.paired_with(sweep.baseline, same_seeds=arm.seed_offset == 0)
    compensation = arm.compensation.path if arm.compensation else None
    return PlannedArm(
        arm.name, arm.configuration, axis, compensation, shown_difference, size, paired["pairing"], paired["coverage"]
    )


def _metric(metric: Metric, baseline: Variant) -> dict[str, Any]:
    return {
        "metric": metric.name,
        "higher_is_better": metric.higher_is_better,
        "unit": metric.unit,
        "smallest_effect": metric.smallest_effect,
        "chance": baseline.chance(metric.name),
    }
