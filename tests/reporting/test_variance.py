from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from workbench.cli import main
from workbench.errors import DataError
from workbench.reporting.benchmarks import expected_range, rank_benchmarks
from workbench.reporting.variance import explain_variance
from workbench.sources import open_source
from workbench.sources.designs import order_by_size, read_design
from workbench.statistics.signal import measure_signal

INIT, ORDER, ITEMS = 6, 5, 20
FACTORS = ["--factor", "init_seed", "--factor", "data_seed", "--factor", "item"]
NASTY = '=SUM(1),<b>|[x](y)"\x07'


def stream(number: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=number))


def crossed(variants: int = 3, number: int = 0) -> np.ndarray:
    """Scores whose initialisation noise is mostly shared by all variants, and whose item noise is not."""
    draws = stream(number)
    shared = 2.0 * draws.normal(size=(INIT, 1, 1)) + 0.5 * draws.normal(size=(1, ORDER, 1))
    own = 0.2 * draws.normal(size=(variants, INIT, 1, 1)) + 1.0 * draws.normal(size=(variants, 1, 1, ITEMS))
    return 3.0 + shared + own + 0.3 * draws.normal(size=(variants, INIT, ORDER, ITEMS))


def write(path: Path, scores: np.ndarray, names: tuple[str, ...] = ("base", "alibi", "rope")) -> Path:
    sink = io.StringIO()
    writer = csv.writer(sink)
    writer.writerow(["variant", "init_seed", "data_seed", "item", "value"])
    for v, i, d, q in product(*map(range, scores.shape)):
        writer.writerow([names[v], i, d, f"q{q}", repr(float(scores[v, i, d, q]))])
    path.write_text(sink.getvalue())
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return write(tmp_path / "runs.csv", crossed())


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Type `workbench variance ...` and return what it prints; a mistake must end with one message and exit code 2."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["workbench", "variance", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        assert not re.search(r"\bnan\b|\binf\b", told.out, re.IGNORECASE)
        if ended.value.code:
            assert ended.value.code == 2
            assert told.err.startswith("error: ")
            assert "Traceback" not in told.err
        return told.err or told.out

    return run


def records(folder: Path, name: str = "variance.csv") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / name).read_text())))


def test_the_command_solves_the_mean_squares_of_statsmodels(
    runs: Path, tmp_path: Path, typed: Callable[..., str]
) -> None:
    typed(runs, "--variant", "base", *FACTORS, "--out", tmp_path)
    data = pd.read_csv(runs).query("variant == 'base'")
    formula = "value ~ (C(init_seed) + C(data_seed) + C(item)) ** 2"
    square = anova_lm(ols(formula, data).fit())["mean_sq"]
    pair = square["C(init_seed):C(data_seed)"] + square["C(init_seed):C(item)"]
    init = (square["C(init_seed)"] - pair + square["Residual"]) / (ORDER * ITEMS)
    found = {row["source"]: row for row in records(tmp_path)}
    assert float(found["init_seed"]["variance"]) == pytest.approx(init)
    assert float(found["init_seed × data_seed × item"]["variance"]) == pytest.approx(square["Residual"])


def test_a_known_design_is_recovered_and_what_variants_share_cancels(runs: Path) -> None:
    found = explain_variance(read_design(runs, factors=["init_seed", "data_seed", "item"]))
    assert found.difference is not None
    true = {"score": {"init_seed": 4.04, "item": 1.0}, "difference": {"init_seed": 0.08, "item": 2.0, "data_seed": 0.0}}
    for part, expected in true.items():
        for source, variance in expected.items():
            component = getattr(found, part)[source]
            assert component.low <= variance <= component.high
    cancelled = 1 - found.difference["init_seed"].estimate / 2 / found.score["init_seed"].estimate
    assert cancelled > 0.9


def test_advice_is_what_repeating_the_study_with_more_shows(tmp_path: Path) -> None:
    """The standard errors before and after, against differences of means in two thousand simulated studies."""
    found = explain_variance(
        read_design(write(tmp_path / "a.csv", crossed(3, 5)), factors=["init_seed", "data_seed", "item"]),
        costs={"init_seed": 100.0, "item": 10.0},
    )
    best, other = (purchase.option for purchase in found.advice.purchases)
    assert (best.factor, best.more, other.more) == ("item", 10, 1)
    draws, studies = stream(9), 2000

    def error(inits: int, items: int) -> float:
        own = 0.2 * draws.normal(size=(studies, 2, inits)).mean(axis=-1) + draws.normal(size=(studies, 2, items)).mean(
            -1
        )
        own += 0.3 * draws.normal(size=(studies, 2, inits * ORDER * items)).mean(axis=-1)
        return float((own[:, 1] - own[:, 0]).std())

    assert found.advice.error == pytest.approx(error(INIT, ITEMS), rel=0.25)
    assert 1 - best.gain == pytest.approx((error(INIT, ITEMS + 10) / error(INIT, ITEMS)) ** 2, abs=0.1)
    assert 1 - other.gain == pytest.approx((error(INIT + 1, ITEMS) / error(INIT, ITEMS)) ** 2, abs=0.1)


def test_the_command_teaches_what_to_buy(runs: Path, typed: Callable[..., str]) -> None:
    told = typed(runs, *FACTORS, "--cost", "init_seed=3600", "--cost", "item=20")
    assert "A difference between two variants" in told
    assert "More levels of item buy most" in told
    assert "What two variants share" in told
    fixed = typed(runs, *FACTORS, "--cost", "init_seed=3600", "--fixed", "item")
    assert "More levels of init_seed buy most" in fixed
    assert "the same item" in fixed


def test_a_single_variant_is_told_that_it_knows_no_difference(runs: Path, typed: Callable[..., str]) -> None:
    told = typed(runs, *FACTORS, "--variant", "rope", "--cost", "item=1")
    assert "A difference between two variants" not in told
    assert "the mean of this variant" in told
    assert "cannot tell what two of them would share" in " ".join(told.split())


def test_unequally_noisy_variants_are_pointed_out(tmp_path: Path, typed: Callable[..., str]) -> None:
    scores = crossed()
    scores[2] = 3 + 5 * (scores[2] - 3)
    told = " ".join(typed(write(tmp_path / "a.csv", scores), *FACTORS).split())
    assert "(rope); so unequal that --variant should look at them one by one" in told


def test_averaging_checkpoints_takes_away_their_noise_only(tmp_path: Path, typed: Callable[..., str]) -> None:
    draws = stream(3)
    runs_, steps = 40, [f"step-{step}" for step in range(200, 1400, 200)]
    scores = 1.0 * draws.normal(size=(2, runs_, 1)) + 1.0 * draws.normal(size=(2, runs_, 6))
    scores[:, :, 0] += 100  # the first checkpoint is far from trained
    rows = [f"v{v},{s},{steps[c]},{scores[v, s, c]:.6f}" for v, s, c in product(range(2), range(runs_), range(6))]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["variant,seed,step,value", *rows]))
    design = read_design(path, factors=["seed"], checkpoint="step", last=4)
    assert design.levels["step"] == ("step-600", "step-800", "step-1000", "step-1200")
    found = explain_variance(design, checkpoint="step")
    counts = [average.checkpoints for average in found.advice.averages]
    gains = [average.gain for average in found.advice.averages]
    assert counts[:3] == [1, 2, 4]
    assert gains == sorted(gains)
    assert found.advice.averages[2].error == found.advice.error
    assert gains[-1] == pytest.approx(0.5, abs=0.2)
    assert "however many" in typed(path, "--factor", "seed", "--checkpoint", "step", "--last", "4")


def test_two_levels_give_a_reason_instead_of_a_number(tmp_path: Path, typed: Callable[..., str]) -> None:
    path = write(tmp_path / "a.csv", crossed(2)[:, :, :2])
    told = typed(path, *FACTORS, "--cost", "item=1", "--out", tmp_path)
    assert "data_seed has 1 degree of freedom: add levels" in told
    assert "No advice" in told
    blocked = [row for row in records(tmp_path) if row["source"] == "data_seed"]
    assert all(row["variance"] == "" and "add levels" in row["cannot_tell"] for row in blocked)


def test_hostile_names_stay_harmless_and_files_are_the_same_whatever_the_row_order(
    tmp_path: Path, typed: Callable[..., str]
) -> None:
    path = write(tmp_path / "a.csv", crossed(), ("base", NASTY, "rope"))
    lines = path.read_text().splitlines()
    lines[0] = lines[0].replace("init_seed", "=init|<b>")
    path.write_text("\n".join(lines))
    names = ["=init|<b>", "data_seed", "item"]
    options = [text for name in names for text in ("--factor", name)]
    typed(path, *options, "--cost", "=init|<b>=3", "--out", tmp_path / "one")
    path.write_text("\n".join([lines[0], *lines[:0:-1]]))
    typed(path, *options, "--cost", "=init|<b>=3", "--out", tmp_path / "two")
    for name in ("variance.md", "variance.csv"):
        one, two = ((tmp_path / part / name).read_text() for part in ("one", "two"))
        assert re.sub("SHA-256.*", "", one) == re.sub("SHA-256.*", "", two)
    assert "\n|" in one or "'=init|<b>" in one
    assert all(not row["source"].startswith("=") for row in records(tmp_path / "one"))
    markdown = (tmp_path / "one" / "variance.md").read_text()
    assert "<b>" not in markdown.replace("\\<b>", "")
    assert "nan" not in markdown


def rows_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda rows: rows[:-1], FACTORS, r"not crossed[\s\S]*variant rope, init_seed 5, data_seed 4, item q19"),
        (lambda rows: [*rows, rows[-1]], FACTORS, r"given twice[\s\S]*line 1802"),
        (lambda rows: rows, FACTORS[:4], r"given twice[\s\S]*--factor item"),
        (lambda rows: rows, ["--factor", "seed"], "no column 'seed'"),
        (lambda rows: rows, ["--factor", "value"], "sources of noise"),
        (lambda rows: rows, ["--factor", "item", "--factor", "item"], "given once"),
        (lambda rows: rows, [*FACTORS, "--variant", "nope"], r"no such variant[\s\S]*nope"),
        (lambda rows: rows, [*FACTORS, "--cost", "item"], "positive number"),
        (lambda rows: rows, [*FACTORS, "--cost", "item=nan"], "positive number"),
        (lambda rows: rows, [*FACTORS, "--cost", "size=2"], "no factor of the design"),
        (lambda rows: rows, [*FACTORS, "--cost", "item=2", "--fixed", "item"], "stays the same buys nothing"),
        (lambda rows: rows, [*FACTORS, "--last", "2"], "--checkpoint COLUMN"),
        (lambda rows: rows, [*FACTORS, "--scale", "item"], "one question at a time"),
        (lambda rows: rows, [*FACTORS, "--checkpoint", "data_seed", "--last", "9"], r"not that many[\s\S]*1 to 5"),
        (lambda rows: rows, ["--signal", *FACTORS], "another question"),
        (lambda rows: [*rows[:-1], "rope,5,4,q19,oops"], FACTORS, r"not a number[\s\S]*line 1801"),
        (lambda rows: [*rows[:-1], "rope,5,4,q19,inf"], FACTORS, "not finite"),
        (lambda rows: [*rows[:-1], "rope,,4,q19,1.0"], FACTORS, "names no init_seed"),
        (lambda rows: [rows[0]], FACTORS, "no results"),
        (lambda rows: [rows[0], *(re.sub(r",[^,]*$", ",1.0", row) for row in rows[1:])], FACTORS, "never vary"),
    ],
)
def test_what_is_no_crossed_design_is_refused_with_its_place(
    runs: Path, typed: Callable[..., str], change: Callable[..., list[str]], arguments: list[str], message: str
) -> None:
    runs.write_text("\n".join(change(rows_of(runs))) + "\n")
    assert re.search(message, typed(runs, *arguments))


def test_factors_that_always_change_together_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("init,order,value\n" + "".join(f"{seed},{seed + 10},{seed**2}\n" for seed in range(5)))
    with pytest.raises(DataError, match="init and order always change together"):
        read_design(path, factors=["init", "order"])


def test_rows_that_did_not_finish_leave_a_hole_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"{v},{s},{s % 3 + v}.5,{'failed' if (v, s) == (1, 2) else ''}" for v in range(2) for s in range(4)]
    path.write_text("\n".join(["variant,seed,value,status", *rows]))
    with pytest.raises(DataError) as refused:
        read_design(path)
    assert "there is no variant 1, seed 2" in str(refused.value)


def test_an_export_of_a_tracker_keeps_its_settings_as_factors_and_leaves_crashed_runs_out(tmp_path: Path) -> None:
    path = tmp_path / "wandb.csv"
    rows = [f"run{i}{d},finished,today,base,{i},{d},{i * 0.1 + d * d * 0.05}" for i in range(3) for d in range(4)]
    rows.append("lost,crashed,today,base,2,3,")
    path.write_text("\n".join(["Name,State,Created,model,init_seed,data_seed,loss", *rows]))
    found = read_design(path, {"variant": "model"}, factors=["init_seed", "data_seed"])
    assert (found.metric, found.scores.shape) == ("loss", (1, 3, 4))
    assert found.notes == ("rows that did not finish are not used: 1 of 13",)


def test_levels_are_put_in_the_order_of_their_numbers() -> None:
    assert order_by_size(["1B", "60M", "530M"], "") == ["60M", "530M", "1B"]
    assert order_by_size(["step10-tokens1B", "step9-tokens1B"], "") == ["step9-tokens1B", "step10-tokens1B"]
    assert order_by_size(["1e4", "900"], "") == ["900", "1e4"]
    for labels in (["small", "big"], ["a1", "b2"]):
        with pytest.raises(DataError, match="order of the levels"):
            order_by_size(labels, "column scale")


# --- benchmarks ------------------------------------------------------------------------------------------------------

VARIANTS, SEEDS = 8, 4
NOISE = {"arc": 0.005, "blimp": 0.05, "coin": 2.0}


@pytest.fixture
def scaled(tmp_path: Path) -> Path:
    """Three benchmarks of growing noise on eight variants at two scales; one more never varies between seeds."""
    draws, lines = stream(4), ["variant,seed,size,task,value"]
    for size, task, v, s in product(("60M", "1B"), [*NOISE, "stuck"], range(VARIANTS), range(SEEDS)):
        lines.append(f"v{v},{s},{size},{task},{0.05 * v + NOISE.get(task, 0.0) * draws.normal():.6f}")
    path = tmp_path / "scaled.csv"
    path.write_text("\n".join(lines))
    return path


def test_benchmarks_are_ranked_by_signal_with_noise_from_within_variants(scaled: Path) -> None:
    found = rank_benchmarks(open_source(scaled), scale="size")
    small = [one for one in found if one.scale == "60M"]
    assert [one.metric for one in small] == ["arc", "blimp", "coin", "stuck"]
    data = (
        pd.read_csv(scaled)
        .query("task == 'blimp' and size == '60M'")
        .pivot(index="variant", columns="seed", values="value")
    )
    expected = measure_signal(data.to_numpy())
    assert small[1].signal is not None
    np.testing.assert_allclose(small[1].signal, expected)
    assert small[0].accuracy is not None
    assert small[0].accuracy.share == 1.0
    assert small[3].signal is None
    assert "no noise" in str(small[3].refused)
    assert all(one.accuracy is None for one in found if one.scale == "1B")


def test_the_command_tells_which_benchmarks_tell_variants_apart(
    scaled: Path, tmp_path: Path, typed: Callable[..., str]
) -> None:
    told = typed(scaled, "--signal", "--scale", "size", "--out", tmp_path)
    assert "4 of 6 tell the variants apart" in told
    assert "Not measured: stuck at 60M: no noise" in told
    found = records(tmp_path, "signal.csv")
    assert [row["metric"] for row in found[-2:]] == ["stuck", "stuck"]
    assert float(found[0]["decision_accuracy_share"] or found[1]["decision_accuracy_share"]) == 1.0
    assert "| arc |" in (tmp_path / "signal.md").read_text()


def test_equal_variants_show_the_ratio_that_the_table_warns_of() -> None:
    means = stream(6).standard_normal((20_000, 25, 4)).mean(axis=-1)
    assert expected_range(25, 4) == pytest.approx(np.ptp(means, axis=1).mean(), rel=0.01)
    assert expected_range(25, 1) == pytest.approx(3.93, abs=0.005)  # statistics.md, D6


def test_unequal_numbers_of_runs_are_cut_to_the_seeds_all_variants_share(scaled: Path) -> None:
    lines = [line for line in rows_of(scaled) if not line.startswith("v3,2,")]
    scaled.write_text("\n".join(lines))
    found = rank_benchmarks(open_source(scaled), metrics=["arc"], scale="size")
    assert all(one.repeats is not None and one.repeats.scores.shape == (VARIANTS, SEEDS - 1) for one in found)


def test_items_and_last_checkpoints_of_a_run_are_averaged_before_anything_else(tmp_path: Path) -> None:
    scores = stream(7).normal(size=(3, 4, 5, 6))
    lines = ["variant,seed,step,item,value"]
    lines += [f"{v},{s},{c * 100},q{q},{float(scores[v, s, c, q])!r}" for v, s, c, q in np.ndindex(scores.shape)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines))
    (found,) = rank_benchmarks(open_source(path), checkpoint="step", last=2)
    expected = measure_signal(scores[:, :, 3:].mean(axis=(2, 3)))
    assert found.signal is not None
    np.testing.assert_allclose(found.signal, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "nowhere"], "no column 'nowhere'"),
        (["--scale", "variant"], r"no column 'variant'|order of the levels|holds"),
        (["--scale", "task"], "order of the levels"),
        (["--checkpoint", "nowhere"], "no column 'nowhere'"),
    ],
)
def test_scales_that_cannot_be_ordered_are_refused(
    scaled: Path, typed: Callable[..., str], arguments: list[str], message: str
) -> None:
    assert re.search(message, typed(scaled, "--signal", *arguments))
