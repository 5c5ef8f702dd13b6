"""The stream of training tokens: recomputable at any offset, fair to every document, and stable under filtering."""

from __future__ import annotations

from itertools import count, islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_files import token_file

from workbench.data.order import Stream, sort_keys
from workbench.data.prepared import TokenFile
from workbench.errors import DataError
from workbench.seeds import seed_for

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=12)
SEEDS = st.integers(0, 2**32)


def naive(train: TokenFile, seed: int, tokens: int) -> np.ndarray:
    """Concatenate whole epochs, document by document, with the sort key in Python's integers."""

    def mix(bits: int) -> int:
        bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % 2**64
        return bits ^ bits >> 31

    def key(document: int, epoch: int) -> int:
        low, high = (int.from_bytes(train.hashes[document, part : part + 8].tobytes(), "little") for part in (0, 8))
        high_key, low_key = divmod(seed_for(seed, f"data/{epoch}"), 2**64)
        return mix(mix(low ^ low_key) ^ high ^ high_key)

    def stream():
        for epoch in count():
            for document in sorted(range(len(train.hashes)), key=lambda document: key(document, epoch)):
                yield from train.tokens[train.offsets[document] : train.offsets[document + 1]]

    return np.array(list(islice(stream(), tokens)), np.int64)


@given(LENGTHS, SEEDS, st.integers(0, 200), st.integers(0, 100))
def test_any_slice_agrees_with_a_naive_concatenation(lengths: list[int], seed: int, offset: int, size: int) -> None:
    train = token_file(lengths)
    assert np.array_equal(Stream(train, seed).read(offset, size), naive(train, seed, offset + size)[offset:])


@given(LENGTHS, SEEDS, st.integers(0, 3))
def test_no_document_repeats_before_all_are_read(lengths: list[int], seed: int, epoch: int) -> None:
    train = token_file(lengths)
    stream = Stream(train, seed)
    assert sorted(stream.read(epoch * stream.length, stream.length)) == sorted(train.tokens)


@given(st.integers(2, 40), SEEDS, st.integers(0, 5), st.data())
def test_removing_documents_keeps_the_survivors_in_order(
    number: int, seed: int, epoch: int, draw: st.DataObject
) -> None:
    hashes = token_file([1] * number).hashes
    survivors = draw.draw(st.lists(st.integers(0, number - 1), min_size=1, unique=True).map(sorted))
    full = np.argsort(sort_keys(hashes, seed, epoch), kind="stable")
    filtered = np.argsort(sort_keys(hashes[survivors], seed, epoch), kind="stable")
    assert [document for document in full if document in survivors] == [survivors[place] for place in filtered]


@given(LENGTHS, SEEDS, st.integers(0, 50))
def test_batch_sizes_read_the_same_text(lengths: list[int], seed: int, offset: int) -> None:
    stream = Stream(token_file(lengths), seed)
    tokens, targets = stream.batch(offset, sequences=6, context=4)
    halves = [stream.batch(offset + start, sequences=3, context=4) for start in (0, 12)]
    assert np.array_equal(tokens, np.concatenate([half[0] for half in halves]))
    assert np.array_equal(targets, np.concatenate([half[1] for half in halves]))
    assert np.array_equal(tokens.ravel()[1:], targets.ravel()[:-1])
    assert tokens.shape == targets.shape == (6, 4)
    assert tokens.dtype == targets.dtype == np.int64


@given(LENGTHS, SEEDS, st.integers(0, 300))
def test_a_position_names_the_document_of_its_token(lengths: list[int], seed: int, offset: int) -> None:
    train = token_file(lengths)
    stream = Stream(train, seed)
    position = stream.position(offset)
    rows = [row.tobytes().hex() for row in train.hashes]
    token = stream.read(offset, 1)[0]
    assert position.epoch == offset // stream.length
    assert token in (0, rows.index(position.document) + 1)


def test_seeds_and_epochs_give_different_orders() -> None:
    train = token_file([2] * 50)
    stream = Stream(train, 0)
    orders = [stream.read(0, 100), stream.read(100, 100), Stream(train, 1).read(0, 100)]
    assert len({order.tobytes() for order in orders}) == 3


def test_sort_keys_are_spread_evenly() -> None:
    keys = sort_keys(token_file([1] * 4000).hashes, 0, 0) / 2**64
    counts = np.histogram(keys, bins=10, range=(0, 1))[0]
    assert np.sum((counts - 400) ** 2 / 400) < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001
    assert len(np.unique(keys)) == 4000


def test_no_tokens_make_no_stream() -> None:
    empty = TokenFile(np.empty(0, np.uint16), np.zeros(1, np.int64), np.empty((0, 32), np.uint8))
    with pytest.raises(DataError, match="nothing to train on"):
        Stream(empty, 0)
