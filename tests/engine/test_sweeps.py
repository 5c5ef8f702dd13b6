"""Every sweep that comes with the workbench can be planned, and asks what it says it asks."""

from __future__ import annotations

import pytest

from workbench.loading import known_sweeps, load_sweep
from workbench.session import open_session


@pytest.mark.parametrize("name", known_sweeps())
def test_every_sweep_that_comes_along_can_be_planned(name, tmp_path):
    plan = open_session(name, tmp_path).plan
    assert plan.sweep.name == name
    assert plan.sweep.question.endswith("?")
    for arm in plan.arms[1:]:
        assert arm.difference, arm.name
        packed = any(entry["arm"] == "whole" for entry in arm.difference)
        shared = ("text" if packed else "tokens",)
        if arm.axis == ("data.order",):
            shared = ("sources", "text", "corpus")
        elif any(path.startswith("data.") for path in arm.axis):  # other documents, or other tokens, in the same order
            shared = ("documents", "text")
        assert arm.pairing in shared or arm.axis == ("seeds",), arm.name
        if arm.compensation:
            assert arm.size["parameters"] == pytest.approx(plan.arms[0].size["parameters"], rel=0.01)


@pytest.mark.parametrize("name", known_sweeps())
def test_every_sweep_says_in_one_line_what_it_asks(name):
    assert len(load_sweep(name).question) < 120
