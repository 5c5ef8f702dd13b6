"""Documents on disk behave like a list of them; token files hold what encoding one by one gives."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.data import prepared, shelves, token_files
from workbench.data.building import Pace, duration
from workbench.data.documents import Document, drop_duplicates
from workbench.data.prepared import Data, prepare
from workbench.data.shelves import hashes_of, picked, shelve, shelve_distinct, size_of, sizes_of
from workbench.data.tokenizer import BytePairs

TEXTS = st.lists(st.text(max_size=30), max_size=20)


def documents_of(texts: list[str]) -> list[Document]:
    return [Document(str(number), text, "ab"[number % 2]) for number, text in enumerate(texts)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=12)
@given(texts=TEXTS, batch=st.integers(1, 60), data=st.data())
def test_a_shelf_is_a_sequence_of_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str], batch: int, data: st.DataObject
) -> None:
    monkeypatch.setattr(shelves, "BATCH_BYTES", batch)
    documents = documents_of(texts)
    shelf = shelve(iter(documents), tmp_path / "a.arrow")
    assert list(shelf) == documents
    assert [one.hash for one in shelf] == [one.hash for one in documents]
    assert size_of(shelf) == size_of(documents)
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))), bool)
    chosen = list(itertools.compress(documents, kept))
    assert list(shelf.chosen(kept)) == chosen
    assert [row.tobytes().hex() for row in shelf.chosen(kept).hashes] == [one.hash for one in chosen]
    assert list(shelf[2:5]) == documents[2:5]
    for held, expected in ((shelf, documents), (shelf.chosen(kept), chosen)):
        assert [held[place] for place in range(-len(held), len(held))] == 2 * expected
        assert [held[place].hash for place in range(len(held))] == hashes_of(held) == hashes_of(expected)
        assert sizes_of(held).tolist() == sizes_of(expected).tolist()
        with pytest.raises(IndexError):
            held[len(held)]
    for documents_or_shelf in (shelf, documents):
        assert list(picked(documents_or_shelf, kept)) == chosen


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=12)
@given(texts=st.lists(st.sampled_from("abcd")))
def test_the_first_of_equal_texts_is_shelved(tmp_path: Path, texts: list[str]) -> None:
    shelf, dropped = shelve_distinct(documents_of(texts), tmp_path / "a.arrow")
    assert (list(shelf), dropped) == drop_duplicates(documents_of(texts))


@pytest.mark.parametrize("at_once", [1, 50, 10**9])
def test_tokens_are_those_of_every_document_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(token_files, "ENCODED_AT_ONCE", at_once)
    documents = documents_of([f"A tale of {number} ships " * (number % 5) + "." for number in range(40)])
    tokenizer = BytePairs(vocabulary=300).train([document.text for document in documents])
    token_files.write_tokens(tmp_path, documents, tokenizer, ("a", "b"), lambda line: None)
    file = token_files.read_tokens(tmp_path, int(np.load(tmp_path / "offsets.npy")[-1]), 300, sources=True)
    for number, document in enumerate(documents):
        found = file.tokens[file.offsets[number] : file.offsets[number + 1]]
        assert found.tolist() == [*tokenizer.encode(document.text), tokenizer.end_of_text]
        assert file.hashes[number].tobytes().hex() == document.hash
    assert file.sources is not None
    assert file.sources.tolist() == [number % 2 for number in range(40)]


def test_nothing_of_the_work_stays_in_the_cache(data: Data, tmp_path: Path) -> None:
    prepare(data.model_copy(update={"validation": data.corpus, "passages": 256}), tmp_path)
    assert not list(tmp_path.rglob("*.arrow"))


def test_a_tokenizer_learns_from_a_share_of_a_large_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = documents_of([f"A tale of {number} ships" for number in range(2000)])
    assert prepared._sample(documents) == [document.text for document in documents]
    monkeypatch.setattr(prepared, "LEARNED_FROM", size_of(documents) // 4)
    found = prepared._sample(documents)
    assert 400 < len(found) < 600
    assert found == prepared._sample(shelve(documents, tmp_path / "a.arrow"))
    # a share of the documents by hash: what else the corpus holds decides how many, not which
    more = prepared._sample([*documents, *documents_of([f"Another {number}" for number in range(500)])])
    assert {text for text in more if text.startswith("A tale")} <= {*found}


def test_the_pace_says_how_far_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 4.0, 5.0, 8.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    told: list[str] = []
    pace = Pace(told.append, "encoded {} of text", total=100_000_000)
    for done in (10_000_000, 40_000_000, 41_000_000):
        pace.reached(done)
    pace.ended(100_000_000)
    assert told == [
        "encoded 40.0 MB of 100.0 MB (40%) of text, 10.0 MB a second, 6 s left",
        "encoded 100.0 MB of text, 12.5 MB a second",
    ]
    assert [duration(seconds) for seconds in (40, 200, 9000)] == ["40 s", "3 min", "2.5 h"]
