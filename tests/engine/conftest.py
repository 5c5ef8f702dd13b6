"""What several modules of these tests begin from."""

from __future__ import annotations

import pytest
from small_jobs import NUMERICS

from workbench.training import loop
from workbench.training.numerics import settle


@pytest.fixture(scope="module")
def deterministic() -> None:
    """Arithmetic as the small jobs' numerics say."""
    settle(NUMERICS)


@pytest.fixture
def checkpoints_may_cost_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is written whenever one is due, however short the run."""
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", float("inf"))
