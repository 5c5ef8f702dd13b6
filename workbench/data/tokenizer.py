"""Tokenizers: how text becomes tokens, as a declaration, and the trained tokenizer that does it.

Promises that every UTF-8 text comes back byte for byte, that the same training text gives the same tokenizer, and that
the text `<|endoftext|>` inside a document is text: the token of that name is only ever put between documents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
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
    """

    def __init__(self, model: tokenizers.Tokenizer, vocabulary: int) -> None:
        model.encode_special_tokens = True  # "<|endoftext|>" in a document is thirteen characters, not the end of it
        self._model = model
        self.vocabulary = vocabulary
        self.end_of_text = int(model.get_vocab()[END_OF_TEXT])

    @classmethod
    def load(cls, path: Path, vocabulary: int) -> Tokenizer:
        """Read a tokenizer that `save` wrote.

        Raises:
            DataError: if the file is missing or damaged.
        """
        try:
            return cls(_library().Tokenizer.from_file(str(path)), vocabulary)
        except MissingExtra:
            raise
        except Exception as error:  # the library raises nothing more precise
            raise DataError("a tokenizer cannot be read", where=path, got=str(error).splitlines()[0]) from None

    def save(self, path: Path) -> None:
        """Write the tokenizer in the JSON format of the `tokenizers` library, which `transformers` reads too."""
        self._model.save(str(path))

    def publish(self, folder: Path, context: int) -> tuple[Path, Path]:
        """Write it into a folder, made if need be, for `transformers.AutoTokenizer.from_pretrained`; return the files.

        Text becomes the same tokens there as here, `<|endoftext|>` inside a text included; that token begins and ends
        documents and is added by nobody unasked.

        Args:
            folder: Where, beside the model's config.json if there is one.
            context: The longest sequence of the model, in tokens.
        """
        described = json.loads(self._model.to_str())
        described["decoder"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
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

    @property
    def learned(self) -> int:
        """How many tokens the corpus filled; at most `vocabulary`."""
        return int(self._model.get_vocab_size())

    @property
    def pieces(self) -> dict[str, int]:
        """The id of every token the corpus filled, by the way the `tokenizers` library writes it."""
        return dict(self._model.get_vocab())

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of `text`, int64[tokens], without an end_of_text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the tokens of each text, int64[tokens], using every core that RAYON_NUM_THREADS allows."""
        pieces = [list(_pieces(text)) for text in texts]
        encoded = iter(self._model.encode_batch_fast([piece for cut in pieces for piece in cut]))
        return [np.concatenate([np.asarray(next(encoded).ids, np.int64) for _ in cut]) for cut in pieces]

    def decode(self, tokens: Any) -> str:
        """Return the text of a sequence of ids; bytes that are not UTF-8 (a character cut in two) become U+FFFD."""
        return b"".join(self.spelling[token] for token in np.asarray(tokens).tolist()).decode(errors="replace")

    @cached_property
    def byte_lengths(self) -> np.ndarray:
        """Bytes of text that each id stands for, int64[vocabulary]; 0 for end_of_text and for ids never learned."""
        return np.array([len(piece) for piece in self.spelling], np.int64)

    @cached_property
    def spelling(self) -> tuple[bytes, ...]:
        """The bytes that each id stands for, (vocabulary,); empty for end_of_text and for ids never learned.

        Bytes and not text: a token may end within a character.
        """
        byte_of = {character: byte for byte, character in enumerate(_byte_characters())}
        table = [b""] * self.vocabulary
        for piece, token in self._model.get_vocab().items():
            if token != self.end_of_text:
                table[token] = bytes(byte_of[character] for character in piece)
        return tuple(table)


def _pieces(text: str) -> Iterator[str]:
    """Cut a long text where no token can span: before a space or line end that follows something else.

    The byte-level pattern joins a space to what follows it and never to what precedes it, so the tokens of the pieces
    are exactly those of the text.
    """
    boundary = re.compile(r"(?<=\S)[ \n]")
    start = 0
    while len(text) - start > ENCODED_CHARACTERS and (found := boundary.search(text, start + ENCODED_CHARACTERS)):
        yield text[start : found.start()]
        start = found.start()
    yield text[start:]


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
