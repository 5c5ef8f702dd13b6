"""Runtime folders to look at: a finished sweep with one diverged run, and one that still runs."""

from __future__ import annotations

from pathlib import Path

import invented_store
import pytest

from workbench.records import Status


@pytest.fixture(scope="session")
def finished_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose sweep is complete; one run diverged."""
    home = tmp_path_factory.mktemp("finished")
    invented_store.write(home, lost={("half the tokens", 3): Status.DIVERGED})
    return home


@pytest.fixture
def running_home(tmp_path: Path) -> Path:
    """A folder whose sweep has 12 of its 25 runs."""
    invented_store.write(tmp_path / "running", runs=12)
    return tmp_path / "running"
