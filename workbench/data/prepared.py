"""Prepared data: the tokens to train on, the documents to evaluate on, and the tokenizer between them.

Promises that what is prepared is a function of the corpus's bytes, the tokenizer's declaration and the held-out
fraction, and nothing else; that it is built once per cache, whole or not at all, however many processes ask at once;
and that no held-out document, or copy of one, is trained on or shapes the tokenizer. Refuses a damaged cache, and
(`check`) a corpus that cannot carry an experiment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workbench.data.building import Report, sole_builder, whole
from workbench.data.corpora import Corpus, Document, Speeches, drop_duplicates, fingerprint, read_documents
from workbench.data.splits import split
from workbench.data.tokenizer import BytePairs, Tokenizer
from workbench.errors import DataError, StoreError
from workbench.identity import Spec, canonical, digest, setting

LAYOUT = 1  # raised when the files of the cache change; part of the cache's key, not of the data's identity
ENCODED_AT_ONCE = 4_000_000  # characters


class Data(Spec):
    """What text a model learns from and is examined on."""

    corpus: Corpus = setting(Speeches())
    tokenizer: BytePairs = setting(BytePairs())
    held_out: float = setting(0.05, gt=0, lt=1)

    def identity(self, fingerprint: str) -> dict[str, Any]:
        """Return what identifies this data, given the `fingerprint` of its corpus: plain JSON, no path."""
        return {"corpus": fingerprint, "tokenizer": canonical(self.tokenizer), "held_out": self.held_out}


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

    @property
    def bytes_per_token(self) -> float:
        """Bytes of training text per token, end_of_text not counted; 0 where there is no training text."""
        return self.training_bytes / max(self.training_tokens - self.training_documents, 1)


@dataclass(frozen=True)
class TokenFile:
    """Tokenised documents, one after the other, each followed by end_of_text.

    Attributes:
        tokens: uint16[tokens] or uint32[tokens], memory-mapped.
        offsets: int64[documents + 1]; document d is `tokens[offsets[d]:offsets[d + 1]]`.
        hashes: SHA-256 of each document's text, uint8[documents, 32].
    """

    tokens: np.ndarray
    offsets: np.ndarray
    hashes: np.ndarray


@dataclass(frozen=True)
class Prepared:
    """Data ready to train and evaluate on; `key` hashes what identifies it."""

    key: str
    tokenizer: Tokenizer
    train: TokenFile
    held_out: tuple[Document, ...]
    facts: Facts


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
    key = digest(data.identity(fingerprint(data.corpus)))
    folder = cache / "data" / f"{key}-{LAYOUT}"
    if not folder.exists():
        report = report or (lambda line: None)
        try:
            with sole_builder(folder, report, "prepares this corpus"):
                if not folder.exists():
                    with whole(folder) as part:
                        _build(data, part, report)
        except OSError as error:
            raise StoreError(
                "the cache cannot be written",
                where=error.filename or folder,
                got=error.strerror or str(error),
                fix="free some space, or name another runtime folder with --home FOLDER or WORKBENCH_HOME",
            ) from None
    return _load(key, folder)


def known_facts(data: Data, fingerprint: str, cache: Path) -> Facts | None:
    """Return the counts of data that `cache` holds already, given its corpus's fingerprint; None where it does not."""
    try:
        text = (cache / "data" / f"{digest(data.identity(fingerprint))}-{LAYOUT}" / "facts.json").read_bytes()
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
            fix="raise held_out, or give more documents: a line <|endoftext|> separates them in a text file",
        )


# --- building, once


def _build(data: Data, part: Path, report: Report) -> None:
    report("reading the corpus")
    documents, duplicates = drop_duplicates(read_documents(data.corpus))
    training, held_out = split(documents, data.held_out)
    report(f"training a tokenizer of {data.tokenizer.vocabulary:,} tokens on {len(training):,} documents")
    tokenizer = data.tokenizer.train([document.text for document in training])
    tokenizer.save(part / "tokenizer.json")
    lengths = _write_tokens(part / "tokens.bin", training, tokenizer, report)
    np.save(part / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    hashes = b"".join(bytes.fromhex(document.hash) for document in training)
    np.save(part / "hashes.npy", np.frombuffer(hashes, np.uint8).reshape(-1, 32))
    names, texts = [document.name for document in held_out], [document.text for document in held_out]
    pq.write_table(
        pa.table({"name": pa.array(names, pa.string()), "text": pa.array(texts, pa.string())}),
        part / "held_out.parquet",
    )
    facts = Facts(
        documents=len(documents),
        duplicates=duplicates,
        held_out_documents=len(held_out),
        held_out_bytes=sum(len(text.encode()) for text in texts),
        training_documents=len(training),
        training_bytes=sum(len(document.text.encode()) for document in training),
        training_tokens=sum(lengths),
        vocabulary=tokenizer.vocabulary,
        learned_vocabulary=tokenizer.learned,
    )
    (part / "facts.json").write_text(facts.model_dump_json(indent=2))


def _write_tokens(path: Path, documents: list[Document], tokenizer: Tokenizer, report: Report) -> list[int]:
    """Append the tokens of each document and an end_of_text to `path`; return how many that is per document."""
    lengths: list[int] = []
    with open(path, "wb") as handle:
        for batch in _batches(documents):
            for tokens in tokenizer.encode_batch([document.text for document in batch]):
                handle.write(np.append(tokens, tokenizer.end_of_text).astype(_width(tokenizer.vocabulary)).tobytes())
                lengths.append(len(tokens) + 1)
            report(f"encoded {len(lengths):,} of {len(documents):,} documents")
    return lengths


def _batches(documents: list[Document]) -> Iterator[list[Document]]:
    held, size = [], 0
    for document in documents:
        held.append(document)
        size += len(document.text)
        if size >= ENCODED_AT_ONCE:
            yield held
            held, size = [], 0
    if held:
        yield held


# --- loading


def _load(key: str, folder: Path) -> Prepared:
    try:
        facts = Facts.model_validate_json((folder / "facts.json").read_bytes())
        offsets, hashes = np.load(folder / "offsets.npy"), np.load(folder / "hashes.npy")
        tokens = np.empty(0, _width(facts.vocabulary))
        if facts.training_tokens:
            tokens = np.memmap(
                folder / "tokens.bin", _width(facts.vocabulary), mode="r", shape=(facts.training_tokens,)
            )
        rows = pq.read_table(folder / "held_out.parquet").to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(
            "prepared data is damaged",
            where=folder,
            got=str(error).splitlines()[0],
            fix="remove this folder; it is built again",
        ) from None
    return Prepared(
        key=key,
        tokenizer=Tokenizer.load(folder / "tokenizer.json", facts.vocabulary),
        train=TokenFile(tokens, offsets, hashes),
        held_out=tuple(Document(row["name"], row["text"]) for row in rows),
        facts=facts,
    )


def _width(vocabulary: int) -> type[np.unsignedinteger[Any]]:
    return np.uint16 if vocabulary <= 2**16 else np.uint32
