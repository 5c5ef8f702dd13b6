"""Decontamination: what is removed, cut and only told, and which items still stand in what is trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from needles import Asked, overlaps
from pydantic import ValidationError

from workbench.data.benchmarks import Benchmark
from workbench.data.contamination import overlapping
from workbench.data.corpora import Files
from workbench.data.decontamination import (
    LEAST_PIECE,
    Decontamination,
    Shared,
    _cleaned,
    _pieces,
    decontaminate,
    read_contamination,
    told,
)
from workbench.data.documents import Document
from workbench.data.prepared import Data, Prepared, prepare
from workbench.data.tokenizer import BytePairs
from workbench.errors import DataError
from workbench.identity import canonical

WHALES = "the lighthouse keeper counted seven grey whales before breakfast and wrote their names down carefully"
FILLER = "Over the calm sea the old ship went on, and nobody on board could say for how long it would. " * 5
ROWS = [
    {"id": name, "question": question, "choices": {"text": answers, "label": ["A", "B"]}, "answerKey": "A"}
    for name, question, answers in (
        ("whales", WHALES, ["in a book", "on a napkin"]),
        ("moon", "who has", ["been?", "it?"]),
    )
]


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return Benchmark(name="arc_easy", path=str(path))


@pytest.fixture
def texts() -> list[str]:
    clean = [f"{FILLER} It is day {number}." for number in range(30)]
    return [*clean, f"{FILLER}They say {WHALES.upper()}, in a book. {FILLER}"]


def documents(texts: list[str]) -> list[Document]:
    return [Document(str(number), text, "sea") for number, text in enumerate(texts)]


def test_a_document_that_overlaps_is_removed_and_told(benchmark: Benchmark, texts: list[str], tmp_path: Path) -> None:
    said: list[str] = []
    before = documents(texts)
    after = decontaminate(Decontamination(benchmarks=(benchmark,)), before, tmp_path, said.append)
    assert list(after) == before[:-1]
    assert said[-1].startswith("1 of 31 documents hold words of 1 benchmark items; these documents were removed, ")
    found = read_contamination(tmp_path)
    assert found is not None
    (overlap,) = found.overlaps
    assert (overlap.found, overlap.documents, overlap.items, overlap.too_short) == (("whales",), 1, 2, 1)
    assert overlap.shared[0] == Shared(document="30", item="whales", words=f"{WHALES} in a book")
    assert found.bytes - found.kept_bytes == len(texts[-1].encode())
    (row,) = told(tmp_path)
    assert (row["benchmark"], row["items found"], row["documents"]) == ("arc_easy", "1", "1")


def test_a_document_is_cut_around_what_it_shares(benchmark: Benchmark, texts: list[str], tmp_path: Path) -> None:
    spec = Decontamination(benchmarks=(benchmark,), action="cut", window=50)
    after = decontaminate(spec, documents(texts), tmp_path, lambda line: None)
    assert [one.name for one in after[-2:]] == ["30/1", "30/2"]
    assert all(one.text in texts[-1] and one.source == "sea" for one in after[-2:])
    assert not overlaps([one.text for one in after], [Asked("whales", (WHALES,))])
    assert len(after[-2].text) + len(after[-1].text) > len(texts[-1]) - len(WHALES) - 2 * 50 - 40


@given(
    spans=st.lists(st.tuples(st.integers(0, 900), st.integers(1, 60)), min_size=1, max_size=5),
    window=st.integers(0, 100),
)
def test_pieces_stand_in_the_text_and_hold_nothing_that_was_cut(spans: list[tuple[int, int]], window: int) -> None:
    text = " ".join(f"w{number}" for number in range(400))
    held = sorted((start, start + size) for start, size in spans)
    pieces = [*_pieces(text, held, window)]
    place = 0
    for piece in pieces:
        place = text.index(piece, place)  # in order, and apart from each other
        assert len(piece) >= LEAST_PIECE
        assert all(place + len(piece) <= start - window or place >= stop + window for start, stop in held)
        assert set(piece.split()) <= set(text.split())  # whole words
        place += len(piece)


@settings(max_examples=30)
@given(data=st.data())
def test_nothing_that_is_left_overlaps(data: st.DataObject) -> None:
    words = st.sampled_from(["lighthouse", "whale", "harbour", "keeper", "breakfast", "names"])
    texts = [" ".join(data.draw(st.lists(words, min_size=60, max_size=90))) for _ in range(2)]
    items = [Asked(str(number), (" ".join(data.draw(st.lists(words, min_size=1, max_size=6))),)) for number in range(3)]
    hits = overlaps(texts, items, n=4, shortest=3)
    before = documents(texts)
    for action in ("remove", "cut"):
        window = data.draw(st.integers(0, 30))
        spec = Decontamination.model_construct(benchmarks=(), n=4, shortest=3, action=action, window=window)
        left = [*_cleaned(spec, before, [hits])]
        assert not overlaps([one.text for one in left], items, n=4, shortest=3)
        assert all(any(one.text in text for text in texts) for one in left)
        clean = [one for number, one in enumerate(before) if number not in {hit.document for hit in hits}]
        assert [one for one in left if one in before] == clean


def test_a_document_that_falls_into_many_pieces_is_dropped(benchmark: Benchmark, tmp_path: Path) -> None:
    many = documents([f"{FILLER}{WHALES} " * 12 + FILLER, FILLER])
    spec = Decontamination(benchmarks=(benchmark,), action="cut", window=0)
    assert [one.name for one in decontaminate(spec, many, tmp_path, lambda line: None)] == ["1"]


def test_flagging_leaves_every_document(benchmark: Benchmark, texts: list[str], tmp_path: Path) -> None:
    spec = Decontamination(benchmarks=(benchmark,), action="flag")
    before = documents(texts)
    assert decontaminate(spec, before, tmp_path, lambda line: None) == before
    found = read_contamination(tmp_path)
    assert found is not None
    assert (found.kept, found.documents, found.overlapping) == (31, 31, 1)


def test_removing_everything_is_refused(benchmark: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to train on") as refusal:
        decontaminate(
            Decontamination(benchmarks=(benchmark,)), documents([WHALES + " in a book"]), tmp_path, lambda line: None
        )
    assert "1 of 1 documents" in str(refusal.value)


def test_a_damaged_report_says_what_to_remove(tmp_path: Path) -> None:
    assert told(tmp_path) == []
    (tmp_path / "contamination.json").write_text("{")
    with pytest.raises(DataError, match="prepared data is damaged"):
        told(tmp_path)


# --- in prepared data


def data(tmp_path: Path, texts: list[str], **fields: object) -> Data:
    path = tmp_path / "corpus.txt"
    path.write_text("\n<|endoftext|>\n".join(texts))
    return Data.model_validate(
        {"corpus": Files(path=str(path)), "tokenizer": BytePairs(vocabulary=300), "held_out": 0.1, **fields}
    )


def prepared(tmp_path: Path, texts: list[str], **fields: object) -> Prepared:
    return prepare(data(tmp_path, texts, **fields), tmp_path / "cache")


def test_removal_takes_the_item_out_of_what_is_trained_on(
    benchmark: Benchmark, texts: list[str], tmp_path: Path
) -> None:
    spec = Decontamination(benchmarks=(benchmark,))
    plain = prepared(tmp_path, texts)
    clean = prepared(tmp_path, texts, decontamination=spec)
    flagged = prepared(tmp_path, texts, decontamination=spec.model_copy(update={"action": "flag"}))
    assert overlapping(plain, benchmark) == overlapping(flagged, benchmark) == {"whales"}
    assert overlapping(clean, benchmark) == frozenset()
    assert clean.train.hashes.tolist() == plain.train.hashes.tolist()[:-1]
    assert clean.held_out == plain.held_out
    assert clean.folder is not None
    assert told(clean.folder)[0]["items found"] == "1"


def test_what_overlaps_is_found_once_and_kept(
    benchmark: Benchmark, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = prepared(tmp_path, texts)
    first = overlapping(held, benchmark)
    monkeypatch.setattr("workbench.data.contamination.Needles", None)
    assert overlapping(held, benchmark) == first
    Path(benchmark.path).write_text(json.dumps({**ROWS[1], "question": "another question"}) + "\n")
    with pytest.raises(TypeError):  # other content is searched for again
        overlapping(held, benchmark)


def test_a_damaged_file_of_what_overlaps_is_made_again(benchmark: Benchmark, texts: list[str], tmp_path: Path) -> None:
    held = prepared(tmp_path, texts)
    first = overlapping(held, benchmark)
    assert held.folder is not None
    (path,) = held.folder.glob("overlap-*.json")
    before = path.read_bytes()
    path.write_bytes(before[:10])
    assert overlapping(held, benchmark) == first
    assert path.read_bytes() == before


def test_data_without_decontamination_keep_their_identity(
    benchmark: Benchmark, texts: list[str], tmp_path: Path
) -> None:
    plain = data(tmp_path, texts)
    assert "decontamination" not in canonical(plain)
    spec = Decontamination(benchmarks=(benchmark,))
    kept = plain.model_copy(update={"decontamination": spec}).identity("f")
    assert kept != plain.identity("f")
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_bytes(Path(benchmark.path).read_bytes())
    there = Decontamination(benchmarks=(Benchmark(name="arc_easy", path=str(moved)),))
    assert plain.model_copy(update={"decontamination": there}).identity("f") == kept
    moved.write_text(json.dumps(ROWS[0]) + "\n")
    assert plain.model_copy(update={"decontamination": there}).identity("f") != kept


def test_a_benchmark_is_named_once(benchmark: Benchmark) -> None:
    with pytest.raises(ValidationError, match="expected each once, got arc_easy, arc_easy"):
        Decontamination(benchmarks=(benchmark, benchmark))
