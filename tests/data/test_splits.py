"""Held-out documents: stable, and as many as asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workbench.data.corpora import Document
from workbench.data.splits import is_held_out, split

FRACTIONS = st.floats(0.01, 0.99)


@given(st.lists(st.text(max_size=8)), st.lists(st.text(max_size=8)), FRACTIONS)
def test_a_growing_corpus_moves_no_document_across_the_split(old: list[str], new: list[str], fraction: float) -> None:
    before = split([Document(text, text) for text in old], fraction)
    after = split([Document(text, text) for text in new + old], fraction)
    assert set(before[0]) <= set(after[0])
    assert set(before[1]) <= set(after[1])
    assert not set(after[0]) & set(after[1])


def test_the_fraction_is_kept_up_to_chance() -> None:
    held_out = split([Document("", str(number)) for number in range(10_000)], 0.05)[1]
    assert abs(len(held_out) - 500) < 4 * (10_000 * 0.05 * 0.95) ** 0.5


def test_the_hash_is_read_as_a_number_between_0_and_1() -> None:
    assert is_held_out("4" + "0" * 63, 0.26)
    assert not is_held_out("4" + "0" * 63, 0.25)
    assert not is_held_out("f" * 64, 0.99)
