"""Text from outside made harmless and exact in each format a report is written in.

Promises that a name reads in the result as it was written, except for control characters, which become spaces, and that
no name can end a cell, open a tag, run a macro or become a spreadsheet formula.
"""

from __future__ import annotations

import html
import re

LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "Δ": r"$\Delta$",
    "·": r"$\cdot$",
    "–": "--",
    "…": r"\ldots{}",
}
# XML forbids most control characters even as entities; U+FFFE and U+FFFF are no characters, surrogates no text.
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


def plain(text: object) -> str:
    """Return one line of text without control characters."""
    return FORBIDDEN.sub(" ", str(text))


def to_html(text: object) -> str:
    """Escape for HTML, SVG and XML, in content and in attributes."""
    return html.escape(plain(text), quote=True)


def to_latex(text: object) -> str:
    """Escape for LaTeX text. Letters of other scripts stay as they are and need a Unicode engine."""
    escaped = "".join(LATEX.get(character, character) for character in plain(text))
    escaped = re.sub("-(?=-)", "-{}", escaped)  # two hyphens would print as a dash
    return re.sub(r"^(\s*)([\[*])", r"\1{\2}", escaped)  # at the start of a row they would be read as arguments of \\


def to_markdown(text: object, *, leading: bool = False) -> str:
    """Escape for GitHub-flavoured Markdown, in a table cell or in running text.

    Args:
        text: What to write.
        leading: It stands at the start of a line or list item, where "1." or "#" would mean something.
    """
    escaped = re.sub(r"([\\`*|~&])", r"\\\1", plain(text))
    escaped = re.sub(r"(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])", r"\\_", escaped)  # inside a word it is only itself
    escaped = re.sub(r"<(?=[A-Za-z/!?])|\](?=[(\[:])", r"\\\g<0>", escaped)  # only these open a tag or a link
    return re.sub(r"^(\s*)(?:([-+=#>])|(\d+)(?=[.)]))", _disarm, escaped) if leading else escaped


def to_csv(text: object) -> str:
    """Return text that no spreadsheet takes for a formula: those get a leading apostrophe."""
    line = plain(text)
    return "'" + line if line.lstrip()[:1] in ("=", "+", "-", "@") and line.strip() else line


def _disarm(match: re.Match[str]) -> str:
    """Keep what stands at the start of a line from opening a list, a heading or a quotation."""
    space, marker, number = match.groups()
    return space + (f"\\{marker}" if marker else f"{number}\\")
