"""Tokenizers in the format of Hugging Face, read from a local file.

Promises the tokens that the library gives for a text, except that no special token is added before or after it, that
the names of special tokens inside it are text, and what `workbench.data.byte_fallback` says of a `▁` and of spaces.
Refuses a tokenizer that does not give every text back: under one that normalises text, a model is not asked about the
text at hand, and its bits per byte are wrong.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workbench.data.byte_fallback import falls_back, rewritten
from workbench.data.corpora import END_OF_TEXT
from workbench.data.tokenizer import BYTE_NAMES, Tokenizer, leading, parsed
from workbench.errors import DataError

PROBES = (  # what normalisation, a prefixed space, an unknown token or stripping would change
    "a",
    " a  b\n\n\tc\r\n d   ",
    "Ünïcode, Å and A\u030a, ﬁ, ½, ², …, “quoted”, don't, 12345, İI",
    "日本語、한국어, Привет, עִבְרִית, हिन्दी, 🎈👨‍👩‍👧",
    "▁ ## Ġ @@ </w> <unk> <s> </s> <|endoftext|> [UNK] <0x0A>",
    "\x00\x07\u00a0\u200b\u2028\u3000\ufeff\U000e0001",
    " ".join(BYTE_NAMES),  # what merges could make of text that names a byte
    next(iter(BYTE_NAMES)),
)
WHY_NOT = {
    "Unigram": ", which takes the name of a byte or a special token in a text, such as <0x0A>, for that token",
    "WordPiece": ", which has no token for a space or an unknown character",
    "WordLevel": ", which has no token for an unknown word",
}
EXPECTED = "a tokenizer.json, or a folder with one, as save_pretrained writes it"


def read(path: str) -> bytes:
    """Return the file.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        return _file(path).read_bytes()
    except OSError as error:
        raise DataError(
            "a tokenizer cannot be read", where=_file(path), expected=EXPECTED, got=error.strerror or str(error)
        ) from None


def size(path: str) -> int:
    """Return how many ids a tokenizer needs: one more than its highest.

    Raises:
        DataError: if it cannot be read, or is not byte-pair encoding.
    """
    described = _described(path)
    return 1 + max(_ids(described).values())


def tokenizer_at(path: str, vocabulary: int, end_of_text: str | None = None, normalized: bool = True) -> Tokenizer:
    """Read a tokenizer.

    Args:
        path: A tokenizer.json, or a folder with one.
        vocabulary: The declared number of tokens.
        end_of_text: The token that ends a document; `<|endoftext|>`, or else the folder's eos_token, unless told.
        normalized: Whether a step that changes text before it is encoded is kept, to be refused if it does.

    Raises:
        DataError: if it cannot be read, is not byte-pair encoding, changes text, has no token that ends a document, or
            has more tokens than declared.
    """
    described, place = _rewritten(path, normalized), _file(path)
    if (tokens := size(path)) > vocabulary:
        raise DataError("a tokenizer has more tokens than declared", where=place, expected=vocabulary, got=tokens)
    _rename(described, _ending(described, place, end_of_text))
    tokenizer = parsed(json.dumps(described), vocabulary, place)
    _refuse_lossy(tokenizer, described, place)
    return tokenizer


def pieces_at(path: str, end_of_text: int) -> dict[str, int]:
    """Return the id of every token as `Tokenizer.pieces` of a tokenizer with this end_of_text would.

    Raises:
        DataError: if it cannot be read, or is not byte-pair encoding.
    """
    described = _rewritten(path, normalized=False)
    special = {token["id"]: token["content"] for token in described["added_tokens"] if token.get("special")}
    if end_of_text in special:
        _rename(described, special[end_of_text])
    return _ids(described)


def beginning(path: str) -> int | None:
    """Return the token that `transformers` puts before every text of a model, as of Llama 2; None where there is none.

    Raises:
        DataError: if the tokenizer cannot be read.
    """
    described, settings = _described(path), _settings(_file(path).parent)
    if "add_bos_token" in settings:
        asked = _named(settings, "bos_token") if settings["add_bos_token"] else None
        return None if asked is None else _ids(described).get(asked)
    return leading(json.dumps(described), _file(path))


def _rewritten(path: str, normalized: bool) -> dict[str, Any]:
    """Return a tokenizer that adds and takes away nothing; without a step that changes text, unless it is kept."""
    described: dict[str, Any] = _described(path) | {"post_processor": None, "truncation": None, "padding": None}
    if falls_back(described):
        return rewritten(described, _file(path), normalized)
    for token in described["added_tokens"]:
        token |= {"lstrip": False, "rstrip": False}  # the spaces around it are text
    described["model"]["byte_fallback"] = False  # byte-level tokens have nothing to fall back on
    return described if normalized else described | {"normalizer": None}


def _ids(described: dict[str, Any]) -> dict[str, int]:
    return {**described["model"]["vocab"], **{token["content"]: token["id"] for token in described["added_tokens"]}}


def _file(path: str) -> Path:
    found = Path(path).expanduser()
    return found / "tokenizer.json" if found.is_dir() else found


def _described(path: str) -> dict[str, Any]:
    content, place = read(path), _file(path)
    try:
        described = json.loads(content)
        kind, vocabulary = described["model"].get("type", "BPE"), described["model"]["vocab"]
        described.setdefault("added_tokens", [])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError("a tokenizer cannot be read", where=place, expected=EXPECTED, got="another file") from None
    if kind != "BPE" or not isinstance(vocabulary, dict):
        raise DataError(
            "a tokenizer is of a kind that does not keep every text byte for byte",
            where=f"{place}, model",
            expected="byte-pair encoding, byte-level as of GPT-2 and Llama 3, or with byte fallback as of Llama 2",
            got=f"{kind}{WHY_NOT.get(kind, '')}",
            fix="train one like it: workbench tokenizer train --vocabulary N --corpus FILE --out FOLDER",
        )
    return dict(described)


def _ending(described: dict[str, Any], place: Path, told: str | None) -> str:
    """Return the name of the token that ends a document."""
    names = {token["content"] for token in described["added_tokens"]} | described["model"]["vocab"].keys()
    asked = told or (END_OF_TEXT if END_OF_TEXT in names else _eos(place.parent))
    if asked is not None and asked in names:
        return asked
    special = [token["content"] for token in described["added_tokens"] if token.get("special")]
    raise DataError(
        "a tokenizer has no token that ends a document",
        where=place,
        expected=f"the token {asked}" if asked else f"{END_OF_TEXT}, or an eos_token in tokenizer_config.json",
        got=", ".join(special[:8]) or "no special token",
        fix='name the token: HuggingFaceTokenizer(path="...", end_of_text="...")',
    )


def _eos(folder: Path) -> str | None:
    return _named(_settings(folder), "eos_token")


def _settings(folder: Path) -> dict[str, Any]:
    """Return tokenizer_config.json; nothing where there is none."""
    try:
        found = json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _named(settings: dict[str, Any], name: str) -> str | None:
    held = settings.get(name)
    held = held.get("content") if isinstance(held, dict) else held
    return None if held is None else str(held)


def _rename(described: dict[str, Any], ending: str) -> None:
    """Call the token that ends a document `<|endoftext|>`, as everywhere here, and another of that name otherwise.

    No merge makes it, nor another special token: a text that has the name of one is text.
    """
    reserved = {ending, *(token["content"] for token in described["added_tokens"] if token.get("special"))}
    merges = described["model"].get("merges", [])
    described["model"]["merges"] = [pair for pair in merges if reserved.isdisjoint(_made(pair))]
    names = {ending: END_OF_TEXT} | ({END_OF_TEXT: f"{END_OF_TEXT} of old"} if ending != END_OF_TEXT else {})
    vocabulary: dict[str, int] = described["model"]["vocab"]
    described["model"]["vocab"] = {names.get(piece, piece): token for piece, token in vocabulary.items()}
    for token in described["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
        token["special"] = token.get("special", False) or token["content"] == END_OF_TEXT
    if all(token["content"] != END_OF_TEXT for token in described["added_tokens"]):
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        added = {"id": vocabulary[ending], "content": END_OF_TEXT, **plain, "special": True}
        described["added_tokens"] = sorted([*described["added_tokens"], added], key=lambda token: token["id"])


def _made(merge: str | list[str]) -> set[str]:
    """Return the two tokens that are joined, and the one that they become."""
    halves = merge.split(" ") if isinstance(merge, str) else merge
    return {*halves, "".join(halves)}


def _refuse_lossy(tokenizer: Tokenizer, described: dict[str, Any], place: Path) -> None:
    probes = [*PROBES, *(token["content"] for token in described["added_tokens"])]
    try:
        texts = [tokenizer.decode(tokens) for tokens in tokenizer.encode_batch(probes)]
    except KeyError:  # tokens that are not spelled in byte-level characters
        texts = [""] * len(probes)
    for probe, text in zip(probes, texts, strict=True):
        if text != probe:
            step = described.get("normalizer")
            fix = 'leave its normalizer out, if that is why: HuggingFaceTokenizer(path="...", normalizer="dropped")'
            raise DataError(
                "a tokenizer changes text, so that bits per byte would be wrong",
                where=place,
                expected=repr(probe),
                got=repr(text) if text else "tokens that are no bytes",
                fix=fix if step else "use a byte-level tokenizer that puts no space before a text",
            )
