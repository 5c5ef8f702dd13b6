"""Byte fallback in the style of SentencePiece: the library's tokens, and every text back, a literal ▁ included."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_pieces import BYTES, SPECIAL, STYLES, described, write_folder

from workbench.data.corpora import Files
from workbench.data.prepared import Data, prepare
from workbench.data.pretrained import beginning, pieces_at
from workbench.data.tokenizer import AFTER_WORD, ENCODED_CHARACTERS, Tokenizer
from workbench.data.vocabularies import HuggingFaceTokenizer
from workbench.errors import DataError

PARTS = ["the", " old", "ship", "  ", "    return", "\n", "\t", "▁", "ż", "日", "é", "🎈", ".", "A", "\u00a0", *SPECIAL]
TEXTS = st.text(max_size=30) | st.lists(st.sampled_from([*PARTS, "<0x0A>", "<|endoftext|>", " "]), max_size=14).map(
    "".join
)


@cache
def ours(style: str) -> Tokenizer:
    return read(described(style))


def read(found: dict[str, Any], **choice: Any) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        return HuggingFaceTokenizer(path=str(write_folder(Path(folder), found)), **choice).train(())


@cache
def library(style: str) -> Any:
    from tokenizers import Tokenizer as Library

    model = Library.from_str(json.dumps(described(style)))
    model.encode_special_tokens = True
    return model


@pytest.mark.parametrize("style", STYLES)
@given(text=TEXTS)
def test_every_text_comes_back_and_is_spelled_by_its_tokens(style: str, text: str) -> None:
    tokenizer = ours(style)
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    spelled = b"".join(tokenizer.spelling[token] for token in tokens)
    assert spelled == (tokenizer.prefix + text if text else text).encode()
    assert tokenizer.end_of_text not in tokens
    rest = tokenizer.encode(text, continued=True)
    assert tokenizer.decode(rest, continued=True) == text
    assert b"".join(tokenizer.spelling[token] for token in rest) == text.encode()


@pytest.mark.parametrize("style", STYLES)
@given(text=TEXTS)
def test_tokens_are_those_of_the_library(style: str, text: str) -> None:
    text = text.replace("▁", "_")
    if STYLES[style][0] is None:
        text = text.lstrip(" ")  # before which the library's Metaspace puts no space
    assert ours(style).encode(text).tolist() == library(style).encode(text, add_special_tokens=False).ids


def test_tokens_are_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra 'eval'")
    theirs = transformers.AutoTokenizer.from_pretrained(write_folder(tmp_path))
    assert type(theirs).__name__ == "LlamaTokenizer"
    for text in ("the ship", "ship\n\tż 日  over", "", "a", "def sail():\n    return  ship\n"):
        assert ours("llama2").encode(text).tolist() == theirs.encode(text, add_special_tokens=False)


def test_a_mark_a_space_at_the_beginning_and_the_name_of_a_byte_are_what_they_are() -> None:
    tokenizer = ours("llama2")
    space, mark = tokenizer.pieces[" "], [tokenizer.pieces[f"<0x{byte:02X}>"] for byte in "▁".encode()]
    assert tokenizer.encode("▁").tolist() == [space, *mark]
    assert tokenizer.encode("▁", continued=True).tolist() == mark
    assert tokenizer.encode(" ").tolist() in ([space, space], [tokenizer.pieces["  "]])
    assert tokenizer.encode("").tolist() == []
    assert tokenizer.encode("\n", continued=True).tolist() == [tokenizer.pieces["<0x0A>"]]
    assert tokenizer.pieces["<0x0A>"] not in tokenizer.encode("<0x0A>")
    assert tokenizer.encode("the").tolist() == tokenizer.encode(" the", continued=True).tolist()
    assert (
        ours("mistral").encode(" the").tolist() == tokenizer.encode(" the").tolist()
    )  # as SentencePiece itself has it
    assert ours("gemma").prefix == ""
    assert ours("gemma").encode("the").tolist() == tokenizer.encode("the", continued=True).tolist()


@pytest.mark.parametrize("style", STYLES)
@given(
    text=st.lists(st.sampled_from([*PARTS, " ", "\n  "]), min_size=1, max_size=40).map("".join),
    times=st.integers(60, 99),
)
@settings(max_examples=15)
def test_cutting_a_long_text_changes_no_token(style: str, text: str, times: int) -> None:
    tokenizer, long = ours(style), (text * times)[: 3 * ENCODED_CHARACTERS]
    assert tokenizer._boundary is AFTER_WORD
    assert tokenizer.encode(long).tolist() == tokenizer._model.encode(tokenizer.prefix + long).ids


def test_a_text_is_not_cut_where_a_token_goes_on_to_the_next_word() -> None:
    found = described()
    found["model"]["vocab"]["▁of▁the"] = 360
    found["model"]["merges"].append(["▁of", "▁the"])
    tokenizer = read(found)
    assert tokenizer._boundary is None
    assert 360 in tokenizer.encode("wives of the sea")
    assert tokenizer.decode(tokenizer.encode("of the " * ENCODED_CHARACTERS)) == "of the " * ENCODED_CHARACTERS


def test_the_token_that_ends_a_document_and_others_have_no_text() -> None:
    tokenizer = ours("llama2")
    assert (tokenizer.end_of_text, tokenizer.vocabulary, tokenizer.learned) == (2, 360, 360)
    assert tokenizer.spelling[:3] == (b"", b"", b"")
    assert tokenizer.spelling[3:259] == tuple(bytes([byte]) for byte in range(256))
    unreachable = tokenizer.unreachable()
    assert tokenizer.pieces["<0x61>"] in unreachable  # "a", which is in the vocabulary
    assert not {tokenizer.pieces["<0x0A>"], tokenizer.pieces["<0xC5>"], tokenizer.pieces[" the"]} & set(unreachable)


def test_bytes_that_the_library_trained_as_special_tokens_are_bytes() -> None:
    found = described()
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    ids = found["model"]["vocab"]
    found["added_tokens"] += [{"id": ids[name], "content": name, **plain, "special": True} for name in BYTES]
    assert read(found).pieces == ours("llama2").pieces
    assert np.array_equal(read(found).encode("ż\n<0x0A>"), ours("llama2").encode("ż\n<0x0A>"))


def test_added_tokens_keep_their_ids_and_the_spaces_around_them() -> None:
    found = described("gemma")
    token = {"id": 360, "content": "<tool>", "single_word": False, "lstrip": True, "rstrip": True, "normalized": False}
    found["added_tokens"] += [
        {**token, "special": False},
        {
            **token,
            "id": found["model"]["vocab"]["▁▁"],
            "content": "▁▁",
            "special": False,
        },  # looked for as it is, so that no space is one
        {**token, "id": 361, "content": "▁<PRE>", "special": True},
        {**token, "id": 362, "content": "a tool", "special": False},
    ]
    tokenizer, text = read(found), "the  <tool>  ship ▁▁ ▁<PRE> <PRE> a tool"
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert {360, 362} & set(tokens.tolist()) == {360, 362}
    assert not {361, tokenizer.pieces["  "]} & set(tokenizer.encode("▁▁ ▁<PRE> <PRE>").tolist())
    assert tokenizer.pieces["  "] in tokenizer.encode("  the")
    assert tokenizer.spelling[361] == b""


def test_a_name_that_merges_make_is_text() -> None:
    found = described()
    ids = found["model"]["vocab"]
    for piece in ("</", "</s", "<0", "<0x", "<0x0", "<0x0A", "/", ">", "<", "0", "x"):
        ids.setdefault(piece, len(ids))
    pairs = [
        ("<", "/"),
        ("</", "s"),
        ("</s", ">"),
        ("<", "0"),
        ("<0", "x"),
        ("<0x", "0"),
        ("<0x0", "A"),
        ("<0x0A", ">"),
    ]
    ids.setdefault("A", len(ids))
    found["model"]["merges"] += [list(pair) for pair in pairs]
    tokenizer = read(found)
    tokens = tokenizer.encode("</s> <0x0A>")
    assert tokenizer.decode(tokens) == "</s> <0x0A>"
    assert not {2, ids["<0x0A>"]} & set(tokens.tolist())
    assert {ids["</s"], ids["<0x0A"]} <= set(tokens.tolist())


# --- saved, published, prepared


@pytest.mark.parametrize("style", STYLES)
def test_a_saved_tokenizer_encodes_alike(style: str, tmp_path: Path) -> None:
    tokenizer, text = ours(style), " the ship ▁ż\n</s>"
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json", 400)
    assert loaded.prefix == tokenizer.prefix
    assert np.array_equal(loaded.encode(text), tokenizer.encode(text))
    assert loaded.decode(loaded.encode(text)) == text


@pytest.mark.parametrize("style", STYLES)
def test_a_published_tokenizer_is_the_same_in_transformers_and_read_back(style: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra 'eval'")
    tokenizer = ours(style)
    tokenizer.publish(tmp_path, 64)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    again = HuggingFaceTokenizer(path=str(tmp_path)).train(())
    assert again.pieces == tokenizer.pieces
    for text in ("the ship", " the ship", "", "▁the ▁", "ż 日\n", "</s> <|endoftext|> <0x0A>", "  ", "<unk>"):
        expected = tokenizer.encode(text).tolist()
        assert theirs.encode(text) == expected
        assert theirs.decode(expected) == text
        assert again.encode(text).tolist() == expected
    assert theirs.eos_token_id == tokenizer.end_of_text


def test_prepared_documents_come_back(corpus: Callable[..., Files], tmp_path: Path) -> None:
    choice = HuggingFaceTokenizer(path=str(write_folder(tmp_path / "theirs")))
    prepared = prepare(Data(corpus=corpus(), tokenizer=choice, held_out=0.25), tmp_path / "cache")
    loaded, train = prepared.tokenizer, prepared.train
    texts = [loaded.decode(train.tokens[a:b]) for a, b in zip(train.offsets, train.offsets[1:], strict=False)]
    assert sum(len(text.encode()) for text in texts) == prepared.facts.training_bytes
    assert all(np.array_equal(loaded.encode(text), ours("llama2").encode(text)) for text in texts)


def test_what_stands_before_every_text_is_known(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    assert beginning(str(folder)) == 1
    settings = folder / "tokenizer_config.json"
    told = json.loads(settings.read_text())
    for added, expected in ((False, None), (True, 1)):
        settings.write_text(json.dumps({**told, "add_bos_token": added}))
        assert beginning(str(folder)) == expected
    settings.write_text(json.dumps(told))
    assert beginning(str(write_folder(tmp_path, {**described(), "post_processor": None}))) is None
    assert pieces_at(str(folder), 2) == ours("llama2").pieces


# --- refused


def test_a_tokenizer_without_all_bytes_is_refused() -> None:
    found = described()
    found["model"]["vocab"]["nothing"] = found["model"]["vocab"].pop("<0x0A>")
    with pytest.raises(DataError, match="cannot write every text") as raised:
        read(found)
    assert "no <0x0A>" in str(raised.value)


def test_a_step_that_changes_text_is_refused_and_may_be_dropped() -> None:
    found = described()
    found["normalizer"]["normalizers"].insert(0, {"type": "NFKC"})
    with pytest.raises(DataError, match="NFKC") as raised:
        read(found)
    assert 'normalizer="dropped"' in str(raised.value)
    assert read(found, normalizer="dropped").pieces == ours("llama2").pieces
    found = described() | {"pre_tokenizer": {"type": "Digits", "individual_digits": True}}
    with pytest.raises(DataError, match="Digits"):
        read(found)
    found = described() | {"normalizer": {"type": "Prepend", "prepend": "▁"}}
    with pytest.raises(DataError, match="where spaces are no ▁"):
        read(found)


def test_a_unigram_is_refused_and_told_why() -> None:
    pieces = [[name, 0.0] for name in (*SPECIAL, *BYTES, "▁", "a")]
    found = described() | {"model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": True}}
    from tokenizers import Tokenizer as Library

    library = Library.from_str(json.dumps(found))
    library.encode_special_tokens = True
    assert "<0x0A>" in library.encode("a<0x0A>").tokens  # which is why
    with pytest.raises(DataError, match="Unigram, which takes the name of a byte"):
        read(found)
