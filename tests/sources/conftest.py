from __future__ import annotations

import pytest


@pytest.fixture
def write(tmp_path):
    def writer(content, name="results.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return writer
