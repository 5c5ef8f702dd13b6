"""The significance table of a decision for a terminal, Markdown, LaTeX, CSV and HTML.

Promises the same rows in every format, made by one function, with every name escaped for where it goes. Refuses to
print a p-value or a verdict of a plan that is not complete.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from workbench.reporting import wording
from workbench.reporting.decision import Decision
from workbench.reporting.escaping import plain, to_csv, to_html, to_latex, to_markdown
from workbench.statistics import Contrast

COLORS = {"better": "blue", "worse": "red", "equivalent": "green", "undecided": "dim"}


class Column(NamedTuple):
    """A column of the table: its heading, whether it holds numbers, and whether a paper has room for it."""

    heading: str
    numeric: bool
    published: bool = True


class Row(NamedTuple):
    """One arm of the table: a text per column, and the contrast they were written from."""

    cells: tuple[str, ...]
    contrast: Contrast


FINAL = (
    Column("arm", False),
    Column("difference [interval]", True),
    Column("p adj", True),
    Column("verdict", False),
    Column("p paired t", True),
    Column("pairs", True),
    Column("r", True),
    Column("noise", True),
    Column("MDE", True),
    Column("what differs", False, published=False),
    Column("Δ parameters", True),
)
DECIDING = 4  # the first columns, up to the verdict
INTERIM = (
    Column("arm", False),
    Column("difference so far", True),
    Column("sd", True),
    Column("seeds so far", True),
    Column("what differs", False, published=False),
    Column("Δ parameters", True),
)


def columns(decision: Decision) -> list[Column]:
    """Return the columns of a decision's table; what is known of no arm is left out."""
    return [column for column, kept in zip(_all_columns(decision), _known(decision), strict=True) if kept]


def rows(decision: Decision) -> list[Row]:
    """Return the rows of a decision's table, in the order of its arms: what every format shows."""
    known = _known(decision)
    table = []
    for contrast in decision.contrasts:
        texts = zip(_texts(contrast, decision), known, strict=True)
        table.append(Row(tuple(text for text, kept in texts if kept), contrast))
    return table


def caption(decision: Decision) -> str:
    """Say in one line what the numbers of the table are."""
    unit = f" in {decision.unit}" if decision.unit else ""
    exploratory = "exploratory, " if decision.exploratory else ""
    return f"{decision.title} ({exploratory}{decision.direction}): difference to {decision.baseline}{unit}"


def to_terminal(decision: Decision, *, width: int = 120) -> Table:
    """Return the table for a terminal of `width` characters, verdicts coloured; names are never read as markup.

    A narrow terminal gets the columns that a paper gets, a very narrow one those that decide.
    """
    shown = columns(decision) if width >= 100 else columns(decision)[:DECIDING]
    kept = [index for index, column in enumerate(shown) if column.published or width >= 140]
    # Text is printed as it is; a string would be searched for markup, and an arm may be called "[bold]".
    table = Table(title=Text(plain(caption(decision)), style="bold"), title_justify="left", box=SIMPLE_HEAD)
    if not decision.complete:
        table.caption = decision.interim
    for column in (columns(decision)[index] for index in kept):
        table.add_column(Text(column.heading), justify="right" if column.numeric else "left", no_wrap=column.numeric)
    for row in rows(decision):
        table.add_row(
            *(Text(plain(row.cells[index])) for index in kept), style=COLORS.get(row.contrast.verdict or "", "")
        )
    return table


def markdown_table(decision: Decision) -> str:
    """Return the table in GitHub-flavoured Markdown."""
    heads = columns(decision)
    lines = [
        [to_markdown(column.heading) for column in heads],
        ["--:" if column.numeric else "---" for column in heads],
    ]
    lines += [[to_markdown(cell) for cell in row.cells] for row in rows(decision)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def latex_table(decision: Decision) -> str:
    r"""Return a table environment in LaTeX; needs `\usepackage{booktabs}`. The note holds what a reviewer asks for."""
    kept = [index for index, column in enumerate(columns(decision)) if column.published]
    heads = [columns(decision)[index] for index in kept]
    body = [" & ".join(to_latex(row.cells[index]) for index in kept) + r" \\" for row in rows(decision)]
    notes = [*decision.method, *decision.footnotes, *(f"{name}: {text}." for name, text in _provenance(decision))]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{to_latex(caption(decision))}.}}",
            rf"\begin{{tabular}}{{{''.join('r' if column.numeric else 'l' for column in heads)}}}",
            r"\toprule",
            " & ".join(to_latex(column.heading) for column in heads) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\smallskip\footnotesize " + " ".join(to_latex(_sentence(note)) for note in notes),
            r"\end{table}",
            "",
        ]
    )


def html_table(decision: Decision) -> str:
    """Return the table as an HTML `table` element of class `verdicts`."""
    heads = columns(decision)
    kinds = [' class="number"' if column.numeric else "" for column in heads]
    top = "".join(
        f"<th{kind} scope='col'>{to_html(column.heading)}</th>" for kind, column in zip(kinds, heads, strict=True)
    )
    lines = []
    for row in rows(decision):
        cells = "".join(f"<td{kind}>{to_html(cell)}</td>" for kind, cell in zip(kinds, row.cells, strict=True))
        lines.append(f'<tr class="{row.contrast.verdict or "interim"}">{cells}</tr>')
    body = "\n".join(lines)
    head = f"<caption>{to_html(caption(decision))}.</caption><thead><tr>{top}</tr></thead>"
    return f'<table class="verdicts">{head}<tbody>\n{body}\n</tbody></table>'


def csv_table(decisions: Sequence[Decision]) -> str:
    """Return all decisions as one CSV for further computation: numbers in full precision, empty where there is none."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([*_record(decisions[0], rows(decisions[0])[0])])
    for decision in decisions:
        writer.writerows(_record(decision, row).values() for row in rows(decision))
    return sink.getvalue()


def _record(decision: Decision, row: Row) -> dict[str, object]:
    contrast, arm = row.contrast, decision.arms.get(row.contrast.arm, {})
    fields: dict[str, object] = {
        "arm": contrast.arm,
        "baseline": contrast.baseline,
        "metric": contrast.metric,
        "unit": decision.unit,
        "direction": decision.direction,
        "difference": contrast.estimate,
        "low": contrast.low,
        "high": contrast.high,
        "sd": contrast.sd,
        "p": contrast.p,
        "p_adjusted": contrast.p_adjusted,
        "attainable_p": contrast.attainable_p,
        "p_equivalence": contrast.p_equivalence,
        "verdict": contrast.verdict or "interim",
        "against_smallest_effect": contrast.relevance,
        "smallest_effect": decision.smallest_effect,
        "pairs": contrast.pairs,
        "missing": contrast.missing,
        "correlation": contrast.correlation,
        "pairing_gain": contrast.pairing_gain,
        "noise": contrast.noise,
        "baseline_noise": contrast.baseline_noise,
        "set_aside": contrast.set_aside,
        "p_paired_t_holm": contrast.p_paired,
        "mde": contrast.mde,
        "more_seeds": (
            wording.settling(contrast)
            if contrast.verdict == "undecided" and contrast.more_seeds is None
            else contrast.more_seeds
        ),
        "guard": wording.claim(contrast.guard) if contrast.guard else None,
        "p_guard": contrast.guard.p if contrast.guard else None,
        "exploratory": contrast.exploratory,
        "method": contrast.method,
        "what_differs": arm.get("differs"),
        "parameters_difference": arm.get("parameters_difference"),
        "plan": decision.facts.get("Plan"),
    }
    return {name: to_csv(value) if isinstance(value, str) else value for name, value in fields.items()}


def _texts(contrast: Contrast, decision: Decision) -> tuple[str, ...]:
    arm, places = decision.arms.get(contrast.arm, {}), wording.decimals(decision)
    tail = (arm.get("differs") or "", wording.count(arm.get("parameters_difference"), sign=True))
    if not decision.complete:
        spread = wording.NONE if contrast.sd is None else f"{contrast.sd:.{places}f}"
        planned = contrast.pairs + contrast.missing
        return (
            contrast.arm,
            wording.signed(contrast.estimate, places),
            spread,
            f"{contrast.pairs} of {planned}",
            *tail,
        )
    return (
        contrast.arm,
        wording.difference(contrast, places),
        wording.p_value(contrast.p_adjusted),
        wording.verdict(contrast),
        wording.p_value(contrast.p_paired),
        str(contrast.pairs),
        wording.correlation(contrast.correlation),
        wording.NONE if contrast.noise is None else f"×{contrast.noise:.2g}",
        wording.NONE if contrast.mde is None else f"{contrast.mde:.{places}f}",
        *tail,
    )


def _all_columns(decision: Decision) -> tuple[Column, ...]:
    return FINAL if decision.complete else INTERIM


def _known(decision: Decision) -> list[bool]:
    arms = [decision.arms.get(contrast.arm, {}) for contrast in decision.contrasts]
    unknown = {
        "noise": all(contrast.noise is None for contrast in decision.contrasts),
        "p paired t": len(decision.contrasts) == 1 or all(c.p_paired is None for c in decision.contrasts),
        "what differs": not any(arm.get("differs") for arm in arms),
        "Δ parameters": all(arm.get("parameters_difference") is None for arm in arms),
    }
    return [not unknown.get(column.heading, False) for column in _all_columns(decision)]


def _provenance(decision: Decision) -> list[tuple[str, str]]:
    return [(name, decision.facts[name]) for name in ("Plan", "File", "Code") if name in decision.facts]


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."
