from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import invented_sweep
import numpy as np
import pytest

from workbench.cli import main
from workbench.errors import StatisticsError, StoreError
from workbench.records import Status
from workbench.reporting.calibrating import (
    Blocks,
    Question,
    blocks_of_decision,
    calibrate_blocks,
    calibrate_design,
    named,
)
from workbench.reporting.calibration import badge, describe, html_page, p_value_plot, terminal_plot, write_calibration
from workbench.reporting.decision import decide_plan
from workbench.statistics.calibration import Calibration, Pool
from workbench.statistics.methods import DEFAULT, METHODS
from workbench.statistics.scenarios import fit_noise

FOUND = Calibration(
    seeds=5,
    arms=6,
    alpha=0.05,
    simulations=20_000,
    source="normal",
    error=0.0502,
    low=0.0472,
    high=0.0533,
    coverage=0.9498,
    power=0.6012,
    error_beside_effects=0.0433,
    smallest_p=(200,) * 100,
)
NASTY = "<script>&\x00"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A CSV of a baseline with 24 runs, of which three arms share the first five; one run failed."""
    generator = np.random.default_rng(5)
    seeds = generator.normal(size=24)
    lines = ["variant,seed,value,status"]
    for arm in ("base", "one", "two", "three"):
        for seed in range(24 if arm == "base" else 5):
            lines.append(f"{arm},{seed},{3.28 + 0.01 * (seeds[seed] + generator.normal()):.6f},finished")
    lines[-1] = "three,4,,failed"
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Type `workbench calibrate ...`: its exit code and what it told."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["workbench", "calibrate", "--simulations", "400", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out + told.err

    return run


def test_the_badge_says_how_often_and_at_which_design() -> None:
    assert badge(FOUND) == (
        "identical arms are called different 5.0 % of the time (5 seeds, 6 arms, 20,000 simulations)"
    )
    assert "(3 seeds, 1 arm, " in badge(replace(FOUND, seeds=3, arms=1))


def test_the_error_found_stands_beside_the_promise_and_its_interval() -> None:
    told = "\n".join(describe(FOUND, DEFAULT))
    for figure in ("5.0 %", "at most 5.0 %", "4.7 % and 5.3 %", "95.0 %", "60.1 %", "4.3 %", "Noise: normal"):
        assert figure in told


def test_a_pool_is_told_with_its_runs_and_without_an_interval() -> None:
    pool = Pool(runs=10, splits=126, low=0.013, high=0.086)
    told = "\n".join(describe(replace(FOUND, low=None, high=None, pool=pool), DEFAULT))
    assert "10 runs can be dealt in 126 ways" in told
    assert "1.3 % to 8.6 %" in told
    assert "no interval" in told
    assert "Clopper" not in told


def test_bars_reach_the_promise_exactly_where_it_is_kept() -> None:
    exact = terminal_plot(FOUND)[1:]
    assert [line.endswith("█│") for line in exact] == [True] * 5
    wrong = terminal_plot(replace(FOUND, smallest_p=(400,) * 50 + (0,) * 50))[1:]
    assert all("│█" in line for line in wrong)


@pytest.mark.parametrize("found", [FOUND, replace(FOUND, low=None, high=None), replace(FOUND, error=0.7, alpha=0.4)])
def test_the_plot_is_well_formed_and_holds_any_name(found: Calibration) -> None:
    svg = p_value_plot(replace(found, source=NASTY), NASTY)
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own text
    assert root.tag.endswith("svg")
    assert "&lt;script&gt;" in svg
    assert "<script" not in html_page(replace(found, source=NASTY), NASTY)
    assert svg == p_value_plot(replace(found, source=NASTY), NASTY)


def test_the_files_are_written_or_the_folder_is_named(tmp_path: Path) -> None:
    assert [path.name for path in write_calibration(FOUND, "paired t", tmp_path / "new")] == [
        "calibration.svg",
        "calibration.html",
    ]
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--out"):
        write_calibration(FOUND, "paired t", tmp_path / "file")


def bits(arm: str, seed: int) -> float:
    table = invented_sweep.scores(invented_sweep.record(arm, seed)).slice(0, 4)
    return float(np.average(table["value"].to_numpy(), weights=table["weight"].to_numpy()))


def test_a_decision_holds_the_noise_of_the_arms_it_judged_together() -> None:
    document = invented_sweep.plan()
    held = invented_sweep.records(document, {("none", 2): Status.DIVERGED})
    blocks = blocks_of_decision(decide_plan(document, held, invented_sweep.scores)[0])
    apart = ("none", "rotary again")  # one lost a seed, one shares none
    runs = np.array([[bits(arm, seed) for seed in range(5)] for arm in invented_sweep.EFFECTS if arm not in apart])
    assert blocks.source == "fitted to quickstart: bits per byte (5 x 5 runs)"
    assert fit_noise(blocks.scores).scales == pytest.approx(fit_noise(runs).scales)


def test_one_complete_seed_has_no_noise_to_fit() -> None:
    document = invented_sweep.plan()
    lost = {("rotary", seed): Status.DIVERGED for seed in (1, 2, 3, 4)}
    decision = decide_plan(document, invented_sweep.records(document, lost), invented_sweep.scores)[0]
    with pytest.raises(StatisticsError, match="two seeds or more"):
        blocks_of_decision(decision)


def test_noise_as_measured_takes_the_design_of_the_results() -> None:
    blocks = Blocks(np.random.default_rng(1).normal(size=(4, 5)) * [[1], [1], [1], [6]], "somewhere")
    measured, equal = (
        calibrate_blocks(blocks, Question(noise=noise, simulations=300)) for noise in ("measured", "equal")
    )
    assert (measured.seeds, measured.arms) == (5, 3)
    assert measured.error_beside_effects is None
    assert "as noisy as measured" in measured.source
    assert "the same in every arm" in equal.source
    larger = calibrate_blocks(blocks, Question(noise="equal", arms=8, seeds=3, simulations=300))
    assert (larger.seeds, larger.arms) == (3, 8)
    scenario = calibrate_blocks(blocks, Question(noise="t3", simulations=300))
    assert (scenario.seeds, scenario.arms, scenario.source) == (5, 3, "t3")


@pytest.mark.parametrize(
    ("question", "complaint"),
    [
        (Question(method="guessing"), "paired t"),
        (Question(method="percentile bootstrap", seeds=3), "at least 5 seeds"),
        (Question(noise="measured"), "no results to fit"),
        (Question(noise="loud"), "one arm 3x"),
    ],
)
def test_an_unknown_name_is_answered_with_the_known_ones(question: Question, complaint: str) -> None:
    with pytest.raises(StatisticsError, match=complaint):
        calibrate_design(question)


@pytest.mark.parametrize("method", METHODS)
def test_every_named_method_can_be_calibrated(method: str) -> None:
    found = calibrate_design(Question(method=method, seeds=6, arms=2, simulations=30))
    assert 0 <= found.error <= 1
    assert named(method, 6) is METHODS[method].compare


def test_the_command_asks_about_a_design(typed: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    code, told = typed("--seeds", "4", "--arms", "2", "--noise", "t3", "--out", str(tmp_path))
    assert code == 0, told
    assert "(4 seeds, 2 arms, 400 simulations)" in told
    assert "│" in told
    assert (tmp_path / "calibration.svg").exists()


def test_the_command_takes_design_and_noise_from_results(results: Path, typed: Callable[..., tuple[int, str]]) -> None:
    code, told = typed(str(results), "--baseline", "base")
    assert code == 0, told
    assert "(4 seeds, 3 arms, " in told
    assert "fitted to runs.csv (4 x 4 runs)" in told


def test_the_command_deals_from_a_pool(results: Path, typed: Callable[..., tuple[int, str]]) -> None:
    code, told = typed(str(results), "--baseline", "base", "--pool", "--arms", "2")
    assert code == 0, told
    assert "24 runs of one variant" in told
    assert "no interval" in told


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--pool",), "there are no results to read"),
        (("RESULTS",), "--baseline with one of base, one, three, two"),
        (("RESULTS", "--baseline", "bass"), "did you mean base?"),
        (("RESULTS", "--baseline", "base", "--pool", "--noise", "t3"), "--pool or --noise"),
        (("RESULTS", "--baseline", "base", "--pool", "--seeds", "20"), "at most 12 seeds"),
        (("RESULTS", "--baseline", "base", "--arms", "7"), "another number of arms"),
    ],
)
def test_a_mistake_is_one_message(
    arguments: tuple[str, ...], complaint: str, results: Path, tmp_path: Path, typed: Callable[..., tuple[int, str]]
) -> None:
    given = [str(results) if argument == "RESULTS" else argument for argument in arguments]
    code, told = typed(*given, "--home", str(tmp_path / "home"))
    assert code == 2
    assert complaint in told
