"""A decision: one metric's contrasts with everything a reader needs to believe or doubt them, as plain values.

Promises that a plan and its committed records give the same decision wherever they are read, that an incomplete plan
gives interim estimates and no test, and that a run without a score is a footnote with its reason. Refuses to mix
numerics within a contrast. Needs neither torch nor a tracker, and never rebuilds the classes of a configuration.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workbench.errors import StatisticsError
from workbench.records import Record, Status
from workbench.statistics import Cell, Contrast, ItemScores, Paired, contrast_all, pair, run_means

Scores = Callable[[Record], pa.Table]


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
        cells_planned: Cells of the plan.
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

    @property
    def direction(self) -> str:
        """The metric's direction in words."""
        return "higher is better" if self.higher_is_better else "lower is better"

    def to_json(self) -> str:
        """Return everything as JSON; same decision, same bytes."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False, allow_nan=False)


def decide_plan(plan: Mapping[str, Any], records: Sequence[Record], scores: Scores) -> list[Decision]:
    """Decide a plan from the records committed so far: the primary metric, then the secondary ones as exploratory.

    Args:
        plan: The plan as plain JSON.
        records: Committed records, in any order; those of other plans are ignored.
        scores: Reads the item scores of a record.

    Raises:
        StatisticsError: if the runs mix numerics, or the primary metric cannot be decided honestly. A secondary metric
            that cannot is left out, and the primary decision says why.
    """
    by_run = {record.run_id: record for record in records}
    found = {trial["cell"]: by_run[trial["run_id"]] for trial in plan["trials"] if trial["run_id"] in by_run}
    _refuse_mixed_numerics(found.values())
    finished = {cell: scores(record) for cell, record in found.items() if record.status is Status.FINISHED}
    primary = _decide(plan, plan, found, finished, exploratory=False)
    decisions, left_out = [], []
    for metric in plan.get("secondary", ()):
        try:
            decisions.append(_decide(plan, metric, found, finished, exploratory=True))
        except StatisticsError as error:
            left_out.append(f"secondary metric {metric['metric']} is not decided: {error.what}")
    return [dataclasses.replace(primary, footnotes=(*primary.footnotes, *left_out)), *decisions]


def describe_method(contrasts: Sequence[Contrast], alpha: float, smallest_effect: float | None, unit: str) -> list[str]:
    """Say in sentences how contrasts were decided: the method note under every table."""
    arms = contrasts[0].family
    every = f"all {arms} arms" if arms > 1 else "the one arm"
    amount = f"±{smallest_effect:g} {unit}".strip() if smallest_effect is not None else ""
    return [
        "Differences are arm minus baseline under the same seed, at the baseline's hyperparameters; "
        f"the estimand is {contrasts[0].estimand}.",
        f"p: paired t test, two-sided, adjusted by Holm over {every}: the chance of any false better or worse is at "
        f"most {100 * alpha:.3g} %.",
        f"Intervals are simultaneous: {100 * (1 - alpha):.4g} % over {every} (Bonferroni t).",
        f"Equivalent means within {amount}, by two one-sided paired t tests with Holm over {every}; the two-sided "
        "interval may reach a little further."
        if amount
        else "No smallest effect that matters was named, so that no arm can be called equivalent.",
        "MDE is the true difference these seeds would have shown with 80 % power at the corrected level; "
        "r is the correlation of arm and baseline over seeds.",
    ]


def describe_interim(cells_done: int, cells_planned: int) -> str:
    """Say why an incomplete plan has no verdict."""
    return (
        f"Interim: {cells_done} of {cells_planned} cells are in. Verdicts wait for the last one, because a test after "
        "every seed calls 10 to 23 % of identical arms different."
    )


def _decide(
    plan: Mapping[str, Any],
    metric: Mapping[str, Any],
    found: Mapping[int, Record],
    finished: Mapping[int, pa.Table],
    *,
    exploratory: bool,
) -> Decision:
    name, unit, smallest = metric["metric"], metric.get("unit") or "", metric.get("smallest_effect")
    complete = len(found) == len(plan["trials"])
    paired = _pair(plan, metric, found, finished)
    contrasts = tuple(
        dataclasses.replace(contrast, exploratory=exploratory, coverage=arm.get("coverage"))
        for contrast, arm in zip(
            contrast_all(paired, smallest_effect=smallest, alpha=plan["alpha"], interim=not complete),
            plan["arms"][1:],
            strict=True,
        )
    )
    method = describe_method(contrasts, plan["alpha"], smallest, unit)
    return Decision(
        title=f"{plan['sweep']}: {name.replace('_', ' ')}",
        question=plan["question"],
        metric=name,
        unit=unit,
        higher_is_better=metric["higher_is_better"],
        baseline=plan["baseline"],
        alpha=plan["alpha"],
        smallest_effect=smallest,
        exploratory=exploratory,
        contrasts=contrasts,
        arms=_describe_arms(plan["arms"]),
        method=tuple(method) if complete else (method[0], describe_interim(len(found), len(plan["trials"]))),
        footnotes=tuple(_footnotes(plan, found, contrasts)),
        facts=_facts(plan, found.values(), paired),
        complete=complete,
        cells_done=len(found),
        cells_planned=len(plan["trials"]),
    )


def _pair(
    plan: Mapping[str, Any], metric: Mapping[str, Any], found: Mapping[int, Record], finished: Mapping[int, pa.Table]
) -> Paired:
    trials = {trial["cell"]: trial for trial in plan["trials"]}
    items = {cell: _items(trials[cell], table, metric["metric"]) for cell, table in sorted(finished.items())}
    scored = {cell: held for cell, held in items.items() if len(held.items)}
    if finished and not scored:
        reported = sorted({name for table in finished.values() for name in pc.unique(table["metric"]).to_pylist()})
        raise StatisticsError(
            "no run reports the metric",
            where=plan["sweep"],
            expected=metric["metric"],
            got=", ".join(reported) or "no scores at all",
        )
    means = dict(zip(scored, run_means(list(scored.values())).tolist(), strict=True))
    rows = []
    for cell, record in found.items():
        # A finished run without this metric has not answered; that is a gap, never a zero.
        status = str(record.status) if record.status is not Status.FINISHED or cell in means else "missing"
        rows.append(Cell(trials[cell]["arm"], trials[cell]["seed"], means.get(cell), status))
    names = [arm["name"] for arm in plan["arms"] if arm["name"] != plan["baseline"]]
    return pair(
        rows,
        baseline=plan["baseline"],
        metric=metric["metric"],
        higher_is_better=metric["higher_is_better"],
        arms=names,
        seeds=plan["seeds"],
    )


def _items(trial: Mapping[str, Any], table: pa.Table, metric: str) -> ItemScores:
    """Take one metric's items from the scores of one run; "task/metric" tells apart what several tasks report."""
    task, _, name = metric.rpartition("/")
    chosen = pc.equal(table["metric"], name)
    if task:
        chosen = pc.and_(chosen, pc.equal(table["task"], task))
    rows = table.filter(chosen)
    tasks = sorted(set(rows["task"].to_pylist()))
    run = f"arm {trial['arm']}, seed {trial['seed']}"
    if len(tasks) > 1:
        raise StatisticsError(
            "several tasks report this metric",
            where=run,
            expected="one of " + ", ".join(f"{held}/{name}" for held in tasks),
            got=metric,
        )
    items = np.array(rows["item"].to_pylist(), dtype=np.str_)
    return ItemScores(run, items, rows["value"].to_numpy(), rows["weight"].to_numpy())


def _refuse_mixed_numerics(records: Iterable[Record]) -> None:
    kinds: dict[str, Record] = {}
    for record in records:
        if record.numerics is not None:
            kinds.setdefault(record.numerics.model_dump_json(), record)
    if len(kinds) > 1:
        raise StatisticsError(
            "the runs were computed with different numerics",
            where=", ".join(f"{record.arm} seed {record.seed}" for record in kinds.values()),
            expected="one device, precision, attention backend and thread count",
            got="; ".join(kinds),
            fix="run the plan again on one kind of device",
        )


def _describe_arms(arms: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    base = arms[0].get("parameters")
    described = {}
    for number, arm in enumerate(arms):
        own = arm.get("parameters")
        described[arm["name"]] = {
            "differs": "the baseline" if number == 0 else _differences(arm),
            "parameters": own,
            "parameters_difference": own - base if own is not None and base is not None else None,
            "flops_per_token": arm.get("flops_per_token"),
            "tokens": arm.get("tokens"),
            "pairing": arm.get("pairing"),
            "coverage": arm.get("coverage"),
        }
    return described


def _differences(arm: Mapping[str, Any]) -> str:
    """Write a diff for people: a component that changes its kind takes its old settings with it."""
    lines = list(arm.get("diff", ()))
    if not lines:
        return "nothing: the same configuration, run again under other seeds"
    replaced = {line["path"].removesuffix("kind") for line in lines if line["path"].endswith(".kind")}
    texts = []
    for line in lines:
        path, old, new = line["path"], line["baseline"], line["arm"]
        if new is None and not path.endswith(".kind") and path.startswith(tuple(replaced)):
            continue
        texts.append(f"{path.removeprefix('architecture.').removesuffix('.kind')}: {_value(old)} → {_value(new)}")
    compensation = f" (compensated by {arm['compensation']})" if arm.get("compensation") else ""
    return "; ".join(texts) + compensation


def _value(held: object) -> str:
    if held is None:
        return "–"
    return held if isinstance(held, str) else json.dumps(held, ensure_ascii=False)


def _footnotes(plan: Mapping[str, Any], found: Mapping[int, Record], contrasts: Sequence[Contrast]) -> Iterable[str]:
    for trial in plan["trials"]:
        record = found.get(trial["cell"])
        if record is not None and record.status is not Status.FINISHED:
            reason = f": {record.reason}" if record.reason else ""
            yield f"{trial['arm']}, seed {trial['seed']} {record.status}{reason}"
    if any(arm.get("pairing") == "declared" for arm in plan["arms"]):
        yield "pairing is declared, not proven: the workbench passes both trainers the same seed and sees no further"
    for contrast in contrasts:
        notes = contrast.notes if len(found) == len(plan["trials"]) else ()
        yield from (f"{contrast.arm}: {note}" for note in notes)


def _facts(plan: Mapping[str, Any], records: Iterable[Record], paired: Paired) -> dict[str, str]:
    held = list(records)
    facts = {"Plan": plan["hash"], "Sweep": plan["sweep"], "Seeds": ", ".join(map(str, plan["seeds"]))}
    facts["Cells"] = f"{len(held)} of {len(plan['trials'])} in"
    own = paired.values[0][np.isfinite(paired.values[0])]
    if len(own) > 1:
        facts["Baseline score"] = f"{own.mean():.4g} (sd {own.std(ddof=1):.2g} over {len(own)} seeds)"
    if plan.get("numerics"):
        facts["Numerics"] = ", ".join(f"{name} {value}" for name, value in plan["numerics"].items())
    if plan.get("corpus"):
        facts["Corpus"] = plan["corpus"]
    if held:
        hours = sum(record.costs.total_seconds for record in held) / 3600
        tokens = sum(record.costs.tokens for record in held)
        spent = f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
        facts["Compute"] = f"{spent} of runs" + (f", {tokens:,} tokens" if tokens else "")
    commits = sorted({str(record.provenance["commit"]) for record in held if record.provenance.get("commit")})
    if commits:
        facts["Code"] = ", ".join(commits)
    return {**facts, **{str(label): str(text) for label, text in plan.get("facts", {}).items()}}
