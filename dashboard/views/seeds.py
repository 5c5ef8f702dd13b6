"""Seeds and items: what moves from seed to seed, what pairing takes out of it, and which items make a difference."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import elements, figures, measures
from dashboard.reading import View
from workbench.reporting import wording

EXTREMES = 8  # items shown at either end


def show(view: View) -> None:
    """Show paired seed lines, what pairing saves, and the item differences of one arm."""
    elements.heading(
        "Seeds",
        elements.over(view),
        "Every line is one seed, from the baseline's score to the arm's. Where the lines run "
        "parallel, the seed moves both alike, and pairing takes that noise out.",
    )
    scores = view.run_scores()
    held = {arm: measures.pairs(scores, view.baseline, arm, view.plan["seeds"]) for arm in view.arms[1:]}
    if not any(len(paired.seeds) for paired in held.values()):
        elements.quiet("No seed has finished in both the baseline and an arm yet.")
        return
    elements.chart(figures.paired_lines(held, figures.strokes(view.arms), view.unit), key=f"pairs of {view.unit}")
    _savings(held)
    st.subheader("Items", anchor=False)
    _items(view)


def _savings(held: dict[str, measures.Pairs]) -> None:
    described = {arm: measures.pairing(paired) for arm, paired in held.items()}
    heads = [
        "arm",
        "pairs",
        "correlation over seeds",
        "sd of baseline",
        "sd of arm",
        "sd of paired difference",
        "seeds without pairing",
    ]
    rows = [
        [
            arm,
            str(found.pairs),
            wording.correlation(found.correlation),
            *(_number(value) for value in (found.baseline_sd, found.arm_sd, found.difference_sd)),
            wording.NONE if found.unpaired_seeds is None else f"{found.unpaired_seeds:.1f} times as many",
        ]
        for arm, found in described.items()
    ]
    elements.table(heads, rows, numeric=range(1, len(heads)))
    elements.quiet(
        "The last column: how many times as many seeds a comparison that ignores the pairs would need for the same "
        "precision, (sd of baseline² + sd of arm²) / sd of difference². Rough, with few seeds."
    )


def _items(view: View) -> None:
    arm = st.selectbox("Arm", view.arms[1:], key=f"items {view.plan['hash']}", width=420)
    differences = view.item_differences(arm)
    if differences.empty:
        elements.quiet("No run of this arm can be compared with the baseline's yet.")
        return
    color = figures.strokes(view.arms)[arm].color
    higher = bool(view.metric["higher_is_better"])
    figure = figures.item_distribution(differences, color, unit=view.unit, higher_is_better=higher)
    elements.chart(figure, key=f"items of {arm}, {view.unit}")
    seeds = int(differences["seeds"].iloc[0])
    elements.quiet(
        f"{len(differences):,} items, each averaged over {seeds} seed{'s' * (seeds != 1)} without weights. "
        "This describes where a difference comes from; it tests nothing."
    )
    lowest, highest = differences.head(EXTREMES), differences.tail(EXTREMES).iloc[::-1]
    best, worst = (highest, lowest) if higher else (lowest, highest)
    for column, title, rows in zip(
        st.columns(2), ("Where the arm does best", "Where it does worst"), (best, worst), strict=True
    ):
        with column:
            st.markdown(f"**{title}**")
            _extremes(rows)


def _extremes(rows: pd.DataFrame) -> None:
    st.dataframe(
        rows[["item", *(["task"] if rows["task"].nunique() > 1 else []), "difference", "sd", "agree"]],
        hide_index=True,
        column_config={
            "item": st.column_config.TextColumn("Item"),
            "task": st.column_config.TextColumn("Task"),
            "difference": st.column_config.NumberColumn("Difference", format="%+.4f"),
            "sd": st.column_config.NumberColumn("SD", format="%.4f"),
            "agree": st.column_config.NumberColumn("Seeds that agree", format="percent"),
        },
    )


def _number(value: float | None) -> str:
    return wording.NONE if value is None else f"{value:.3g}"


if __name__ == "__main__":
    elements.follow(show)
