"""The calibration of a sweep: a badge beside its verdicts (`test_browser` opens it), and the command on its name."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import invented_store
import plotly.graph_objects as go
import pytest
from test_pages import open_page, told

from dashboard import figures
from workbench.cli import main
from workbench.records import Status
from workbench.statistics.calibration import calibrate
from workbench.statistics.reference import compare_blocks

BADGE = (
    r"Calibration: identical arms are called different \d+\.\d % of the time \(5 seeds, 3 arms, 20,000 simulations\)"
)


def test_the_verdicts_carry_the_badge_and_how_it_is_known(finished_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = open_page(monkeypatch, finished_home)
    text = told(test)
    assert re.search(BADGE, text)
    assert "as unequally noisy as these few runs make them look" in text
    assert "each arm as noisy as measured" in text
    assert [expander.label for expander in test.expander] == ["How this is known"]
    assert len(test.get("plotly_chart")) == 2


def test_a_running_sweep_has_no_badge(running_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "alibrat" not in told(open_page(monkeypatch, running_home))


def test_too_few_seeds_are_told_instead_of_a_badge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = {(invented_store.NASTY, 0): Status.FINISHED}
    invented_store.write(tmp_path / "home", lost={("rotary", seed): Status.DIVERGED for seed in range(1, 5)} | lost)
    assert "Not calibrated: there is no noise to fit." in told(open_page(monkeypatch, tmp_path / "home"))


def test_the_plot_shows_the_promise_beside_what_was_found() -> None:
    found = calibrate(compare_blocks, seeds=5, arms=1, simulations=500)
    figure = figures.p_values(found)
    assert isinstance(figure, go.Figure)
    promised, measured, marked = figure.data
    assert list(promised.x) == list(promised.y)
    assert measured.y[5] == found.share_called(0.05)
    assert (marked.x[0], marked.y[0]) == (0.05, found.error)


def test_the_command_calibrates_a_sweep_by_name(
    finished_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["positions", "--home", str(finished_home), "--simulations", "300"]
    monkeypatch.setattr(sys, "argv", ["workbench", "calibrate", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "(5 seeds, 3 arms, 300 simulations)" in capsys.readouterr().out


def test_a_sweep_is_no_pool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["workbench", "calibrate", "positions", "--pool"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "a sweep knows its baseline" in capsys.readouterr().err
