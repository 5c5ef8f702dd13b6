"""Figures as pure functions: data in, Plotly figure out. No Streamlit, so that they are tested without a browser.

Promises that an arm has one colour over all figures of a plan, that every seed is drawn, that shape as well as colour
carries a verdict, and that names from outside are shown as they were written: Plotly reads a subset of HTML in every
text, so all of them are escaped, and names reach hover texts as data, where nothing is substituted in them.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard import measures
from workbench.reporting import Decision, wording
from workbench.reporting.escaping import plain
from workbench.reporting.forest import COLORS as VERDICT_COLORS
from workbench.reporting.naming import with_unit
from workbench.statistics import Contrast
from workbench.statistics.calibration import BINS, Calibration

GREY = "#7a7a7a"
FAINT = "rgba(128,128,128,0.35)"
BAND = "rgba(150,140,110,0.18)"
# After Okabe & Ito (2008), yellow left out and the light ones darkened: at least 3:1 on white and on near-black.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b5539b", "#b88400", "#3d97cf")
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = {
    "better": "diamond",
    "worse": "square",
    "equivalent": "circle",
    "undecided": "circle-open",
    "interim": "circle-open",
}
QUANTITIES = {
    "loss": "training loss (nats per token)",
    "gradient_norm": "gradient norm before clipping",
    "learning_rate": "learning rate",
    "weight_norm": "norm of the weights",
    "update_ratio": "norm of a step over norm of the weights",
    "residual_rms": "root mean square of the residual stream after block",
    "dead_units": "share of hidden units that are zero at every position, feed-forward of block",
    "gradient_cosine": "mean cosine between gradients of the last steps",
}


class Stroke(NamedTuple):
    """How an arm is drawn."""

    color: str
    dash: str


def strokes(arms: Sequence[str]) -> dict[str, Stroke]:
    """Give every arm of a plan its colour, the baseline (first) grey; after six arms the dashes change."""
    own = {arms[0]: Stroke(GREY, "solid")}
    for number, arm in enumerate(arms[1:]):
        own[arm] = Stroke(PALETTE[number % len(PALETTE)], DASHES[number // len(PALETTE) % len(DASHES)])
    return own


def literal(text: object, length: int = 60) -> str:
    """Write a name for Plotly, which reads tags and entities: cut to `length` characters, then escaped."""
    line = plain(text)
    return html.escape(line if len(line) <= length else line[: length - 1] + "…", quote=False)


def forest(decision: Decision) -> go.Figure:
    """Draw every arm's difference to the baseline with its simultaneous interval and all its seeds.

    The band is the smallest effect that matters; the marker's shape is the verdict. An incomplete plan has neither
    intervals nor verdicts here, because it has none.
    """
    figure = go.Figure()
    rows = list(enumerate(decision.contrasts))
    for verdict in dict.fromkeys(contrast.verdict or "interim" for _, contrast in rows):
        group = [(row, contrast) for row, contrast in rows if (contrast.verdict or "interim") == verdict]
        _draw_seeds(figure, group, verdict, decision)
        _draw_estimates(figure, group, verdict, decision)
    if decision.smallest_effect is not None:
        figure.add_vrect(
            -decision.smallest_effect, decision.smallest_effect, fillcolor=BAND, line_width=0, layer="below"
        )
    figure.add_vline(0, line={"color": GREY, "width": 1.5}, layer="below")
    for row, contrast in rows:
        _write_result(figure, row, contrast, decision)
    sides = ("worse", "better") if decision.higher_is_better else ("better", "worse")
    for anchor, text, shift in (("right", f"← {sides[0]}", -8), ("left", f"{sides[1]} →", 8)):
        figure.add_annotation(
            x=0,
            y=1,
            yref="paper",
            yanchor="bottom",
            xanchor=anchor,
            xshift=shift,
            text=text,
            showarrow=False,
            font={"size": 13},
        )
    names = [literal(contrast.arm, 30) for _, contrast in rows]
    bottom, top = len(rows) - 0.4, -0.6
    figure.update_yaxes(tickvals=[row for row, _ in rows], ticktext=names, range=[bottom, top])
    figure.update_yaxes(showgrid=False, zeroline=False, tickfont={"size": 14})
    figure.update_xaxes(
        title_text=literal(f"difference to {decision.baseline}, {_quantity(decision)}", 90), zeroline=False
    )
    height = 120 + 48 * max(len(rows), 1)
    figure.update_layout(height=height, margin={"l": 10, "r": 200, "t": 36, "b": 50}, showlegend=False)
    return settled(figure)


def curves(
    held: Mapping[measures.Cell, pd.DataFrame],
    chosen: Sequence[str],
    colors: Mapping[str, Stroke],
    quantity: str,
    *,
    window: int = 1,
    logarithmic: bool = False,
) -> go.Figure:
    """Draw learning curves over training tokens: one thin line per seed, the mean over seeds thick.

    Args:
        held: Curve of every run, by arm and seed.
        chosen: Arms to draw.
        colors: Stroke of every arm.
        quantity: Column of the curves to draw.
        window: Points averaged by every point drawn.
        logarithmic: Make the vertical axis logarithmic.
    """
    figure = go.Figure()
    for arm in chosen:
        own = {seed: curve for (name, seed), curve in held.items() if name == arm}
        _draw_runs(figure, arm, {s: _smoothed(c, quantity, window) for s, c in own.items()}, colors[arm], quantity)
    _label_curves(figure, quantity_named(quantity))
    if logarithmic:
        figure.update_yaxes(type="log")
    return figure


def curve_differences(
    held: Mapping[measures.Cell, pd.DataFrame],
    chosen: Sequence[str],
    colors: Mapping[str, Stroke],
    quantity: str,
    *,
    baseline: str,
    window: int = 1,
) -> go.Figure:
    """Draw every run's curve minus the baseline's under the same seed, where both have seen as many tokens."""
    figure = go.Figure()
    for arm in chosen:
        own = {
            seed: measures.curve_difference(held[baseline, seed], curve, quantity)
            for (name, seed), curve in held.items()
            if name == arm != baseline and (baseline, seed) in held
        }
        shared = {seed: _smoothed(curve, quantity, window) for seed, curve in own.items() if len(curve)}
        _draw_runs(figure, arm, shared, colors[arm], quantity)
    figure.add_hline(0, line={"color": GREY, "width": 1.5}, layer="below")
    _label_curves(figure, f"difference to the baseline, {quantity_named(quantity)}")
    return figure


def quantity_named(column: str) -> str:
    """Say what a column of a learning curve holds; `of/part` is a quantity of a part of the model."""
    quantity, _, part = column.partition("/")
    name = QUANTITIES.get(quantity, quantity.replace("_", " "))
    return f"{name}, {part.replace('_', ' ').replace('/', ' ')}" if part else name


def paired_lines(held: Mapping[str, measures.Pairs], colors: Mapping[str, Stroke], unit: str) -> go.Figure:
    """Draw one panel per arm: a line per seed from the baseline's score to the arm's, their mean thick.

    Parallel lines mean that seeds move both alike, which is what pairing takes out.
    """
    down = max(ceil(len(held) / 4), 1)
    across = max(ceil(len(held) / down), 1)
    figure = make_subplots(
        rows=down,
        cols=across,
        shared_yaxes="all",
        subplot_titles=[literal(arm, 30) for arm in held],
        vertical_spacing=80 / (270 * down) if down > 1 else 0,
        horizontal_spacing=0.04,
    )
    for number, (arm, paired) in enumerate(held.items()):
        where = {"row": number // across + 1, "col": number % across + 1}
        _draw_pairs(figure, paired, colors[arm].color, where)
        ends = {"tickvals": [0, 1], "ticktext": ["baseline", "arm"], "range": [-0.2, 1.2]}
        figure.update_xaxes(**ends, showgrid=False, zeroline=False, **where)
    figure.update_yaxes(title_text=literal(unit), col=1)
    figure.update_layout(height=80 + 270 * down, margin={"l": 10, "r": 10, "t": 50, "b": 30}, hovermode="closest")
    return settled(figure)


def item_distribution(differences: pd.DataFrame, color: str, *, unit: str, higher_is_better: bool) -> go.Figure:
    """Draw how many items differ how much between an arm and the baseline (mean over seeds), zero and mean marked."""
    held = differences["difference"].to_numpy(np.float64)
    figure = go.Figure(
        go.Histogram(
            x=held,
            nbinsx=min(max(round(2 * sqrt(len(held))), 10), 60),
            marker={"color": color, "opacity": 0.75, "line": {"width": 0.5, "color": FAINT}},
            hovertemplate="%{y} items around %{x}<extra></extra>",
        )
    )
    figure.add_vline(0, line={"color": GREY, "width": 1.5})
    if len(held):
        mean = float(held.mean())
        figure.add_vline(mean, line={"color": color, "width": 2, "dash": "dash"})
        figure.add_annotation(
            x=mean, y=1, yref="paper", yanchor="bottom", text=f"mean {wording.signed(mean, 4)}", showarrow=False
        )
    sides = ("worse", "better") if higher_is_better else ("better", "worse")
    title = f"{sides[0]} ←  difference to the baseline per item, {literal(unit)}  → {sides[1]}"
    figure.update_xaxes(title_text=title, zeroline=False)
    figure.update_yaxes(title_text="items", tickformat=",d", nticks=6, rangemode="tozero")
    figure.update_layout(height=320, margin={"l": 10, "r": 10, "t": 30, "b": 50}, bargap=0.02)
    return settled(figure)


def p_values(calibration: Calibration) -> go.Figure:
    """Draw the share of data sets of identical arms called different over the level asked for; dashed: the promise."""
    levels = np.arange(31) / BINS
    found = [calibration.share_called(level) for level in levels]
    figure = go.Figure()
    promise = {"color": GREY, "width": 1.5, "dash": "dash"}
    figure.add_scatter(x=levels, y=levels, mode="lines", name="promised", line=promise, hoverinfo="skip")
    figure.add_scatter(
        x=levels,
        y=found,
        mode="lines",
        name="found",
        line={"color": PALETTE[0], "width": 2.2},
        hovertemplate="at level %{x:.0%}: %{y:.1%} called different<extra></extra>",
    )
    marker = {"size": 9, "color": PALETTE[0]}
    figure.add_scatter(
        x=[calibration.alpha], y=[calibration.error], mode="markers", marker=marker, showlegend=False, hoverinfo="skip"
    )
    figure.update_xaxes(title_text="level asked for (family-wise)", tickformat=".0%", zeroline=False)
    figure.update_yaxes(title_text="identical arms called different", tickformat=".0%", zeroline=False)
    figure.update_layout(height=380, width=520, margin={"l": 10, "r": 10, "t": 20, "b": 50})
    return settled(figure, legend_below=True)


def _draw_seeds(figure: go.Figure, group: Sequence[tuple[int, Contrast]], verdict: str, decision: Decision) -> None:
    places = wording.decimals(decision)
    points = [
        (difference, row + 0.24, [plain(contrast.arm), plain(seed), wording.signed(difference, places)])
        for row, contrast in group
        for seed, difference in contrast.differences
    ]
    figure.add_scatter(
        x=[x for x, _, _ in points],
        y=[y for _, y, _ in points],
        customdata=[held for _, _, held in points],
        mode="markers",
        marker={"size": 6, "color": VERDICT_COLORS[verdict], "opacity": 0.45},
        showlegend=False,
        name="seeds",
        hovertemplate="%{customdata[0]}<br>seed %{customdata[1]}: %{customdata[2]}<extra></extra>",
    )


def _draw_estimates(figure: go.Figure, group: Sequence[tuple[int, Contrast]], verdict: str, decision: Decision) -> None:
    kept = [(row, contrast) for row, contrast in group if contrast.estimate is not None]
    tested = [(row, contrast) for row, contrast in kept if contrast.low is not None and contrast.high is not None]
    color = VERDICT_COLORS[verdict]
    figure.add_scatter(
        x=[end for _, contrast in tested for end in (contrast.low, contrast.high, None)],
        y=[end for row, _ in tested for end in (row, row, None)],
        mode="lines+markers",
        line={"color": color, "width": 2},
        hoverinfo="skip",
        showlegend=False,
        name="intervals",
        marker={"symbol": "line-ns", "size": 9, "line": {"color": color, "width": 2}},
    )
    figure.add_scatter(
        x=[contrast.estimate for _, contrast in kept],
        y=[row for row, _ in kept],
        mode="markers",
        name="mean so far" if verdict == "interim" else verdict,
        marker={"symbol": SYMBOLS[verdict], "size": 12, "color": color, "line": {"color": color, "width": 2}},
        customdata=[[plain(contrast.arm), wording.sentence(contrast, decision)] for _, contrast in kept],
        hovertemplate="%{customdata[0]}<br>%{customdata[1]}<extra></extra>",
    )


def _write_result(figure: go.Figure, row: int, contrast: Contrast, decision: Decision) -> None:
    kind = contrast.verdict or "interim"
    numbers = literal(wording.difference(contrast, wording.decimals(decision)))
    word = contrast.verdict or f"{contrast.pairs} seeds so far"
    figure.add_annotation(
        x=1.01,
        xref="paper",
        xanchor="left",
        y=row,
        align="left",
        showarrow=False,
        font={"size": 14},
        text=f'{numbers}<br><span style="color:{VERDICT_COLORS[kind]}"><b>{word}</b></span>',
    )


def _draw_runs(figure: go.Figure, arm: str, runs: Mapping[int, pd.DataFrame], stroke: Stroke, quantity: str) -> None:
    if not runs:
        return
    name = literal(arm, 40)
    for seed, curve in runs.items():
        thinned = measures.thin(curve)
        figure.add_scatter(
            x=thinned["tokens"],
            y=thinned[quantity],
            mode="lines",
            name=name,
            legendgroup=name,
            showlegend=False,
            line={"color": stroke.color, "width": 1, "dash": stroke.dash},
            opacity=0.5,
            customdata=[[plain(arm), plain(seed)]] * len(thinned),
            hovertemplate="%{customdata[0]}, seed %{customdata[1]}<br>%{x:,} tokens: %{y:.4f}<extra></extra>",
        )
    mean = measures.thin(measures.mean_curve(list(runs.values()), quantity))
    figure.add_scatter(
        x=mean["tokens"],
        y=mean[quantity],
        mode="lines",
        name=name,
        legendgroup=name,
        line={"color": stroke.color, "width": 2.2, "dash": stroke.dash},
        customdata=[[plain(arm)]] * len(mean),
        hovertemplate="%{customdata[0]}, mean over seeds<br>%{x:,} tokens: %{y:.4f}<extra></extra>",
    )


def _draw_pairs(figure: go.Figure, paired: measures.Pairs, color: str, where: Mapping[str, int]) -> None:
    for seed, ours, theirs in zip(*paired, strict=True):
        figure.add_scatter(
            x=[0, 1],
            y=[ours, theirs],
            mode="lines+markers",
            showlegend=False,
            opacity=0.65,
            line={"color": color, "width": 1.3},
            marker={"size": 5},
            customdata=[[plain(seed)]] * 2,
            hovertemplate="seed %{customdata[0]}: %{y:.5g}<extra></extra>",
            **where,
        )
    if len(paired.seeds):
        figure.add_scatter(
            x=[0, 1],
            y=[paired.baseline.mean(), paired.arm.mean()],
            mode="lines",
            showlegend=False,
            line={"color": color, "width": 4},
            hovertemplate="mean: %{y:.5g}<extra></extra>",
            **where,
        )


def _smoothed(curve: pd.DataFrame, quantity: str, window: int) -> pd.DataFrame:
    values = measures.smooth(curve[quantity].to_numpy(np.float64), window)
    return pd.DataFrame({"tokens": curve["tokens"].to_numpy(), quantity: values})


def _label_curves(figure: go.Figure, quantity: str) -> None:
    figure.update_xaxes(title_text="training tokens", zeroline=False)
    figure.update_yaxes(title_text=quantity, zeroline=False)
    figure.update_layout(height=560, margin={"l": 10, "r": 10, "t": 20, "b": 50}, hovermode="closest")
    settled(figure, legend_below=True)


def _quantity(decision: Decision) -> str:
    return with_unit(decision.metric, decision.unit)


def settled(figure: go.Figure, *, legend_below: bool = False) -> go.Figure:
    """Keep zoom and hidden lines while a live page redraws, and the legend out of the picture."""
    figure.update_layout(uirevision="kept")
    if legend_below:
        figure.update_layout(legend={"orientation": "h", "yanchor": "top", "y": -0.16, "x": 0, "font": {"size": 13}})
    return figure
