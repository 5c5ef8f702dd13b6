"""`--corpus` with the name of a corpus instead of a path."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workbench.configuration import Configuration
from workbench.data import hub
from workbench.data.corpora import Hub
from workbench.errors import DataError
from workbench.session import open_session


def test_a_sweep_is_planned_on_a_dataset_of_the_hub_without_reading_it(
    tmp_path: Path, sweep_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tiny" / "data"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"text": ["one", "two"]}), folder / "train-00000-of-00001.parquet")
    monkeypatch.setattr(hub, "_rows", lambda hub: pytest.fail("downloaded for a plan"))
    plain = open_session(str(sweep_file), tmp_path / "home")
    first, second = (open_session(str(sweep_file), tmp_path / "home", f"hub:{folder.parent}") for _ in range(2))
    assert first.plan.hash == second.plan.hash != plain.plan.hash
    for arm in first.plan.arms:
        assert isinstance(arm.configuration, Configuration)
        assert arm.configuration.data.corpus == Hub(name=str(folder.parent))


def test_a_preset_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path, sweep_file: Path) -> None:
    with pytest.raises(DataError, match="no such preset") as caught:
        open_session(str(sweep_file), tmp_path, "hub:tinystory")
    assert "tinystories" in str(caught.value)
