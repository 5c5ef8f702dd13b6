"""Words shared with benchmarks: against a search that looks at every place, on made text and on real corpora."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from needles import Asked, overlaps

from workbench.data.overlap import Hit, Needles, Searched, split

SHARED = Path(__file__).parents[3] / "shared" / "data"


def naive(documents: list[str], items: list[Asked], n: int, shortest: int) -> set[tuple[int, str, int]]:
    """Return (document, item, word) for every word of a document that is part of what it shares with an item."""
    found = set()
    for number, document in enumerate(documents):
        words = split(document)
        for item in items:
            for text in item.texts:
                own = split(text)
                if len(own) < shortest:
                    continue
                size = min(n, len(own))
                runs = {tuple(own[place : place + size]) for place in range(len(own) - size + 1)}
                for place in range(len(words) - size + 1):
                    if tuple(words[place : place + size]) in runs:
                        found |= {(number, item.name, word) for word in range(place, place + size)}
    return found


def told(documents: list[str], hits: list[Hit]) -> set[tuple[int, str, int]]:
    found = set()
    for hit in hits:
        before = len(split(documents[hit.document][: hit.start]))
        count = len(hit.words.split())
        assert split(documents[hit.document][hit.start : hit.stop]) == hit.words.split()
        found |= {(hit.document, hit.item, word) for word in range(before, before + count)}
    return found


texts = st.lists(st.sampled_from(["a", "B", "c,", "İstanbul", "don't", "_e_", "\n\n"]), max_size=14).map(" ".join)


@given(
    documents=st.lists(texts, max_size=4),
    items=st.lists(st.lists(texts, max_size=3), max_size=4),
    n=st.integers(1, 5),
    shortest=st.integers(1, 5),
)
def test_finds_what_a_search_of_every_place_finds(
    documents: list[str], items: list[list[str]], n: int, shortest: int
) -> None:
    asked = [Asked(str(number), tuple(held)) for number, held in enumerate(items)]
    hits = overlaps(documents, asked, n, shortest)
    assert told(documents, hits) == naive(documents, asked, n, min(shortest, n))
    assert [hit.document for hit in hits] == sorted(hit.document for hit in hits)


def test_a_stretch_of_shared_words_is_one_hit_with_its_place() -> None:
    document = "Before. The QUICK, brown fox -- jumps over; the lazy dog! After."
    (hit,) = overlaps([document], [Asked("fox", ("the quick brown fox jumps over the lazy cat",))], n=4)
    assert document[hit.start : hit.stop] == "The QUICK, brown fox -- jumps over; the lazy"
    assert hit == Hit(0, "fox", 8, 52, "the quick brown fox jumps over the lazy")


def test_a_short_text_counts_as_a_whole_and_one_too_short_nowhere() -> None:
    items = [Asked("whole", ("we hold these truths to be",)), Asked("short", ("we hold these",)), Asked("none", ())]
    needles = Needles(items, n=8, shortest=6)
    assert needles.searched() == Searched(by_runs=0, by_whole=1, too_short=2)
    assert [hit.item for hit in needles.find(["We hold these truths to be self-evident."])] == ["whole"]
    assert not list(needles.find(["We hold these truths to", "be self-evident"]))  # no hit across two documents


def test_no_item_and_no_document_are_no_hit() -> None:
    assert overlaps([], [Asked("a", ("one two three four five six",))]) == []
    assert overlaps(["one two three four five six", ""], []) == []


def test_every_document_is_searched_however_many_are_searched_together(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [f"{number} one two three four five six {number}" for number in range(20)]
    items = [Asked("counting", ("one two three four five six",))]
    whole = overlaps(documents, items)
    monkeypatch.setattr("workbench.data.overlap.TOGETHER", 50)
    assert overlaps(documents, items) == whole
    assert [hit.document for hit in whole] == list(range(20))


def test_equal_hashes_are_no_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.data.overlap.FACTOR", np.uint64(1))  # a sum: order is lost
    items = [Asked("order", ("one two three four five six",))]
    assert overlaps(["six five four three two one"], items) == []
    assert len(overlaps(["one two three four five six"], items)) == 1


# --- real corpora


def rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(SHARED / name, "rt", encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


def corpus(name: str) -> list[str]:
    with gzip.open(SHARED / f"{name}.train.txt.gz", "rt", encoding="utf-8") as handle:
        return handle.read().split("<|endoftext|>")


def paragraphs(name: str) -> list[Asked]:
    with gzip.open(SHARED / name, "rt", encoding="utf-8") as handle:
        return [Asked(f"{name}:{number}", (line,)) for number, line in enumerate(handle) if line.strip()]


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs real corpora in ../shared/data")
def test_the_known_overlaps_of_real_corpora_are_found_and_no_others() -> None:
    questions, truthful = rows("mmlu_test.jsonl.gz"), rows("truthfulqa.jsonl.gz")
    answers = [row["correct_answers"] + row["incorrect_answers"] for row in truthful]
    asked = [Asked(f"mmlu alone:{number}", (row["question"],)) for number, row in enumerate(questions)]
    asked += [
        Asked(f"mmlu:{number}", tuple(f"{row['question']} {choice}" for choice in row["choices"]))
        for number, row in enumerate(questions)
    ]
    asked += [
        Asked(f"truthfulqa:{number}", tuple(f"{row['question']} {answer}" for answer in given))
        for number, (row, given) in enumerate(zip(truthful, answers, strict=True))
    ]
    asked += paragraphs("wikitext2_valid.txt.gz") + paragraphs("wikitext2_test.txt.gz")
    needles = Needles(asked, n=13, shortest=13)
    found = {hit.item for hit in needles.find(corpus("wikipedia_en_2015_sample"))}
    counts = {name: sum(one.startswith(name + ":") for one in found) for name in {one.split(":")[0] for one in found}}
    assert counts == {
        "mmlu alone": 3,
        "mmlu": 4,  # the fourth goes on from the question into its right answer
        "truthfulqa": 1,
        "wikitext2_valid.txt.gz": 4,
        "wikitext2_test.txt.gz": 3,
    }
    assert not list(needles.find(corpus("pd_books")))
