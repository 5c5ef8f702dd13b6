"""Training documents without the items of benchmarks: removed, cut out, or left and told.

What is found is kept in the cache beside the tokens as contamination.json: per benchmark which items, in how many
documents, and the words. Promises that documents without overlap keep their text and all keep their order. Refuses to
leave nothing to train on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from workbench.data.benchmarks import Benchmark, read_items
from workbench.data.building import Report, damaged
from workbench.data.documents import Document
from workbench.data.overlap import SHORTEST, WORDS, Hit, Needles, Searched
from workbench.data.shelves import shelve, size_of
from workbench.errors import DataError
from workbench.identity import Spec, digest, setting

FILE = "contamination.json"
SHOWN = 100  # hits of each benchmark
EXCERPT = 400  # characters of their words
LEAST_PIECE = 200  # characters of a piece that is worth keeping: arXiv:2005.14165, appendix C
MOST_PIECES = 10  # into which a document is cut before it is dropped whole, by the same source


class Decontamination(Spec):
    """What becomes of training documents, or passages, that overlap with the items of benchmarks.

    `action="cut"` takes out what is shared with `window` characters on both sides, drops pieces of fewer than 200
    characters, and drops a document that would fall into more than ten (arXiv:2005.14165, appendix C). "flag" leaves
    the text as it is and tells what is in it: the control of the other two.

    Attributes:
        benchmarks: What must not stand in training text.
        n: Words in a row that count as overlap; see `overlap` for what a word is.
        shortest: Words that an item's text of fewer than `n` needs to be searched for, as a whole.
        action: Remove the document, cut the place out of it, or only tell.
        window: Characters on both sides that are cut with what is shared.
    """

    benchmarks: tuple[Benchmark, ...] = Field(min_length=1)
    n: int = setting(WORDS, ge=3)
    shortest: int = setting(SHORTEST, ge=1)
    action: Literal["remove", "cut", "flag"] = setting("remove")
    window: int = setting(200, ge=0)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        titles = [benchmark.title for benchmark in self.benchmarks]
        if len(set(titles)) < len(titles):
            raise ValueError(f"benchmarks: expected each once, got {', '.join(titles)}; called=... tells two apart")
        return self


class Shared(Spec):
    """Words that a document and an item share."""

    document: str
    item: str
    words: str


class Overlap(Spec):
    """What was found of one benchmark.

    Attributes:
        benchmark: Its name in tables.
        source: Hash of its files.
        items: How many were searched for.
        by_whole: Of them, those of fewer than n words, found only as a whole.
        too_short: Of them, those that were not searched for because they stand in any text.
        found: Names of the items that were found.
        documents: In how many documents.
        shared: The first hits, and their words.
    """

    benchmark: str
    source: str
    items: int
    by_whole: int
    too_short: int
    found: tuple[str, ...]
    documents: int
    shared: tuple[Shared, ...]


class Contamination(Spec):
    """What decontamination found and did. Bytes are those of UTF-8 text.

    Attributes:
        action: What was done with documents that overlap.
        n: Words in a row that counted.
        documents: Before.
        overlapping: Of them, those that overlap with any benchmark.
        kept: Documents afterwards, pieces of those that were cut included.
        bytes: Before.
        kept_bytes: Afterwards.
        overlaps: Per benchmark.
    """

    action: str
    n: int
    documents: int
    overlapping: int
    kept: int
    bytes: int
    kept_bytes: int
    overlaps: tuple[Overlap, ...]


class _Named(NamedTuple):
    name: str
    texts: Sequence[str]


def decontaminate(
    spec: Decontamination, documents: Sequence[Document], folder: Path, report: Report
) -> Sequence[Document]:
    """Return the training documents without what `spec` takes out, and write contamination.json.

    Args:
        spec: What to search for, and what to do with it.
        documents: Training documents. They are not changed.
        folder: Where contamination.json is written, and what is left, as an Arrow file that may be removed when it is
            no longer read.
        report: Told what was found.

    Raises:
        DataError: if a benchmark cannot be read, or nothing is left.
    """
    report(f"searching {len(documents):,} documents for items of {', '.join(one.title for one in spec.benchmarks)}")
    searched, hits = _search(spec, documents)
    kept = documents
    if spec.action != "flag" and any(hits):
        kept = shelve(_cleaned(spec, documents, hits), folder / "decontaminated.arrow")
    told = _told(spec, documents, kept, searched, hits)
    report(said(told))
    if documents and not kept:
        raise DataError(
            "decontamination leaves nothing to train on",
            where="data.decontamination",
            expected="a document that shares no words with the benchmarks",
            got=f"{told.overlapping:,} of {told.documents:,} documents overlap",
            fix='cut the shared words out of the documents (action="cut"), or cut these to passages first '
            "(data.passages)",
        )
    (folder / FILE).write_text(told.model_dump_json(indent=2), encoding="utf-8")
    return kept


def overlapping_documents(spec: Decontamination, documents: Sequence[Document]) -> set[int]:
    """Return the numbers of the documents that share words with an item of a benchmark.

    Raises:
        DataError: if a benchmark cannot be read.
    """
    return {hit.document for found in _search(spec, documents)[1] for hit in found}


def read_contamination(folder: Path) -> Contamination | None:
    """Return what was found in the prepared data in a folder of the cache; None where nothing was searched for.

    Raises:
        DataError: if the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return Contamination.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise damaged(path, error) from None


def told(folder: Path) -> list[dict[str, str]]:
    """Return what was found in the prepared data in a folder of the cache, as rows of a table of plain text.

    One row per benchmark: "benchmark", "items", "too short to find", "items found", "documents", "for example".

    Raises:
        DataError: if the file is damaged.
    """
    found = read_contamination(folder)
    return [] if found is None else [_row(overlap) for overlap in found.overlaps]


def said(found: Contamination) -> str:
    """Say in a sentence what decontamination found and did."""
    items = sum(len(overlap.found) for overlap in found.overlaps)
    if not items:
        return f"none of {found.documents:,} documents holds words of a benchmark item"
    where = f"{found.overlapping:,} of {found.documents:,} documents hold words of {items:,} benchmark items"
    if found.action == "flag":
        return f"{where}; they are left as they are"
    verb = {"remove": "removed", "cut": "cut"}[found.action]
    lost = 100 * (1 - found.kept_bytes / max(found.bytes, 1))
    return f"{where}; these documents were {verb}, {lost:.2g} % of the text"


# --- searching


def _search(spec: Decontamination, documents: Sequence[Document]) -> tuple[list[Searched], list[list[Hit]]]:
    """Search for all benchmarks at once; return what can be found of each, and what was."""
    items = [read_items(benchmark) for benchmark in spec.benchmarks]
    named = [_Named(f"{number}/{item.name}", item.texts) for number, held in enumerate(items) for item in held]
    ends = [0, *accumulate(map(len, items))]
    needles = Needles(named, spec.n, spec.shortest)
    hits: list[list[Hit]] = [[] for _ in items]
    for hit in needles.find(document.text for document in documents):
        number, _, name = hit.item.partition("/")
        hits[int(number)].append(hit._replace(item=name))
    return [needles.searched(slice(*span)) for span in pairwise(ends)], hits


def _told(
    spec: Decontamination,
    before: Sequence[Document],
    after: Sequence[Document],
    searched: Sequence[Searched],
    hits: Sequence[Sequence[Hit]],
) -> Contamination:
    overlaps = []
    for benchmark, possible, found in zip(spec.benchmarks, searched, hits, strict=True):
        overlaps.append(
            Overlap(
                benchmark=benchmark.title,
                source=digest(benchmark),
                items=sum(possible),
                by_whole=possible.by_whole,
                too_short=possible.too_short,
                found=tuple(dict.fromkeys(hit.item for hit in found)),
                documents=len({hit.document for hit in found}),
                shared=tuple(
                    Shared(document=before[hit.document].name, item=hit.item, words=hit.words[:EXCERPT])
                    for hit in found[:SHOWN]
                ),
            )
        )
    return Contamination(
        action=spec.action,
        n=spec.n,
        documents=len(before),
        overlapping=len({hit.document for found in hits for hit in found}),
        kept=len(after),
        bytes=size_of(before),
        kept_bytes=size_of(after),
        overlaps=tuple(overlaps),
    )


def _row(overlap: Overlap) -> dict[str, str]:
    return {
        "benchmark": overlap.benchmark,
        "items": f"{overlap.items:,}",
        "too short to find": f"{overlap.too_short:,}",
        "items found": f"{len(overlap.found):,}",
        "documents": f"{overlap.documents:,}",
        "for example": overlap.shared[0].words if overlap.shared else "",
    }


# --- taking out


def _cleaned(spec: Decontamination, documents: Sequence[Document], hits: Sequence[Sequence[Hit]]) -> Iterator[Document]:
    spans: dict[int, list[tuple[int, int]]] = {}
    for hit in (hit for found in hits for hit in found):
        spans.setdefault(hit.document, []).append((hit.start, hit.stop))
    for number, document in enumerate(documents):
        if number not in spans:
            yield document
        elif spec.action == "cut":
            pieces = [*_pieces(document.text, sorted(spans[number]), spec.window)]
            if len(pieces) <= MOST_PIECES:
                for place, text in enumerate(pieces, start=1):
                    yield Document(f"{document.name}/{place}", text, document.source)


def _pieces(text: str, spans: Sequence[tuple[int, int]], window: int) -> Iterator[str]:
    """Yield what is left between `spans` (character, character after), each widened by `window` and to whole words."""
    begin = 0
    for start, stop in [*spans, (len(text) + window, len(text) + window)]:
        end = max(begin, start - window)
        if end < len(text):
            end = max(begin, *(text.rfind(space, begin, end + 1) for space in " \n"))
        if len(piece := text[begin:end].strip()) >= LEAST_PIECE:
            yield piece
        after = (text.find(space, min(stop + window, len(text))) for space in " \n")
        begin = max(begin, min((place for place in after if place >= 0), default=len(text)))
