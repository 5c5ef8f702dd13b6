"""The verdict page shows a metric beside itself without the items that stand in training text."""

from __future__ import annotations

import html
import sys
from pathlib import Path

import invented_store
import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import app
from workbench.records import CONTAMINATED, Record


def test_the_verdict_page_shows_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = invented_store.scores_of

    def flagged(record: Record) -> pa.Table:
        table = alone(record)
        hit = [record.arm == "ALiBi" and item == "speech 3" for item in table["item"].to_pylist()]
        flags = pa.array([CONTAMINATED if one else 0 for one in hit], pa.uint8())
        return table.set_column(table.schema.get_field_index("flags"), "flags", flags)

    monkeypatch.setattr(invented_store, "scores_of", flagged)
    invented_store.write(tmp_path, **invented_store.plan(arms=("rotary", "ALiBi"), seeds=(0, 1, 2)))
    monkeypatch.setattr(sys, "argv", [str(app.PATH), str(tmp_path)])
    page = AppTest.from_file(str(app.PATH), default_timeout=60).run()
    assert not page.exception
    assert "Without contaminated items" in [title.value for title in page.subheader]
    text = html.unescape("\n".join(element.proto.body for element in page.get("html")))
    assert f"1 of {invented_store.ITEMS} items overlap with the training text of an arm (rotary 0, ALiBi 1)" in text
    assert "bits per byte without contaminated items" in text
