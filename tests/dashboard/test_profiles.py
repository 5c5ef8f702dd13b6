"""A metric over its views: which names belong together, means over the same seeds, and what is drawn."""

from __future__ import annotations

import html
import sys
from pathlib import Path

import invented_store
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import app, figures, profiles
from workbench.records import Record

TITLES = ["What each arm scores", "Beyond the training context", "At earlier exits"]
ARMS = ("base", "<b>x</b>")
LAYERS = {"base": 4, "<b>x</b>": 4}


def run_scores(values: list[float]) -> dict[tuple[str, int], float]:
    """Three seeds of the baseline and of an arm that is one higher."""
    return {(arm, seed): value + index for index, arm in enumerate(ARMS) for seed, value in enumerate(values)}


SCORES = {
    "bits_per_byte": run_scores([1.0, 2.0, 3.0]),
    "bits_per_byte@2x": run_scores([2.0, 3.0, 7.0]),
    "bits_per_byte@16x": run_scores([5.0, 6.0, 10.0]),
    "bits_per_byte@exit=1": run_scores([8.0, 9.0, 10.0]),
    "bits_per_byte@exit=2": run_scores([6.0, 7.0, 8.0]),
    "bits_per_byte@confidence=0.9": run_scores([1.5, 2.5, 3.5]),
    "layers@confidence=0.9": {(arm, seed): 2.0 + seed for arm in ARMS for seed in range(3)},
}


def test_views_of_one_metric_are_found_by_name_and_those_of_others_are_not() -> None:
    others = ["accuracy", "accuracy@2x", "layers", "bits_per_byte@last", "bits_per_byte_of_code"]
    for metric in ("bits_per_byte", "bits_per_byte@2x"):
        assert profiles.views_of(metric, [*SCORES, *others]) == list(SCORES)
    assert profiles.views_of("text/bits_per_byte", ["bits_per_byte@2x"]) == ["text/bits_per_byte@2x"]


@pytest.mark.parametrize("metric", ["bits_per_byte", "bits_per_byte@2x", "bits_per_byte@exit=1"])
def test_contexts_stand_in_order_with_mean_and_range_over_seeds(metric: str) -> None:
    profile = profiles.by_context(SCORES, metric, ARMS)
    assert profile is not None
    assert profile.lines["base"] == [
        (1, 2.0, 1.0, 3.0, "bits_per_byte"), (2, 4.0, 2.0, 7.0, "bits_per_byte@2x"),
        (16, 7.0, 5.0, 10.0, "bits_per_byte@16x"),
    ]  # fmt: skip
    assert [point.mean for point in profile.lines[ARMS[1]]] == [3.0, 5.0, 8.0]


def test_the_way_of_an_arm_leads_over_its_own_checkpoints_to_its_end() -> None:
    early, late = run_scores([4.0, 5.0, 6.0]), run_scores([2.0, 3.0, 4.0])
    half = {cell: value for cell, value in early.items() if cell[0] == ARMS[1]}
    scores = {**SCORES, "bits_per_byte@tokens=1500": late, "bits_per_byte@tokens=500": half}
    profile = profiles.by_tokens(scores, "bits_per_byte@2x", ARMS, {"base": 2000})
    assert profile is not None
    assert [(point.at, point.mean) for point in profile.lines["base"]] == [(1500, 3.0), (2000, 2.0)]
    assert [(point.at, point.mean) for point in profile.lines[ARMS[1]]] == [(500, 6.0), (1500, 4.0)]
    assert profiles.by_tokens(SCORES, "bits_per_byte", ARMS, {}) is None
    assert profiles.by_tokens({**SCORES, "bits_per_byte@tokens=500": half}, "bits_per_byte", ARMS, {}) is None
    strokes = figures.strokes(ARMS)
    assert profiles.tokens_figure(profile, strokes, "bits").layout.xaxis.title.text == "tokens read"


def test_depth_has_exits_the_whole_model_and_confidence_at_its_mean_depth() -> None:
    profile = profiles.by_depth(SCORES, "bits_per_byte", ARMS, LAYERS)
    assert profile is not None
    assert [(point.at, point.mean) for point in profile.lines["base"]] == [(1, 9.0), (2, 7.0), (4, 2.0)]
    assert [(point.at, point.mean) for point in profile.alone["base"]] == [(3.0, 2.5)]
    unknown = profiles.by_depth(SCORES, "bits_per_byte", ARMS, {})
    assert unknown is not None
    assert [point.at for point in unknown.lines["base"]] == [1, 2]


def test_means_are_over_the_seeds_that_every_arm_has_in_every_view() -> None:
    scores = {name: dict(held) for name, held in SCORES.items()}
    del scores["bits_per_byte@16x"][ARMS[1], 2]
    profile = profiles.by_context(scores, "bits_per_byte", ARMS)
    assert profile is not None
    assert profile.seeds == (0, 1)
    assert profile.lines["base"][0].mean == 1.5
    for seed in (0, 1):
        del scores["bits_per_byte@2x"]["base", seed]
    assert profiles.by_context(scores, "bits_per_byte", ARMS) is None


def test_a_metric_asked_in_one_view_has_no_profile() -> None:
    alone = {"bits_per_byte": SCORES["bits_per_byte"]}
    assert profiles.by_context(alone, "bits_per_byte", ARMS) is None
    assert profiles.by_depth(alone, "bits_per_byte", ARMS, LAYERS) is None
    assert profiles.by_depth(SCORES, "layers@confidence=0.9", ARMS, LAYERS) is None


def test_the_figures_draw_every_arm_with_its_range_and_literal_names() -> None:
    contexts = profiles.by_context(SCORES, "bits_per_byte", ARMS)
    depths = profiles.by_depth(SCORES, "bits_per_byte", ARMS, LAYERS)
    assert contexts is not None
    assert depths is not None
    figure = profiles.context_figure(contexts, figures.strokes(ARMS), "bits per byte")
    assert [trace.name for trace in figure.data] == ["base", "&lt;b&gt;x&lt;/b&gt;"]
    assert list(figure.layout.xaxis.ticktext) == ["1×", "2×", "16×"]
    assert list(figure.data[0].error_y.array) == [1.0, 3.0, 3.0]
    assert list(figure.data[0].error_y.arrayminus) == [1.0, 2.0, 2.0]
    figure = profiles.depth_figure(depths, figures.strokes(ARMS), "bits per byte")
    assert [trace.marker.symbol for trace in figure.data] == ["circle", "diamond-open"] * 2
    assert [trace.showlegend for trace in figure.data] == [True, False] * 2
    assert "3 seeds" in profiles.legend(depths)
    assert "diamond" in profiles.legend(depths)
    assert "diamond" not in profiles.legend(contexts)


def test_the_verdict_page_shows_the_profiles_of_runs_that_were_asked_in_several_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = invented_store.scores_of

    def asked_again(record: Record) -> pa.Table:
        table = alone(record)
        bits = table.filter(pc.equal(table["metric"], "bits_per_byte"))
        views = ("bits_per_byte@2x", "bits_per_byte@exit=1", "bits_per_byte@confidence=0.9", "layers@confidence=0.9")
        again = [bits.set_column(3, "metric", pa.array([name] * len(bits)).dictionary_encode()) for name in views]
        return pa.concat_tables([table, *again]).unify_dictionaries()

    monkeypatch.setattr(invented_store, "scores_of", asked_again)
    asked = invented_store.plan(arms=("rotary", "ALiBi"), seeds=(0, 1, 2))
    asked["secondary"] = [
        {"metric": "bits_per_byte@2x", "higher_is_better": False, "unit": "bits per byte", "smallest_effect": 0.02}
    ]
    invented_store.write(tmp_path, **asked)
    monkeypatch.setattr(sys, "argv", [str(app.PATH), str(tmp_path)])
    page = AppTest.from_file(str(app.PATH), default_timeout=60).run()
    for metric in (None, "bits_per_byte@2x"):
        if metric:
            page.selectbox(key="metric").select(metric).run()
        assert not page.exception
        assert [title.value for title in page.subheader][:3] == TITLES
        text = html.unescape("\n".join(element.proto.body for element in page.get("html")))
        assert "Mean over the 3 seeds in which every arm finished" in text
    assert "bits per byte at 2× context, exploratory" in text
