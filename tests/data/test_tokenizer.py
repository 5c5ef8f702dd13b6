"""Byte pairs: lossless, deterministic, and equal however a text is cut for speed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from token_files import byte_lengths

from workbench.data.measured import measure
from workbench.data.tokenizer import (
    BEFORE_SPACE,
    BETWEEN_WORDS,
    ENCODED_CHARACTERS,
    PATTERNS,
    BytePairs,
    Tokenizer,
    _pieces,
    assembled,
)
from workbench.errors import DataError

TEXTS = ["the cat sat on the mat, the cat sat still", "a hat, a bat and a cat", "zażółć gęślą jaźń"] * 5
TOKENIZER = BytePairs(vocabulary=320).train(TEXTS)
MERGES = [
    (b" ", b"a"),
    (b"\n", b"\n"),
    (b"!", b"\n"),
    (b".", b"\n\n"),
    (b" ", b" "),
    (b" a", b"b"),
    (b"0", b"1"),
    (b" ", b"S"),
]
PIECES = {bytes([byte]): byte for byte in range(256)} | {one + two: 256 + n for n, (one, two) in enumerate(MERGES)}


@given(st.text())
def test_every_text_comes_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.text())
def test_byte_lengths_add_up_to_the_text(text: str) -> None:
    assert byte_lengths(TOKENIZER)[TOKENIZER.encode(text)].sum() == len(text.encode())


@given(st.text())
def test_the_spelling_of_tokens_is_the_bytes_of_the_text(text: str) -> None:
    assert b"".join(TOKENIZER.spelling[token] for token in TOKENIZER.encode(text)) == text.encode()


@given(st.text(st.sampled_from("ab ,.\n\t\r\x1c\x85\u00a0\u3000é日'"), max_size=60), st.integers(1, 90))
def test_cutting_a_long_text_changes_no_token(text: str, repeats: int) -> None:
    long = text * repeats
    expected = TOKENIZER._model.encode(long).ids
    assert TOKENIZER.encode(long).tolist() == expected
    assert "".join(_pieces(long, BEFORE_SPACE)) == long


WORDY = st.text(st.sampled_from("abcST ,.'!\n\t\r/0123\u00a0\u3000é日\u0301"), max_size=60)


@pytest.mark.parametrize("name", PATTERNS)
@given(text=WORDY, repeats=st.integers(40, 90))
@settings(max_examples=20)
def test_a_text_is_cut_between_words_where_the_pattern_would_cut_it_too(name: str, text: str, repeats: int) -> None:
    tokenizer = assembled(PIECES, MERGES, PATTERNS[name], 300, 301)
    assert tokenizer._boundary is BETWEEN_WORDS
    long = text * repeats + "some more words to end with. " * ENCODED_CHARACTERS
    long = long[: 3 * ENCODED_CHARACTERS]
    assert len(list(_pieces(long, BETWEEN_WORDS))) > 1
    assert tokenizer.encode(long).tolist() == tokenizer._model.encode(long).ids


def test_a_text_is_not_cut_where_nothing_is_known_of_the_pattern() -> None:
    tokenizer = assembled(PIECES, MERGES, r"[ab ]+|[^ab ]", 300, 301)
    long = "b a" * ENCODED_CHARACTERS
    assert tokenizer._boundary is None
    assert tokenizer.encode(long).tolist() == tokenizer._model.encode(long).ids
    assert tokenizer.decode(tokenizer.encode(long)) == long


def test_long_texts_are_cut() -> None:
    pieces = list(_pieces("some words " * ENCODED_CHARACTERS, BEFORE_SPACE))
    assert max(map(len, pieces)) < ENCODED_CHARACTERS + 20


def test_the_name_of_end_of_text_is_text_inside_a_document() -> None:
    tokens = TOKENIZER.encode("a<|endoftext|>b")
    assert TOKENIZER.end_of_text == 0
    assert 0 not in tokens
    assert TOKENIZER.decode(tokens) == "a<|endoftext|>b"
    assert byte_lengths(TOKENIZER)[0] == 0
    assert TOKENIZER.decode([0]) == ""


def test_a_cut_character_is_replaced_not_lost_silently() -> None:
    tokens = TOKENIZER.encode("🎈")
    assert TOKENIZER.decode(tokens[:-1]) == "\ufffd"


def test_training_twice_gives_the_same_tokenizer(tmp_path: Path) -> None:
    for name in ("a", "b"):
        BytePairs(vocabulary=400).train(TEXTS * 20).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_saved_tokenizer_encodes_alike(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json", TOKENIZER.vocabulary)
    text = "the cat <|endoftext|> sat"
    assert np.array_equal(loaded.encode(text), TOKENIZER.encode(text))
    assert np.array_equal(byte_lengths(loaded), byte_lengths(TOKENIZER))


def test_a_small_corpus_fills_less_than_the_declared_vocabulary() -> None:
    tokenizer = BytePairs(vocabulary=5000).train(["ab ab"])
    assert tokenizer.vocabulary == len(byte_lengths(tokenizer)) == 5000
    assert tokenizer.learned == 258  # <|endoftext|>, 256 bytes, "ab"
    assert byte_lengths(tokenizer)[tokenizer.learned :].sum() == 0


def test_a_vocabulary_without_room_for_every_byte_is_refused() -> None:
    with pytest.raises(ValidationError, match="257"):
        BytePairs(vocabulary=256)


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        Tokenizer.load(tmp_path / "tokenizer.json", 300)


def test_a_token_that_no_merge_makes_is_unreachable() -> None:
    assert TOKENIZER.unreachable() == []
    broken = assembled(PIECES | {b"qx": 290, b" abS": 291}, [*MERGES, (b" ab", b"S")], None, 300, 301)
    assert broken.unreachable() == [290]


def test_a_tokenizer_is_measured_on_text() -> None:
    measured = measure(TOKENIZER, TEXTS)
    assert measured.bytes == sum(len(text.encode()) for text in TEXTS)
    assert measured.tokens == sum(map(len, TOKENIZER.encode_batch(TEXTS)))
    assert measured.lossless
    assert measured.bytes_per_token == measured.bytes / measured.tokens
    assert measured.distinct == len({token for text in TEXTS for token in TOKENIZER.encode(text).tolist()})
    with pytest.raises(DataError, match="no text"):
        measure(TOKENIZER, [""])
