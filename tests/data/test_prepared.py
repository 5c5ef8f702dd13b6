"""Prepared data: whole or absent, built once, and free of what is held out."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from workbench.data.corpora import Files, Speeches, fingerprint, read_documents
from workbench.data.prepared import Data, Prepared, check, prepare
from workbench.data.splits import split
from workbench.data.tokenizer import BytePairs
from workbench.errors import DataError, StoreError
from workbench.identity import digest

STORY = "A story of a ship, number {}, which sailed far and came home."


def training_texts(prepared: Prepared) -> list[str]:
    train = prepared.train
    bounds = zip(train.offsets[:-1], train.offsets[1:], strict=True)
    return [prepared.tokenizer.decode(train.tokens[start:stop]) for start, stop in bounds]


def test_every_document_is_trained_on_or_held_out(data: Data, tmp_path: Path) -> None:
    prepared = prepare(data, tmp_path / "cache")
    training, held_out = split(read_documents(data.corpus), data.held_out)
    assert training_texts(prepared) == [document.text for document in training]
    assert list(prepared.held_out) == held_out
    assert [row.tobytes().hex() for row in prepared.train.hashes] == [document.hash for document in training]
    assert len(held_out) > 2


def test_every_document_ends_with_end_of_text(data: Data, tmp_path: Path) -> None:
    prepared = prepare(data, tmp_path / "cache")
    ends = np.flatnonzero(prepared.train.tokens == prepared.tokenizer.end_of_text)
    assert np.array_equal(ends + 1, prepared.train.offsets[1:])


def test_the_tokenizer_learns_nothing_from_held_out_text(data: Data, tmp_path: Path) -> None:
    prepared = prepare(data, tmp_path / "cache")
    training, _ = split(read_documents(data.corpus), data.held_out)
    data.tokenizer.train([document.text for document in training]).save(tmp_path / "expected.json")
    prepared.tokenizer.save(tmp_path / "found.json")
    assert (tmp_path / "found.json").read_bytes() == (tmp_path / "expected.json").read_bytes()


def test_facts_count_what_is_there(corpus: Callable[..., Files], tmp_path: Path) -> None:
    texts = [*map(STORY.format, range(20)), STORY.format(3), "zażółć"]
    prepared = prepare(
        Data(corpus=corpus(texts), tokenizer=BytePairs(vocabulary=300), held_out=0.3), tmp_path / "cache"
    )
    facts = prepared.facts
    assert (facts.documents, facts.duplicates) == (21, 1)
    assert facts.training_documents + facts.held_out_documents == 21
    assert facts.training_bytes + facts.held_out_bytes == sum(len(text.encode()) for text in {*texts})
    assert facts.training_tokens == len(prepared.train.tokens)
    assert facts.bytes_per_token == facts.training_bytes / (facts.training_tokens - facts.training_documents)


def test_data_is_built_once_and_found_again(data: Data, tmp_path: Path) -> None:
    reports: list[str] = []
    first = prepare(data, tmp_path / "cache", reports.append)
    assert reports
    reports.clear()
    second = prepare(data, tmp_path / "cache", reports.append)
    assert not reports
    assert first.key == second.key == digest(data.identity(fingerprint(data.corpus)))
    assert np.array_equal(first.train.tokens, second.train.tokens)


def test_identity_knows_content_tokenizer_and_split_but_no_path(corpus: Callable[..., Files]) -> None:
    here, there = Data(corpus=corpus()), Data(corpus=corpus(name="elsewhere/other.txt"))
    print_of = fingerprint(here.corpus)
    assert here.identity(print_of) == there.identity(fingerprint(there.corpus))
    identities = {
        digest(changed.identity(print_of))
        for changed in (here, Data(tokenizer=BytePairs(vocabulary=512)), Data(held_out=0.1))
    }
    assert len(identities) == 3


def test_large_vocabularies_take_four_bytes_a_token(corpus: Callable[..., Files], tmp_path: Path) -> None:
    wide = prepare(Data(corpus=corpus(), tokenizer=BytePairs(vocabulary=2**16 + 1), held_out=0.25), tmp_path)
    narrow = prepare(Data(corpus=corpus(), tokenizer=BytePairs(vocabulary=2**16), held_out=0.25), tmp_path)
    assert (wide.train.tokens.dtype, narrow.train.tokens.dtype) == (np.uint32, np.uint16)
    assert np.array_equal(wide.train.tokens, narrow.train.tokens)


def test_the_embedded_corpus_is_prepared_whole(tmp_path: Path) -> None:
    prepared = prepare(Data(), tmp_path)
    assert (prepared.facts.documents, prepared.facts.held_out_documents) == (249, 11)
    assert prepared.facts.learned_vocabulary == 2048
    assert 3.4 < prepared.facts.bytes_per_token < 3.8
    last = split(read_documents(Speeches()), 0.05)[0][-1]
    assert prepared.tokenizer.decode(prepared.train.tokens[prepared.train.offsets[-2] :]) == last.text
    check(prepared, 128)


# --- interruption and company

BUILD = """
import os, signal, sys, time
from pathlib import Path
from workbench.data.prepared import Data, prepare

def report(line):
    print(line, flush=True)
    if sys.argv[3] in line:
        os.kill(os.getpid(), signal.SIGKILL)

print(prepare(Data.model_validate_json(sys.argv[1]), Path(sys.argv[2]), report).facts.training_tokens)
"""


def build(data: Data, cache: Path, die_at: str = "never") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, data.model_dump_json(), str(cache), die_at]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("moment", ["reading", "training a tokenizer", "encoded"])
def test_a_killed_build_leaves_nothing_and_starts_again(data: Data, tmp_path: Path, moment: str) -> None:
    victim = build(data, tmp_path, die_at=moment)
    victim.communicate(timeout=240)
    assert victim.returncode == -signal.SIGKILL
    assert not [path for path in (tmp_path / "data").iterdir() if not path.name.startswith(".")]
    prepared = prepare(data, tmp_path)
    assert len(prepared.train.tokens) == prepared.facts.training_tokens > 0
    assert not list((tmp_path / "data").glob(".*.part"))


def test_two_processes_build_the_same_cache_once(data: Data, tmp_path: Path) -> None:
    builders = [build(data, tmp_path) for _ in range(2)]
    outputs = []
    for builder in builders:
        output, errors = builder.communicate(timeout=240)
        assert builder.returncode == 0, errors
        outputs.append(output.splitlines())
    assert outputs[0][-1] == outputs[1][-1]
    assert sum("reading the corpus" in output for output in outputs) == 1


# --- what is refused


def test_a_corpus_shorter_than_one_context_is_refused(data: Data, tmp_path: Path) -> None:
    prepared = prepare(data, tmp_path)
    enough = prepared.facts.training_tokens - 1
    check(prepared, enough)
    with pytest.raises(DataError, match="shorter than one context"):
        check(prepared, enough + 1)


@pytest.mark.parametrize(
    ("held_out", "message"), [(0.99, "shorter than one context"), (0.01, "no document is held out")]
)
def test_a_corpus_of_one_document_is_refused(
    corpus: Callable[..., Files], tmp_path: Path, held_out: float, message: str
) -> None:
    prepared = prepare(Data(corpus=corpus([STORY]), tokenizer=BytePairs(vocabulary=300), held_out=held_out), tmp_path)
    with pytest.raises(DataError, match=message):
        check(prepared, 16)


def test_a_cache_that_cannot_be_written_is_refused(data: Data, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match="cache cannot be written"):
        prepare(data, tmp_path / "cache")


@pytest.mark.parametrize("name", ["facts.json", "tokens.bin", "offsets.npy", "held_out.parquet", "tokenizer.json"])
def test_a_damaged_cache_is_refused_by_name(data: Data, tmp_path: Path, name: str) -> None:
    prepare(data, tmp_path)
    (path,) = tmp_path.glob(f"data/*/{name}")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=str(path.parent)):
        prepare(data, tmp_path)
