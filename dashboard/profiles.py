"""One metric over the views of a model: by context, by the blocks a token passes through, and by the tokens read.

Promises that every arm is averaged over the same seeds, those in which all arms have every view that is drawn, and that
nothing here is a test: bars reach from the lowest to the highest seed. Pure: no Streamlit, no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from dashboard.figures import Stroke, literal, settled
from dashboard.measures import Cell
from workbench.reporting.escaping import plain
from workbench.reporting.naming import View, spoken, view_of

Scores = Mapping[str, Mapping[Cell, float]]  # metric -> run scores


class Point(NamedTuple):
    """An arm in one view: where it stands, and its mean, lowest and highest seed."""

    at: float
    mean: float
    low: float
    high: float
    metric: str


class Profile(NamedTuple):
    """Every arm over several views.

    Attributes:
        lines: The points of every arm, in the order of `at`.
        alone: Points that no line joins: those at a confidence.
        seeds: Over which the means are taken.
    """

    lines: dict[str, list[Point]]
    alone: dict[str, list[Point]]
    seeds: tuple[int, ...]


def views_of(metric: str, names: Sequence[str]) -> list[str]:
    """Return which of the names a run reports are views of a metric, or say how deep its tokens went there."""
    task, slash, own = view_of(metric).metric.rpartition("/")
    return [task + slash + name for name in names if _belongs(view_of(name), own)]


def by_context(scores: Scores, metric: str, arms: Sequence[str]) -> Profile | None:
    """Arrange a metric by multiples of the training context; None where there is but one, or no common seed."""
    names = {found.value: name for name, found in _views(scores, metric) if found.kind == "context"}
    seeds = _common(scores, names.values(), arms)
    if len(names) < 2 or not seeds:
        return None
    lines = {arm: [_point(at, scores[names[at]], arm, seeds, names[at]) for at in sorted(names)] for arm in arms}
    return Profile(lines, {}, seeds)


def by_depth(scores: Scores, metric: str, arms: Sequence[str], layers: Mapping[str, int]) -> Profile | None:
    """Arrange a metric by the blocks a token passes: exits, confidences at their mean depth, and the whole model.

    Args:
        scores: Run scores of every view.
        metric: The metric, in whichever view.
        arms: The arms.
        layers: Blocks of every arm, as far as known.
    """
    base = view_of(metric).metric
    depth = base.removesuffix(base.rpartition("/")[2]) + "layers"  # the same task's
    found = _views(scores, metric) if base != depth else []
    exits = {view.value: name for name, view in found if view.kind == "exit"}
    sure = {name: depth + name.removeprefix(base) for name, view in found if view.kind == "confidence"}
    sure = {name: beside for name, beside in sure.items() if beside in scores}
    whole = [base] if base in scores else []
    seeds = _common(scores, [*exits.values(), *sure, *sure.values(), *whole], arms)
    if not (exits or sure) or not seeds:
        return None
    lines, alone = {}, {}
    for arm in arms:
        ends = {float(layers[arm]): base, **exits} if whole and arm in layers else exits
        lines[arm] = [_point(at, scores[name], arm, seeds, name) for at, name in sorted(ends.items())]
        alone[arm] = [
            _point(_mean(scores[depth], arm, seeds), scores[name], arm, seeds, name) for name, depth in sure.items()
        ]
    return Profile(lines, alone, seeds)


def by_tokens(scores: Scores, metric: str, arms: Sequence[str], ends: Mapping[str, int]) -> Profile | None:
    """Arrange a metric by the tokens that were read: checkpoints on the way, and the weights that are scored.

    Args:
        scores: Run scores of every view.
        metric: The metric, in whichever view.
        arms: The arms; each has checkpoints of its own, as budgets may differ.
        ends: The budget of every arm in tokens, as far as known.
    """
    base = view_of(metric).metric
    places = {found.value: name for name, found in _views(scores, metric) if found.kind == "tokens"}
    own = {arm: [at for at in sorted(places) if any(name == arm for name, _ in scores[places[at]])] for arm in arms}
    if not places or base not in scores or not all(own.values()):
        return None
    each = [_common(scores, [base, *(places[at] for at in own[arm])], [arm]) for arm in arms]
    seeds = tuple(sorted(set.intersection(*map(set, each))))
    if not seeds:
        return None
    lines = {arm: [_point(at, scores[places[at]], arm, seeds, places[at]) for at in own[arm]] for arm in arms}
    for arm in ends:
        lines[arm].append(_point(ends[arm], scores[base], arm, seeds, base))
    return Profile(lines, {}, seeds)


def context_figure(profile: Profile, colors: Mapping[str, Stroke], unit: str) -> go.Figure:
    """Draw every arm's line over multiples of the training context."""
    figure = _figure(profile, colors, unit)
    ticks = sorted({point.at for points in profile.lines.values() for point in points})
    figure.update_xaxes(title_text="context, in multiples of the training context", type="log")
    figure.update_xaxes(tickvals=ticks, ticktext=[f"{tick:g}×" for tick in ticks])
    return figure


def depth_figure(profile: Profile, colors: Mapping[str, Stroke], unit: str) -> go.Figure:
    """Draw every arm's exits as a line over blocks, and where tokens leave by confidence as open diamonds."""
    figure = _figure(profile, colors, unit)
    figure.update_xaxes(title_text="blocks a token passes, on average", dtick=1)
    return figure


def tokens_figure(profile: Profile, colors: Mapping[str, Stroke], unit: str) -> go.Figure:
    """Draw every arm over the tokens it had read."""
    figure = _figure(profile, colors, unit)
    figure.update_xaxes(title_text="tokens read")
    return figure


def legend(profile: Profile) -> str:
    """Say what a figure shows."""
    count = len(profile.seeds)
    over = f"the {count} seeds in which every arm finished" if count > 1 else "the one seed in which every arm finished"
    sure = " At a diamond each token leaves where the model is sure enough." if any(profile.alone.values()) else ""
    return f"Mean over {over}; bars reach from the lowest to the highest seed.{sure} This describes and tests nothing."


def _belongs(view: View, metric: str) -> bool:
    return view.kind is not None and (view.metric == metric or (view.metric, view.kind) == ("layers", "confidence"))


def _views(scores: Scores, metric: str) -> list[tuple[str, View]]:
    wanted = view_of(metric).metric
    return [(name, view_of(name)) for name in scores if view_of(name).metric == wanted]


def _common(scores: Scores, names: Iterable[str], arms: Sequence[str]) -> tuple[int, ...]:
    shared: set[int] | None = None
    for held in (scores[name] for name in names):
        for arm in arms:
            own = {seed for name, seed in held if name == arm}
            shared = own if shared is None else shared & own
    return tuple(sorted(shared or ()))


def _mean(held: Mapping[Cell, float], arm: str, seeds: Sequence[int]) -> float:
    return float(np.mean([held[arm, seed] for seed in seeds]))


def _point(at: float, held: Mapping[Cell, float], arm: str, seeds: Sequence[int], metric: str) -> Point:
    values = [held[arm, seed] for seed in seeds]
    return Point(at, _mean(held, arm, seeds), min(values), max(values), metric)


def _figure(profile: Profile, colors: Mapping[str, Stroke], unit: str) -> go.Figure:
    figure = go.Figure()
    for arm, points in profile.lines.items():
        _draw(figure, arm, points, colors[arm], "lines+markers", "circle", named=True)
        _draw(figure, arm, profile.alone.get(arm, []), colors[arm], "markers", "diamond-open", named=not points)
    figure.update_yaxes(title_text=literal(unit), zeroline=False)
    figure.update_xaxes(zeroline=False)
    figure.update_layout(height=420, margin={"l": 10, "r": 10, "t": 20, "b": 50}, hovermode="closest")
    return settled(figure, legend_below=True)


def _draw(
    figure: go.Figure, arm: str, points: Sequence[Point], stroke: Stroke, mode: str, symbol: str, *, named: bool
) -> None:
    if not points:
        return
    figure.add_scatter(
        x=[point.at for point in points],
        y=[point.mean for point in points],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [point.high - point.mean for point in points],
            "arrayminus": [point.mean - point.low for point in points],
            "thickness": 1.2,
            "width": 5,
        },
        mode=mode,
        name=literal(arm, 40),
        legendgroup=arm,
        showlegend=named,
        line={"color": stroke.color, "width": 2.2, "dash": stroke.dash},
        marker={"symbol": symbol, "size": 9, "color": stroke.color},
        customdata=[[plain(arm), spoken(point.metric)] for point in points],
        hovertemplate="%{customdata[0]}<br>%{customdata[1]}: %{y:.4f}<extra></extra>",
    )
