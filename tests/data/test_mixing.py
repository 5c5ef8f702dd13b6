"""Reading sources at their shares: to within one document at any point, each in its own order, recomputable."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import pairwise
from math import inf

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from token_files import token_file

from workbench.data.mixing import Flow, MixedStream, interleave, times_read
from workbench.data.order import Stream
from workbench.data.ordering import Weighted
from workbench.errors import DataError, PlanError
from workbench.identity import digest

NAMES = ("old", "new", "made")
LENGTHS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=3)
SEEDS = st.integers(0, 2**32)
EARLY = {"old": 1.0, "new": ((0.0, 3.0), (0.5, 0.0), (0.75, 0.0), (0.75, 2.0)), "made": ((0.1, 0.0), (0.9, 5.0))}


def mixed(lengths: list[list[int]], order: Weighted, budget: int, seed: int = 0, rollback: int = 0) -> MixedStream:
    sources = [source for source, held in enumerate(lengths) for _ in held]
    train = token_file([length for held in lengths for length in held], sources)
    return MixedStream(train, np.array(sources, np.uint8), NAMES[: len(lengths)], order, budget, seed, rollback)


def read(stream: MixedStream, tokens: int) -> list[tuple[int, int]]:
    """Return the documents of which the first tokens of the stream are, in order: (number, tokens read of it)."""
    ends = np.flatnonzero(stream.documents(0, tokens + 1)[1:] != stream.documents(0, tokens + 1)[:-1]) + 1
    cuts = [0, *(end for end in ends.tolist() if end < tokens), tokens]
    numbers = np.searchsorted(stream._train.offsets, stream.places(0, tokens), side="right") - 1
    return [(int(numbers[begin]), end - begin) for begin, end in pairwise(cuts)]


def declared(count: int, scheduled: bool) -> Weighted:
    return Weighted.model_validate(
        {"weights": {name: EARLY[name] if scheduled else 1 + 2 * place for place, name in enumerate(NAMES[:count])}}
    )


@settings(max_examples=20, deadline=None)
@given(LENGTHS, st.booleans(), st.integers(10, 400), SEEDS)
def test_every_source_has_its_share_to_within_one_document_at_any_point(
    lengths: list[list[int]], scheduled: bool, budget: int, seed: int
) -> None:
    order = declared(len(lengths), scheduled)
    stream = mixed(lengths, order, budget, seed)
    sources = stream._sources[np.searchsorted(stream._train.offsets, stream.places(0, budget), "right") - 1]
    achieved = np.cumsum(sources[:, None] == np.arange(len(lengths)), 0)
    knots, shares = order.shares(NAMES[: len(lengths)])
    flowed = np.concatenate([np.zeros((1, len(lengths))), np.cumsum(np.diff(knots)[:, None] * shares, 0)]) * budget
    at = np.arange(1, budget + 1)
    wanted = np.stack([np.interp(at, knots * budget, held) for held in flowed.T], 1)
    assert np.abs(achieved - wanted).max() <= max(map(max, lengths)) + 0.01


def naive(lengths: list[list[int]], weights: list[int], documents: int) -> list[int]:
    """Return the sources of so many documents in exact arithmetic; each has its lengths over and over."""
    total, time, heads, begun, found = sum(weights), 0, [0] * len(weights), [0] * len(weights), []
    for _ in range(documents):
        open_ones = []
        for source, weight in enumerate(weights):
            size = lengths[source][heads[source] % len(lengths[source])]
            if weight and Fraction(begun[source] * total, weight) <= time:
                open_ones.append((Fraction((begun[source] + size) * total, weight), source, size))
        _, source, size = min(open_ones)
        found.append(source)
        time, heads[source], begun[source] = time + size, heads[source] + 1, begun[source] + size
    return found


@settings(max_examples=20, deadline=None)
@given(LENGTHS, st.lists(st.integers(0, 12), min_size=3, max_size=3).filter(lambda held: held[0] > 0))
def test_constant_shares_agree_with_a_naive_loop_in_fractions(lengths: list[list[int]], weights: list[int]) -> None:
    weights, names = weights[: len(lengths)], NAMES[: len(lengths)]
    order = Weighted(weights=dict(zip(names, map(float, weights), strict=True)))
    flow = Flow.of(order, names, 150)
    found = interleave(flow, [np.tile(held, 250) for held in lengths], 150).tolist()
    assert found == naive(lengths, weights, len(found))
    sizes = [0] * len(names)
    for source in found:
        sizes[source] += 1
    assert (
        sum(
            lengths[source][number % len(lengths[source])]
            for source in range(len(names))
            for number in range(sizes[source])
        )
        >= 150
    )


def test_shares_go_in_straight_lines_between_points_and_jump_where_two_meet() -> None:
    order = Weighted(weights={"old": 1, "new": ((0, 1), (0.5, 0)), "made": ((0.5, 0), (0.5, 1))})
    knots, shares = order.shares(NAMES)
    at = {progress: shares[np.searchsorted(knots, progress, side="right") - 1] for progress in (0.0, 0.25, 0.49, 0.75)}
    assert at[0.0] == pytest.approx([0.5, 0.5, 0], abs=1e-3)
    assert at[0.25] == pytest.approx([1 / 1.5, 0.5 / 1.5, 0], abs=1e-3)
    assert at[0.49] == pytest.approx([1 / 1.02, 0.02 / 1.02, 0], abs=1e-3)
    assert at[0.75] == pytest.approx([0.5, 0, 0.5])
    # over the half in which it falls, 1 of it in (1 + x): the integral of x / (1 + x) from 0 to 1, halved
    assert order.tokens(NAMES, 1000)["new"] == pytest.approx(1000 * (1 - np.log(2)) / 2, abs=0.1)


def test_points_are_told_in_words_and_read_back() -> None:
    order = Weighted(weights={"old": 0.7, "new": ((0, 1), (0.2, 0.3))})
    told = order.model_dump(mode="json")
    assert told["weights"] == {"old": 0.7, "new": "1 at 0, 0.3 at 0.2"}
    assert Weighted.model_validate(told) == order
    assert Weighted.model_validate_json(order.model_dump_json()) == order
    assert digest(Weighted.model_validate({"weights": {"old": 0.7, "new": [[0, 1], [0.2, 0.3]]}})) == digest(order)


def test_an_early_source_is_read_early_and_never_again() -> None:
    lengths = [[7] * 40, [5] * 40]
    early = Weighted(weights={"old": ((0.3, 0), (0.3, 1)), "new": ((0.3, 1), (0.3, 0))})
    sources = [0 if number < 40 else 1 for number, _ in read(mixed(lengths, early, 200), 200)]
    assert sources == sorted(sources, reverse=True)
    assert sources.count(1) == 12  # of five tokens each: 60 of 200


@settings(max_examples=15, deadline=None)
@given(LENGTHS, st.integers(20, 300), SEEDS)
def test_no_document_repeats_before_all_of_its_source_were_read(
    lengths: list[list[int]], budget: int, seed: int
) -> None:
    for control in (False, True):
        order = declared(len(lengths), True).model_copy(update={"control": control})
        stream = mixed(lengths, order, budget, seed)
        for source, held in enumerate(lengths):
            first = sum(map(len, lengths[:source]))
            numbers = [number for number, _ in read(stream, budget) if first <= number < first + len(held)]
            epochs = [numbers[begin : begin + len(held)] for begin in range(0, len(numbers), len(held))]
            assert all(len(set(epoch)) == len(epoch) for epoch in epochs)


@settings(max_examples=15, deadline=None)
@given(LENGTHS, st.integers(5, 300), SEEDS, st.integers(0, 2))
def test_a_control_reads_the_same_documents_as_often(
    lengths: list[list[int]], budget: int, seed: int, rollback: int
) -> None:
    order = declared(len(lengths), True)
    control = order.model_copy(update={"control": True})
    ours, theirs = (mixed(lengths, one, budget, seed, rollback) for one in (order, control))
    end = len(ours.lap(0).order)  # the documents that the budget reads, the last of them whole
    total = int(ours.lap(0).ends[-1])
    assert int(theirs.lap(0).ends[-1]) == total > budget
    assert total - ours._lengths[ours.lap(0).order[-1]] <= budget
    assert Counter(ours.lap(0).order.tolist()) == Counter(theirs.lap(0).order.tolist())
    assert end == len(theirs.lap(0).order)


def test_a_control_has_no_schedule() -> None:
    lengths = [[3] * 200, [3] * 200]
    order = Weighted(weights={"old": ((0, 1), (1, 0)), "new": ((0, 0), (1, 1))})
    halves = {}
    for control in (False, True):
        numbers = [
            number for number, _ in read(mixed(lengths, order.model_copy(update={"control": control}), 900), 900)
        ]
        halves[control] = [sum(number < 200 for number in half) for half in (numbers[:150], numbers[150:])]
    assert halves[False] == [pytest.approx(112, abs=2), pytest.approx(38, abs=2)]
    assert halves[True] == [pytest.approx(75, abs=20), pytest.approx(75, abs=20)]


@settings(max_examples=15, deadline=None)
@given(
    LENGTHS.filter(lambda lengths: min(map(sum, lengths)) > 9),
    st.booleans(),
    SEEDS,
    st.integers(0, 250),
    st.integers(0, 60),
)
@example([[4, 1, 1, 2, 2], [1, 8, 3], [1, 1, 8]], False, 59829, 39, 60)  # two ends a rounding apart, after the budget
def test_any_slice_is_recomputed_by_a_stream_that_read_nothing_before(
    lengths: list[list[int]], control: bool, seed: int, offset: int, count: int
) -> None:
    order = declared(len(lengths), True).model_copy(update={"control": control})
    whole = mixed(lengths, order, 100, seed).read(0, 320)  # beyond the budget too
    assert np.array_equal(mixed(lengths, order, 100, seed).read(offset, count), whole[offset : offset + count])
    late = mixed(lengths, order, 100, seed)
    late.read(310, 10)
    assert np.array_equal(late.read(offset, count), whole[offset : offset + count])


def test_each_source_keeps_its_order_whatever_its_share() -> None:
    lengths = [[4] * 30, [6] * 30]
    orders = []
    for share in (1.0, 5.0):
        stream = mixed(lengths, Weighted(weights={"old": share, "new": 1}), 120)
        orders.append([number for number, _ in read(stream, 120) if number < 30])
    shortest = min(map(len, orders))
    assert orders[0][:shortest] == orders[1][:shortest]
    alone = Stream(token_file([4] * 30 + [6] * 30), 0)
    assert [document for document in alone.arranged(0) if document < 30][:shortest] == orders[0][:shortest]


def test_a_position_counts_the_epochs_of_its_source() -> None:
    stream = mixed([[10], [10] * 50], Weighted(weights={"old": 1, "new": 1}), 200)
    epochs = [stream.position(offset).epoch for offset in range(0, 200, 10)]
    numbers = [number for number, _ in read(stream, 200)]
    assert [epoch for epoch, number in zip(epochs, numbers, strict=True) if number == 0] == list(range(10))
    assert not any(epoch for epoch, number in zip(epochs, numbers, strict=True) if number)


def test_a_source_is_read_in_another_order_every_epoch() -> None:
    stream = mixed([[4] * 12, [6] * 30], Weighted(weights={"old": 5, "new": 1}), 300)
    numbers = [number for number, _ in read(stream, 300) if number < 12]
    epochs = [numbers[begin : begin + 12] for begin in (0, 12, 24)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_after_the_budget_shares_are_those_of_its_end() -> None:
    stream = mixed([[4] * 50, [4] * 50], Weighted(weights={"old": 1, "new": ((0, 9), (1, 1))}), 200)
    numbers = [number for number, _ in read(stream, 600)]
    assert sum(number >= 50 for number in numbers[:50]) > 32
    assert sum(number >= 50 for number in numbers[50:]) == pytest.approx(50, abs=2)


def test_rollbacks_and_seeds_read_other_text_at_the_same_shares() -> None:
    lengths, order = [[3, 5, 7, 4] * 20, [6, 2] * 20], Weighted(weights={"old": 7, "new": 3})
    streams = [mixed(lengths, order, 300), mixed(lengths, order, 300).restarted(1), mixed(lengths, order, 300, seed=1)]
    assert len({stream.read(0, 300).tobytes() for stream in streams}) == 3
    for stream in streams:
        assert sum(size for number, size in read(stream, 300) if number < 80) == pytest.approx(210, abs=7)


def test_how_often_sources_are_read_is_the_share_of_the_budget_over_their_tokens() -> None:
    told = times_read(Weighted(weights={"old": 7, "new": 3}), {"old": 700, "new": 100}, 1000)
    assert told == {"old": pytest.approx(1.0), "new": pytest.approx(3.0)}
    lengths = [[7] * 100, [5] * 20]
    numbers = Counter(
        number >= 100 for number, _ in read(mixed(lengths, Weighted(weights={"old": 7, "new": 3}), 1000), 1000)
    )
    assert numbers[True] / 20 == pytest.approx(3.0, abs=0.1)


def test_a_source_without_text_cannot_have_a_share() -> None:
    train = token_file([3, 4], [0, 0])
    with pytest.raises(DataError, match="no documents to train on"):
        MixedStream(train, np.zeros(2, np.uint8), ("old", "new"), Weighted(weights={"old": 1, "new": 1}), 50, 0)
    stream = MixedStream(train, np.zeros(2, np.uint8), ("old", "new"), Weighted(weights={"old": 1, "new": 0}), 50, 0)
    assert len(stream.read(0, 50)) == 50


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({}, "at least 1"),
        ({"old": -1}, "greater than or equal"),
        ({"old": "much at first"}, "expected points such as '1 at 0, 0 at 0.2'"),
        ({"old": inf}, "finite"),
        ({"old": ()}, "got no point"),
        ({"old": ((0.5, 1), (0.2, 1))}, "in the order of progress"),
        ({"old": ((0, 1), (1.5, 1))}, "less than or equal to 1"),
        ({"old": 0, "new": 0}, "a source with a share at any time, got none at 0"),
        ({"old": ((0.4, 1), (0.5, 0))}, "got none at 0.5"),
    ],
)
def test_impossible_shares_are_refused(weights: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Weighted.model_validate({"weights": weights})


def test_weights_of_other_sources_than_there_are_are_refused() -> None:
    order = Weighted(weights={"old": 1, "nwe": 1})
    with pytest.raises(PlanError, match="each of old, new"):
        order.refuse_other_sources(("old", "new"), "arm 'mixed', data.order")
    with pytest.raises(PlanError, match="a corpus of several sources"):
        order.refuse_other_sources((), "arm 'mixed', data.order")
