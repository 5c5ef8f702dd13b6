"""Reading by difficulty: sorted every epoch, with controls that read the same documents."""

from __future__ import annotations

import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from token_files import token_file

from workbench.data.curricula import SortedStream, paced
from workbench.data.difficulty import Compression, Length, Rarity, difficulty
from workbench.data.order import Stream
from workbench.data.ordering import Curriculum, Shuffled, Weighted, shared

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=12)
SEEDS = st.integers(0, 2**32)
ORDERS = st.builds(
    Curriculum,
    direction=st.sampled_from(["easy_first", "hard_first"]),
    pacing=st.sampled_from([None, 0.1, 0.5]),
    selection=st.sampled_from(["sorted", "shuffled"]),
)


def by_length(lengths: list[int], order: Curriculum, budget: int, seed: int = 0) -> SortedStream:
    train = token_file(lengths)
    return SortedStream(train, difficulty(Length(), train.tokens, train.offsets, ()), order, budget, seed)


def documents(stream: Stream, tokens: int) -> list[int]:
    """Return the documents in which the first tokens lie, in the order in which they are read."""
    found: list[int] = []
    while tokens > 0:
        lap = stream.lap(sum(int(stream._lengths[one]) for one in found))
        for number in lap.order.tolist():
            if tokens <= 0:
                break
            found.append(number)
            tokens -= int(stream._lengths[number])
    return found


@settings(max_examples=25)
@given(LENGTHS, SEEDS, st.integers(1, 150))
def test_every_epoch_is_sorted_and_reads_everything(lengths: list[int], seed: int, budget: int) -> None:
    for direction in ("easy_first", "hard_first"):
        stream = by_length(lengths, Curriculum(direction=direction), budget, seed)
        for epoch in range(3):
            sizes = [lengths[document] for document in stream.arranged(epoch)]
            assert sizes == sorted(lengths, reverse=direction == "hard_first")
            assert sorted(stream.arranged(epoch)) == list(range(len(lengths)))


def test_ties_fall_as_the_data_seed_and_the_epoch_have_it() -> None:
    lengths = [3] * 30 + [5] * 30
    streams = [by_length(lengths, Curriculum(), 500, seed) for seed in (0, 1)]
    orders = [
        streams[0].arranged(0),
        streams[0].arranged(1),
        streams[1].arranged(0),
        streams[0].restarted(1).arranged(0),
    ]
    assert len({order.tobytes() for order in orders}) == 4
    shuffled = Stream(token_file(lengths), 0).arranged(0)
    assert orders[0].tolist() == [one for one in shuffled if one < 30] + [one for one in shuffled if one >= 30]


@settings(max_examples=25)
@given(LENGTHS, ORDERS, SEEDS, st.integers(1, 150))
def test_a_control_reads_the_same_documents_as_often(
    lengths: list[int], order: Curriculum, seed: int, budget: int
) -> None:
    if order.selection == "shuffled":
        control: Stream = Stream(token_file(lengths), seed)
    else:
        control = by_length(lengths, order.model_copy(update={"control": True}), budget, seed)
    ours: Stream = by_length(lengths, order, budget, seed)
    selecting, other = (control, ours) if order.selection == "shuffled" else (ours, control)
    read = documents(selecting, budget + 1)
    assert Counter(documents(other, sum(lengths[one] for one in read))) == Counter(read)


def test_a_control_is_shuffled() -> None:
    lengths = list(range(2, 60))
    stream = by_length(lengths, Curriculum(control=True), 600)
    read = documents(stream, 601)
    assert sorted(read) == list(range(len(read)))  # the easiest, and no others
    assert read != sorted(read)
    assert read == [one for one in Stream(token_file(lengths), 0).arranged(0) if one < len(read)]
    full = by_length(lengths, Curriculum(control=True), sum(lengths) * 2)
    assert full.arranged(0).tolist() == Stream(token_file(lengths), 0).arranged(0).tolist()


def test_the_document_of_the_last_target_is_among_those_that_are_read() -> None:
    lengths = list(range(2, 60))
    stream = by_length(lengths, Curriculum(control=True), sum(lengths[:20]))
    shuffled = Stream(token_file(lengths), 0).arranged(0)
    assert stream.arranged(0).tolist() == [*(one for one in shuffled if one < 21), *range(21, 58)]
    assert stream.arranged(0)[20] != 20


def test_a_shuffled_selection_reads_what_a_shuffled_run_does() -> None:
    lengths = list(range(2, 60))
    read = documents(by_length(lengths, Curriculum(selection="shuffled"), 600), 601)
    assert read == sorted(read)
    assert set(read) == set(documents(Stream(token_file(lengths), 0), 601))


@settings(max_examples=20, deadline=None)
@given(LENGTHS, ORDERS, SEEDS, st.integers(1, 150), st.integers(0, 200), st.integers(0, 40))
def test_any_slice_is_recomputed_by_a_stream_that_read_nothing_before(
    lengths: list[int], order: Curriculum, seed: int, budget: int, offset: int, count: int
) -> None:
    whole = by_length(lengths, order, budget, seed).read(0, 240)
    assert np.array_equal(by_length(lengths, order, budget, seed).read(offset, count), whole[offset : offset + count])


@settings(max_examples=25)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30, unique=True), st.floats(0.05, 0.9))
def test_pacing_draws_the_first_by_key_of_the_documents_that_are_open(keys: list[int], start: float) -> None:
    order, count = paced(np.array(keys, np.uint64), start).tolist(), len(keys)
    for place, document in enumerate(order):
        share = (place / count * (1 - start**2) + start**2) ** 0.5
        left = [one for one in range(max(place + 1, int(count * share))) if one not in order[:place]]
        assert document == min(left, key=lambda one: keys[one])
    assert sorted(order) == list(range(count))


def test_difficulties_are_what_they_say() -> None:
    train = token_file([4, 2, 1, 6])
    spelling = [b"", *(letter.encode() * 3 for letter in "abcd")]
    measured = {
        by.kind: difficulty(by, train.tokens, train.offsets, spelling) for by in (Length(), Rarity(), Compression())
    }
    assert measured["length"].tolist() == [3, 1, 0, 5]
    counts = np.array([3, 1, 5]) / 9
    assert measured["rarity"] == pytest.approx([-np.log(counts[0]), -np.log(counts[1]), 0, -np.log(counts[2])])
    packer = zlib.compressobj(6, wbits=-15)
    size = len(packer.compress(b"d" * 15) + packer.flush())
    assert measured["compression"][3] == size / 15
    assert measured["compression"][2] == 0


def test_difficulty_does_not_depend_on_what_is_measured_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    train = token_file([4, 2, 1, 6, 30, 3])
    spelling = [b"", *(letter.encode() * 3 for letter in "abcdef")]
    for by in (Rarity(), Compression()):
        whole = difficulty(by, train.tokens, train.offsets, spelling)
        with monkeypatch.context() as patch:
            patch.setattr("workbench.data.difficulty.TOKENS_AT_ONCE", 7)
            assert np.array_equal(whole, difficulty(by, train.tokens, train.offsets, spelling))


def test_repetitive_text_is_easy_to_compress_and_odd_words_are_rare() -> None:
    texts = [b"the sea the sea the sea the sea the sea the sea", b"zyx quartz jumps over vexing dwarfs, blocking me"]
    tokens, offsets = [], [0]
    for text in texts:
        tokens += [*text, 0]
        offsets.append(len(tokens))
    spelling = [b"", *(bytes([byte]) for byte in range(1, 256))]
    for by in (Rarity(), Compression()):
        easy, hard = difficulty(by, np.array(tokens, np.uint16), np.array(offsets), spelling)
        assert easy < hard


def test_what_two_orders_share_is_told() -> None:
    mix, other = Weighted(weights={"old": 7, "new": 3}), Weighted(weights={"old": 1, "new": 1})
    early = Weighted(weights={"old": 1, "new": ((0, 1), (0.2, 0))})
    told = {
        ("shuffled", "shuffled"): shared(Shuffled(), Shuffled()),
        ("mix", "other mix"): shared(mix, other),
        ("shuffled", "mix"): shared(Shuffled(), mix),
        ("early", "its control"): shared(early, early.model_copy(update={"control": True})),
        ("curriculum", "its control"): shared(Curriculum(), Curriculum(control=True)),
        ("curriculum", "shuffled"): shared(Curriculum(), Shuffled()),
        ("of the same text", "shuffled"): shared(Curriculum(selection="shuffled"), Shuffled()),
        ("easy", "hard"): shared(Curriculum(), Curriculum(direction="hard_first")),
    }
    assert list(told.values()) == ["tokens", "sources", "sources", "text", "text", "corpus", "text", "corpus"]


def test_a_shuffled_selection_has_no_control_but_shuffling() -> None:
    with pytest.raises(ValidationError, match=r"whose control is Shuffled\(\)"):
        Curriculum(selection="shuffled", control=True)
