"""Filters in sequence, and what each of them did: kept in the cache as filters.json beside the tokens.

Promises that documents keep their order and their text, and that what was kept, what was dropped and why can be looked
at later. Refuses a filter that keeps nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from workbench.data.building import Report, damaged
from workbench.data.corpora import Document
from workbench.data.filters.decision import Decision, Rule, by_hash
from workbench.data.shelves import hashes_of, picked, sizes_of
from workbench.errors import DataError
from workbench.identity import Spec, canonical, digest

FILE = "filters.json"
SHOWN = 5  # documents of each kind
EXCERPT = 240  # characters
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
LIBRARIES = ("numpy", "scikit-learn", "datasketch", "sentence-transformers", "model2vec")


class Example(Spec):
    """One document that a filter kept or dropped; `beside` stands for it where it is a duplicate of that."""

    name: str
    score: float | None
    reasons: tuple[str, ...] = ()
    excerpt: str
    beside: str | None = None
    beside_excerpt: str | None = None


class Amount(Spec):
    """How much text there is: documents, and their bytes in UTF-8."""

    documents: int
    bytes: int


class Applied(Spec):
    """What one filter did.

    Attributes:
        kind: Of the filter.
        declared: The filter, as identity sees it.
        before: What came in.
        after: What it kept.
        reasons: How many documents each rule dropped; one may break several.
        quantiles: Of the score, by "0", "0.05" and so on; empty where nothing had one.
        sources: Before and after, by the part of a mixture; empty where there is only one.
        kept: A few documents it kept, chosen by hash.
        dropped: A few it dropped.
        figures: What it says of itself, such as the area under a classifier's curve (`auc`).
        kept_hash: Hash of which documents it kept.
        versions: Of the libraries that may have computed scores.
        seconds: How long it took.
    """

    kind: str
    declared: dict[str, object]
    before: Amount
    after: Amount
    reasons: dict[str, int]
    quantiles: dict[str, float]
    sources: dict[str, tuple[Amount, Amount]]
    kept: tuple[Example, ...]
    dropped: tuple[Example, ...]
    figures: dict[str, float]
    kept_hash: str
    versions: dict[str, str]
    seconds: float

    @property
    def share(self) -> float:
        """Documents kept, of those that came in."""
        return self.after.documents / max(self.before.documents, 1)

    @property
    def share_of_bytes(self) -> float:
        """Bytes kept, of those that came in."""
        return self.after.bytes / max(self.before.bytes, 1)


def apply_filters(
    filters: Sequence[Rule], documents: Sequence[Document], folder: Path, report: Report
) -> Sequence[Document]:
    """Return the documents that every filter keeps, in their order; each filter sees what those before it left.

    Args:
        filters: In the order in which they are applied; with none, nothing is written.
        documents: Training documents, which are not changed. Those on disk stay there, but for what a filter compares.
        folder: Where filters.json is written.
        report: Told what each filter does, and did.

    Raises:
        DataError: if a filter keeps nothing, or cannot work on these documents.
        MissingExtra: if a library that a filter needs is not installed.
    """
    held, told = documents, list[Applied]()
    for place, one in enumerate(filters):
        kind = str(getattr(one, "kind", type(one).__name__))
        report(f"filter {kind} looks at {len(held):,} documents")
        began = time.perf_counter()
        decision = one.decide(held) if len(held) else _empty()
        _refuse_nothing(one, decision, f"data.filters.{place}, {kind}")
        applied = _applied(one, kind, held, decision, time.perf_counter() - began)
        held = picked(held, decision.keep)
        told.append(applied)
        report(said(applied))
    if told:
        text = json.dumps([applied.model_dump(mode="json") for applied in told], indent=2, ensure_ascii=False)
        (folder / FILE).write_text(text, encoding="utf-8")
    return held


def read_applied(folder: Path) -> tuple[Applied, ...]:
    """Return what filters did to the prepared data in a folder of the cache; nothing where there was none.

    Raises:
        DataError: if the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return ()
    try:
        return tuple(Applied.model_validate(one) for one in json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise damaged(path, error) from None


def said(applied: Applied) -> str:
    """Say in a sentence what a filter did."""
    if applied.after == applied.before:
        return f"filter {applied.kind} kept all of {applied.before.documents:,} documents: it changes nothing here"
    return (
        f"filter {applied.kind} kept {applied.after.documents:,} of {applied.before.documents:,} documents "
        f"({applied.share:.1%}; {applied.share_of_bytes:.1%} of the bytes)"
    )


def _refuse_nothing(one: Rule, decision: Decision, where: str) -> None:
    if len(decision.keep) and not decision.keep.any():
        broken = Counter(reason for reasons in decision.reasons for reason in reasons)
        common = ", ".join(f"{reason} ({count:,})" for reason, count in broken.most_common(3))
        raise DataError(
            "a filter keeps no document",
            where=where,
            expected="at least one document that it keeps",
            got=f"{len(decision.keep):,} documents dropped, for: {common}",
            fix="loosen the filter; `passages` of the data sets how long the documents are that it sees",
        )


def _applied(one: Rule, kind: str, documents: Sequence[Document], decision: Decision, seconds: float) -> Applied:
    keep, scored = decision.keep, decision.score[~np.isnan(decision.score)]
    sizes, hashes = sizes_of(documents), hashes_of(documents)
    named = np.array([document.source for document in documents], dtype=object)
    parts = sorted(set(named.tolist()))
    order = by_hash(documents)
    return Applied(
        kind=kind,
        declared=canonical(one),
        before=_amount(sizes),
        after=_amount(sizes[keep]),
        reasons=dict(Counter(reason for reasons in decision.reasons for reason in reasons).most_common()),
        quantiles={f"{at:g}": float(np.quantile(scored, at)) for at in QUANTILES} if len(scored) else {},
        sources={part: (_amount(sizes[named == part]), _amount(sizes[(named == part) & keep])) for part in parts}
        if len(parts) > 1
        else {},
        kept=_examples(order[keep[order]], documents, decision),
        dropped=_examples(order[~keep[order]], documents, decision),
        figures=dict(decision.figures),
        kept_hash=digest([hashes[place] for place in np.flatnonzero(keep).tolist()]),
        versions=_versions(),
        seconds=round(seconds, 3),
    )


def _examples(places: np.ndarray, documents: Sequence[Document], decision: Decision) -> tuple[Example, ...]:
    found = []
    for place in places[:SHOWN].tolist():
        beside = -1 if decision.beside is None else int(decision.beside[place])
        score = float(decision.score[place])
        found.append(
            Example(
                name=documents[place].name,
                score=None if np.isnan(score) else score,
                reasons=decision.reasons[place],
                excerpt=_excerpt(documents[place].text),
                beside=documents[beside].name if beside >= 0 else None,
                beside_excerpt=_excerpt(documents[beside].text) if beside >= 0 else None,
            )
        )
    return tuple(found)


def _excerpt(text: str) -> str:
    words = " ".join(text[: 4 * EXCERPT].split())
    return words if len(words) <= EXCERPT else words[:EXCERPT] + "…"


def _amount(sizes: np.ndarray) -> Amount:
    return Amount(documents=len(sizes), bytes=int(sizes.sum()))


def _empty() -> Decision:
    return Decision(np.zeros(0, dtype=bool), np.zeros(0), ())


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
