"""Corpora: what is read, under which names, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.corpora import (
    PACKED_BYTES,
    Document,
    Files,
    Speeches,
    drop_duplicates,
    fingerprint,
    packed,
    read_documents,
)
from workbench.errors import DataError, MissingExtra
from workbench.identity import digest

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def texts(path: Path | str) -> list[str]:
    return [document.text for document in read_documents(Files(path=str(path)))]


def names(path: Path | str) -> list[str]:
    return [document.name for document in read_documents(Files(path=str(path)))]


def shared(name: str) -> bytes:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the real corpus {name} is not beside this checkout")
    return gzip.decompress(path.read_bytes())


# --- what is read


def test_the_embedded_corpus_holds_every_speech_under_its_own_name() -> None:
    documents = read_documents(Speeches())
    assert len(documents) == len({document.name for document in documents}) == 249
    assert sum(len(document.text.encode()) for document in documents) == 12_185_751
    assert documents[0].name == "1790-Washington-1"
    # the hash that the package's own manifest states
    assert documents[0].hash == "71cfcce4c84e8b82bc79c7c245d77dd725b3de94e2f987752a8c27534ca3b275"


def test_reading_the_embedded_corpus_loads_no_pandas() -> None:
    program = (
        "import sys; from workbench.data.corpora import *; fingerprint(Speeches()); print('pandas' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_the_embedded_corpus_says_which_extra_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="train"):
        fingerprint(Speeches())


def test_a_line_of_end_of_text_separates_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\n<|endoftext|>\r\ntwo <|endoftext|> still two\n<|endoftext|>\n \n")
    assert texts(tmp_path / "a.txt") == ["one", "two <|endoftext|> still two"]


def test_paragraphs_are_packed_to_documents_of_about_four_kilobytes(tmp_path: Path) -> None:
    paragraphs = [f"paragraph {number} " + "with a few words " * 20 for number in range(100)]
    (tmp_path / "a.txt").write_text("\n\n".join(paragraphs))
    found = texts(tmp_path / "a.txt")
    assert all(PACKED_BYTES - 2 <= len(text) <= PACKED_BYTES + 400 for text in found[:-1])
    assert [line.strip() for text in found for line in text.split("\n\n")] == [line.strip() for line in paragraphs]


@given(st.text(st.sampled_from("a é\n\r\t")), st.integers(1, 2000))
def test_packing_loses_nothing(text: str, repeats: int) -> None:
    assert "".join(packed(text * repeats, PACKED_BYTES)) == text * repeats


def test_lines_and_rows_are_documents_named_by_their_number(tmp_path: Path) -> None:
    rows = [{"text": "first\u2028line", "other": 1}, {"text": "  "}, {"text": "zażółć 🎈"}]
    (tmp_path / "a.jsonl").write_bytes("\ufeff".encode() + "\n\n".join(map(json.dumps, rows)).encode())
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet")
    assert texts(tmp_path / "a.jsonl") == texts(tmp_path / "b.parquet") == ["first\u2028line", "zażółć 🎈"]
    assert names(tmp_path / "a.jsonl") == ["1", "5"]
    assert names(tmp_path / "b.parquet") == ["1", "3"]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b/z.txt", "a.txt", "b/a.jsonl", "notes.md", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "row"}' if name.endswith("jsonl") else f"text of {name}")
    assert names(tmp_path) == ["a.txt:1", "b/a.jsonl:1", "b/z.txt:1"]
    assert names(tmp_path / "**" / "*.txt") == ["a.txt:1", "b/z.txt:1"]


def test_repeated_documents_are_dropped_and_counted() -> None:
    documents = [Document("1", "same"), Document("2", "other"), Document("3", "same")]
    assert drop_duplicates(documents) == (documents[:2], 1)


@given(st.text())
def test_a_document_is_hashed_by_its_utf8_text(text: str) -> None:
    assert Document("name", text).hash == hashlib.sha256(text.encode()).hexdigest()


def test_real_books_are_read_whole(tmp_path: Path) -> None:
    raw = shared("pd_books.valid.txt.gz")
    (tmp_path / "books.txt").write_bytes(raw)
    found = texts(tmp_path / "books.txt")
    assert len(found) == 8
    assert found == [book.strip() for book in raw.decode().split("\n<|endoftext|>\n")]
    assert found == texts(SHARED / "pd_books.valid.txt.gz")


def test_a_real_play_without_separators_becomes_many_documents(tmp_path: Path) -> None:
    raw = shared("tinyshakespeare.txt.gz")
    (tmp_path / "play.txt").write_bytes(raw)
    found = texts(tmp_path / "play.txt")
    assert "".join("".join(found).split()) == "".join(raw.decode().split())
    assert 200 < len(found) < 300


# --- identity


def test_moving_a_corpus_keeps_its_fingerprint(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        for name in ("a.txt", "b.txt"):
            (tmp_path / folder / name).write_text(f"text of {name}")
    here, there = Files(path=str(tmp_path / "here")), Files(path=str(tmp_path / "there"))
    assert fingerprint(here) == fingerprint(there)
    assert digest(here) == digest(there)
    assert [document.name for document in read_documents(here)] == [document.name for document in read_documents(there)]


def test_renaming_a_corpus_of_one_file_keeps_its_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.txt").write_text("text")
    assert fingerprint(Files(path=str(tmp_path / "a.txt"))) == fingerprint(Files(path=str(tmp_path / "b.txt")))


@pytest.mark.parametrize("change", ["byte", "name", "ending", "file"])
def test_what_changes_documents_or_their_names_changes_the_fingerprint(tmp_path: Path, change: str) -> None:
    (tmp_path / "a.txt").write_text('{"text": "a"}')
    (tmp_path / "b.txt").write_text('{"text": "b"}')
    before = fingerprint(Files(path=str(tmp_path)))
    match change:
        case "byte":
            (tmp_path / "a.txt").write_text('{"text": "A"}')
        case "name":
            (tmp_path / "a.txt").rename(tmp_path / "c.txt")
        case "ending":
            (tmp_path / "a.txt").rename(tmp_path / "a.jsonl")
        case "file":
            (tmp_path / "c.txt").write_text("more")
    assert fingerprint(Files(path=str(tmp_path))) != before


# --- what is refused


def refusal(path: Path | str) -> str:
    with pytest.raises(DataError) as caught:
        read_documents(Files(path=str(path)))
    return str(caught.value)


def test_a_missing_corpus_is_refused(tmp_path: Path) -> None:
    assert "there is no corpus" in refusal(tmp_path / "absent.txt")
    assert "there is no such folder" in refusal(tmp_path / "absent" / "*.txt")
    assert "no such file in this folder" in refusal(tmp_path)
    with pytest.raises(DataError, match="there is no corpus"):
        fingerprint(Files(path=str(tmp_path / "absent.txt")))


def test_an_unknown_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_text("text")
    message = refusal(tmp_path / "a.docx")
    assert ".txt or .jsonl or .parquet" in message
    assert ".docx" in message


@pytest.mark.parametrize("content", ["", "  \n\n", "<|endoftext|>\n<|endoftext|>\n"])
def test_an_empty_corpus_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.txt").write_text(content)
    assert "the corpus is empty" in refusal(tmp_path / "a.txt")


def test_text_that_is_not_utf8_is_refused_with_its_byte(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 au lait")
    assert "a.txt, byte 3" in (message := refusal(tmp_path / "a.txt"))
    assert "0xe9" in message
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "fine"}\n{"text": "caf\xe9"}')
    assert "a.jsonl:2, byte 30" in refusal(tmp_path / "a.jsonl")
    column = pa.array([b"fine", b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    assert "row 2, byte 3" in refusal(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("line", "got"),
    [
        ('{"text": "cut', "Unterminated string"),
        ('["text"]', "list"),
        ('{"txt": "a", "id": 1}', "'txt', 'id'"),
        ("{}", "no field"),
        ('{"text": 7}', "int"),
        (r'{"text": "\ud800"}', r"a lone '\ud800'"),
    ],
)
def test_a_bad_json_line_is_refused_with_its_number(tmp_path: Path, line: str, got: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line)
    message = refusal(tmp_path / "a.jsonl")
    assert "a.jsonl:2" in message
    assert got in message


def test_a_bad_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("not parquet")
    assert "cannot be read" in refusal(tmp_path / "a.parquet")
    pq.write_table(pa.table({"content": ["a"]}), tmp_path / "a.parquet")
    assert "'content'" in refusal(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": [1]}), tmp_path / "a.parquet")
    assert "'text' of type int64" in refusal(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "a.parquet")
    assert "row 2" in refusal(tmp_path / "a.parquet")
