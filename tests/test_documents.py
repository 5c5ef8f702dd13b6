"""README and CONTRIBUTING say what is true: their commands run, their output is the real one, their map is the tree."""

from __future__ import annotations

import csv
import doctest
import importlib
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.loading import load_sweep
from workbench.session import open_session

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def block(before: str, language: str, text: str = README) -> str:
    """Return the first fenced block of that language after some words."""
    found = re.search(rf"```{language}\n(.*?)```", text[text.index(before) :], re.DOTALL)
    assert found is not None
    return found.group(1)


def typed(console: str, folder: Path) -> tuple[str, str]:
    """Run the command of a console block; return what it should print and what it printed."""
    command, expected = console.removeprefix("$ ").split("\n", 1)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command.split(), cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": path}, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return squeezed(expected), squeezed(done.stdout)


def squeezed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def test_the_first_command_prints_what_the_readme_shows(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text(block("`my.csv`:", "csv"))
    expected, printed = typed(block("`my.csv`:", "console"), tmp_path)
    assert printed == expected


def test_the_users_own_trainer_ends_as_the_readme_shows(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(block("`train.py`:", "python"))
    (tmp_path / "sweep.py").write_text(block("`sweep.py`:", "python"))
    expected, printed = typed(block("`sweep.py`:", "console"), tmp_path)
    # the text it trains on comes with Python and differs between its versions: the words must agree, numbers may not
    shown, kept = ([re.sub(r"[\d.]+", "#", line).split() for line in text.splitlines()] for text in (expected, printed))
    assert [line for line in shown if line not in kept and line != ["#"]] == []


def test_the_variant_of_your_own_is_a_sweep(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(block("## A variant of your own", "python"))
    assert [arm.name for arm in load_sweep(str(path)).arms] == ["ALiBi"]


def test_the_text_and_the_questions_of_the_readme_are_declarations(tmp_path: Path) -> None:
    path = tmp_path / "declared.py"
    path.write_text(block("## Your text, and the field's benchmarks", "python"))
    declared = runpy.run_path(str(path))
    assert declared["DATA"].order.kind == "weighted"
    assert [task.label for task in declared["EVALUATION"].tasks][:2] == ["bits_per_byte", "blimp"]


def test_the_quickstart_in_the_readme_is_the_committed_one() -> None:
    report = (ROOT / "results" / "quickstart" / "report.md").read_text(encoding="utf-8")
    shown = re.search(r"It ended with\n\n(.*?)\n\nThe whole report", README, re.DOTALL)
    assert shown is not None
    assert shown.group(1) in report


def test_the_map_names_what_is_there_and_all_of_it() -> None:
    named = re.findall(r"^\| `([^`]+)` \|", README[README.index("## Map") :], re.MULTILINE)
    assert all((ROOT / path).exists() for path in named)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        tops = {path.split("/")[0] + "/" for path in listed.stdout.split() if "/" in path and not path.startswith(".")}
        assert tops <= set(named)


EXAMPLES = [
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for folder in ("architectures", "workbench", "dashboard")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("module", EXAMPLES)
def test_the_examples_in_docstrings_are_true(module: str) -> None:
    tried = doctest.testmod(importlib.import_module(module))
    assert tried.attempted
    assert not tried.failed


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)


def test_the_make_targets_of_the_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"^    make ([\w-]+)", README + "\n" + CONTRIBUTING, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_a_new_choice_touches_one_file_and_passes_the_contract_suite(tmp_path: Path) -> None:
    package = tmp_path / "architectures"
    shutil.copytree(ROOT / "architectures", package, ignore=shutil.ignore_patterns("__pycache__"))
    path = package / "feedforward.py"
    example = block("## Adding a choice", "python", CONTRIBUTING)
    (union,) = re.findall(r"^    (FeedForward = .*)$", CONTRIBUTING, re.MULTILINE)
    text, changed = re.subn(
        r"^FeedForward = .*$", lambda _: f"{example}\n\n{union}", path.read_text(), flags=re.MULTILINE
    )
    assert changed == 1
    path.write_text(text)
    code = (
        "import architectures.feedforward as module, architectures.testing as testing\n"
        f"assert module.__file__ == {str(path)!r}, module.__file__\n"
        "assert module.Bilinear in testing.members('feed_forward')\n"
        "testing.check_component(module.Bilinear(width=48))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert done.returncode == 0, done.stderr


def test_a_component_from_ones_own_folder_is_checked_and_planned_as_the_walkthrough_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = "## Your own component"
    (tmp_path / "bilinear.py").write_text(block(section, "python", CONTRIBUTING))
    (tmp_path / "sweep.py").write_text(block("in `sweep.py`:", "python", CONTRIBUTING))
    (arm,) = open_session(str(tmp_path / "sweep.py"), tmp_path / "home").plan.arms[1:]
    assert list(arm.document()["sources"]) == ["bilinear:Bilinear"]
    monkeypatch.syspath_prepend(tmp_path)
    (line,) = re.findall(r'^    python -c "(.*)"$', CONTRIBUTING[CONTRIBUTING.index(section) :], re.MULTILINE)
    exec(line, {})  # noqa: S102 - what the walkthrough tells to type


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("[!_]*.py")), ids=lambda path: path.stem)
def test_every_sweep_that_ships_can_be_loaded(path: Path) -> None:
    assert load_sweep(str(path)).question


def test_the_error_rates_in_the_readme_are_the_committed_ones() -> None:
    with open(ROOT / "results" / "calibration" / "calibration.csv", newline="") as file:
        cells = {
            (row["method"], row["noise"]): row
            for row in csv.DictReader(file)
            if (row["seeds"], row["arms"]) == ("5", "6")
        }
    shown = re.findall(r"^\| (.+?) \| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) % \| (\d+) % \|$", README, re.MULTILINE)
    assert len(shown) == 5
    for name, *figures in shown:
        method = re.sub(r"\*\*| \(default\)", "", name).replace("percentile bootstrap + Holm", "percentile bootstrap")
        errors = [cells[method, noise]["error"] for noise in ("normal", "one arm 5x", "baseline 3x")]
        measured = [f"{100 * float(error):.1f}" for error in errors] + [
            f"{100 * float(cells[method, 'normal']['power']):.0f}"
        ]
        assert figures == measured, name
