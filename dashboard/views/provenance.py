"""Plan and provenance: what was declared before the first result, and which code and machine made the results."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import elements
from dashboard.reading import View
from workbench.errors import StatisticsError
from workbench.records import Record
from workbench.reporting import wording
from workbench.reporting.describing import describe_numerics


def show(view: View) -> None:
    """Show the plan's arms, its declarations, and the provenance of the runs that are in."""
    elements.heading("Plan and provenance", elements.over(view), view.plan["question"])
    plan = view.plan
    _arms(view)
    with st.expander("Every resolved field that differs"):
        st.dataframe(
            pd.DataFrame(_differences(plan), columns=["Arm", "Field", "Baseline", "This arm"]), hide_index=True
        )
    declared, made = st.columns(2, gap="large")
    with declared:
        st.subheader("Declared before the first result", anchor=False)
        elements.facts(_declared(plan))
        text = json.dumps(plan, indent=2, ensure_ascii=False) + "\n"
        st.download_button("plan.json", text, elements.file_name(view, ".json"), "application/json", on_click="ignore")
    with made:
        st.subheader("How the results were made", anchor=False)
        elements.facts(_made(view.records) or [("Runs", "none is in yet")])


def _arms(view: View) -> None:
    plan = view.plan
    heads = [
        "arm",
        "what differs",
        "parameters",
        "FLOPs per token",
        "tokens",
        "pairing",
        "equal at start",
        "without embeddings",
    ]
    rows = []
    for arm in plan["arms"]:
        coverage = arm.get("coverage") or {}
        rows.append(
            [
                arm["name"],
                _difference(view, arm),
                wording.count(arm.get("parameters")),
                wording.magnitude(arm.get("flops_per_token")),
                wording.count(arm.get("tokens")),
                wording.pairing(arm.get("pairing")),
                _share(coverage.get("total")),
                _share(coverage.get("without_embeddings")),
            ]
        )
    elements.table(heads, rows, numeric=(2, 3, 4, 6, 7))
    formula = next((arm["flops_formula"] for arm in plan["arms"] if arm.get("flops_formula")), None)
    if formula:
        elements.quiet(
            f"FLOPs per training token: {formula}. Equal at start: share of parameters that begin with the same "
            "value under the same seed."
        )


def _difference(view: View, arm: dict[str, Any]) -> str:
    """Say what differs as the report does; a plan that cannot be decided yet names the axis."""
    with contextlib.suppress(StatisticsError):
        return str(view.decisions()[0].arms[arm["name"]]["differs"])
    return ", ".join(arm.get("axis") or ()) or "the baseline"


def _differences(plan: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (arm["name"], line["path"], _value(line["baseline"]), _value(line["arm"]))
        for arm in plan["arms"]
        for line in arm.get("diff", ())
    ]


def _declared(plan: dict[str, Any]) -> list[tuple[str, object]]:
    unit = plan.get("unit") or ""
    direction = "higher is better" if plan["higher_is_better"] else "lower is better"
    known: list[tuple[str, object]] = [
        ("Plan", plan["hash"]),
        ("Primary metric", f"{plan['metric']}, {direction}"),
        (
            "Smallest effect that matters",
            f"{plan['smallest_effect']:g} {unit}" if plan.get("smallest_effect") else None,
        ),
        ("Secondary metrics", ", ".join(held["metric"] for held in plan.get("secondary", ())) or None),
        ("Seeds", ", ".join(map(str, plan["seeds"]))),
        ("Family-wise error", f"{plan['alpha']:.2g}"),
        ("Detectable with these seeds", _detectable(plan)),
        ("Method", plan.get("method")),
        ("Lost runs", plan.get("missing")),
        ("Numerics", describe_numerics(plan.get("numerics") or {}) or None),
        ("Corpus", plan.get("corpus")),
    ]
    return [(label, text) for label, text in known if text is not None]


def _detectable(plan: dict[str, Any]) -> str | None:
    deviations = plan.get("detectable")
    if deviations is None:
        return None
    told = f"{deviations:.1f} standard deviations of one run (seed effect removed), four times in five"
    if plan.get("noise"):
        told += f"; with the pilot's noise {deviations * plan['noise']:.3g} {plan.get('unit') or ''}"
    return told


def _made(records: Iterable[Record]) -> list[tuple[str, object]]:
    held = list(records)
    commits = Counter(_commit(record.provenance) for record in held)
    known: dict[str, Counter[str]] = {
        "Commit": commits,
        "Workbench": _counted(held, lambda provenance: provenance.get("workbench")),
        "Python": _counted(held, lambda provenance: provenance.get("python")),
        "Packages": _counted(held, lambda p: ", ".join(f"{n} {v}" for n, v in (p.get("packages") or {}).items())),
        "System": _counted(held, lambda provenance: provenance.get("system")),
        "Processor": _counted(held, lambda provenance: provenance.get("processor")),
        "Made by": Counter(str(record.source) for record in held),
    }
    return [(label, _spread(counts)) for label, counts in known.items() if any(counts)]


def _counted(records: list[Record], ask: Callable[[dict[str, Any]], str | None]) -> Counter[str]:
    return Counter(str(answer) for record in records if (answer := ask(record.provenance)))


def _commit(provenance: dict[str, Any]) -> str:
    commit = str(provenance.get("commit") or "")
    return f"{commit} with uncommitted changes" if commit and provenance.get("uncommitted_changes") else commit


def _spread(counts: Counter[str]) -> str:
    """Write what all runs share, or how many runs have which."""
    told = {text: count for text, count in counts.items() if text}
    if len(told) == 1:
        return next(iter(told))
    return "; ".join(f"{text} ({count} runs)" for text, count in told.items())


def _share(value: float | None) -> str:
    return wording.NONE if value is None else f"{100 * value:.0f} %"


def _value(held: object) -> str:
    return wording.NONE if held is None else held if isinstance(held, str) else json.dumps(held, ensure_ascii=False)


if __name__ == "__main__":
    elements.follow(show)
