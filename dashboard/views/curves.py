"""Learning curves: every seed one thin line, arms by colour, and what is left after the baseline at the same seed."""

from __future__ import annotations

import streamlit as st

from dashboard import elements, figures, measures
from dashboard.reading import View

SHOWN_AT_FIRST = 8  # arms; more make a thicket
SMOOTHING = {"none": 0.0, "a little": 0.03, "more": 0.1}  # share of the curve that one point averages
RUNS, DIFFERENCES = "each run", "difference to the baseline at the same seed"


def show(view: View) -> None:
    """Show the learning curves of the arms that were chosen."""
    elements.heading("Learning curves", elements.over(view))
    held = view.curves()
    if not held:
        elements.quiet("No run has left a learning curve yet. A command of your own leaves none.")
        return
    left, right = st.columns([3, 1.3])
    # All arms of the plan from the start, so that a choice holds while their first runs come in.
    chosen = left.multiselect("Arms", view.arms, default=view.arms[:SHOWN_AT_FIRST], key=f"arms {view.plan['hash']}")
    quantity = right.selectbox("Quantity", measures.quantities(held), format_func=figures.quantity_named)
    held = measures.curves_of(held, quantity)
    with st.container(horizontal=True, gap="large"):
        kind = st.segmented_control("Show", [RUNS, DIFFERENCES], default=RUNS, required=True)
        smoothing = st.segmented_control("Smoothing", list(SMOOTHING), default="a little", required=True)
        axis = st.segmented_control(
            "Vertical axis", ["linear", "logarithmic"], default="linear", required=True, disabled=kind == DIFFERENCES
        )
    longest = max(len(curve) for curve in held.values())
    window = max(1, round(SMOOTHING[smoothing or "none"] * longest))
    colors = figures.strokes(view.arms)
    if kind == RUNS:
        figure = figures.curves(held, chosen, colors, quantity, window=window, logarithmic=axis == "logarithmic")
    else:
        figure = figures.curve_differences(held, chosen, colors, quantity, baseline=view.baseline, window=window)
    elements.chart(figure, key=f"curves {kind} {quantity} {axis}")
    elements.quiet(_legend(kind, window))
    if kind == DIFFERENCES:
        _pairing(view, chosen)


def _legend(kind: str, window: int) -> str:
    averaged = f" Every point averages the last {window} recorded steps." if window > 1 else ""
    if kind == RUNS:
        return "A thin line is one seed, a thick one the mean over seeds, as far as all of them came." + averaged
    return (
        "A thin line is one seed: the arm's run minus the baseline's run under the same seed, where both have seen as "
        "many tokens." + averaged
    )


def _pairing(view: View, chosen: list[str]) -> None:
    unlike = [
        arm["name"] for arm in view.plan["arms"] if arm["name"] in chosen and arm.get("pairing") not in ("tokens", None)
    ]
    if unlike:
        elements.quiet(f"Not on the same text as the baseline at the same token: {', '.join(unlike)}.")


if __name__ == "__main__":
    elements.follow(show)
