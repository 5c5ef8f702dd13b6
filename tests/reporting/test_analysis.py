from __future__ import annotations

import csv
import re
import subprocess
import sys

import numpy as np
import pytest

from workbench.cli import main
from workbench.errors import DataError, StatisticsError
from workbench.reporting.analysis import analyze, analyze_all
from workbench.reporting.answers import Terms
from workbench.sources.history import declare_history, read_history
from workbench.statistics.single import History

NOISE = np.random.default_rng(7).normal(0, 0.01, (3, 8))


def table(path, variants=("base", "deep", "wide"), seeds=range(6), header="variant,seed,loss,acc"):
    """Losses under shared seeds: wide is better by .05, deep by nothing."""
    lines = [header]
    for row, name in enumerate(variants):
        for column, seed in enumerate(seeds):
            loss = 3 + NOISE[row, column] * 0.3 + NOISE[0, column] - 0.05 * (name == "wide")
            lines.append(f"{name},{seed},{loss:.5f},{0.5 + NOISE[row, column]:.4f}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def shared(tmp_path):
    return table(tmp_path / "shared.csv")


@pytest.fixture
def single(tmp_path):
    return table(tmp_path / "single.csv", seeds=[0])


@pytest.fixture
def type_in(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["workbench", "analyze", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        held = capsys.readouterr()
        return ended.value.code or 0, re.sub(r"\s+", " ", held.out), held.err

    return run


def test_the_first_metric_decides_and_the_others_explore(shared):
    loss, acc = analyze_all(shared, Terms(baseline="base", smallest_effect=0.02), metrics=["loss", "all"])
    assert (loss.exploratory, acc.exploratory) == (False, True)
    assert {c.arm: c.verdict for c in loss.contrasts}["wide"] == "better"
    assert (acc.metric, acc.direction, acc.smallest_effect) == ("acc", "higher is better", None)
    assert all(contrast.exploratory for contrast in acc.contrasts)


def test_every_metric_needs_a_primary_one(shared):
    with pytest.raises(DataError, match="which metric is the primary one"):
        analyze_all(shared, Terms(baseline="base"), metrics=["all"])


def test_a_secondary_metric_that_cannot_be_decided_is_left_out_and_said(tmp_path):
    path = tmp_path / "text.csv"
    path.write_text(re.sub(r",0\.\d+$", ",much", table(tmp_path / "x.csv").read_text(), count=1, flags=re.M))
    (loss,) = analyze_all(path, Terms(baseline="base"), metrics=["loss", "acc"])
    assert "metric acc is not decided: a score is not a number" in loss.footnotes


def test_a_target_needs_no_baseline_and_refuses_one(shared):
    decision = analyze(shared, metric="loss", target=2.98)
    assert decision.baseline == "target 2.98"
    assert {c.arm: c.verdict for c in decision.contrasts} == {"base": "worse", "deep": "worse", "wide": "better"}
    assert "not with a baseline" in decision.footnotes[0]
    assert decision.facts["Runs"] == "6 per variant"
    with pytest.raises(DataError, match="either a baseline or a target"):
        analyze(shared, metric="loss", target=2.98, baseline="base")
    with pytest.raises(DataError, match="about one metric"):
        analyze_all(shared, Terms(target=2.98), metrics=["loss", "acc"])


def test_single_runs_are_refused_with_the_way_out(single):
    with pytest.raises(DataError, match=r"single run[\s\S]*1 per variant[\s\S]*--history FILE"):
        analyze(single, metric="loss", baseline="base")


def test_single_runs_borrow_the_noise_of_a_file(single, tmp_path):
    history = read_history(table(tmp_path / "old.csv", variants="xyz", seeds=range(8)), metric="loss")
    rows = list(csv.DictReader((tmp_path / "old.csv").read_text().splitlines()))
    spread = [np.var([float(r["loss"]) for r in rows if r["variant"] == v], ddof=1) for v in "xyz"]
    assert history == (pytest.approx(np.sqrt(np.mean(spread))), 21)
    decision = analyze(single, metric="loss", baseline="base", history=history)
    deep, wide = decision.contrasts
    assert (deep.verdict, wide.verdict) == ("undecided", "better")
    assert decision.footnotes[0].startswith("rests on the noise of earlier runs")
    assert "rest" not in " ".join(decision.footnotes[1:])


def test_runs_without_a_shared_seed_are_refused_with_the_way_out(tmp_path):
    lines = [
        "variant,seed,loss",
        *(f"a,{s},{3 + s / 100}" for s in range(4)),
        *(f"b,{s},{2 + s / 100}" for s in range(4, 8)),
    ]
    path = tmp_path / "apart.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"no variant shares a seed with a[\s\S]*b: seeds 4, 5, 6, 7[\s\S]*--unpaired"):
        analyze(path)
    decision = analyze(path, unpaired=True)
    assert decision.contrasts[0].verdict == "better"
    assert decision.facts["Pairing"] == "none: declared unpaired"


def test_a_history_is_said_once_and_whole(tmp_path):
    assert declare_history(None, None, None, None, None) is None
    assert declare_history(None, 0.0013, 311, None, None) == History(0.0013, 311)
    for said in ((None, 0.0013, None), (None, None, 311), (tmp_path / "old.csv", 0.0013, 311)):
        with pytest.raises(DataError, match="twice or by half"):
            declare_history(*said, None, None)


def test_one_variant_leaves_nothing_to_compare(tmp_path):
    with pytest.raises(DataError, match="nothing to compare"):
        analyze(table(tmp_path / "one.csv", variants=["base"]), metric="loss")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["shared.csv", "--baseline", "base"], "**wide** better"),
        (["shared.csv", "--baseline", "base", "--metric", "all"], "Exploratory"),
        (["shared.csv", "--target", "2.98"], "compared with a fixed target"),
        (["shared.csv", "--baseline", "base", "--unpaired"], "declared unpaired"),
        (["single.csv", "--baseline", "base", "--history-sd", ".01", "--history-df", "40"], "earlier runs"),
        (["single.csv", "--target", "2.98", "--history", "shared.csv"], "noise from history"),
        (["items.csv", "--baseline", "base"], "items only: says nothing about retraining"),
    ],
)
def test_every_question_writes_its_whole_report(asked, told, shared, single, tmp_path, type_in):
    lines = [f"{v},q{i},{(i * 7 + (v == 'wide') * (i % 4 == 0)) % 5}" for v in ("base", "wide") for i in range(50)]
    (tmp_path / "items.csv").write_text("variant,item,loss\n" + "\n".join(lines))
    out = tmp_path / "out"
    asked = [str(tmp_path / word) if word.endswith(".csv") else word for word in asked]
    code, shown, error = (
        type_in(*asked, "--metric", "loss", "--out", out)
        if "all" not in asked
        else type_in(asked[0], "--metric", "loss", *asked[1:], "--out", out)
    )
    assert code == 0, error
    assert {path.name for path in out.iterdir()} == {"report.md", "report.html", "table.tex", "table.csv", "forest.svg"}
    assert told in (out / "report.md").read_text()
    assert str(out / "report.html") in shown
    for path in out.iterdir():
        assert not re.search(r"\bnan\b|\binf\b|None", path.read_text()), path.name


def test_columns_may_be_named_in_one_option_or_in_several(tmp_path, type_in):
    path = table(tmp_path / "own.csv", header="model,cfg.seed,loss,acc")
    code, _, error = type_in(path, "--metric", "loss", "--baseline", "base")
    assert code == 2
    assert "--map variant=model,seed=cfg.seed" in error
    one = type_in(path, "--metric", "loss", "--baseline", "base", "--map", "variant=model,seed=cfg.seed")
    two = type_in(path, "--metric", "loss", "--baseline", "base", "--map", "variant=model", "--map", "seed=cfg.seed")
    assert one == two
    assert one[0] == 0
    assert "--map cannot be read" in type_in(path, "--map", "variant")[2]


def test_analyzing_loads_no_torch_and_no_tracker(shared):
    program = (
        "import sys; from workbench.cli import main\n"
        f"sys.argv = ['workbench', 'analyze', {str(shared)!r}, '--metric', 'loss', '--baseline', 'base']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(*{'torch', 'mlflow', 'optuna', 'streamlit'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    assert "wide: better" in done.stdout


def test_no_honest_question_takes_nonsense_levels(shared):
    with pytest.raises(StatisticsError, match="alpha"):
        analyze(shared, metric="loss", target=3.0, alpha=0.6)


def test_a_guarded_claim_is_made_only_where_the_other_metric_holds(tmp_path):
    path = tmp_path / "runs.csv"
    lines = ["variant,seed,loss,acc"]
    for seed in range(5):
        wobble = 0.01 * np.sin(seed * 7.0 + 1)
        lines += [
            f"base,{seed},{3.0 + wobble},{0.5 + wobble}",
            f"fair,{seed},{2.5 + wobble + 0.01 * np.cos(seed)},{0.5 + wobble + 0.003 * np.cos(3 * seed)}",
            f"paid,{seed},{2.5 + wobble + 0.01 * np.sin(5 * seed)},{0.4 + wobble + 0.003 * np.sin(2 * seed)}",
        ]
    path.write_text("\n".join(lines) + "\n")
    fair, paid = analyze(path, metric="loss", baseline="base", guards=(("acc", 0.02),)).contrasts
    assert (fair.verdict, fair.guard.holds) == ("better", True)
    assert (paid.verdict, paid.guard.holds) == ("better", False)


@pytest.fixture
def items(tmp_path):
    draws = np.random.Generator(np.random.Philox(8))
    path, lines = tmp_path / "items.csv", ["variant,seed,item,cluster,value"]
    scores = draws.standard_normal((2, 5, 40)) + draws.standard_normal(40) + np.array([0.0, 2.0])[:, None, None]
    for (v, s, i), score in np.ndenumerate(scores):
        lines.append(f"{('base', 'arm')[v]},{s},q{i},passage {i % 8},{score}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_new_items_widen_the_question_and_say_so(items):
    seeds_only, wider = (analyze(items, baseline="base", new_items=new_items) for new_items in (False, True))
    assert seeds_only.contrasts[0].estimate == pytest.approx(wider.contrasts[0].estimate)
    assert wider.contrasts[0].estimand == "new seeds and new items"
    assert "clusters of items" in wider.contrasts[0].method
    assert any("other items" in note for note in wider.footnotes)


def test_new_items_need_item_scores(shared):
    with pytest.raises(DataError, match="scores of single items"):
        analyze(shared, metric="loss", baseline="base", new_items=True)


@pytest.mark.parametrize("guard", ["acc", "acc=", "acc=much"])
def test_a_guard_that_cannot_be_read_is_refused(guard, shared, type_in):
    code, _, error = type_in(shared, "--metric", "loss", "--baseline", "base", "--guard", guard)
    assert code == 2
    assert "expected: accuracy=0.02" in error


def test_other_methods_are_shown_beside_and_written_where_asked(shared, tmp_path, type_in):
    out = tmp_path / "out"
    code, shown, error = type_in(shared, "--metric", "loss", "--baseline", "base", "--methods", "--out", out)
    assert code == 0, error
    assert "percentile bootstrap: Calls 16 % of identical arms different" in shown
    assert "label permutation" in (out / "methods.md").read_text()


def test_a_macro_average_is_judged_like_a_task(tmp_path):
    lines = ["variant,seed,task,metric,value"]
    for row, variant in enumerate(("base", "arm")):
        for seed in range(5):
            lines += [
                f"{variant},{seed},{task},acc,{0.5 + NOISE[row, seed] + shift * row:.6f}"
                for task, shift in (("arc", 0.2), ("blimp", 0.1))
            ]
    path = tmp_path / "tasks.csv"
    path.write_text("\n".join(lines) + "\n")
    arc, blimp, macro = (
        analyze(path, metric=name, baseline="base").contrasts[0] for name in ("arc/acc", "blimp/acc", "*/acc")
    )
    assert macro.estimate == pytest.approx((arc.estimate + blimp.estimate) / 2)
    with pytest.raises(DataError, match=r"no task reports that metric[\s\S]*arc/acc, blimp/acc"):
        analyze(path, metric="*/f1", baseline="base")


def test_an_answer_for_every_look_is_wider_and_says_its_price(shared):
    fixed, anytime = (
        analyze(shared, metric="loss", baseline="base", smallest_effect=0.02, anytime=asked) for asked in (False, True)
    )
    halves = [contrast.high - contrast.low for decision in (fixed, anytime) for contrast in decision.contrasts]
    assert halves[3] > halves[1]
    assert "holds whenever one looks" in anytime.footnotes[0]
    assert any("74 %" in sentence for sentence in anytime.method)
    with pytest.raises(DataError, match="one question at a time"):
        analyze(shared, metric="loss", target=3.0, anytime=True)
