"""One self-contained HTML page per sweep: question, verdicts, figure, table, method, plan, what went wrong, provenance.

Promises no script, no font, no image and no request from anywhere, every name escaped, and a page that prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from workbench.reporting import wording
from workbench.reporting.decision import Decision
from workbench.reporting.escaping import to_html
from workbench.reporting.forest import forest_plot
from workbench.reporting.naming import spoken
from workbench.reporting.sheets import sheet_html
from workbench.reporting.tables import html_table

STYLE = """
:root { color-scheme: light; --ink: #1a1a1a; --quiet: #5f5f5f; --line: #dcd8ce; --paper: #fff; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 Charter, "Bitstream Charter", "Iowan Old Style", "Source Serif 4", Georgia, "DejaVu Serif", serif; }
main { max-width: 58rem; margin: 0 auto; padding: 3.5rem 2rem 4rem; }
header { border-bottom: 1px solid var(--line); padding-bottom: 1.4rem; margin-bottom: 1.8rem; }
.over, table, dl, p.interim, figcaption {
  font-family: "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif; }
.over { margin: 0; font-size: .82rem; color: var(--quiet); letter-spacing: .02em; }
h1 { font-size: 1.7rem; line-height: 1.22; font-weight: 600; margin: .35rem 0 0; max-width: 44rem; }
h2 { font-size: 1.18rem; font-weight: 600; margin: 2.6rem 0 .7rem; }
h3 { font-size: 1rem; font-weight: 600; margin: 1.8rem 0 .5rem; }
section.exploratory { border-top: 1px solid var(--line); margin-top: 3rem; }
ul.verdicts { list-style: none; margin: 0; padding: 0; max-width: 50rem; }
ul.verdicts li { padding: .16rem 0 .16rem 1.15rem; text-indent: -1.15rem; }
ul.verdicts li::before { content: ""; display: inline-block; width: .6rem; height: .6rem; margin-right: .55rem;
  border: 2px solid currentColor; border-radius: 50%; }
ul.verdicts strong { font-weight: 600; color: var(--ink); }
li span { color: var(--ink); }
.better { color: #0072b2; } .worse { color: #c24e00; } .equivalent { color: #00795a; }
.undecided, .interim { color: #6b6b6b; }
ul.verdicts .better::before, ul.verdicts .equivalent::before, ul.verdicts .worse::before { background: currentColor; }
ul.verdicts .better::before { border-radius: 0; transform: rotate(45deg) scale(.86); }
ul.verdicts .worse::before { border-radius: 0; transform: scale(.9); }
p.interim { border-left: 3px solid #b8b2a3; margin: 0 0 1.2rem; padding: .3rem 0 .3rem 1rem; font-size: .92rem; }
figure { margin: 1.8rem 0; } figure svg { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .8rem; color: var(--quiet); margin-top: .4rem; max-width: 46rem; line-height: 1.45; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .8rem; line-height: 1.4;
  border-block: 1.5px solid var(--ink); }
caption { text-align: left; color: var(--quiet); padding-bottom: .5rem; }
th { text-align: left; font-weight: 600; border-bottom: 1px solid var(--ink); vertical-align: bottom; }
th, td { padding: .38rem .8rem .38rem 0; } th:last-child, td:last-child { padding-right: 0; }
td { vertical-align: top; border-bottom: 1px solid #eeebe4; overflow-wrap: break-word; }
tr:last-child td { border-bottom: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th.number { white-space: normal; }
table.verdicts td { color: var(--ink); } td:first-child { font-weight: 600; min-width: 6.4rem; }
.note { font-size: .92rem; max-width: 46rem; } .note li { margin: .15rem 0; } .note ul { padding-left: 1.1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.4rem; font-size: .82rem; margin: 0; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
@media print { main { padding: 0; max-width: none; } body { font-size: 11pt; } figure, tr, li { break-inside: avoid; } }
"""
CAPTION = (
    "Mean difference to the baseline with its simultaneous interval; each dot is one seed. Squares are worse, diamonds "
    "better, filled circles equivalent, open circles undecided."
)
INTERIM = "Mean difference to the baseline so far; each dot is one seed."
BAND = " The band is the smallest effect that matters."


def html_page(decisions: Sequence[Decision]) -> str:
    """Write the decisions of one sweep, the primary one first, as the text of an HTML page."""
    primary = decisions[0]
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{to_html(primary.title)}</title><style>{STYLE}</style></head><body><main>",
        f'<header><p class="over">{to_html(primary.title)} · {primary.direction}</p>',
        f"<h1>{to_html(primary.question)}</h1></header>",
        *_result(primary),
    ]
    for decision in decisions[1:]:
        parts += [f'<section class="exploratory"><h2>Exploratory: {to_html(spoken(decision.metric))}</h2>']
        parts += [*_result(decision), "</section>"]
    parts += _listing("How it was decided", primary.method)
    parts += _plan(primary)
    parts += _listing("Footnotes", [note for decision in decisions for note in _own_notes(decision, primary)])
    facts = "".join(f"<dt>{to_html(label)}</dt><dd>{to_html(text)}</dd>" for label, text in primary.facts.items())
    parts += [f"<h2>Provenance</h2><dl>{facts}</dl>", "</main></body></html>\n"]
    return "\n".join(parts)


def _result(decision: Decision) -> Iterable[str]:
    if not decision.complete:
        yield f'<p class="interim">{to_html(decision.interim)}</p>'
    yield '<ul class="verdicts">'
    for contrast in decision.contrasts:
        said = to_html(wording.sentence(contrast, decision))
        word, mark, rest = said.partition(":")
        yield (
            f'<li class="{contrast.verdict or "interim"}"><strong>{to_html(contrast.arm)}</strong> '
            f"<b>{word}</b><span>{mark}{rest}</span></li>"
        )
    band = BAND if decision.smallest_effect is not None else ""
    legend = (CAPTION if decision.complete else INTERIM) + band
    yield f"</ul><figure>{forest_plot(decision)}<figcaption>{legend}</figcaption></figure>"
    yield f'<div class="scroll">{html_table(decision)}</div>'
    if (sheet := decision.scored) is not None:
        yield f"<h3>{to_html(sheet.title)}</h3>{sheet_html(sheet)}"
        yield f'<p class="note">{to_html(" ".join(sheet.reading))}</p>'


def _listing(heading: str, sentences: Sequence[str]) -> list[str]:
    if not sentences:
        return []
    items = "".join(f"<li>{to_html(text)}</li>" for text in dict.fromkeys(sentences))
    return [f'<h2>{heading}</h2><div class="note"><ul>{items}</ul></div>']


def _own_notes(decision: Decision, primary: Decision) -> list[str]:
    prefix = "" if decision is primary else f"{spoken(decision.metric)}: "
    return [note if note in primary.footnotes else prefix + note for note in decision.footnotes]


def _plan(decision: Decision) -> list[str]:
    """Describe every arm; columns of which nothing is known are left out."""
    every: list[tuple[str, bool, list[str]]] = [
        ("arm", False, list(decision.arms)),
        (
            "what differs from the baseline",
            False,
            [arm.get("differs") or wording.NONE for arm in decision.arms.values()],
        ),
        ("parameters", True, [wording.count(arm.get("parameters")) for arm in decision.arms.values()]),
        ("FLOPs per token", True, [wording.magnitude(arm.get("flops_per_token")) for arm in decision.arms.values()]),
        ("tokens", True, [wording.count(arm.get("tokens")) for arm in decision.arms.values()]),
        ("pairing", False, [wording.pairing(arm.get("pairing")) for arm in decision.arms.values()]),
        (
            "equal at start (without embeddings)",
            True,
            [wording.coverage(arm.get("coverage")) for arm in decision.arms.values()],
        ),
    ]
    known = [column for column in every if set(column[2]) != {wording.NONE}]
    if len(known) < 2:
        return []
    heads = "".join(f'<th scope="col"{_kind(numeric)}>{name}</th>' for name, numeric, _ in known)
    lines = zip(*(texts for _, _, texts in known), strict=True)
    kinds = [_kind(numeric) for _, numeric, _ in known]
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{to_html(text)}</td>" for kind, text in zip(kinds, line, strict=True)) + "</tr>"
        for line in lines
    )
    table = f'<table class="plan"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
    return [f'<h2>The plan</h2><div class="scroll">{table}</div>']


def _kind(numeric: bool) -> str:
    return ' class="number"' if numeric else ""
