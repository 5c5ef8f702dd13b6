"""The command that shows what a sweep trains on, and what filters did to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.options import HOME, Corpus, Home, SweepName
from workbench.errors import PlanError

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.data.filters.applying import Applied, Example
    from workbench.data.prepared import Data, Prepared
    from workbench.planning import Plan

QUARTILES = ("0", "0.25", "0.5", "0.75", "1")


def data(
    sweep: SweepName,
    arm: Annotated[str | None, typer.Argument(metavar="[ARM]", help="Only this arm's data.")] = None,
    corpus: Corpus = None,
    home: Home = HOME,
) -> None:
    """Show what every arm trains on: documents, bytes, tokens, sources, and what each filter kept and dropped.

    What is not prepared yet is prepared. Examples are drawn by hash, not picked: read them before you trust a filter.

    workbench data filters "near duplicates"
    """
    from workbench.data.prepared import prepare
    from workbench.session import open_session
    from workbench.terminal import console

    session = open_session(sweep, home, corpus)
    session.store.ensure_writable()
    for arms, declared in _distinct(session.plan, arm):
        told = prepare(declared, session.store.cache, lambda line: console.print(f"[dim]{_safe(line)}[/dim]"))
        _show(arms, told, session.store.cache)


def _distinct(plan: Plan, wanted: str | None) -> Iterator[tuple[list[str], Data]]:
    """Return the data of a plan, each with the arms that train on it."""
    from workbench.configuration import Configuration
    from workbench.identity import digest

    found: dict[str, tuple[list[str], Data]] = {}
    for one in plan.arms:
        if isinstance(one.configuration, Configuration) and wanted in (None, one.name):
            key = digest(one.configuration.data)
            found.setdefault(key, ([], one.configuration.data))[0].append(one.name)
    if not found:
        raise PlanError(
            "there are no data to show",
            where=wanted or "the sweep",
            expected="an arm that trains here: " + ", ".join(one.name for one in plan.arms)
            if wanted
            else "an arm that is no command of yours",
            got="none",
        )
    yield from found.values()


def _show(arms: list[str], prepared: Prepared, cache: Path) -> None:
    from workbench.cli.models import print_table
    from workbench.data.decontamination import read_contamination, said, told
    from workbench.data.filters.applying import read_applied
    from workbench.data.prepared import folder_of
    from workbench.terminal import console

    facts = prepared.facts
    console.print(f"\n[bold]{_safe(', '.join(arms))}[/bold]")
    rows = [
        ("to train on", facts.training_documents, facts.training_bytes, f"{facts.training_tokens:,}"),
        ("held out", facts.held_out_documents, facts.held_out_bytes, ""),
    ]
    for part in facts.sources:
        rows.append((f"  {part.name}", part.training_documents, part.training_bytes, f"{part.training_tokens:,}"))
    table = [(_clean(name), f"{count:,}", f"{size:,}", tokens) for name, count, size, tokens in rows]
    print_table(("", "documents", "bytes", "tokens"), table)
    console.print(
        f"{facts.documents:,} distinct documents in the corpus ({facts.duplicates:,} repeated ones left out), "
        f"{facts.bytes_per_token:.2f} bytes per token",
        soft_wrap=True,
    )
    folder = folder_of(prepared.key, cache)
    for applied in read_applied(folder):
        _show_filter(applied)
    if (found := read_contamination(folder)) is not None:
        console.print(f"\n[bold]{_safe(said(found))}[/bold]", soft_wrap=True)
        overlaps = told(folder)
        print_table(tuple(overlaps[0]), [tuple(map(_clean, row.values())) for row in overlaps])


def _show_filter(applied: Applied) -> None:
    from workbench.cli.models import print_table
    from workbench.data.filters.applying import said
    from workbench.terminal import console

    console.print(f"\n[bold]{_safe(said(applied))}[/bold] in {applied.seconds:.1f} s", soft_wrap=True)
    told = [f"dropped for {name}: {count:,}" for name, count in applied.reasons.items()]
    if applied.quantiles:
        told.append("score, from lowest to highest in quarters: " + _numbers(applied))
    told += [f"{name.replace('_', ' ')}: {value:.4g}" for name, value in applied.figures.items()]
    for line in told:
        console.print(f"  {_safe(line)}", soft_wrap=True)
    if applied.sources:
        everything = applied.before.bytes, max(applied.after.bytes, 1)
        rows = [
            (
                _clean(name),
                f"{before.documents:,}",
                f"{after.documents:,}",
                f"{after.documents / max(before.documents, 1):.1%}",
                f"{before.bytes / everything[0]:.1%}",
                f"{after.bytes / everything[1]:.1%}",
            )
            for name, (before, after) in applied.sources.items()
        ]
        print_table(("source", "documents", "kept", "", "share of bytes", "afterwards"), rows)
    for title, examples in (("dropped", applied.dropped), ("kept", applied.kept)):
        for example in examples:
            _show_example(title, example)


def _show_example(title: str, example: Example) -> None:
    from workbench.terminal import console

    score = "" if example.score is None else f"  score {example.score:.3g}"
    why = f"  ({', '.join(example.reasons)})" if example.reasons else ""
    console.print(f"  [dim]{title}[/dim] {_safe(example.name)}{score}{_safe(why)}", soft_wrap=True)
    console.print(f"    {_safe(example.excerpt)}", soft_wrap=True)
    if example.beside is not None:
        console.print(f"    [dim]beside[/dim] {_safe(example.beside)}: {_safe(example.beside_excerpt)}", soft_wrap=True)


def _numbers(applied: Applied) -> str:
    return ", ".join(f"{applied.quantiles[at]:.3g}" for at in QUARTILES if at in applied.quantiles)


def _clean(text: object) -> str:
    """Return one line of text that cannot command the terminal: invisible characters become spaces."""
    from workbench.reporting.escaping import plain

    return "".join(one if one.isprintable() else " " for one in plain(text))


def _safe(text: object) -> str:
    """Return one line of text that cannot mark itself up either."""
    from rich.markup import escape

    return escape(_clean(text))
