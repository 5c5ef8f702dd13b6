"""Verdicts: what the sweep says about every arm, with the figure, the table and the method that say why.

While the plan is incomplete it shows estimates only, and why it shows no more.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import elements, figures, profiles, reading
from dashboard.reading import View
from workbench.errors import StatisticsError
from workbench.reporting import Decision, csv_table, html_table, latex_table, markdown_table, wording
from workbench.reporting.calibration import badge, describe
from workbench.reporting.contaminated import CLEAN
from workbench.reporting.escaping import to_html
from workbench.reporting.naming import view_of, with_unit
from workbench.reporting.sheets import sheet_html
from workbench.statistics.methods import DEFAULT

LEGEND = (
    "Mean difference to the baseline under the same seed, with its simultaneous interval; every small dot is one seed. "
    "Squares are worse, diamonds better, filled circles equivalent, open circles undecided."
)
INTERIM_LEGEND = "Mean difference to the baseline under the same seed so far; every small dot is one seed."
BAND = " The band is the smallest effect that matters."


def show(view: View) -> None:
    """Show the verdict board of the chosen metric."""
    elements.heading(view.plan["question"], elements.over(view))
    if not view.complete:
        planned = len(view.plan["trials"])
        st.progress(view.done / planned, text=f"{view.done} of {planned} runs are in; this page follows the sweep")
    decision = view.decision()
    _state(decision)
    elements.chart(figures.forest(decision), key=f"forest of {decision.metric}")
    legend = (LEGEND if decision.complete else INTERIM_LEGEND) + (BAND if decision.smallest_effect is not None else "")
    elements.quiet(legend)
    elements.block(f'<div class="scroll">{html_table(decision)}</div>')
    _levels(decision)
    _without_contaminated(view, decision)
    _downloads(view, decision)
    if decision.complete and view.plan.get("design", "fixed") == "fixed":
        _calibrated(decision)
    _profiles(view)
    interim = decision.interim  # stands at the top already
    elements.listing("How it is decided", [text for text in decision.method if text != interim])
    elements.listing("Footnotes", decision.footnotes)


def _state(decision: Decision) -> None:
    parts = []
    if decision.exploratory:
        parts.append(
            '<p class="exploratory">Exploratory: this metric is not the one the plan was made for. It suggests what to '
            "ask next and settles nothing.</p>"
        )
    if not decision.complete:
        interim = decision.interim
        parts.append(f'<p class="interim">{to_html(interim)}</p>')
    else:
        lines = "".join(
            f'<li class="{contrast.verdict}"><b>{to_html(contrast.arm)}</b> '
            f"{to_html(wording.sentence(contrast, decision))}</li>"
            for contrast in decision.contrasts
        )
        parts.append(f'<ul class="verdicts">{lines}</ul>')
    elements.block("".join(parts))


def _levels(decision: Decision) -> None:
    """Show what every arm scores by itself, and where guessing stands."""
    if (sheet := decision.scored) is not None:
        st.subheader(sheet.title, anchor=False)
        elements.block(sheet_html(sheet))
        elements.quiet(" ".join(sheet.reading))


def _without_contaminated(view: View, decision: Decision) -> None:
    """Show the same metric without the items that stand in training text, where there are any."""
    for clean in view.decisions():
        if clean.metric == decision.metric + CLEAN:
            st.subheader("Without contaminated items", anchor=False)
            elements.quiet(clean.footnotes[0] + ".")
            elements.block(f'<div class="scroll">{html_table(clean)}</div>')


def _profiles(view: View) -> None:
    """Show how the metric changes with the context, the exit and the tokens read, where the runs were asked."""
    scores, colors, name = view.views(), figures.strokes(view.arms), view.metric["metric"]
    unit = with_unit(view_of(name).metric, view.metric.get("unit"))
    layers = {arm["name"]: held for arm in view.plan["arms"] if (held := _layers(arm))}
    ends = {arm["name"]: held for arm in view.plan["arms"] if (held := _budget(arm))}
    drawn = {
        "Beyond the training context": (profiles.by_context(scores, name, view.arms), profiles.context_figure),
        "At earlier exits": (profiles.by_depth(scores, name, view.arms, layers), profiles.depth_figure),
        "On the way": (profiles.by_tokens(scores, name, view.arms, ends), profiles.tokens_figure),
    }
    for title, (profile, figure) in drawn.items():
        if profile is not None:
            st.subheader(title, anchor=False)
            elements.chart(figure(profile, colors, unit), key=f"{title} of {name}")
            elements.quiet(profiles.legend(profile))


def _layers(arm: dict[str, Any]) -> int | None:
    held = (arm.get("spec") or {}).get("architecture") or {}
    return held.get("layers") if isinstance(held, dict) else None


def _budget(arm: dict[str, Any]) -> int | None:
    """Return the tokens of the last stage that trains."""
    stages = (arm.get("spec") or {}).get("stages") or []
    budgets = [stage["tokens"] for stage in stages if isinstance(stage, dict) and stage.get("tokens")]
    return int(budgets[-1]) if budgets else None


def _calibrated(decision: Decision) -> None:
    """Show how often the method is wrong in this design, and open to how that is known."""
    try:
        equal, measured = reading.calibration(decision)
    except StatisticsError as error:
        elements.quiet(f"Not calibrated: {error.what}.")
        return
    elements.block(f'<p class="badge">Calibration: {to_html(badge(equal, measured))}</p>')
    with st.expander("How this is known"):
        for found in (equal, measured):
            elements.block("".join(f"<p>{to_html(sentence)}</p>" for sentence in describe(found, DEFAULT)))
        elements.chart(figures.p_values(equal), key=f"calibration of {decision.metric}")


def _downloads(view: View, decision: Decision) -> None:
    texts = {
        "CSV, all metrics": (csv_table(view.decisions()), ".csv", "text/csv"),
        "LaTeX": (latex_table(decision), f"-{_slug(decision.metric)}.tex", "text/x-tex"),
        "Markdown": (markdown_table(decision), f"-{_slug(decision.metric)}.md", "text/markdown"),
    }
    with st.container(horizontal=True):
        for label, (text, suffix, kind) in texts.items():
            st.download_button(label, text, elements.file_name(view, suffix), kind, on_click="ignore")


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


if __name__ == "__main__":
    elements.follow(show)
