from __future__ import annotations

import csv
import dataclasses
import io
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import invented_sweep
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from workbench.errors import StoreError
from workbench.records import Numerics, Status
from workbench.reporting import (
    Decision,
    csv_table,
    decide_plan,
    forest_plot,
    html_page,
    html_table,
    latex_table,
    markdown_report,
    markdown_table,
    to_terminal,
    verdict_lines,
    write_report,
)
from workbench.reporting.describing import describe_numerics
from workbench.reporting.escaping import plain, to_csv, to_html, to_latex, to_markdown
from workbench.reporting.report import portable
from workbench.reporting.tables import columns, rows

HOSTILE = [
    "<script>alert(1)</script>",
    r"\input{secret} & 50% $x_1$ ~^#{}",
    "=HYPERLINK(1)",
    "[bold]red[/bold]|`a`",
    "a\nb",
]
TEXTS = st.text(max_size=40)


def decide(lost=None, count=None) -> list[Decision]:
    document = invented_sweep.plan()
    return decide_plan(document, invented_sweep.records(document, lost)[:count], invented_sweep.scores)


@pytest.fixture(scope="module")
def decisions() -> list[Decision]:
    return decide({("none", 2): Status.DIVERGED, ("swiglu", 1): Status.FAILED})


def renamed(decision: Decision, names: list[str]) -> Decision:
    """Give the arms, the question and the footnotes hostile names."""
    contrasts = tuple(dataclasses.replace(c, arm=name) for c, name in zip(decision.contrasts, names, strict=False))
    arms = {name: {"differs": name, "parameters_difference": 1} for name in names}
    hostile = " ".join(names)
    return dataclasses.replace(
        decision,
        contrasts=contrasts,
        arms=arms,
        question=hostile,
        title=hostile,
        footnotes=tuple(names),
        baseline=names[0],
    )


def printed(decision: Decision, width: int = 160) -> str:
    sink = io.StringIO()
    Console(file=sink, width=width, color_system=None).print(to_terminal(decision, width=width))
    return sink.getvalue()


def cells_of_markdown(text: str) -> list[list[str]]:
    """Read a Markdown table back with an independent parser: the plain text of every cell."""
    table, row = [], []
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    for before, token in pairwise(tokens):
        if token.type == "tr_open":
            row = []
        if token.type == "inline" and before.type in ("th_open", "td_open"):
            assert {child.type for child in token.children or ()} <= {"text", "text_special"}, token.content
            row.append("".join(child.content for child in token.children or ()))
        if token.type == "tr_close":
            table.append(row)
    return table


class Tags(HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        if self.lasttag != "style":
            self.text += data


def drawn(decision: Decision) -> ElementTree.Element:
    return ElementTree.fromstring(forest_plot(decision))  # noqa: S314 (our own drawing)


def test_verdicts_read_as_sentences(decisions):
    lines = verdict_lines(decisions[0])
    assert lines[1] == "learned: worse: 0.148 bits per byte more [0.137, 0.159]"
    assert lines[5] == "rotary again: equivalent: +0.001 bits per byte, within the ±0.03 that does not matter"
    assert lines[2].endswith("less than the 0.03 that matters")
    assert "more than 50 more seeds would be needed" in verdict_lines(decisions[1])[0]
    assert verdict_lines(decisions[1])[2].endswith("diverged in 1 seed")


def test_every_format_shows_the_same_rows(decisions):
    primary = decisions[0]
    expected = [list(row.cells) for row in rows(primary)]
    assert cells_of_markdown(markdown_table(primary))[1:] == expected
    lines = re.findall(r"<tr class.*?</tr>", html_table(primary), re.S)
    assert [[Tags(cell).text for cell in re.findall(r"<td.*?</td>", line)] for line in lines] == expected
    terminal = printed(primary, 220)
    for row in expected:
        for cell in row:
            assert cell.split()[0] in terminal


def test_the_table_of_an_incomplete_plan_has_neither_p_nor_verdict():
    (primary, _) = decide(count=19)
    headings = [column.heading for column in columns(primary)]
    assert headings == ["arm", "difference so far", "sd", "seeds so far", "what differs", "Δ parameters"]
    for text in (printed(primary), markdown_report([primary]), html_page([primary])):
        assert "19 of 35 cells" in text
        assert "3 of 5" in text
        assert not re.search("undecided|equivalent|p adj", Tags(text).text.partition("How it was decided")[0])


def test_a_narrow_terminal_gets_the_columns_a_paper_gets(decisions):
    assert "what differs" in printed(decisions[0], 160)
    assert "what differs" not in printed(decisions[0], 100)
    assert max(map(len, printed(decisions[0], 100).splitlines())) <= 100


def test_the_report_has_all_its_files_and_the_same_bytes_twice(decisions, tmp_path):
    first = write_report(decisions, tmp_path / "a" / "report")
    second = write_report(decisions, tmp_path / "b")
    assert [path.name for path in first] == ["report.md", "table.tex", "table.csv", "forest.svg", "report.html"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_report_holds_nulls_controls_lost_runs_and_the_plan(decisions):
    text = markdown_report(decisions)
    for expected in (
        "at the baseline's hyperparameters",
        "**rotary again** equivalent",
        "**half tokens** worse",
        "none, seed 2 diverged: the loss is not a number",
        "failed on its machine in seed 1; judged on 4 of 5 seeds",
        invented_sweep.plan()["hash"],
        "## Exploratory: accuracy",
    ):
        assert expected in text


def test_a_folder_that_cannot_be_written_is_said_so(decisions, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="the report cannot be written"):
        write_report(decisions, tmp_path / "file" / "report")


def test_the_page_needs_no_script_and_no_other_file(decisions):
    page = Tags(html_page([renamed(decisions[0], HOSTILE), decisions[1]]))
    assert not page.tags & {"script", "link", "img", "iframe", "object", "a"}
    assert not [value for name, value in page.attributes if name.startswith(("on", "src", "href"))]
    assert "<script>alert(1)</script>" in page.text
    assert "@import" not in page.text
    assert "url(" not in page.text


@settings(max_examples=15, deadline=None)
@given(st.lists(TEXTS, min_size=6, max_size=6, unique=True))
def test_the_plot_is_well_formed_whatever_the_names(decisions, names):
    figure = drawn(renamed(decisions[0], names))
    assert len(figure.findall(".//{*}circle")) >= 25


def test_the_plot_shows_every_pair_and_the_band(decisions):
    figure = drawn(decisions[0])
    seeds = [circle for circle in figure.iter("{http://www.w3.org/2000/svg}circle") if circle.get("r") == "2.4"]
    assert len(seeds) == 3 * 5 + 2 * 4  # the sixth arm shares no seed with the baseline
    for shape in figure.iter():
        for name in ("x", "cx", "x1", "x2"):
            assert 0 <= float(shape.get(name, 0)) <= 820


@pytest.mark.parametrize("scale", [1e-9, 1e6])
def test_plot_and_table_hold_at_every_scale(decisions, scale):
    def resized(contrast):
        numbers = {name: getattr(contrast, name) for name in ("estimate", "low", "high", "sd", "mde")}
        seeds = tuple((seed, value * scale) for seed, value in contrast.differences)
        return dataclasses.replace(contrast, differences=seeds, **{k: v * scale for k, v in numbers.items()})

    primary = decisions[0]
    large = dataclasses.replace(primary, contrasts=tuple(map(resized, primary.contrasts)), smallest_effect=0.03 * scale)
    figure = drawn(large)
    ticks = [text for text in figure.iter("{http://www.w3.org/2000/svg}text") if text.get("class") == "small number"]
    assert 3 <= len(ticks) <= 9
    assert "nan" not in markdown_table(large).lower()


def test_the_csv_reads_back_in_full_precision(decisions):
    table = list(csv.DictReader(io.StringIO(csv_table(decisions))))
    contrasts = [contrast for decision in decisions for contrast in decision.contrasts]
    assert [float(row["difference"]) for row in table] == [contrast.estimate for contrast in contrasts]
    assert table[0]["arm"] == "alibi"
    assert table[6]["p_equivalence"] == ""


def test_no_name_becomes_a_formula(decisions):
    hostile = renamed(decisions[0], ["=1+1", "+1", "-1", "@x", "\t=1", "plain"])
    table = list(csv.DictReader(io.StringIO(csv_table([hostile]))))
    assert [row["arm"] for row in table] == ["'=1+1", "'+1", "'-1", "'@x", "' =1", "plain"]
    assert float(table[0]["difference"]) < 0


@given(TEXTS)
def test_no_text_becomes_a_formula_and_the_rest_is_kept(text):
    assert to_csv(text).lstrip()[:1] not in tuple("=+-@")
    assert to_csv(text).removeprefix("'") == plain(text).removeprefix("'")


@given(st.lists(st.lists(TEXTS, min_size=2, max_size=2), min_size=1, max_size=3))
def test_a_markdown_cell_reads_as_it_was_written(table):
    lines = ["| a | b |", "| --- | --- |"] + ["| " + " | ".join(map(to_markdown, row)) + " |" for row in table]
    read = cells_of_markdown("\n".join(lines))[1:]
    assert read == [[plain(cell).strip() for cell in row] for row in table]


@given(TEXTS.filter(lambda text: plain(text).strip()))
def test_a_markdown_bullet_reads_as_it_was_written(text):
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse("- " + to_markdown(plain(text).strip(), leading=True))
    kinds = [token.type for token in tokens]
    assert kinds[:3] == ["bullet_list_open", "list_item_open", "paragraph_open"]
    inline = next(token for token in tokens if token.type == "inline")
    assert "".join(child.content for child in inline.children) == plain(text).strip()


@given(TEXTS)
def test_html_reads_as_it_was_written(text):
    page = Tags(f'<p title="{to_html(text)}">{to_html(text)}</p>')
    assert page.text == plain(text)
    assert page.attributes == [("title", plain(text))]
    assert page.tags == {"p"}


@given(TEXTS)
def test_latex_has_no_live_character_left(text):
    escaped = to_latex(text)
    bare = re.sub(r"\\[{}$&#%_]|\\[a-z]+\{\}|\$\\[a-zA-Z]+\$|\$-\$|\{\}|\{[\[*]\}", "", escaped)
    assert not set(bare) & set("\\{}$&#%_^~<>|`")
    assert "--" not in re.sub("–", "", escaped) or "–" in text
    assert not escaped.lstrip().startswith(("[", "*"))


def test_latex_rows_have_as_many_cells_as_columns(decisions):
    table = latex_table(renamed(decisions[0], [*HOSTILE, "[x]"]))
    body = table[table.index(r"\midrule") : table.index(r"\bottomrule")].splitlines()[1:]
    width = len(re.search(r"tabular\}\{([lr]+)\}", table)[1])
    assert len(body) == 6
    assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in body} == {width}
    assert r"\textless{}script\textgreater{}" in table


def test_a_terminal_prints_names_and_not_their_markup(decisions):
    text = printed(renamed(decisions[0], [*HOSTILE, "x"]), 220)
    assert "[bold]red[/bold]|`a`" in text
    assert "│" not in text
    assert re.search(r"^  a b ", text, re.M)


def test_numerics_are_told_without_what_is_as_usual() -> None:
    plain = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1)
    told = "execution loop, attention sdpa, precision float32, device cpu, threads 1"
    assert describe_numerics(plain.model_dump()) == told
    assert describe_numerics(plain.model_copy(update={"devices": 2, "matmul": "int8"}).model_dump()) == (
        f"{told}, devices 2, matmul int8"
    )


def test_an_exported_plan_tells_no_absolute_path(tmp_path: Path) -> None:
    held = {
        "spec": [{"path": str(tmp_path / "sweeps" / "a.jsonl")}, {"path": "/opt/lib/site-packages/corpus/texts"}],
        "data": {"path": "/home/somebody/secret/corpus.txt", "command": "/usr/bin/train.py --seed {seed}"},
        "diff": [{"path": "stages.0.tokens", "baseline": 1, "arm": 2}],
    }
    assert portable(held, tmp_path) == {
        "spec": [{"path": "sweeps/a.jsonl"}, {"path": "site-packages/corpus/texts"}],
        "data": {"path": "corpus.txt", "command": "/usr/bin/train.py --seed {seed}"},
        "diff": [{"path": "stages.0.tokens", "baseline": 1, "arm": 2}],
    }
