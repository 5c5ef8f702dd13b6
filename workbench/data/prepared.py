"""Prepared data: the tokens to train on, the documents to evaluate on, and the tokenizer between them.

Promises that what is prepared is a function of the corpus's bytes, the tokenizer's declaration and the held-out
fraction, and nothing else; that it is built once per cache, whole or not at all, however many processes ask at once;
and that no held-out document, or copy of one, is trained on or shapes the tokenizer. Refuses a damaged cache, and
(`check`) a corpus that cannot carry an experiment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from workbench.data.building import Pace, Report, damaged, sole_builder, whole
from workbench.data.corpora import Corpus, Document, Speeches, fingerprint, parts_of, stream_documents
from workbench.data.decontamination import Decontamination, decontaminate
from workbench.data.filters import Filter
from workbench.data.filters.applying import apply_filters
from workbench.data.ordering import SHUFFLED, Order
from workbench.data.passages import cut
from workbench.data.shelves import Shelf, shelve, shelve_distinct, size_of
from workbench.data.splits import is_held_out
from workbench.data.token_files import TokenFile, Written, read_tokens, write_tokens
from workbench.data.tokenizer import BytePairs, Tokenizer
from workbench.data.vocabularies import TokenizerChoice, learns, making
from workbench.errors import DataError, StoreError
from workbench.identity import Spec, added, canonical, digest, setting

__all__ = [
    "Data",
    "Facts",
    "Prepared",
    "SourceFacts",
    "TokenFile",
    "check",
    "known_facts",
    "known_tokenizer",
    "prepare",
]

LAYOUT = 1  # raised when the files of the cache change; part of the cache's key, not of the data's identity
LEARNED_FROM = 200_000_000  # bytes of text from which a tokenizer learns at most; every corpus up to then, whole


class Data(Spec):
    """What text a model learns from and is examined on.

    Attributes:
        corpus: Where documents come from.
        tokenizer: How text becomes tokens.
        held_out: Share of the documents that is never trained on, chosen by a hash of their text.
        validation: Where the held-out documents come from instead; those that the corpus holds too are not trained on.
        passages: Training documents are cut to passages of about so many bytes, between paragraphs or lines, after the
            split: what is filtered, shuffled and followed by end_of_text is then a passage. None leaves them whole.
        filters: Which of the training documents, or passages, are kept; each filter sees what those before it left.
        decontamination: What becomes of training documents that overlap with benchmarks, after all filters, and of
            examples for fine-tuning (`taught`).
        order: In which order pretraining reads the training documents; no part of the prepared files.
    """

    corpus: Corpus = setting(Speeches())
    tokenizer: TokenizerChoice = setting(BytePairs())
    held_out: float = setting(0.05, gt=0, lt=1)
    validation: Corpus | None = added(None)
    passages: int | None = added(None, ge=256)
    filters: tuple[Filter, ...] = Field((), json_schema_extra={"effect": "function", "neutral": []})
    decontamination: Decontamination | None = added(None)
    order: Order = Field(SHUFFLED, json_schema_extra={"effect": "function", "neutral": {"kind": "shuffled"}})

    def fingerprint(self) -> str:
        """Hash the raw bytes that these data are made of: identity without a cache or a tokenizer.

        Raises:
            DataError: if a corpus is missing or cannot be read.
            MissingExtra: if the embedded corpus is not installed.
        """
        whole = fingerprint(self.corpus)
        return whole if self.validation is None else digest(whole, fingerprint(self.validation))

    def identity(self, fingerprint: str) -> dict[str, Any]:
        """Return what identifies these data, given the `fingerprint` of their bytes: plain JSON, no path."""
        fields = {**canonical(self), "corpus": fingerprint}
        if fields.pop("validation", None) is not None:
            del fields["held_out"]  # says nothing where the held-out documents are given
        return fields

    def prepared_as(self, fingerprint: str) -> dict[str, Any]:
        """Return what identifies the files made of these data: all but the order in which documents are read."""
        return {name: held for name, held in self.identity(fingerprint).items() if name != "order"}


class SourceFacts(Spec):
    """Counts of one source of a mixture, as those in `Facts`."""

    name: str
    training_documents: int
    training_bytes: int
    training_tokens: int
    held_out_documents: int
    held_out_bytes: int


class Facts(Spec):
    """Counts that describe prepared data. Bytes are those of UTF-8 text; tokens include an end_of_text per document."""

    documents: int
    duplicates: int
    held_out_documents: int
    held_out_bytes: int
    training_documents: int
    training_bytes: int
    training_tokens: int
    vocabulary: int
    learned_vocabulary: int
    sources: tuple[SourceFacts, ...] = ()

    @property
    def bytes_per_token(self) -> float:
        """Bytes of training text per token, end_of_text not counted; 0 where there is no training text."""
        return self.training_bytes / max(self.training_tokens - self.training_documents, 1)


@dataclass(frozen=True)
class Prepared:
    """Data ready to train and evaluate on; `key` hashes what identifies it.

    Attributes:
        key: Hash of what identifies the files, which the order of reading does not.
        tokenizer: Between text and tokens.
        train: What is trained on.
        held_out: What is evaluated on; each document knows its source.
        facts: Counts.
        order: In which order pretraining reads `train`.
        folder: Where the files lie, and what is measured of them later; None where they lie in memory only.
        decontamination: What the data declare of text that overlaps with benchmarks; done to `train` already.
    """

    key: str
    tokenizer: Tokenizer
    train: TokenFile
    held_out: tuple[Document, ...]
    facts: Facts
    order: Order = SHUFFLED
    folder: Path | None = None
    decontamination: Decontamination | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources of a mixture, in the order of their numbers in `train.sources`; else nothing."""
        return tuple(source.name for source in self.facts.sources)


def prepare(data: Data, cache: Path, report: Report | None = None) -> Prepared:
    """Return prepared data from `cache`, building it first where it is not there yet.

    Args:
        data: What to prepare.
        cache: Folder for all prepared data; each lies in a folder of its own, named by its content.
        report: Told, in words, what is being done, when something has to be.

    Raises:
        DataError: if the corpus, or what the cache holds of it, cannot be used.
        StoreError: if the cache cannot be written.
    """
    key = digest(data.prepared_as(data.fingerprint()))
    folder = cache / "data" / f"{key}-{LAYOUT}"
    if not folder.exists():
        report = report or (lambda line: None)
        try:
            with sole_builder(folder, report, "prepares this corpus"):
                if not folder.exists():
                    with whole(folder) as part:
                        _build(data, part, cache, report)
        except OSError as error:
            raise StoreError(
                "the cache cannot be written",
                where=error.filename or folder,
                got=error.strerror or str(error),
                fix="free some space, or name another runtime folder with --home FOLDER or WORKBENCH_HOME",
            ) from None
    return replace(_load(key, folder), order=data.order, decontamination=data.decontamination)


def folder_of(key: str, cache: Path) -> Path:
    """Return the folder of `cache` in which prepared data lie, by their key, whether they are there or not."""
    return cache / "data" / f"{key}-{LAYOUT}"


def known_facts(data: Data, fingerprint: str, cache: Path) -> Facts | None:
    """Return the counts of data that `cache` holds already, given its corpus's fingerprint; None where it does not."""
    try:
        text = (cache / "data" / f"{digest(data.prepared_as(fingerprint))}-{LAYOUT}" / "facts.json").read_bytes()
        return Facts.model_validate_json(text)
    except (OSError, ValueError):
        return None


def known_tokenizer(key: str, cache: Path) -> Tokenizer | None:
    """Return the tokenizer of prepared data by their key; None where `cache` does not hold them.

    Raises:
        DataError: if it is damaged.
    """
    folder = cache / "data" / f"{key}-{LAYOUT}"
    try:
        facts = Facts.model_validate_json((folder / "facts.json").read_bytes())
    except (OSError, ValueError):
        return None
    return Tokenizer.load(folder / "tokenizer.json", facts.vocabulary)


def check(prepared: Prepared, context: int) -> None:
    """Refuse data that is too small to train on windows of `context` tokens, or has nothing to evaluate on.

    Raises:
        DataError: saying which, and what would help.
    """
    facts = prepared.facts
    if facts.training_tokens < context + 1:
        raise DataError(
            "the corpus is shorter than one context",
            where="data.corpus",
            expected=f"at least {context + 1:,} training tokens (context {context:,}, and the token after it)",
            got=f"{facts.training_tokens:,} tokens in {facts.training_documents:,} documents",
            fix="use more text or a shorter context",
        )
    if not prepared.held_out:
        raise DataError(
            "no document is held out for evaluation",
            where="data.held_out",
            expected="at least one held-out document",
            got=f"none of {facts.documents:,} documents",
            fix="raise held_out (`workbench train --held-out`), or give more documents: a line <|endoftext|> "
            "separates them in a text file",
        )


# --- building, once


def _build(data: Data, part: Path, cache: Path, report: Report) -> None:
    report("reading the corpus")
    documents, duplicates = _read(data.corpus, part / "documents.arrow", cache, report)
    apart, held_out = _sides(data, documents, part, cache, report)
    report(making(data.tokenizer, len(apart)))
    # from all of them, before any is cut or dropped: arms that choose their text differently share one tokenizer
    tokenizer = data.tokenizer.train(_sample(apart) if learns(data.tokenizer) else [])
    tokenizer.save(part / "tokenizer.json")
    training = _chosen(data, apart, part, report)
    sources = parts_of(data.corpus)
    written = write_tokens(part, training, tokenizer, sources, report)
    _write_held_out(part / "held_out.parquet", held_out)
    facts = Facts(
        documents=len(documents),
        duplicates=duplicates,
        held_out_documents=len(held_out),
        held_out_bytes=size_of(held_out),
        training_documents=len(training),
        training_bytes=int(written.sizes.sum()),
        training_tokens=int(written.lengths.sum()),
        vocabulary=tokenizer.vocabulary,
        learned_vocabulary=tokenizer.learned,
        sources=tuple(_source_facts(name, number, written, held_out) for number, name in enumerate(sources)),
    )
    (part / "facts.json").write_text(facts.model_dump_json(indent=2))
    for path in part.glob("*.arrow"):
        path.unlink()


def _read(corpus: Corpus, path: Path, cache: Path, report: Report) -> tuple[Shelf, int]:
    """Write the distinct documents of a corpus to `path`; return them and how many repeat an earlier one."""
    pace, done = Pace(report, "read {} of text", total=None), 0

    def read() -> Iterator[Document]:
        nonlocal done
        for document in stream_documents(corpus, cache, report):
            done += len(document.text)
            pace.reached(done)
            yield document

    return shelve_distinct(read(), path)


def _sides(data: Data, documents: Shelf, part: Path, cache: Path, report: Report) -> tuple[Shelf, list[Document]]:
    """Return the documents to train on and those held out."""
    hashes = [row.tobytes().hex() for row in documents.hashes]
    if data.validation is None:
        held = np.array([is_held_out(one, data.held_out) for one in hashes], bool)
        return documents.chosen(~held), list(documents.chosen(held))
    apart, _ = _read(data.validation, part / "validation.arrow", cache, report)
    known = {row.tobytes().hex() for row in apart.hashes}
    return documents.chosen(np.array([one not in known for one in hashes], bool)), list(apart)


def _chosen(data: Data, training: Shelf, part: Path, report: Report) -> Sequence[Document]:
    """Return what is left of the documents to train on: cut, filtered, and without what benchmarks ask."""
    if data.passages:
        training = shelve(cut(training, data.passages), part / "passages.arrow")
    chosen: Sequence[Document] = apply_filters(data.filters, training, part, report) if data.filters else training
    return decontaminate(data.decontamination, chosen, part, report) if data.decontamination else chosen


def _sample(documents: Sequence[Document]) -> list[str]:
    """Return the texts a tokenizer learns from: all, or of a larger corpus a share chosen by hash."""
    size = size_of(documents)
    if size <= LEARNED_FROM:
        return [document.text for document in documents]
    share = LEARNED_FROM / size
    # bits of the hash that the split does not look at
    return [document.text for document in documents if int(document.hash[16:32], 16) / 2**64 < share]


def _write_held_out(path: Path, documents: list[Document]) -> None:
    columns = {name: [getattr(document, name) for document in documents] for name in ("name", "text", "source")}
    if not any(columns["source"]):
        del columns["source"]
    pq.write_table(pa.table({name: pa.array(held, pa.string()) for name, held in columns.items()}), path)


def _source_facts(name: str, number: int, written: Written, held_out: list[Document]) -> SourceFacts:
    trained = written.sources == number
    held = [document for document in held_out if document.source == name]
    return SourceFacts(
        name=name,
        training_documents=int(trained.sum()),
        training_bytes=int(written.sizes[trained].sum()),
        training_tokens=int(written.lengths[trained].sum()),
        held_out_documents=len(held),
        held_out_bytes=size_of(held),
    )


# --- loading


def _load(key: str, folder: Path) -> Prepared:
    try:
        facts = Facts.model_validate_json((folder / "facts.json").read_bytes())
        train = read_tokens(folder, facts.training_tokens, facts.vocabulary, sources=bool(facts.sources))
        rows = pq.read_table(folder / "held_out.parquet").to_pylist()
    except (OSError, ValueError) as error:
        raise damaged(folder, error) from None
    return Prepared(
        key=key,
        tokenizer=Tokenizer.load(folder / "tokenizer.json", facts.vocabulary),
        train=train,
        held_out=tuple(Document(row["name"], row["text"], row.get("source", "")) for row in rows),
        facts=facts,
        folder=folder,
    )
