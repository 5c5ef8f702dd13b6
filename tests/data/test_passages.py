"""Cutting documents to passages, and held-out documents from a corpus of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.corpora import Document, Files, packed
from workbench.data.passages import cut
from workbench.data.prepared import Data, prepare
from workbench.data.tokenizer import BytePairs

TEXT = st.text(alphabet="ab é\n\t.", max_size=400)


@given(text=TEXT, size=st.integers(1, 50))
def test_passages_are_the_text_and_only_the_last_is_short(text: str, size: int) -> None:
    pieces = list(packed(text, size))
    assert "".join(pieces) == text
    assert all(len(piece.encode()) >= size for piece in pieces[:-1])


@given(text=TEXT, size=st.integers(1, 50))
def test_what_is_cut_keeps_all_but_white_space(text: str, size: int) -> None:
    passages = list(cut([Document("one", text, "books")], size))
    assert "".join("".join(passage.text for passage in passages).split()) == "".join(text.split())
    assert len({passage.name for passage in passages}) == len(passages)
    assert {passage.source for passage in passages} <= {"books"}


def test_a_short_document_keeps_its_name() -> None:
    assert list(cut([Document("one", "short")], 256)) == [Document("one", "short")]


def data(folder: Path, **fields: object) -> Data:
    return Data.model_validate(
        {"corpus": Files(path=str(folder / "corpus.txt")), "tokenizer": BytePairs(vocabulary=300), **fields}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = [f"Text number {number}.\n\n" + f"It says {number}.\n" * 80 for number in range(40)]
    (tmp_path / "corpus.txt").write_text("\n<|endoftext|>\n".join(texts))
    (tmp_path / "valid.txt").write_text("\n<|endoftext|>\n".join([texts[3], "Something else altogether."]))
    return tmp_path


def test_documents_for_validation_are_held_out_and_never_trained_on(folder: Path) -> None:
    asked = data(folder, validation=Files(path=str(folder / "valid.txt")))
    prepared = prepare(asked, folder / "cache")
    assert [document.text.split()[0] for document in prepared.held_out] == ["Text", "Something"]
    assert prepared.facts.training_documents == 39
    held = {bytes.fromhex(document.hash) for document in prepared.held_out}
    assert not held & {row.tobytes() for row in prepared.train.hashes}


def test_the_held_out_share_means_nothing_where_validation_is_given(folder: Path) -> None:
    first, second = (
        data(folder, validation=Files(path=str(folder / "valid.txt")), held_out=share) for share in (0.1, 0.2)
    )
    assert first.identity(first.fingerprint()) == second.identity(second.fingerprint())
    assert first.fingerprint() != data(folder).fingerprint()


def test_passages_are_cut_after_the_split(folder: Path) -> None:
    whole, cut_up = prepare(data(folder), folder / "cache"), prepare(data(folder, passages=256), folder / "cache")
    assert [one.hash for one in whole.held_out] == [one.hash for one in cut_up.held_out]
    assert cut_up.facts.training_documents > whole.facts.training_documents
    assert cut_up.key != whole.key
