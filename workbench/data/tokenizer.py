"""Tokenizers: how text becomes tokens, as a declaration, and the trained tokenizer that does it.

Promises that every UTF-8 text comes back byte for byte, that the same training text gives the same tokenizer, and that
the text `<|endoftext|>` inside a document is text: the token of that name is only ever put between documents. Tokens
are byte-level, or characters with bytes to fall back on (`workbench.data.byte_fallback`). What other vocabularies there
are stands in `workbench.data.vocabularies`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workbench.data.corpora import END_OF_TEXT
from workbench.errors import DataError, MissingExtra
from workbench.identity import Spec, setting

if TYPE_CHECKING:
    import tokenizers

ENCODED_CHARACTERS = 2048  # measured: long texts encode 1.6 times as fast when cut to about this length
# GPT-2's pattern joins a space or line end to what follows it and never to what precedes it
BEFORE_SPACE = re.compile(r"(?<=\S)[ \n]")
# every one of PATTERNS begins a token with a space before a letter, and lets none go on from a letter to a space
BETWEEN_WORDS = re.compile(r"(?<=[A-Za-z]) (?=[A-Za-z])")
# no token of SentencePiece has a space after anything else; where one has, no text is cut
AFTER_WORD = re.compile(r"(?<=[^ ]) ")
BYTE_NAMES = {f"<0x{byte:02X}>": byte for byte in range(256)}  # how bytes that are fallen back on are written
PREFIXED = {"type": "Prepend", "prepend": " "}  # the one normalizer that loses nothing: `decode` takes it back
# What no merge crosses, by the vocabulary that came with it. Written for Oniguruma, which has no possessive interval;
# they cut as tiktoken's do, which are written to be fast.
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


class BytePairs(Spec):
    """Byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019) trained on the training documents.

    `vocabulary` counts all tokens: `<|endoftext|>`, which is 0, the 256 bytes, and merges. No text is normalised.
    """

    kind: Literal["bpe"] = "bpe"
    vocabulary: int = setting(2048, ge=257, le=1_000_000)

    def train(self, texts: Sequence[str]) -> Tokenizer:
        """Learn the merges that `texts` call for; fewer than declared where a small corpus does not offer as many."""
        library = _library()
        trainer = library.trainers.BpeTrainer(
            vocab_size=self.vocabulary,
            min_frequency=2,
            show_progress=False,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        )
        model = library.Tokenizer(library.models.BPE())
        model.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.train_from_iterator(texts, trainer)
        return Tokenizer(model, self.vocabulary)


class Tokenizer:
    """A trained tokenizer.

    Attributes:
        vocabulary: The declared number of tokens: every id is below it, though a small corpus may not fill it.
        end_of_text: The id that follows every document.
        begin_of_text: The id before every text that the model of others was trained on, where that is not the
            end_of_text of the text before; None for every model of ours.
        prefix: What is put before a text: a space, or nothing. It belongs to the first token, is no part of the text,
            and where a text goes on (`continued`) there is none.
    """

    def __init__(self, model: tokenizers.Tokenizer, vocabulary: int) -> None:
        model.encode_special_tokens = True  # "<|endoftext|>" in a document is thirteen characters, not the end of it
        self.prefix = " " if _described(model.normalizer) == PREFIXED else ""
        if self.prefix:
            model.normalizer = None  # it would stand before every piece of a long text
        self._model = model
        self._falls_back = _falls_back(model)
        self._boundary = _boundary(model)
        self.vocabulary = vocabulary
        self.end_of_text = int(model.get_vocab()[END_OF_TEXT])
        self.begin_of_text: int | None = None

    @classmethod
    def load(cls, path: Path, vocabulary: int) -> Tokenizer:
        """Read a tokenizer that `save` wrote.

        Raises:
            DataError: if the file is missing or damaged.
        """
        try:
            return parsed(path.read_text(encoding="utf-8"), vocabulary, path)
        except (OSError, UnicodeDecodeError) as error:
            raise DataError("a tokenizer cannot be read", where=path, got=str(error).splitlines()[0]) from None

    def save(self, path: Path) -> None:
        """Write the tokenizer in the JSON format of the `tokenizers` library, which `transformers` reads too."""
        if self.prefix:
            path.write_text(json.dumps(self._written(), ensure_ascii=False), encoding="utf-8")
        else:
            self._model.save(str(path))

    def publish(self, folder: Path, context: int) -> tuple[Path, Path]:
        """Write it into a folder, made if need be, for `transformers.AutoTokenizer.from_pretrained`; return the files.

        Text becomes the same tokens there as here, `<|endoftext|>` inside a text included; that token begins and ends
        documents and is added by nobody unasked.

        Args:
            folder: Where, beside the model's config.json if there is one.
            context: The longest sequence of the model, in tokens.
        """
        described = self._written()
        described["decoder"] = self._decoder()
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END_OF_TEXT,
            "eos_token": END_OF_TEXT,
            "split_special_tokens": True,
            "clean_up_tokenization_spaces": False,
            "model_max_length": context,
        }
        folder.mkdir(parents=True, exist_ok=True)
        paths = folder / "tokenizer.json", folder / "tokenizer_config.json"
        for path, written in zip(paths, (described, settings), strict=True):
            path.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return paths

    def _written(self) -> dict[str, Any]:
        described: dict[str, Any] = json.loads(self._model.to_str())
        return {**described, "normalizer": PREFIXED} if self.prefix else described

    def _decoder(self) -> dict[str, Any]:
        steps: list[dict[str, Any]] = [{"type": "ByteFallback"}, {"type": "Fuse"}]
        if not self._falls_back:
            steps = [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]
        if self.prefix:
            steps.append({"type": "Strip", "content": self.prefix, "start": 1, "stop": 0})
        return {"type": "Sequence", "decoders": steps} if len(steps) > 1 else steps[0]

    @property
    def learned(self) -> int:
        """How many tokens the corpus filled; at most `vocabulary`."""
        return int(self._model.get_vocab_size())

    @property
    def pieces(self) -> dict[str, int]:
        """The id of every token the corpus filled, by the way the `tokenizers` library writes it."""
        return dict(self._model.get_vocab())

    def unreachable(self) -> list[int]:
        """Return the ids of tokens that no text has: merges do not make them of their own bytes."""
        special = self._model.get_added_tokens_decoder()
        made = self._model.model.tokenize
        fallen = BYTE_NAMES if self._falls_back else {}
        return [
            token
            for piece, token in self.pieces.items()
            # of a character that takes several bytes, there is always another that has this one
            if token not in special and fallen.get(piece, 0) < 128
            if [one.id for one in made(chr(fallen[piece]) if piece in fallen else piece)] != [token]
        ]

    def encode(self, text: str, *, continued: bool = False) -> np.ndarray:
        """Return the tokens of `text`, int64[tokens], without an end_of_text."""
        return self.encode_batch([text], continued=continued)[0]

    def encode_batch(self, texts: Sequence[str], *, continued: bool = False) -> list[np.ndarray]:
        """Return the tokens of each text, int64[tokens], using every core that RAYON_NUM_THREADS allows.

        Args:
            texts: Any.
            continued: Whether each goes on from text before it, so that no `prefix` is put before it.
        """
        prefix = "" if continued else self.prefix
        pieces = [list(_pieces(prefix + text if text else text, self._boundary)) for text in texts]
        encoded = iter(self._model.encode_batch_fast([piece for cut in pieces for piece in cut]))
        return [np.concatenate([np.asarray(next(encoded).ids, np.int64) for _ in cut]) for cut in pieces]

    @property
    def first(self) -> int:
        """The id from which a document begins: begin_of_text, or else end_of_text."""
        return self.end_of_text if self.begin_of_text is None else self.begin_of_text

    def begun(self, tokens: np.ndarray) -> np.ndarray:
        """Return the tokens of a document after the one from which it begins, int64[tokens + 1]."""
        return np.append(np.int64(self.first), tokens)

    def decode(self, tokens: Any, *, continued: bool = False) -> str:
        """Return the text of a sequence of ids; bytes that are not UTF-8 (a character cut in two) become U+FFFD.

        Args:
            tokens: Those of a text from its beginning, or of the rest of one.
            continued: Whether they are the rest, so that a space before them is text and no `prefix`.
        """
        found = b"".join(self.spelling[token] for token in np.asarray(tokens).tolist())
        return (found if continued else found.removeprefix(self.prefix.encode())).decode(errors="replace")

    @cached_property
    def spelling(self) -> tuple[bytes, ...]:
        """The bytes that each id stands for, (vocabulary,); empty for end_of_text and for ids that no text has.

        Bytes and not text: a token may end within a character. Those of a text's tokens are its `prefix` and its bytes.
        """
        byte_of = {character: byte for byte, character in enumerate(_byte_characters())}
        added = self._model.get_added_tokens_decoder()
        table = [b""] * self.vocabulary
        for piece, token in self._model.get_vocab().items():
            if token in added:  # those that are not special are looked for in the text as it is
                table[token] = b"" if added[token].special else piece.encode()
            elif not self._falls_back:
                table[token] = bytes(byte_of[character] for character in piece)
            else:
                table[token] = bytes([BYTE_NAMES[piece]]) if piece in BYTE_NAMES else piece.encode()
        return tuple(table)


def parsed(written: str, vocabulary: int, place: Path) -> Tokenizer:
    """Return the tokenizer of a JSON text that lies at `place`, one of whose tokens is `<|endoftext|>`.

    Raises:
        DataError: if it is damaged.
    """
    model = _opened(written, place)
    if END_OF_TEXT not in model.get_vocab():
        raise DataError("a tokenizer cannot be read", where=place, expected=f"a token {END_OF_TEXT}", got="none")
    return Tokenizer(model, vocabulary)


def as_written_today(written: str, place: Path) -> dict[str, Any]:
    """Return what a tokenizer.json says, as the installed version of the library would write it.

    Raises:
        DataError: if it is damaged.
    """
    described: dict[str, Any] = json.loads(_opened(written, place).to_str())
    return described


def leading(written: str, place: Path) -> int | None:
    """Return the special token that a tokenizer.json says to put before a text; None where it says none.

    Raises:
        DataError: if it is damaged.
    """
    model = _opened(written, place)
    bare, whole = (model.encode("a", add_special_tokens=added).ids for added in (False, True))
    return int(whole[0]) if len(whole) > len(bare) and whole[: len(bare)] != bare else None


def _opened(written: str, place: Path) -> tokenizers.Tokenizer:
    library = _library()
    try:
        model: tokenizers.Tokenizer = library.Tokenizer.from_str(written)
        return model
    except Exception as error:  # the library raises nothing more precise
        raise DataError("a tokenizer cannot be read", where=place, got=str(error).splitlines()[0]) from None


def assembled(
    pieces: Mapping[bytes, int],
    merges: Sequence[tuple[bytes, bytes]],
    pattern: str | None,
    end_of_text: int,
    vocabulary: int,
) -> Tokenizer:
    """Make a tokenizer of byte-level byte-pair encoding from its parts.

    Args:
        pieces: The id of every token by its bytes; all 256 bytes are among them.
        merges: Which two tokens are joined, the first of them first.
        pattern: Matches what no merge crosses, as a regular expression of Oniguruma; None for GPT-2's.
        end_of_text: The id of `<|endoftext|>`.
        vocabulary: The declared number of tokens, above every id.
    """
    library, characters = _library(), _byte_characters()

    def written(piece: bytes) -> str:
        return "".join(characters[byte] for byte in piece)

    table = {written(piece): token for piece, token in pieces.items()} | {END_OF_TEXT: end_of_text}
    model = library.Tokenizer(library.models.BPE(table, [(written(one), written(other)) for one, other in merges]))
    byte_level = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if pattern is not None:
        split = library.pre_tokenizers.Split(library.Regex(pattern), "isolated")
        byte_level = library.pre_tokenizers.Sequence([split, byte_level])
    model.pre_tokenizer = byte_level
    model.decoder = library.decoders.ByteLevel()
    model.add_special_tokens([END_OF_TEXT])
    return Tokenizer(model, vocabulary)


def _pieces(text: str, boundary: re.Pattern[str] | None) -> Iterator[str]:
    """Cut a long text where no token can span, so that the tokens of the pieces are exactly those of the text."""
    start = 0
    while (
        boundary
        and len(text) - start > ENCODED_CHARACTERS
        and (found := boundary.search(text, start + ENCODED_CHARACTERS))
    ):
        yield text[start : found.start()]
        start = found.start()
    yield text[start:]


def _boundary(model: tokenizers.Tokenizer) -> re.Pattern[str] | None:
    """Return where a text may be cut; None where nothing is known of the pattern."""
    if _falls_back(model):
        return AFTER_WORD if model.normalizer is None and _parts_at_spaces(model) else None
    if model.normalizer is not None or not all(token.special for token in model.get_added_tokens_decoder().values()):
        return None
    steps = _steps(model.pre_tokenizer)
    if [step["type"] for step in steps] == ["ByteLevel"] and steps[0]["use_regex"]:
        return BEFORE_SPACE
    return BETWEEN_WORDS if [step["type"] for step in steps] == ["Split", "ByteLevel"] and _is_known(steps) else None


def _parts_at_spaces(model: tokenizers.Tokenizer) -> bool:
    """Whether no token goes on from a word, or from what its neighbours are, to a space."""
    added = model.get_added_tokens_decoder()
    if any(token.single_word and not token.special for token in added.values()):
        return False  # what stands beside one would matter
    words = all(step["type"] == "Split" and step["pattern"] == {"String": " "} for step in _steps(model.pre_tokenizer))
    found = (piece for piece, token in model.get_vocab().items() if token not in added or not added[token].special)
    return words and not any(map(AFTER_WORD.search, found))


def _falls_back(model: tokenizers.Tokenizer) -> bool:
    return bool(getattr(model.model, "byte_fallback", False))


def _is_known(steps: Sequence[Mapping[str, Any]]) -> bool:
    split, byte_level = steps
    return not byte_level["use_regex"] and split["pattern"].get("Regex") in PATTERNS.values()


def _steps(pre_tokenizer: Any) -> list[dict[str, Any]]:
    """Return how text is cut before anything is joined: each step as the library writes it to a file."""
    described = _described(pre_tokenizer)
    if described is None:
        return []
    return list(described["pretokenizers"]) if described["type"] == "Sequence" else [described]


def _described(step: Any) -> dict[str, Any] | None:
    """Return a normalizer or pre-tokenizer as the library writes it to a file; None where there is none."""
    return None if step is None else dict(json.loads(step.__getstate__()))


def _byte_characters() -> list[str]:
    """Return the printable character by which byte-level BPE writes each byte 0-255 (GPT-2's `bytes_to_unicode`)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _library() -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError:
        raise MissingExtra("tokenizers", "train") from None
    return tokenizers
