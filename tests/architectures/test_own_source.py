"""The source of a component from outside is part of what it is; and the worked example keeps what it says."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from architectures.attention import Pass
from architectures.component import Component
from architectures.feedforward import SwiGLU
from architectures.masks import Mask
from architectures.presets import tiny
from architectures.source import source_files, source_hash
from architectures.specimens import host, started
from architectures.testing import check_component

EXAMPLE = Path(__file__).resolve().parents[2] / "sweeps" / "own_component"

CLASS = """
from typing import ClassVar, Literal
import torch
import numpy as np
import {helper}
from architectures.component import Component, Shape
from architectures.norms import RMSNorm

class Mine(Component):
    kind: Literal["{module}:Mine"] = "{module}:Mine"
    axis: ClassVar[str] = "norm"

    def build(self, shape: Shape):
        return RMSNorm().build(shape)
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], type[Component]]]:
    """Import class `Mine` of a module in a fresh folder, anew every time."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def forget() -> None:
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
                del sys.modules[name]

    def load(module: str) -> type[Component]:
        forget()
        importlib.invalidate_caches()
        loaded: ModuleType = importlib.import_module(module)
        mine: type[Component] = loaded.Mine
        assert host().vary(norm=mine()).norm.kind == f"{module}:Mine"
        return mine

    yield load
    forget()


def written(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_source_of_a_single_file_is_that_file_and_the_users_modules_it_imports(tmp_path: Path, load: Any) -> None:
    written(tmp_path / "own_one.py", CLASS.format(module="own_one", helper="own_helper"))
    written(tmp_path / "own_helper.py", "def late():\n    import own_deep.kernels\n")
    written(tmp_path / "own_deep" / "__init__.py", "PATTERN = '\\d'  # a warning, here an error\nimport own_last\n")
    written(tmp_path / "own_last.py", "")
    written(tmp_path / "own_deep" / "kernels" / "__init__.py", "")
    written(tmp_path / "own_deep" / "kernels" / "fast.cu", "one")
    written(tmp_path / "unrelated.py", "x = 1")
    first = load("own_one")
    assert set(source_files(first)) == {
        "own_one.py",
        "own_helper.py",
        "own_last.py",
        "own_deep/__init__.py",
        "own_deep/kernels/__init__.py",
        "own_deep/kernels/fast.cu",
    }
    written(tmp_path / "unrelated.py", "x = 2")
    written(tmp_path / "own_deep" / "__pycache__" / "x.pyc", "compiled")
    assert source_hash(load("own_one")) == source_hash(first)
    for name in ("own_one.py", "own_helper.py", "own_deep/kernels/fast.cu"):
        text = (tmp_path / name).read_text()
        written(tmp_path / name, text + "\n")
        assert source_hash(load("own_one")) != source_hash(first), name
        written(tmp_path / name, text)
    assert source_hash(load("own_one")) == source_hash(first)


def test_the_source_of_a_class_in_a_package_is_the_whole_package(tmp_path: Path, load: Any) -> None:
    written(tmp_path / "own_lab" / "__init__.py", "")
    written(tmp_path / "own_lab" / "parts" / "__init__.py", "")
    written(tmp_path / "own_lab" / "parts" / "norm.py", CLASS.format(module="own_lab.parts.norm", helper="json"))
    written(tmp_path / "own_lab" / "tables.bin", "one")
    written(tmp_path / "own_lab" / "template.py", "import {name}")
    first = load("own_lab.parts.norm")
    assert set(source_files(first)) == {
        "own_lab/__init__.py",
        "own_lab/parts/__init__.py",
        "own_lab/parts/norm.py",
        "own_lab/tables.bin",
        "own_lab/template.py",
    }
    written(tmp_path / "own_lab" / "tables.bin", "two")
    assert source_hash(load("own_lab.parts.norm")) != source_hash(first)


def test_the_hash_of_a_source_does_not_depend_on_its_folder(
    tmp_path: Path, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, hashed = [], []
    for folder in (tmp_path / "one", tmp_path / "other" / "place"):
        written(folder / "own_two.py", CLASS.format(module="own_two", helper="json"))
        monkeypatch.syspath_prepend(folder)
        found.append(source_files(load("own_two")))
        hashed.append(source_hash(load("own_two")))
    assert found[0] != found[1]
    assert hashed[0] == hashed[1]


def test_a_class_of_a_session_without_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    session = ModuleType("own_session")
    monkeypatch.setitem(sys.modules, "own_session", session)
    exec(CLASS.format(module="own_session", helper="json"), session.__dict__)  # noqa: S102 - as a session does
    with pytest.raises(ValidationError, match="expected a class in a file, so that its source can be told"):
        host().vary(norm=session.Mine())


def test_ours_have_no_source_in_their_identity() -> None:
    assert tiny().source_hash() is None
    assert SwiGLU(width=4).source_hash() is None


# --- the worked example


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(EXAMPLE)
    sys.modules.pop("gated_attention", None)  # a sweep of another test may have brought its own
    yield importlib.import_module("gated_attention")
    del sys.modules["gated_attention"]


@pytest.mark.parametrize("gate", ["head", "element"])
def test_the_gated_attention_of_the_example_keeps_the_contract_and_its_gate_is_that_of_the_paper(
    gated: ModuleType, gate: str
) -> None:
    spec = gated.GatedAttention(heads=4, gate=gate)
    if gate == "head":
        check_component(spec)
    plain, own_model = started(host()), started(host().vary(attention=spec))
    attention, theirs = own_model.blocks[0].attention, plain.blocks[0].attention
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    found: list[Tensor] = []
    theirs.output.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    current = Pass(plain.position, None, 0.0, "reference")
    theirs(x, current)
    for head in range(4):  # Y' = Y * sigmoid(X W), head by head
        here = slice(4 * head, 4 * head + 4)
        rows = attention.gate.weight[head : head + 1] if gate == "head" else attention.gate.weight[here]
        found[0][..., here] *= torch.sigmoid(x @ rows.T)
    torch.testing.assert_close(attention(x, current), attention.output(found[0]))
    assert spec.mask == Mask(causal=True)
