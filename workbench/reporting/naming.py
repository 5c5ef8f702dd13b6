"""How a metric is called, and which view of a model its name says: "bits_per_byte@2x" is one of "bits_per_byte".

The exact name stays in tables to compute with; titles, sentences and axes get `spoken` ones.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Kind = Literal["context", "exit", "confidence", "tokens"]


class View(NamedTuple):
    """A metric's name taken apart.

    Attributes:
        metric: The metric, whatever the view; a task's name in front of it stays.
        kind: What the view varies; None where the name says nothing or something of the user's own.
        value: The multiple of the training context, the exit, the confidence, or the tokens read by then.
    """

    metric: str
    kind: Kind | None = None
    value: float = 1.0


def view_of(name: str) -> View:
    """Take a metric's name apart; "bits_per_byte" itself is the view at one training context."""
    metric, at, view = name.partition("@")
    if not at:
        return View(name, "context", 1.0)
    if longer := re.fullmatch(r"(\d+)x", view):
        return View(metric, "context", float(longer[1]))
    if early := re.fullmatch(r"exit=(\d+)", view):
        return View(metric, "exit", float(early[1]))
    if sure := re.fullmatch(r"confidence=(0?\.\d+|\d+e-\d+)", view):
        return View(metric, "confidence", float(sure[1]))
    if on_the_way := re.fullmatch(r"tokens=(\d+)", view):
        return View(metric, "tokens", float(on_the_way[1]))
    return View(name)


def spoken(metric: str) -> str:
    """Write a metric's name for people: "bits_per_byte@2x" is "bits per byte at 2× context"."""
    if metric.endswith("@clean"):
        return f"{spoken(metric.removesuffix('@clean'))} without contaminated items"
    asked, about, source = metric.partition("@source=")
    if about:
        return f"{asked.replace('_', ' ')} on {source}"
    found = view_of(metric)
    name, value = found.metric.replace("_", " "), f"{found.value:g}"
    if found.kind is None or "@" not in metric:
        return name
    if found.kind == "tokens":
        return f"{name} after {found.value:,.0f} tokens"
    return f"{name} at {value}× context" if found.kind == "context" else f"{name} at {found.kind} {value}"


def with_unit(metric: str, unit: str | None) -> str:
    """Write a metric's name for an axis, its unit in parentheses where the name does not say it already."""
    name = spoken(metric)
    return name if not unit or name.startswith(unit) else f"{name} ({unit})"
