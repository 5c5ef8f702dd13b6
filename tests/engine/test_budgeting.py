from __future__ import annotations

import pytest

from architectures.positions import Alibi, NoPosition
from architectures.presets import tiny
from workbench.budgeting import SEEDS, parse_budget, propose
from workbench.configuration import Configuration
from workbench.errors import PlanError
from workbench.planning import Plan, plan
from workbench.records import Numerics
from workbench.statistics import reference
from workbench.sweep import Arm, Metric, Sweep

BASELINE = Configuration(architecture=tiny())
NUMERICS = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1)
ARMS = (
    Arm(name="alibi", axis="position", configuration=BASELINE.vary(position=Alibi())),
    Arm(name="none", axis="position", configuration=BASELINE.vary(position=NoPosition())),
    Arm(name="again", axis="seeds", seed_offset=1000, configuration=BASELINE),
)
SECONDS = {"baseline": 10.0, "alibi": 14.0, "none": 9.0, "again": 10.0}


def planned(noise: float | None = 0.01) -> Plan:
    metric = Metric(name="bits_per_byte", smallest_effect=0.02)
    sweep = Sweep(name="s", question="?", baseline=BASELINE, arms=ARMS, seeds=5, metric=metric, noise=noise)
    return plan(sweep, NUMERICS, lambda variant: "corpus")


@pytest.mark.parametrize(("text", "seconds"), [("120h", 432_000), ("90min", 5400), ("2.5 d", 216_000), ("10m", 600)])
def test_budgets_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "12", "h", "-3h", "0h", "3 weeks", "1e9h"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="device time"):
        parse_budget(text)


def test_every_proposal_spends_the_whole_budget() -> None:
    proposals = propose(planned(), SECONDS, 4300.0)
    assert tuple(one.seeds for one in proposals) == SEEDS
    assert [one.seeds * one.share * sum(SECONDS.values()) for one in proposals] == pytest.approx([4300.0] * len(SEEDS))
    ten = next(one for one in proposals if one.seeds == 10)
    assert ten.tokens == BASELINE.stages[0].tokens * 10


def test_more_seeds_detect_less_and_call_more_identical_arms_equivalent() -> None:
    proposals = propose(planned(), SECONDS, 4300.0)
    detected = [one.detectable for one in proposals]
    equivalent = [one.equivalent for one in proposals]
    assert detected == sorted(detected, reverse=True)
    assert equivalent == sorted(equivalent, key=float)


def test_the_plan_detects_what_its_paired_arms_do_on_their_share_of_the_error() -> None:
    share = 0.05 * 2 / 3  # the third arm runs under other seeds and is judged apart
    assert (planned().together, planned().share) == (2, pytest.approx(share))
    assert planned().detectable == reference(5, 2).minimum_detectable_effect(share)
    assert planned().equivalent == reference(5, 2).share_called_equivalent(2.0, share)
    assert planned().seeds_needed == 8


def test_without_a_pilots_noise_nothing_is_said_in_its_units() -> None:
    bare = planned(noise=None)
    assert (bare.equivalent, bare.seeds_needed) == (None, None)
    assert {one.equivalent for one in propose(bare, SECONDS, 100.0)} == {None}


def test_an_arm_of_unknown_cost_is_named() -> None:
    with pytest.raises(PlanError, match="cost of an arm is not known"):
        propose(planned(), {**SECONDS, "alibi": None}, 100.0)
