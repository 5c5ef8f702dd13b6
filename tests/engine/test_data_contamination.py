"""`workbench data`: what decontamination found and did, as a person reads it, on the sweep that comes along."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workbench.cli import app


def test_the_command_says_what_was_found_and_what_became_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "COLUMNS", "200")
    shown = CliRunner().invoke(app, ["data", "decontamination", "sentence cut", "--home", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    said = " ".join(shown.output.split())
    assert "12 of 94 documents hold words of 12 benchmark items; these documents were cut, 2.2 % of the text" in said
    assert "benchmark items too short to find items found documents for example" in said
    assert "endings 36 0 12 12" in said
