"""Sequential sweeps end to end, with a trainer that takes a few milliseconds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import PlanError, SweepError
from workbench.loading import load_sweep
from workbench.planning import Plan, plan
from workbench.records import Status, empty_scores
from workbench.reporting.decision import Decision
from workbench.results import Results
from workbench.running import Runner
from workbench.session import Frontier, decide
from workbench.statistics.sequential import METHOD
from workbench.store import Store

TRAINER = """
import argparse, pathlib, random
parser = argparse.ArgumentParser()
for name in ("--seed", "--gain", "--out"):
    parser.add_argument(name)
given = parser.parse_args()
shared, own = random.Random(given.seed).gauss(0, 1), random.Random(given.seed + given.gain).gauss(0, 0.01)
value = 3.0 - float(given.gain) + shared + own
pathlib.Path(given.out, "scores.csv").write_text("value\\n" + str(value) + "\\n")
"""
SWEEP = """
import sys
from workbench.command import Command
from workbench.sweep import Arm, Metric, Sweep

BASELINE = Command(
    command=sys.executable + " train.py --seed {{seed}} --gain {{gain}} --out {{out}}",
    fields={{"gain": 0.0}}, files=("train.py",), folder={folder!r},
)
SWEEP = Sweep(
    question="Which gain helps?",
    baseline=BASELINE,
    arms=tuple(
        Arm(name=name, axis="gain", configuration=BASELINE.vary(gain=gain))
        for name, gain in (("strong", 1.0), ("harmful", -1.0), ("idle", 0.0001), ("close", 0.02))
    ),
    seeds=6,
    metric=Metric(name="loss", higher_is_better=False, smallest_effect=0.001),
    {options}
)
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def every_run(sweep: Path) -> Store:
    """All runs the plan could ever ask for."""
    held, store = planned(sweep), Store(sweep.parent / "every_run")
    for trial in held.trials:
        Runner(held, store).run(trial)
    return store


def written(folder: Path, options: str = 'design="sequential",') -> Path:
    (folder / "train.py").write_text(TRAINER)
    path = folder / "gains.py"
    path.write_text(SWEEP.format(folder=str(folder), options=options))
    return path


def planned(path: Path) -> Plan:
    return plan(load_sweep(str(path), None), None, lambda variant: "")


def run_what_is_asked(
    planned: Plan, source: Store, store: Store, *, limit: int = 1000, tell: list[dict[str, Any]] | None = None
) -> int:
    """Do, until the plan asks for nothing more, what it asks for: take the run from `source`, as if it were run now."""
    frontier, runs = Frontier(planned, store, (tell if tell is not None else []).append), 0
    while waiting := [trial for trial in frontier() if store.record(trial.run_id) is None]:
        for trial in waiting:
            if runs == limit:
                return runs
            shutil.copytree(source.run_folder(trial.run_id), store.run_folder(trial.run_id))
            runs += 1
    return runs


def judged(planned: Plan, store: Store) -> Decision:
    return decide(Results(store, tracked=False), planned.document())[0]


def test_decided_arms_stop_and_the_sweep_is_complete_without_their_seeds(
    sweep: Path, every_run: Store, tmp_path: Path
) -> None:
    told: list[dict[str, Any]] = []
    held, store = planned(sweep), Store(tmp_path / "home")
    runs = run_what_is_asked(held, every_run, store, tell=told)
    decision = judged(held, store)
    assert decision.complete
    assert (decision.cells_done, decision.cells_planned) == (runs, runs)
    assert runs < len(held.trials) == 30
    verdicts = {contrast.arm: contrast.verdict for contrast in decision.contrasts}
    assert (verdicts["strong"], verdicts["harmful"]) == ("better", "worse")
    assert {"strong stopped after 4 seeds: better", "harmful stopped after 4 seeds: worse"} <= set(decision.footnotes)
    assert {"event": "stopped", "arm": "strong", "seeds": 4, "state": "better"} in told
    assert len(told) == len({news["arm"] for news in told})
    seeds = {trial.arm: trial.seed for trial in held.trials if store.record(trial.run_id) is not None}
    assert (seeds["strong"], seeds["baseline"]) == (3, 5)


def test_a_sweep_that_was_cut_off_stops_where_one_that_was_not_does(
    sweep: Path, every_run: Store, tmp_path: Path
) -> None:
    held, whole, cut = planned(sweep), Store(tmp_path / "whole"), Store(tmp_path / "cut")
    run_what_is_asked(held, every_run, whole)
    while run_what_is_asked(held, every_run, cut, limit=3):  # a new launch after every third run
        pass
    assert judged(held, cut).to_json() == judged(held, whole).to_json()
    assert [cut.record(t.run_id) is None for t in held.trials] == [whole.record(t.run_id) is None for t in held.trials]


def test_runs_nobody_asked_for_change_nothing(sweep: Path, every_run: Store, tmp_path: Path) -> None:
    held, lean = planned(sweep), Store(tmp_path / "lean")
    run_what_is_asked(held, every_run, lean)
    assert judged(held, lean).contrasts == judged(held, every_run).contrasts


def test_before_the_fourth_seed_there_are_estimates_and_no_verdict(
    sweep: Path, every_run: Store, tmp_path: Path
) -> None:
    held, store = planned(sweep), Store(tmp_path / "home")
    run_what_is_asked(held, every_run, store, limit=17)
    decision = judged(held, store)
    assert not decision.complete
    assert {contrast.verdict for contrast in decision.contrasts} == {None}
    assert (decision.cells_done, decision.cells_planned) == (17, 20)


def test_a_diverged_arm_goes_on_and_is_never_better(sweep: Path, every_run: Store, tmp_path: Path) -> None:
    held, store = planned(sweep), Store(tmp_path / "home")
    (trial,) = (trial for trial in held.trials if (trial.arm, trial.seed) == ("strong", 1))
    record = every_run.record(trial.run_id)
    assert record is not None
    lost = record.model_copy(update={"status": Status.DIVERGED, "reason": "not finite"})
    store.commit(lost, empty_scores())
    run_what_is_asked(held, every_run, store)
    decision = judged(held, store)
    strong = decision.contrasts[0]
    assert (strong.verdict, strong.blocked, strong.pairs, strong.missing) == ("undecided", "diverged", 5, 1)
    assert "strong: lost runs: judged on its own 5 pairs" in decision.footnotes
    assert sum(r.status is Status.DIVERGED for r in store.records(t.run_id for t in held.trials)) == 1


def test_the_plan_says_what_it_will_do_and_its_hash_covers_it(sweep: Path, tmp_path: Path) -> None:
    document = planned(sweep).document()
    assert (document["design"], document["method"]) == ("sequential", METHOD)
    hashes = {document["hash"]}
    for options in ("", 'design="sequential", futility=True,'):
        hashes.add(planned(written(tmp_path, options)).hash)
    assert len(hashes) == 3
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize(
    ("options", "told"), [('design="sequential",', "more than 4"), ("futility=True,", "only a sequential design")]
)
def test_impossible_designs_are_refused(tmp_path: Path, options: str, told: str) -> None:
    path = written(tmp_path, options)
    path.write_text(path.read_text().replace("seeds=6", "seeds=4"))
    with pytest.raises(SweepError, match=told):
        load_sweep(str(path), None)


def test_an_arm_with_seeds_of_its_own_cannot_be_followed_seed_by_seed(tmp_path: Path) -> None:
    path = written(tmp_path)
    text = (
        path.read_text()
        .replace("    seeds=6", "    seeds=6")
        .replace(
            "    arms=tuple(",
            '    arms=(Arm(name="again", axis="seeds", seed_offset=50, configuration=BASELINE),) + tuple(',
        )
    )
    path.write_text(text)
    with pytest.raises(PlanError, match="share the baseline's seeds"):
        planned(path)


@pytest.mark.slow
def test_a_launch_that_is_killed_and_resumed_stops_the_same_arms(sweep: Path, every_run: Store, tmp_path: Path) -> None:
    held, home = planned(sweep), tmp_path / "home"
    command = [sys.executable, "-m", "workbench", "run", str(sweep), "--home", str(home), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(home.glob("runs/*/record.json"))) < 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "strong stopped after 4 seeds: better" in ended.stdout
    assert "Sequential: from 4 seeds on" in ended.stdout
    store = Store(home)
    assert judged(held, store).contrasts == judged(held, every_run).contrasts
    assert sum(store.record(trial.run_id) is not None for trial in held.trials) < len(held.trials)
