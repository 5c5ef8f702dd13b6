"""A decision: one metric's contrasts with everything a reader needs to believe or doubt them, as plain values.

Promises that a plan and its committed records give the same decision wherever they are read, that an incomplete plan
gives interim estimates and no test, and that a run without a score is a footnote with its reason. Refuses to mix
numerics within a contrast. Needs neither torch nor a tracker, and never rebuilds the classes of a configuration.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from workbench.errors import StatisticsError
from workbench.records import Record
from workbench.reporting import sequential
from workbench.reporting.contaminated import CLEAN, without_contaminated
from workbench.reporting.describing import (
    describe_arms,
    describe_evaluations,
    describe_facts,
    describe_interim,
    describe_method,
    footnotes,
)
from workbench.reporting.levels import Level, levels_sheet, measure_levels
from workbench.reporting.naming import spoken
from workbench.reporting.runs import Scores, pair_runs, read_runs
from workbench.reporting.sheets import Sheet
from workbench.statistics import Contrast, Guard, claim_all, contrast_all
from workbench.statistics.sequential import Progress


@dataclass(frozen=True)
class Decision:
    """What one metric says about every arm of a sweep.

    Attributes:
        title: Sweep and metric.
        question: What the sweep asks.
        metric: Name of the metric.
        unit: Its unit in words, possibly empty.
        higher_is_better: Its direction.
        baseline: Name of the baseline.
        alpha: Family-wise error.
        smallest_effect: Smallest difference that matters, in units of the metric, or None.
        exploratory: Not the primary metric.
        contrasts: One per arm.
        arms: name -> what it is: "differs", "parameters", "parameters_difference", "flops_per_token", "tokens",
            "pairing", "coverage"; any of them None where unknown. The baseline is among them.
        method: Sentences on how it was decided.
        footnotes: Sentences on what went wrong or was assumed.
        facts: label -> text: where this comes from.
        complete: Whether every planned cell is in.
        cells_done: Cells with a committed record.
        cells_planned: Cells of the plan; of a sequential one, those it has asked for.
        sequential: Whether the arms are judged after every seed, by boundaries made for that.
        levels: What every arm scores by itself; none before the plan is complete.
        chance: What guessing would score; None where nobody knows.
    """

    title: str
    question: str
    metric: str
    unit: str
    higher_is_better: bool
    baseline: str
    alpha: float
    smallest_effect: float | None
    exploratory: bool
    contrasts: tuple[Contrast, ...]
    arms: dict[str, dict[str, Any]]
    method: tuple[str, ...]
    footnotes: tuple[str, ...]
    facts: dict[str, str]
    complete: bool
    cells_done: int
    cells_planned: int
    sequential: bool = False
    levels: tuple[Level, ...] = ()
    chance: float | None = None

    @property
    def interim(self) -> str:
        """Why an incomplete plan has no verdict, in words."""
        return describe_interim(self.cells_done, self.cells_planned, sequential=self.sequential)

    @property
    def scored(self) -> Sheet | None:
        """The levels as a table that says how to read it; None before the plan is complete."""
        return levels_sheet(self.levels, self.unit, self.chance) if self.levels else None

    @property
    def direction(self) -> str:
        """The metric's direction in words."""
        return "higher is better" if self.higher_is_better else "lower is better"

    def to_json(self) -> str:
        """Return everything as JSON; same decision, same bytes."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False, allow_nan=False)


def decide_plan(plan: Mapping[str, Any], records: Sequence[Record], scores: Scores) -> list[Decision]:
    """Decide a plan from the records committed so far: the primary metric, then the secondary ones as exploratory.

    Where items of a metric stand in the training text of an arm, the same metric follows without these items in any
    run, exploratory too; its name ends with "@clean".

    Args:
        plan: The plan as plain JSON.
        records: Committed records, in any order; those of other plans are ignored.
        scores: Reads the item scores of a record.

    Raises:
        StatisticsError: if the runs mix numerics, or the primary metric cannot be decided honestly; for a single run. A
            secondary metric that cannot is left out, and the primary decision says why.
    """
    if plan.get("design") == "single":
        raise StatisticsError(
            "a single run is compared with nothing",
            where=plan["baseline"],
            expected="a sweep of arms under several seeds",
            got="one run of `workbench train`",
            fix="see its curve and its scores on the other pages of `workbench dashboard`",
        )
    found, finished = read_runs(plan, records, scores)
    going = None
    if sequential.design_of(plan):
        going = sequential.progress(plan, pair_runs(plan, plan, found, finished), found)
    primary = _decide(plan, plan, found, finished, going, exploratory=False)
    primary = dataclasses.replace(primary, contrasts=_guarded(plan, found, finished, primary))
    first, *decisions = _beside(primary, plan, plan, found, finished, going)
    left_out = []
    for metric in plan.get("secondary", ()):
        try:
            decision = _decide(plan, metric, found, finished, going, exploratory=True)
            decisions += _beside(decision, plan, metric, found, finished, going)
        except StatisticsError as error:
            left_out.append(f"secondary metric {metric['metric']} is not decided: {error.what}")
    return [dataclasses.replace(first, footnotes=(*first.footnotes, *left_out)), *decisions]


def _beside(
    decision: Decision,
    plan: Mapping[str, Any],
    metric: Mapping[str, Any],
    found: Mapping[int, Record],
    finished: Mapping[int, pa.Table],
    going: Progress | None,
) -> list[Decision]:
    """Return a decision and, where items of its metric stand in training text, the same one without these items."""
    clean = without_contaminated(plan, decision.metric, finished)
    if clean is None:
        return [decision]
    try:
        if clean.emptied:
            raise StatisticsError(f"no other item is left of {', '.join(clean.emptied)}")
        again = _decide(plan, metric, found, clean.tables, going, exploratory=True)
    except StatisticsError as error:
        note = f"{clean.note.removesuffix(' and are left out in every run')}; without them nothing is decided: "
        return [dataclasses.replace(decision, footnotes=(*decision.footnotes, note + error.what))]
    name = decision.metric + CLEAN
    again = dataclasses.replace(
        again,
        title=f"{plan['sweep']}: {spoken(name)}",
        metric=name,
        contrasts=tuple(dataclasses.replace(contrast, metric=name) for contrast in again.contrasts),
        footnotes=(clean.note, *again.footnotes),
    )
    return [decision, again]


def _guarded(
    plan: Mapping[str, Any], found: Mapping[int, Record], finished: Mapping[int, pa.Table], primary: Decision
) -> tuple[Contrast, ...]:
    """Add to every contrast of a complete plan the joint claim its guards allow."""
    metrics = {metric["metric"]: metric for metric in plan.get("secondary", ())}
    if not plan.get("guards") or not primary.complete:
        return primary.contrasts
    guards = [
        Guard(pair_runs(plan, metrics[name], found, finished), metrics[name]["smallest_effect"])
        for name in plan["guards"]
    ]
    claims = claim_all(pair_runs(plan, plan, found, finished), guards, alpha=plan["alpha"])
    together = zip(primary.contrasts, claims, strict=True)
    return tuple(dataclasses.replace(contrast, guard=claim) for contrast, claim in together)


def follow_plan(plan: Mapping[str, Any], records: Sequence[Record], scores: Scores) -> Progress:
    """Say where a sequential plan stands by the records committed so far, and which runs it asks for.

    Raises:
        StatisticsError: as `decide_plan` does.
    """
    found, finished = read_runs(plan, records, scores)
    return sequential.progress(plan, pair_runs(plan, plan, found, finished), found)


def _decide(
    plan: Mapping[str, Any],
    metric: Mapping[str, Any],
    found: Mapping[int, Record],
    finished: Mapping[int, pa.Table],
    going: Progress | None,
    *,
    exploratory: bool,
) -> Decision:
    name, unit, smallest = metric["metric"], metric.get("unit") or "", metric.get("smallest_effect")
    wanted = sequential.asked(plan, going) if going else [trial["cell"] for trial in plan["trials"]]
    done = sum(cell in found for cell in wanted)
    complete = going.over if going else done == len(wanted)
    paired = pair_runs(plan, metric, found, finished)
    if going:
        paired = sequential.only_asked(paired, going)
    judged = contrast_all(paired, smallest_effect=smallest, alpha=plan["alpha"], interim=bool(going) or not complete)
    if going and complete and not exploratory:
        judged = sequential.conclude(plan, judged, going)
    contrasts = tuple(
        dataclasses.replace(contrast, exploratory=exploratory, coverage=arm.get("coverage"))
        for contrast, arm in zip(judged, plan["arms"][1:], strict=True)
    )
    method = describe_method(contrasts, plan["alpha"], smallest, unit)
    if going:
        method = [method[0], *sequential.describe(plan)]
    method += [told] if (told := describe_evaluations(found.values())) else []
    return Decision(
        title=f"{plan['sweep']}: {spoken(name)}",
        question=plan["question"],
        metric=name,
        unit=unit,
        higher_is_better=metric["higher_is_better"],
        baseline=plan["baseline"],
        alpha=plan["alpha"],
        smallest_effect=smallest,
        exploratory=exploratory,
        contrasts=contrasts,
        arms=describe_arms(plan["arms"]),
        method=tuple(method)
        if complete
        else (method[0], describe_interim(done, len(wanted), sequential=going is not None)),
        footnotes=(
            *(sequential.stops(plan, going) if going and not exploratory else ()),
            *footnotes(plan, found, contrasts if complete else ()),
        ),
        facts=describe_facts(plan, found.values(), paired, contrasts[0]),
        complete=complete,
        cells_done=done,
        cells_planned=len(wanted),
        sequential=going is not None,
        levels=measure_levels(plan, paired, finished) if complete else (),
        chance=metric.get("chance"),
    )
