"""Files as streams: the same documents as from memory, compressed or not, and what is refused."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.data.corpora import Files, fingerprint, packed, read_documents
from workbench.data.reading import PACKED_BYTES, read_file
from workbench.errors import DataError, MissingExtra

LINES = ["<|endoftext|>", "<|endoftext|> \t\r", "<|endo", "a é", "", " \t", "b\u2028c\x0bd\r"]


def at_once(text: str) -> list[str]:
    """What a file holds, by the definition: split at separator lines, else packed between paragraphs."""
    separator = re.compile(r"^<\|endoftext\|>[ \t\r]*$", re.MULTILINE)
    found = separator.split(text) if separator.search(text) else packed(text, PACKED_BYTES)
    return [part.strip() for part in found if part.strip()]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(lines=st.lists(st.sampled_from(LINES)), repeats=st.sampled_from([1, 3, 300]), ends=st.booleans())
def test_a_stream_gives_what_the_whole_file_would(tmp_path: Path, lines: list[str], repeats: int, ends: bool) -> None:
    text = "\n".join(lines * repeats) + "\n" * ends
    (tmp_path / "a.txt").write_bytes(text.encode())
    found = [part for _, part in read_file(tmp_path / "a.txt", "text")]
    assert [part for part in found if part] == at_once(text)


@pytest.mark.parametrize("packing", ["gz", "zst"])
@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", "one\n<|endoftext|>\ntwo\n"), ("a.jsonl", '{"text": "one"}\n')]
)
def test_a_compressed_file_gives_the_documents_of_its_content(
    tmp_path: Path, packing: str, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    path = tmp_path / "packed" / f"{name}.{packing}"
    path.parent.mkdir()
    path.write_bytes(compressed(content.encode(), packing))
    plain = read_documents(Files(path=str(tmp_path / name)))
    assert read_documents(Files(path=str(path))) == read_documents(Files(path=str(path.parent))) == plain
    assert fingerprint(Files(path=str(path))) != fingerprint(Files(path=str(tmp_path / name)))


def compressed(content: bytes, packing: str) -> bytes:
    if packing == "gz":
        return gzip.compress(content)
    return pytest.importorskip("zstandard").ZstdCompressor().compress(content)  # type: ignore[no-any-return]


@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_a_damaged_archive_is_refused(tmp_path: Path, packing: str) -> None:
    whole = compressed(b"some text\n" * 1000, packing)
    for number, damaged in enumerate((whole[:-9] if packing == "gz" else b"?" + whole[1:], b"not an archive")):
        path = tmp_path / f"{number}.txt.{packing}"
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="a compressed file is damaged") as caught:
            read_documents(Files(path=str(path)))
        assert path.name in str(caught.value)


def test_zstandard_says_which_extra_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt.zst").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(MissingExtra, match="extra 'data'"):
        read_documents(Files(path=str(tmp_path / "a.txt.zst")))


def test_the_field_that_holds_the_text_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "one", "text": "other"}\n')
    named = Files(path=str(tmp_path / "a.jsonl"), text_field="content")
    assert [document.text for document in read_documents(named)] == ["one"]
    assert fingerprint(named) != fingerprint(Files(path=str(tmp_path / "a.jsonl")))
    with pytest.raises(DataError, match="a document has no text") as caught:
        read_documents(Files(path=str(tmp_path / "a.jsonl"), text_field="body"))
    assert "'content', 'text'" in str(caught.value)
    assert "the field 'body'" in str(caught.value)


def test_a_line_that_is_not_json_is_named_in_an_archive_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "fine"}\n{"text": "cut'))
    with pytest.raises(DataError, match="not valid JSON") as caught:
        read_documents(Files(path=str(tmp_path / "a.jsonl.gz")))
    assert "a.jsonl.gz:2" in str(caught.value)
