"""What a decision says about itself in sentences: its arms, its method, what went wrong, where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from workbench.records import Numerics, Record, Status
from workbench.reporting import sequential
from workbench.statistics import Contrast, Paired, upper_sd

LINES, DEPTH = 12, 5  # of a diff: where it is long, and the parts of a path that are then shown of what lies deeper


def describe_method(contrasts: Sequence[Contrast], alpha: float, smallest_effect: float | None, unit: str) -> list[str]:
    """Say in sentences how contrasts were decided: the method note under every table."""
    arms = contrasts[0].family
    every = f"all {arms} arms" if arms > 1 else "the one arm"
    amount = f"±{smallest_effect:g} {unit}".strip() if smallest_effect is not None else ""
    kinds = list(dict.fromkeys(contrast.method.split(";")[0] for contrast in contrasts))
    return [
        "Differences are arm minus baseline under the same seed, at the baseline's hyperparameters; "
        f"the estimand is {contrasts[0].estimand}.",
        f"p adj: {' / '.join(kinds)}, two-sided: the chance of any false better or worse over {every} is at most "
        f"{100 * alpha:.3g} %.",
        *_describe_bootstrap(contrasts),
        f"Intervals are simultaneous over {every}, {100 * (1 - alpha):.4g} %.",
        f"Equivalent means within {amount}, by two one-sided tests over {every} as a step-down family of its own; the "
        "two-sided interval may reach a little further."
        if amount
        else "No smallest effect that matters was named, so that no arm can be called equivalent.",
        "p paired t: the paired t test with Holm, for comparison; it does not decide. "
        "MDE is the true difference these seeds would have shown with 80 % power at the corrected level; "
        "r is the correlation of arm and baseline over seeds.",
    ]


def _describe_bootstrap(contrasts: Sequence[Contrast]) -> Iterable[str]:
    if not any("bootstrap" in contrast.method for contrast in contrasts):
        return
    yield (
        "The seed-block bootstrap removes the seed effect all arms share, estimates the arms' noise jointly and the "
        "baseline's from the baseline alone, lets an arm only enlarge its own standard error, and compares the result "
        "with 100,000 draws of the whole procedure on noise."
    )
    loudness = contrasts[0].baseline_noise
    if loudness is not None:
        noises = [contrast.noise for contrast in contrasts if contrast.noise is not None]
        arms = f", arms {min(noises):.2g} to {max(noises):.2g}" if noises else ""
        yield f"Noise of one run relative to the other arms: baseline {loudness:.2g}{arms}."
    gains = [contrast.pairing_gain for contrast in contrasts if contrast.pairing_gain is not None]
    if gains:
        many = f"{min(gains):.2g} to {max(gains):.2g} seeds" if len(gains) > 1 else f"{gains[0]:.2g} seeds"
        yield f"Pairing: one seed shared by arm and baseline was worth {many} without it (below 1 where it cost)."


def describe_interim(cells_done: int, cells_planned: int, *, sequential: bool = False) -> str:
    """Say why an incomplete plan has no verdict."""
    if sequential:
        return (
            f"Interim: {cells_done} of the {cells_planned} cells asked for so far are in. Arms are judged after every "
            "seed by boundaries made for that; the table waits for the last arm to be decided."
        )
    return (
        f"Interim: {cells_done} of {cells_planned} cells are in. Verdicts wait for the last one, because a test after "
        "every seed calls 10 to 23 % of identical arms different."
    )


def describe_arms(arms: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return per arm what it is: name -> what differs, sizes, pairing; the baseline is among them."""
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


def describe_numerics(numerics: Mapping[str, Any]) -> str:
    """Write numerics for people: what every run must say, how its seeds share a device, and what is not as usual.

    >>> describe_numerics({"precision": "float32", "devices": 2, "sharded": False, "matmul": "same"})
    'precision float32, devices 2'
    """
    fields = Numerics.model_fields
    usual = {name: field.default for name, field in fields.items() if not field.is_required() and name != "execution"}
    told = (name for name in numerics if name not in usual or numerics[name] != usual[name])
    return ", ".join(f"{name} {numerics[name]}" for name in told)


def concise(diff: Iterable[Mapping[str, Any]], axis: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Shorten a diff for people: what is new as a whole becomes one line, without what is at its default.

    New as a whole is a component whose kind is replaced, what an axis names, and what lies deep.

    >>> concise([{"path": "architecture.width", "baseline": 32, "arm": 48}])
    [{'path': 'architecture.width', 'baseline': 32, 'arm': 48}]
    >>> parts = [{"path": "a.b.c", "baseline": None, "arm": 1}, {"path": "a.b.d", "baseline": None, "arm": 2}]
    >>> concise(parts, axis=["a.b"])
    [{'path': 'a.b', 'baseline': None, 'arm': 'c 1, d 2'}]
    >>> replaced = {"path": "a.kind", "baseline": "old", "arm": "new"}
    >>> concise([replaced, {"path": "a.b", "baseline": None, "arm": 1, "default": True}, *parts])
    [{'path': 'a.kind', 'baseline': 'old', 'arm': 'new, b.c 1, b.d 2'}]
    """
    lines = _fold_what_lies_deep([dict(line) for line in diff])
    kinds = [line["path"] for line in lines if line["path"].endswith(".kind") and None not in _sides(line)]
    for path in [*(kind.removesuffix(".kind") for kind in kinds), *axis]:
        new = [line for line in lines if line["path"].startswith(path + ".") and line["baseline"] is None]
        replaced = next((line for line in lines if line["path"] == f"{path}.kind" and line not in new), None)
        if not new or (replaced is None and len(new) == 1):
            continue
        told = ", ".join(_new(path, new))
        place = lines.index(replaced or new[0])
        lines = [line for line in lines if line not in new]
        if replaced is None:
            lines.insert(place, {"path": path, "baseline": None, "arm": told})
        else:
            whole = ", ".join(filter(None, (str(replaced["arm"]), told)))
            lines[lines.index(replaced)] = {**replaced, "arm": whole}
    return lines


def _sides(line: Mapping[str, Any]) -> tuple[Any, Any]:
    return line["baseline"], line["arm"]


def _new(path: str, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tell the fields of what is new at a path, its kind first; one alone in a list loses its number."""
    told = {line["path"].removeprefix(f"{path}."): line for line in lines}
    if all(name.startswith("0.") for name in told):
        told = {name.removeprefix("0."): line for name, line in told.items()}
    shown = {name: line["arm"] for name, line in told.items() if line["arm"] is not None and not line.get("default")}
    kind = [str(shown.pop("kind"))] if "kind" in shown else []
    return [*kind, *(f"{name.removesuffix('.kind')} {value}" for name, value in shown.items())]


def _fold_what_lies_deep(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(lines) <= LINES:
        return lines
    folded: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        parts = line["path"].split(".")
        deep = len(parts) > DEPTH and line["baseline"] is None
        folded.setdefault(".".join(parts[:DEPTH]) if deep else line["path"], []).append(line)
    return [_folded(path, held) if len(held) > 1 else held[0] for path, held in folded.items()]


def _folded(path: str, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    kind = next((f"{line['arm']}, " for line in lines if line["path"] == f"{path}.kind"), "")
    return {"path": path, "baseline": None, "arm": f"{kind}{len(lines)} fields"}


def _differences(arm: Mapping[str, Any]) -> str:
    """Write a diff for people: a component that changes its kind takes its old settings with it."""
    lines = concise(arm.get("diff", ()), arm.get("axis") or ())
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


def footnotes(plan: Mapping[str, Any], found: Mapping[int, Record], contrasts: Sequence[Contrast]) -> Iterable[str]:
    """Say of every run that was lost why, how pairing is known, and what the contrasts want said."""
    for trial in plan["trials"]:
        record = found.get(trial["cell"])
        if record is not None and record.status is not Status.FINISHED:
            reason = f": {record.reason}" if record.reason else ""
            yield f"{trial['arm']}, seed {trial['seed']} {record.status}{reason}"
        if record is not None and record.paired_tokens is not None:
            times = "once" if record.costs.rollbacks == 1 else f"{record.costs.rollbacks} times"
            yield (
                f"{trial['arm']}, seed {trial['seed']} went back from a loss spike {times}; after "
                f"{record.paired_tokens:,} tokens it read other text than its seeds say, unpaired with the baseline"
            )
    if any(arm.get("pairing") == "declared" for arm in plan["arms"]):
        yield "pairing is declared, not proven: the workbench passes both trainers the same seed and sees no further"
    for contrast in contrasts:
        yield from (f"{contrast.arm}: {note}" for note in contrast.notes)


def describe_residual(contrast: Contrast) -> dict[str, str]:
    """Say how noisy one run is, the number a next sweep wants as its `noise`; empty where it is not known."""
    if not contrast.residual_sd or not contrast.residual_df:
        return {}
    upper = upper_sd(contrast.residual_sd, contrast.residual_df)
    return {
        "Noise of one run": f"{contrast.residual_sd:.3g} (sd, seed effect removed, {contrast.residual_df} degrees of "
        f"freedom; below {upper:.3g} with 80 % confidence)"
    }


def describe_evaluations(records: Iterable[Record]) -> str | None:
    """Say how often the models had been evaluated, and by which weights; None where that was not counted.

    A model that was looked at again and again may have been chosen for what was seen.
    """
    counted = [record for record in records if record.evaluations]
    if not counted:
        return None
    rules = {(record.spec.get("evaluation") or {}).get("checkpoint", "final") for record in counted}
    weights = "the best weights by training loss" if rules == {"best"} else "the weights at the end of training"
    again = [record.evaluations - 1 for record in counted if record.evaluations > 1]
    if not again:
        every = f"Each of the {len(counted)} models" if len(counted) > 1 else "The model"
        return f"{every} was evaluated once, by {weights}."
    most = "once" if max(again) == 1 else f"up to {max(again)} times" if len(counted) > 1 else f"{max(again)} times"
    some = f"{len(again)} of {len(counted)} models" if len(counted) > 1 else "The model"
    return f"{some} had been evaluated in other ways before, {most}; the scores here are those of {weights}."


def describe_screening(records: Iterable[Record]) -> str | None:
    """Say per arm what was done to its text, and how many items stand in it; None where nothing was counted."""
    told: dict[str, str] = {}
    for record in records:
        if record.screening is None or (record.arm in told and not record.screening.items):
            continue
        parts = [
            f"{one.by} kept {one.after:,} of {one.before:,}"
            + ("" if one.overlapping is None else f", {one.overlapping:,} overlapping")
            for one in record.screening.text
        ]
        parts += [
            f"{one.contaminated:,} of {one.items:,} items of {one.task} stand in its text"
            for one in record.screening.items
        ]
        told[record.arm] = f"{record.arm}: {', '.join(parts)}"
    return "; ".join(told.values()) or None


def describe_facts(
    plan: Mapping[str, Any], records: Iterable[Record], paired: Paired, contrast: Contrast
) -> dict[str, str]:
    """Return where a decision comes from: label -> text."""
    held = list(records)
    facts = {"Plan": plan["hash"], "Sweep": plan["sweep"], "Seeds": ", ".join(map(str, plan["seeds"]))}
    most = "at most " if sequential.design_of(plan) else ""
    facts["Cells"] = f"{len(held)} of {most}{len(plan['trials'])} in"
    own = paired.values[0][np.isfinite(paired.values[0])]
    if len(own) > 1:
        facts["Baseline score"] = f"{own.mean():.4g} (sd {own.std(ddof=1):.2g} over {len(own)} seeds)"
    facts.update(describe_residual(contrast))
    if plan.get("numerics"):
        facts["Numerics"] = describe_numerics(plan["numerics"])
    if plan.get("corpus"):
        facts["Corpus"] = plan["corpus"]
    if held:
        hours = sum(record.costs.total_seconds for record in held) / 3600
        tokens = sum(record.costs.tokens for record in held)
        spent = f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
        facts["Compute"] = f"{spent} of runs" + (f", {tokens:,} tokens" if tokens else "")
    if screened := describe_screening(held):
        facts["Text"] = screened
    commits = sorted({str(record.provenance["commit"]) for record in held if record.provenance.get("commit")})
    if commits:
        facts["Code"] = ", ".join(commits)
    return {**facts, **{str(label): str(text) for label, text in plan.get("facts", {}).items()}}
