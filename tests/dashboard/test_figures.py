from __future__ import annotations

import invented_store
import numpy as np
import pandas as pd
import pytest

from dashboard import figures, measures
from workbench.records import Status, empty_scores
from workbench.reporting import Decision, decide_plan, wording


def decide(document, done: int | None = None, lost: tuple[str, int] | None = None) -> Decision:
    records, scores = [], {}
    for trial in document["trials"][:done]:
        status = Status.DIVERGED if (trial["arm"], trial["seed"]) == lost else Status.FINISHED
        record = invented_store.a_record(document, trial, status)
        records.append(record)
        scores[record.run_id] = invented_store.scores_of(record) if status is Status.FINISHED else empty_scores()
    return decide_plan(document, records, lambda record: scores[record.run_id])[0]


@pytest.fixture(scope="module")
def decision() -> Decision:
    return decide(invented_store.plan(), lost=("half the tokens", 3))


def test_the_forest_shows_every_estimate_interval_and_seed(decision: Decision) -> None:
    figure = figures.forest(decision)
    markers = [x for trace in figure.data if trace.name in figures.SYMBOLS for x in trace.x]
    assert sorted(markers) == sorted(contrast.estimate for contrast in decision.contrasts)
    seeds = [x for trace in figure.data if trace.name == "seeds" for x in trace.x]
    assert sorted(seeds) == sorted(d for contrast in decision.contrasts for _, d in contrast.differences)
    ends = [x for trace in figure.data if trace.name == "intervals" for x in trace.x if x is not None]
    assert sorted(ends) == sorted(end for contrast in decision.contrasts for end in (contrast.low, contrast.high))


def test_the_forest_says_each_verdict_by_shape_and_in_words(decision: Decision) -> None:
    figure = figures.forest(decision)
    shapes = {trace.name: trace.marker.symbol for trace in figure.data if trace.name in figures.SYMBOLS}
    assert shapes == {verdict: figures.SYMBOLS[verdict] for verdict in {c.verdict for c in decision.contrasts}}
    assert len(set(figures.SYMBOLS.values())) == 4
    written = {round(a.y): a.text for a in figure.layout.annotations if a.xref == "paper"}
    for row, contrast in enumerate(decision.contrasts):
        assert wording.difference(contrast, wording.decimals(decision)) in written[row]
        assert contrast.verdict in written[row]


def test_the_forest_shades_the_smallest_effect_and_marks_zero(decision: Decision) -> None:
    shapes = figures.forest(decision).layout.shapes
    assert [(shape.x0, shape.x1) for shape in shapes] == [(-0.03, 0.03), (0, 0)]


def test_an_unfinished_plan_has_neither_intervals_nor_verdicts() -> None:
    figure = figures.forest(decide(invented_store.plan(), done=12))
    assert not [x for trace in figure.data if trace.name == "intervals" for x in trace.x]
    assert {trace.name for trace in figure.data} == {"seeds", "intervals", "mean so far"}
    written = " ".join(annotation.text for annotation in figure.layout.annotations if annotation.xref == "paper")
    assert "3 seeds so far" in written
    assert not any(verdict in written for verdict in ("better", "worse", "equivalent", "undecided"))


def test_a_plan_without_a_single_run_is_drawn() -> None:
    assert figures.forest(decide(invented_store.plan(), done=0)).data


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "<b>x</b>", "a & b", "%{x}", "$x$", "x\x00y" * 40])
def test_names_reach_plotly_escaped_and_hover_texts_as_data(name: str) -> None:
    document = invented_store.plan(("base", name), (0, 1, 2))
    figure = figures.forest(decide(document))
    held = {("base", 0): a_curve(), (name, 0): a_curve()}
    drawn = figures.curves(held, ["base", name], figures.strokes(["base", name]), "loss")
    paired = {name: measures.Pairs((0,), np.ones(1), np.ones(1))}
    lines = figures.paired_lines(paired, figures.strokes(["base", name]), "loss")
    for made in (figure, drawn, lines):
        templates = [trace.hovertemplate for trace in made.data if trace.hovertemplate]
        assert not any(name in template for template in templates)
        shown = [*(trace.name for trace in made.data if trace.name), *(a.text for a in made.layout.annotations)]
        shown += list(made.layout.yaxis.ticktext or ())
        assert not any("<script" in text or "<b>x" in text for text in shown)
    assert figures.literal(name, 30) in figure.layout.yaxis.ticktext


def a_curve(tokens: tuple[int, ...] = (100, 200, 300), shift: float = 0.0) -> pd.DataFrame:
    return pd.DataFrame({"tokens": tokens, "loss": [3.0 + shift, 2.0 + shift, 1.0 + shift]})


def test_every_seed_is_a_line_and_every_arm_has_one_legend_entry() -> None:
    held = {(arm, seed): a_curve(shift=seed) for arm in ("base", "arm", "left out") for seed in range(3)}
    figure = figures.curves(held, ["base", "arm"], figures.strokes(["base", "arm"]), "loss", logarithmic=True)
    thin = [trace for trace in figure.data if trace.line.width == 1]
    assert len(thin) == 6
    assert [trace.name for trace in figure.data if trace.showlegend is not False] == ["base", "arm"]
    assert figure.layout.yaxis.type == "log"
    assert figure.layout.xaxis.title.text == "training tokens"
    assert "nats per token" in figure.layout.yaxis.title.text


def test_curve_differences_are_to_the_baseline_under_the_same_seed() -> None:
    held = {
        ("base", 0): a_curve(),
        ("base", 1): a_curve(shift=1),
        ("arm", 1): a_curve(shift=1.5),
        ("arm", 2): a_curve(),
    }
    colors = figures.strokes(["base", "arm"])
    figure = figures.curve_differences(held, ["base", "arm"], colors, "loss", baseline="base")
    (line,) = [trace for trace in figure.data if trace.line.width == 1]
    assert list(line.customdata[0]) == ["arm", "1"]
    assert line.y == pytest.approx([0.5, 0.5, 0.5])
    assert {trace.name for trace in figure.data} == {"arm"}


def test_an_arm_has_one_colour_in_every_figure_and_dashes_tell_apart_what_colours_cannot() -> None:
    arms = ["base", *(f"arm {number}" for number in range(20))]
    strokes = figures.strokes(arms)
    assert len(set(strokes.values())) == len(arms)
    assert strokes["base"].color == figures.GREY
    assert strokes["arm 3"] == figures.strokes(arms[:5])["arm 3"]


@pytest.mark.parametrize("color", [*figures.PALETTE, figures.GREY])
def test_every_colour_stands_out_on_white_and_on_near_black(color: str) -> None:
    def luminance(text: str) -> float:
        channels = [int(text[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]  # WCAG 2.2, relative luminance

    for background in ("#ffffff", "#14161a"):
        dark, light = sorted([luminance(color), luminance(background)])
        assert (light + 0.05) / (dark + 0.05) >= 3


def test_paired_lines_join_the_scores_of_one_seed() -> None:
    held = {"arm": measures.Pairs((0, 7), np.array([1.0, 2.0]), np.array([1.5, 2.25]))}
    figure = figures.paired_lines(held, figures.strokes(["base", "arm"]), "bits per byte")
    assert [list(trace.y) for trace in figure.data] == [[1.0, 1.5], [2.0, 2.25], [1.5, 1.875]]
    assert figure.layout.yaxis.title.text == "bits per byte"


@pytest.mark.parametrize("count", [1, 4, 5, 9])
def test_every_arm_has_its_panel(count: int) -> None:
    held = {f"arm {n}": measures.Pairs((0,), np.ones(1), np.ones(1)) for n in range(count)}
    figure = figures.paired_lines(held, figures.strokes(["base", *held]), "loss")
    assert [a.text for a in figure.layout.annotations] == list(held)


def test_the_item_histogram_holds_every_item_and_says_which_side_is_better() -> None:
    differences = pd.DataFrame({"difference": [-0.2, 0.1, 0.3]})
    figure = figures.item_distribution(differences, "#0072b2", unit="accuracy", higher_is_better=True)
    assert list(figure.data[0].x) == [-0.2, 0.1, 0.3]
    assert figure.layout.xaxis.title.text.startswith("worse ←")
    assert figure.layout.xaxis.title.text.endswith("→ better")
