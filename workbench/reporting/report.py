"""A sweep's report on disk: Markdown, LaTeX and CSV tables, the forest plot and the page.

Promises that the same decisions give the same bytes, and that nulls, controls and lost runs are in it like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import StoreError
from workbench.reporting import wording
from workbench.reporting.decision import Decision
from workbench.reporting.escaping import to_markdown
from workbench.reporting.forest import forest_plot
from workbench.reporting.naming import spoken
from workbench.reporting.page import html_page
from workbench.reporting.sheets import sheet_markdown
from workbench.reporting.tables import caption, csv_table, latex_table, markdown_table


def portable(document: Any, below: Path) -> Any:
    """Return a plan as others may read it: no absolute path of the machine that made it, which is no part of a plan.

    A path below the folder `below` becomes relative to it, one of an installed package begins at `site-packages`, of
    any other the last name is left.
    """
    if isinstance(document, list):
        return [portable(held, below) for held in document]
    if not isinstance(document, dict):
        return document
    return {key: _shorn(held, below) if key == "path" else portable(held, below) for key, held in document.items()}


def _shorn(held: Any, below: Path) -> Any:
    if not isinstance(held, str) or not Path(held).is_absolute():
        return portable(held, below)
    path = Path(held)
    if path.is_relative_to(below):
        return path.relative_to(below).as_posix()
    if "site-packages" in path.parts:
        return Path(*path.parts[path.parts.index("site-packages") :]).as_posix()
    return path.name


def write_report(decisions: Sequence[Decision], folder: Path | str) -> list[Path]:
    """Write report.md, table.tex, table.csv, forest.svg and report.html, and return their paths.

    Args:
        decisions: Decisions of one sweep, the primary one first; the figure shows that one.
        folder: Where to write; made if it is not there.

    Raises:
        StoreError: if the folder cannot be written.
    """
    folder = Path(folder)
    texts = {
        "report.md": markdown_report(decisions),
        "table.tex": "\n".join(latex_table(decision) for decision in decisions),
        "table.csv": csv_table(decisions),
        "forest.svg": forest_plot(decisions[0]),
        "report.html": html_page(decisions),
    }
    return [write_text(folder / name, text) for name, text in texts.items()]


def write_text(path: Path, text: str) -> Path:
    """Write one file of a report and return its path.

    Raises:
        StoreError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StoreError(
            "the report cannot be written",
            where=path.parent,
            got=error.strerror or str(error),
            fix="name another folder with --out FOLDER",
        ) from None
    return path


def verdict_lines(decision: Decision) -> list[str]:
    """Say the verdict on every arm as plain text: "alibi is worse: 0.15 bits per byte more [0.12, 0.18]"."""
    return [f"{contrast.arm}: {wording.sentence(contrast, decision)}" for contrast in decision.contrasts]


def markdown_report(decisions: Sequence[Decision]) -> str:
    """Write the decisions of one sweep as Markdown."""
    primary = decisions[0]
    parts = [f"# {to_markdown(primary.question, leading=True)}", *_result(primary)]
    for decision in decisions[1:]:
        parts += [f"## Exploratory: {to_markdown(spoken(decision.metric))}", *_result(decision)]
    parts += ["## How it was decided", _bullets(primary.method)]
    described = {name: arm for name, arm in primary.arms.items() if arm.get("differs")}
    if described:
        parts += ["## The plan", _bullets(_describe(name, arm) for name, arm in described.items())]
    footnotes = dict.fromkeys(note for decision in decisions for note in decision.footnotes)
    if footnotes:
        parts += ["## Footnotes", _bullets(footnotes)]
    parts += ["## Provenance", _bullets(f"{label}: {text}" for label, text in primary.facts.items())]
    return "\n\n".join(parts) + "\n"


def _result(decision: Decision) -> Iterable[str]:
    if not decision.complete:
        yield "> " + to_markdown(decision.interim)
    lines = (f"**{to_markdown(c.arm)}** {to_markdown(wording.sentence(c, decision))}" for c in decision.contrasts)
    yield "\n".join(f"- {line}" for line in lines)
    yield to_markdown(caption(decision), leading=True) + "."
    yield markdown_table(decision).rstrip()
    if (sheet := decision.scored) is not None:
        yield from sheet_markdown(sheet, depth=3)


def _bullets(texts: Iterable[str]) -> str:
    return "\n".join(f"- {to_markdown(text, leading=True)}" for text in texts)


def _describe(name: str, arm: dict[str, Any]) -> str:
    known = [
        (arm.get("parameters"), f"{wording.count(arm.get('parameters'))} parameters"),
        (arm.get("flops_per_token"), f"{wording.magnitude(arm.get('flops_per_token'))} FLOPs per token"),
        (arm.get("tokens"), f"{wording.count(arm.get('tokens'))} tokens"),
        (arm.get("pairing"), f"pairing: {wording.pairing(arm.get('pairing'))}"),
        (
            arm.get("coverage"),
            f"{wording.coverage(arm.get('coverage'))} of the parameters (without embeddings) start equal",
        ),
    ]
    return f"{name}: {arm['differs']}" + "".join(f"; {text}" for value, text in known if value is not None)
