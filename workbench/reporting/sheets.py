"""A small table with its reading, written alike for a terminal, for Markdown and for a page.

Promises that no name from outside breaks a cell, and that a table never stands without the sentences that say how to
read it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from workbench.reporting.escaping import plain, to_csv, to_html, to_markdown

NUMBER = ' class="number"'
NAME = 20  # characters of a name that no narrow terminal takes away


class Sheet(NamedTuple):
    """One table.

    Attributes:
        title: What it shows.
        headings: Of its columns, the first of which holds words, the others figures.
        rows: Cells as text.
        reading: Sentences below it.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    reading: tuple[str, ...] = ()


def sheet_table(sheet: Sheet) -> Table:
    """Return the table for a terminal, without its title and its reading."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    longest = max(len(plain(row[0])) for row in sheet.rows)
    table.add_column(Text(plain(sheet.headings[0])), overflow="fold", min_width=min(longest, NAME))
    for heading in sheet.headings[1:]:
        table.add_column(Text(plain(heading)), justify="right", overflow="fold")
    for row in sheet.rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    return table


def sheets_markdown(title: str, sheets: Sequence[Sheet], notes: Sequence[str]) -> str:
    """Return several tables with their reading, and notes at the end, as Markdown."""
    parts = [f"# {to_markdown(title)}"]
    for sheet in sheets:
        heading, *rest = sheet_markdown(sheet, depth=2)
        parts += [heading, *rest] if sheet.title != title else rest
    if notes:
        parts.append("\n".join(f"- {to_markdown(note, leading=True)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def sheet_markdown(sheet: Sheet, *, depth: int) -> list[str]:
    """Return the paragraphs of one table as Markdown: heading of that depth, table, reading."""
    rule = ["---", *["--:"] * (len(sheet.headings) - 1)]
    body = [[to_markdown(cell) for cell in row] for row in (sheet.headings, *sheet.rows)]
    lines = "\n".join("| " + " | ".join(line) + " |" for line in (body[0], rule, *body[1:]))
    reading = (to_markdown(sentence, leading=True) for sentence in sheet.reading)
    return [f"{'#' * depth} {to_markdown(sheet.title)}", lines, *reading]


def sheet_html(sheet: Sheet) -> str:
    """Return one table as HTML, without its title and its reading."""
    heads = "".join(
        f"<th{NUMBER if place else ''}>{to_html(heading)}</th>" for place, heading in enumerate(sheet.headings)
    )
    rows = "".join(
        "<tr>"
        + "".join(f"<td{NUMBER if place else ''}>{to_html(cell)}</td>" for place, cell in enumerate(row))
        + "</tr>"
        for row in sheet.rows
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def records_csv(records: Sequence[Mapping[str, object]]) -> str:
    """Return records as CSV, in full precision, empty where a record has no such field."""
    fields = list(dict.fromkeys(name for record in records for name in record))
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(fields)
    for record in records:
        values = (record.get(name) for name in fields)
        writer.writerow([to_csv(value) if isinstance(value, str) else value for value in values])
    return sink.getvalue()
