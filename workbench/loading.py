"""Find and load sweeps: by name among those that come with the workbench, or from the user's own file in any folder."""

from __future__ import annotations

import importlib.resources
import json
import re
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from workbench.command import Command
from workbench.errors import MissingExtra, SweepError, WorkbenchError
from workbench.sweep import Arm, Sweep, Variant, explain

_beside: list[str] = []  # modules that the sweep file of this process brought along


def known_sweeps() -> dict[str, Path]:
    """Return the sweeps that come with the workbench, by name."""
    folder = Path(str(importlib.resources.files("sweeps")))
    known = {path.stem: path for path in folder.glob("*.py") if not path.stem.startswith("_")}
    known |= {path.parent.name: path for path in folder.glob("*/sweep.py")}  # with a component of its own beside it
    return dict(sorted(known.items()))


def load_sweep(name: str, corpus: str | None = None) -> Sweep:
    """Load `quickstart`, or `path/to/sweep.py` (also .yaml, .json), with its name filled in from the file.

    Args:
        name: Name of a sweep that comes with the workbench, or a path.
        corpus: What to train on instead of the sweep's own corpus, in every arm alike: a path, or a name that
            `data.presets.told_corpus` knows.

    Raises:
        SweepError: if it cannot be found or loaded, with the line in the file where that is known.
    """
    path = _find(name)
    sweep = _from_python(path) if path.suffix == ".py" else _from_data(path)
    if not sweep.name:
        sweep = sweep.model_copy(update={"name": path.stem})
    if not re.fullmatch(r"[\w][\w .-]{0,99}", sweep.name):
        raise SweepError(
            "a sweep's name must work as a folder",
            where=path,
            expected="letters, digits, '-', '_', '.'",
            got=sweep.name,
        )
    if sweep.design == "single":
        raise SweepError(
            "a sweep compares arms",
            where=path,
            expected='design "fixed" or "sequential"',
            got="single",
            fix="train one run with: workbench train",
        )
    changes: dict[str, Any] = {}
    if corpus:
        from workbench.data.presets import told_corpus

        changes = {"data__corpus": told_corpus(corpus)}
    return sweep.model_copy(
        update={
            "baseline": _settled(sweep.baseline, path.parent, changes),
            "arms": tuple(
                arm.model_copy(update={"configuration": _settled(arm.configuration, path.parent, changes)})
                for arm in sweep.arms
            ),
        }
    )


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix in (".py", ".yaml", ".yml", ".json"):
        if path.is_file():
            return path.absolute()
        raise SweepError(
            "there is no such sweep file", where=path.absolute(), fix="workbench sweeps lists what there is"
        )
    known = known_sweeps()
    if name in known:
        return known[name]
    raise SweepError(
        f"there is no sweep '{name}'",
        expected=", ".join(known) + ", or the path of a .py, .yaml or .json file",
        got=name,
    )


def _settled(variant: Variant, folder: Path, changes: dict[str, Any]) -> Variant:
    """Make a variant independent of the current folder, and put the user's corpus into it."""
    if isinstance(variant, Command):
        if changes:
            raise SweepError(
                "--corpus is for sweeps the workbench trains",
                where=folder,
                got="a command, which reads its own text",
                fix="make the corpus a field of the command",
            )
        return variant.model_copy(update={"folder": str((folder / variant.folder).resolve())})
    return variant.vary(**changes) if changes else variant


def _from_python(path: Path) -> Sweep:
    folder = str(path.parent)
    while _beside:
        sys.modules.pop(_beside.pop(), None)  # edited meanwhile, or another sweep's of the same name
    before = set(sys.modules)
    sys.path.insert(0, folder)  # a sweep may import the user's modules that lie beside it
    try:
        held = runpy.run_path(str(path))
    except WorkbenchError as error:
        if isinstance(error, MissingExtra):
            raise
        error.details["where"] = _line(error, path)
        raise
    except ValidationError as error:
        raise explain(error, where=_line(error, path)) from None
    except ModuleNotFoundError as error:
        if error.name in ("torch", "tokenizers", "safetensors"):
            raise MissingExtra(error.name, "train") from None
        raise SweepError("the sweep file cannot be loaded", where=_line(error, path), got=str(error)) from None
    except (Exception, SystemExit) as error:
        got = f"{type(error).__name__}: {error}"
        raise SweepError("the sweep file raises an error", where=_line(error, path), got=got) from None
    finally:
        _beside.extend(name for name in set(sys.modules) - before if _lies_in(path.parent, name))
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)  # last, for what these import only when they are called
    sweep = held.get("SWEEP")
    if not isinstance(sweep, Sweep):
        raise SweepError(
            "the sweep file declares no sweep",
            where=path,
            expected="SWEEP = Sweep(...)",
            got="no SWEEP" if sweep is None else type(sweep).__name__,
        )
    return sweep


def _lies_in(folder: Path, module: str) -> bool:
    top, file = module.partition(".")[0], getattr(sys.modules[module], "__file__", None)
    if file is None or top in ("architectures", "workbench", "sweeps", "dashboard"):
        return False
    return Path(file) == folder / f"{top}.py" or Path(file).is_relative_to(folder / top)


def _from_data(path: Path) -> Sweep:
    try:
        text = path.read_text()
        held = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise SweepError("the sweep file cannot be read", where=path, got=str(error).replace("\n", " ")) from None
    if not isinstance(held, dict) or not isinstance(held.get("baseline"), dict):
        raise SweepError(
            "the sweep file declares no sweep", where=path, expected="a mapping with 'baseline' and 'arms'"
        )
    try:
        baseline = _variant(held["baseline"])
        arms = []
        for arm in held.get("arms") or ():
            varied = baseline.vary(**arm.get("vary", {}))
            arms.append(Arm(configuration=varied, **{key: value for key, value in arm.items() if key != "vary"}))
        return Sweep(**{**held, "baseline": baseline, "arms": tuple(arms)})
    except ValidationError as error:
        raise explain(error, where=path) from None
    except (TypeError, AttributeError) as error:
        raise SweepError("the sweep file declares no sweep", where=path, got=str(error)) from None


def _variant(fields: dict[str, Any]) -> Variant:
    if "command" in fields:
        return Command(**fields)
    try:
        from workbench.configuration import Configuration
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "train") from None
    return Configuration(**fields)


def _line(error: BaseException, path: Path) -> str:
    """Name the line of the sweep file in which the error arose."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines = [error.lineno]
    return f"{path}, line {lines[-1]}" if lines else str(path)
