"""From contrasts to what people read: tables, a figure, a page, with every name escaped and every null in it."""

from workbench.reporting.analysis import analyze
from workbench.reporting.decision import Decision, decide_plan
from workbench.reporting.forest import forest_plot
from workbench.reporting.page import html_page
from workbench.reporting.report import markdown_report, verdict_lines, write_report
from workbench.reporting.tables import csv_table, html_table, latex_table, markdown_table, to_terminal

__all__ = [
    "Decision",
    "analyze",
    "csv_table",
    "decide_plan",
    "forest_plot",
    "html_page",
    "html_table",
    "latex_table",
    "markdown_report",
    "markdown_table",
    "to_terminal",
    "verdict_lines",
    "write_report",
]
