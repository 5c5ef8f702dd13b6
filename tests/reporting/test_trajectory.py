"""What the last checkpoints of runs say about noise, on invented scores whose noise is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import invented_sweep
import numpy as np
import pyarrow as pa
import pytest

from workbench.records import Record, Status, empty_scores, scores_table
from workbench.reporting.describing import describe_evaluations
from workbench.reporting.trajectory import Trajectory, follow_checkpoints, sheets, write_trajectory
from workbench.session import publish
from workbench.statistics.components import variance_components
from workbench.statistics.signal import measure_signal

PLACES = (1000, 2000, 3000)
ARMS = ("rotary", "alibi", "learned", "rotary again")
JITTER = 0.004  # between checkpoints of one run


def trajectory_of(held: Record) -> np.ndarray:
    """Return a run's score at its checkpoints and its end: float64[4]."""
    own = np.random.Generator(np.random.Philox([7, held.seed, sum(held.arm.encode())]))
    shared = np.random.Generator(np.random.Philox([8, held.seed])).normal(0, 0.02)
    return 2.3 + invented_sweep.EFFECTS[held.arm] + shared + own.normal(0, 0.01) + own.normal(0, JITTER, 4)


def scores(held: Record, places: tuple[int, ...] = PLACES) -> pa.Table:
    if held.status is not Status.FINISHED:
        return empty_scores()
    shift, values = np.array([0.5, -0.5]), trajectory_of(held)
    names = [*(f"bits_per_byte@tokens={at}" for at in places), "bits_per_byte"]
    return scores_table(
        held.score_id,
        {
            "task": ["documents"] * 8,
            "view": ["v"] * 8,
            "metric": [name for name in names for _ in range(2)],
            "item": ["a", "b"] * 4,
            "value": [value for mean in values[-len(names) :] for value in mean + shift],
            "weight": [2.0] * 8,
        },
    )


@pytest.fixture
def document() -> dict[str, Any]:
    return {**invented_sweep.plan(ARMS), "secondary": []}


@pytest.fixture
def found(document: dict[str, Any]) -> Trajectory:
    followed = follow_checkpoints(document, invented_sweep.records(document), scores)
    assert followed is not None
    return followed


def test_every_run_is_read_at_its_checkpoints_and_its_end(found: Trajectory) -> None:
    assert found.seeds == (0, 1, 2, 3, 4)
    assert found.checkpoints == 4
    for arm in ARMS:
        expected = [trajectory_of(invented_sweep.record(arm, seed)) for seed in found.seeds]
        np.testing.assert_allclose(found.arms[arm], expected)


def test_the_noise_is_that_of_the_arms_that_share_their_seeds(found: Trajectory) -> None:
    table = np.stack([found.arms[arm] for arm in ARMS[:3]])
    assert found.explained is not None
    alone = [variance_components(runs, ["seed", "checkpoint"])["seed", "checkpoint"].estimate for runs in table]
    estimate = found.explained.score["seed", "checkpoint"].estimate
    assert estimate == pytest.approx(np.mean(np.array(alone, np.float64)))
    assert estimate is not None
    assert JITTER / 1.5 < estimate**0.5 < JITTER * 1.5
    ends, within = found.signals["seeds"], found.signals["checkpoints"]
    assert float(ends.ratio) == pytest.approx(float(measure_signal(table[..., -1]).ratio))
    assert float(within.noise) == pytest.approx(np.mean([measure_signal(table[:, seed]).noise for seed in range(5)]))
    assert f"is {estimate**0.5:.3g}" in found.told
    assert "averaging all 4 would cut the variance of a difference between two variants by " in found.told
    gain = {one.checkpoints: one.gain for one in found.explained.advice.averages}[4]
    assert found.told.endswith(f"by {gain:.0%}")


def test_a_seed_counts_where_every_arm_has_all_of_its_checkpoints(document: dict[str, Any]) -> None:
    records = invented_sweep.records(document, {("alibi", 2): Status.DIVERGED, ("learned", 4): Status.FAILED})
    followed = follow_checkpoints(document, records, scores)
    assert followed is not None
    assert followed.seeds == (0, 1, 3)
    only = follow_checkpoints(document, [one for one in records if one.seed == 0], scores)
    assert only is not None
    assert only.explained is None
    assert "not told apart" in only.told
    assert "No noise" in write_trajectory(only, Path())[0].read_text()
    assert follow_checkpoints(document, records[:2], scores) is None


def test_a_sweep_without_a_trajectory_has_none(document: dict[str, Any]) -> None:
    assert follow_checkpoints(document, invented_sweep.records(document), invented_sweep.scores) is None
    every = {**document, "metric": "*/bits_per_byte"}
    assert follow_checkpoints(every, invented_sweep.records(document), scores) is None


def test_arms_of_other_budgets_are_compared_checkpoint_by_checkpoint(document: dict[str, Any]) -> None:
    def halved(held: Record) -> pa.Table:
        return scores(held, (500, 1000, 1500) if held.arm == "alibi" else PLACES)

    followed = follow_checkpoints(document, invented_sweep.records(document), halved)
    assert followed is not None
    assert followed.tokens["alibi"] == (500, 1000, 1500)
    assert sheets(followed)[0].headings == ("arm", "checkpoint 1", "checkpoint 2", "checkpoint 3", "the end",
                                            "sd within a run")  # fmt: skip


def test_a_report_says_what_the_checkpoints_show_and_the_files_hold_the_numbers(
    document: dict[str, Any], tmp_path: Path, found: Trajectory
) -> None:
    class Held:
        def records(self, plan: object) -> list[Record]:
            return [one.model_copy(update={"evaluations": 1}) for one in invented_sweep.records(document)]

        def scores(self, plan: object, record: Record) -> pa.Table:
            return scores(record)

    decisions, paths = publish(Held(), document, tmp_path)  # type: ignore[arg-type]
    assert {path.name for path in paths} > {"report.md", "trajectory.md", "trajectory.csv"}
    assert decisions[0].facts["Between checkpoints"] == f"{found.told}; see trajectory.md"
    report, text = (tmp_path / "report.md").read_text(), (tmp_path / "trajectory.md").read_text()
    assert "averaging all 4" in report
    assert "Each of the 20 models was evaluated once" in report
    assert f"{found.arms['alibi'][:, 0].mean():.4g}" in text
    assert "| 1,000 tokens | 2,000 tokens | 3,000 tokens | the end |" in text
    assert f"| the last checkpoints of one run | {float(found.signals['checkpoints'].spread):.3g} |" in text
    assert "What averaging the last checkpoints buys" in text
    lines = (tmp_path / "trajectory.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 * 5 * 4
    assert f"learned,3,the end,bits_per_byte,{found.arms['learned'][3, 3]}" in lines


def test_the_count_of_evaluations_is_told_in_words() -> None:
    def told(*counts: int) -> str:
        return str(describe_evaluations([invented_sweep.record("rotary", 0, evaluations=count) for count in counts]))

    assert told(0, 0) == "None"
    assert told(1) == "The model was evaluated once, by the weights at the end of training."
    assert told(1, 1) == "Each of the 2 models was evaluated once, by the weights at the end of training."
    assert told(3).startswith("The model had been evaluated in other ways before, 2 times;")
    assert told(1, 2, 4).startswith("2 of 3 models had been evaluated in other ways before, up to 3 times;")
    best = [invented_sweep.record("rotary", 0, evaluations=1, spec={"evaluation": {"checkpoint": "best"}})]
    assert "by the best weights by training loss" in str(describe_evaluations(best))
