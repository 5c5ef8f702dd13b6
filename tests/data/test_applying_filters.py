"""Filters at work: what reaches training, what is told about it, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data.corpora import Document, Files, fingerprint
from workbench.data.filters import Compression, Filter, Heuristics, NearDuplicates, RandomDrop
from workbench.data.filters.applying import FILE, apply_filters, read_applied, said
from workbench.data.prepared import Data, prepare
from workbench.data.tokenizer import BytePairs
from workbench.errors import DataError
from workbench.identity import digest

STORY = "Story {}: the old ship sailed over {} calm seas, and all of the sailors sang of home and of the tide."
STORIES = [STORY.format(number, number * number) for number in range(60)]
SMALL = {"tokenizer": BytePairs(vocabulary=300), "held_out": 0.25}


def lines() -> tuple[list[str], Callable[[str], None]]:
    told: list[str] = []
    return told, told.append


def trained_on(data: Data, cache: Path) -> list[str]:
    prepared = prepare(data, cache)
    bounds = zip(prepared.train.offsets[:-1], prepared.train.offsets[1:], strict=True)
    return [prepared.tokenizer.decode(prepared.train.tokens[start:stop]) for start, stop in bounds]


def test_training_reads_what_filters_keep_and_all_arms_are_examined_on_the_same(
    corpus: Callable[..., Files], tmp_path: Path
) -> None:
    plain = Data(corpus=corpus(STORIES), **SMALL)
    dropped = plain.model_copy(update={"filters": (RandomDrop(keep=0.5),)})
    everything, some = trained_on(plain, tmp_path), trained_on(dropped, tmp_path)
    assert 5 < len(some) < len(everything) - 5
    assert [text for text in everything if text in some] == some
    assert prepare(dropped, tmp_path).held_out == prepare(plain, tmp_path).held_out
    assert prepare(dropped, tmp_path).facts.training_documents == len(some)


def test_arms_that_choose_their_text_differently_share_one_tokenizer(
    corpus: Callable[..., Files], tmp_path: Path
) -> None:
    plain = Data(corpus=corpus(STORIES), **SMALL)
    changes = ({"filters": (RandomDrop(keep=0.5),)}, {"passages": 256})
    vocabularies = [
        prepare(data, tmp_path).tokenizer.pieces
        for data in (plain, *(plain.model_copy(update=change) for change in changes))
    ]
    assert vocabularies[0] == vocabularies[1] == vocabularies[2]


def test_without_filters_data_are_what_they_were_and_say_nothing(corpus: Callable[..., Files], tmp_path: Path) -> None:
    plain, filtered = Data(corpus=corpus(STORIES), **SMALL), Data(corpus=corpus(STORIES), filters=(), **SMALL)
    bytes_of = fingerprint(plain.corpus)
    assert plain.identity(bytes_of).keys() == {"corpus", "tokenizer", "held_out"}
    assert digest(plain.identity(bytes_of)) == digest(filtered.identity(bytes_of))
    prepare(plain, tmp_path)
    assert not list(tmp_path.rglob(FILE))


def test_filters_and_their_sequence_are_identity(corpus: Callable[..., Files]) -> None:
    one, other = Compression(low=0.1), RandomDrop(keep=0.5)
    chains: list[tuple[Filter, ...]] = [(), (one,), (other,), (one, other), (other, one)]
    data = [Data(corpus=corpus(STORIES), filters=chain, **SMALL) for chain in chains]
    bytes_of = fingerprint(data[0].corpus)
    assert len({digest(each.prepared_as(bytes_of)) for each in data}) == 5
    assert all(Data.model_validate_json(each.model_dump_json()) == each for each in data)


def test_each_filter_tells_what_it_kept_and_dropped(tmp_path: Path) -> None:
    texts = [" ".join(f"word{number}x{place}" for place in range(20)) for number in range(60)]
    near = [text.replace("x7", "x70") for text in texts[:20]]
    documents = [Document(f"a/{place}", text, "a") for place, text in enumerate(texts)]
    documents += [Document(f"b/{place}", text, "b") for place, text in enumerate([*near, "too short", "short as well"])]
    told, report = lines()
    rules = (
        Heuristics(least_words=5, longest_mean=None, stop_words=None),
        NearDuplicates(threshold=0.7, sequence=1),
        RandomDrop(keep=0.5),
    )
    kept = apply_filters(rules, documents, tmp_path, report)
    heuristics, near_duplicates, random = read_applied(tmp_path)
    assert heuristics.before.documents == 82
    assert heuristics.reasons["least_words"] == 2
    assert heuristics.sources["b"][0].documents - heuristics.sources["b"][1].documents == 2
    assert near_duplicates.before == heuristics.after
    assert near_duplicates.after == random.before
    assert random.after.documents == len(kept)
    assert random.after.bytes == sum(len(one.text.encode()) for one in kept)
    assert near_duplicates.sources["b"][1].documents == 0
    (example, *_) = near_duplicates.dropped
    assert example.beside is not None
    assert example.score is not None
    assert example.score >= 0.7
    assert example.reasons == ("near duplicate",)
    assert len(random.kept) == len(random.dropped) == 5
    assert list(random.quantiles) == ["0", "0.05", "0.25", "0.5", "0.75", "0.95", "1"]
    assert told[1] == said(heuristics)
    assert told[1].startswith("filter heuristics kept 80 of 82 documents (97.6%; 99.")
    assert [one for one in documents if one in kept] == kept


def test_a_filter_that_keeps_all_says_so(tmp_path: Path) -> None:
    told, report = lines()
    documents = [Document(str(place), text) for place, text in enumerate(STORIES)]
    assert apply_filters([Compression(low=0.01)], documents, tmp_path, report) == documents
    assert told[-1] == "filter compression kept all of 60 documents: it changes nothing here"
    assert read_applied(tmp_path)[0].sources == {}


def test_a_filter_that_keeps_nothing_is_refused_with_its_reasons(corpus: Callable[..., Files], tmp_path: Path) -> None:
    data = Data(corpus=corpus(STORIES), filters=(RandomDrop(keep=1), Heuristics()), **SMALL)
    with pytest.raises(DataError, match="keeps no document") as refused:
        prepare(data, tmp_path)
    assert "data.filters.1, heuristics" in str(refused.value)
    assert "least_words" in str(refused.value)
    assert not [path for path in tmp_path.glob("data/*") if not path.name.startswith(".")]


def test_a_damaged_account_is_refused_by_name(tmp_path: Path) -> None:
    documents = [Document(str(place), text) for place, text in enumerate(STORIES)]
    apply_filters([RandomDrop(keep=0.5)], documents, tmp_path, lambda line: None)
    path = tmp_path / FILE
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match=FILE):
        read_applied(tmp_path)


def test_long_and_odd_text_is_shown_in_short(tmp_path: Path) -> None:
    documents = [Document(str(place), f"{place} \u202e\x1b[31m line\n\n" + "word " * 5000) for place in range(20)]
    apply_filters([RandomDrop(keep=0.5)], documents, tmp_path, lambda line: None)
    (applied,) = read_applied(tmp_path)
    assert all(len(one.excerpt) <= 241 and "\n" not in one.excerpt for one in (*applied.kept, *applied.dropped))
    assert len(json.dumps(applied.model_dump(mode="json"))) < 10_000


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40), unique=True, max_size=30))
def test_what_is_kept_and_dropped_is_all_and_stays_in_order(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    documents = [Document(str(place), text) for place, text in enumerate(texts)]
    folder = tmp_path_factory.mktemp("filters")
    rules = (RandomDrop(keep=0.8), Compression(middle=0.9), NearDuplicates(threshold=0.5, sequence=2, permutations=32))
    try:
        kept = apply_filters(rules, documents, folder, lambda line: None)
    except DataError:
        return  # chance may drop all of a few
    told = read_applied(folder)
    assert [one.name for one in kept] == sorted((one.name for one in kept), key=int)
    assert all(one.after.documents == other.before.documents for one, other in pairwise(told))
    assert told[-1].after.documents == len(kept)
    assert apply_filters(rules, documents, folder, lambda line: None) == kept
