"""Vocabularies: every way a user can declare how text becomes tokens.

Promises that each of them writes every UTF-8 text, and gives it back byte for byte, so that bits per byte compare
between any two; that `vocabulary` is known before anything is read, so that a model can be checked against it; and that
what lies in a file is identity by its content, wherever it lies. Refuses a tokenizer that changes text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from workbench.data import pretrained, ranks
from workbench.data.pruning import prune
from workbench.data.ranks import TABLES, TableName
from workbench.data.tokenizer import BytePairs, Tokenizer, assembled
from workbench.identity import Spec, setting

COUNTED_AT_ONCE = 1000  # texts


def _refuse_too_few(vocabulary: int, tokens: int) -> None:
    if vocabulary < tokens:
        raise ValueError(f"vocabulary: expected at least the {tokens} tokens there are, got {vocabulary}")


class Bytes(Spec):
    """The 256 bytes and `<|endoftext|>`, which is 256: no vocabulary to choose, and the longest sequences."""

    kind: Literal["bytes"] = "bytes"
    vocabulary: int = setting(257, ge=257)

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Return it; it learns nothing from `texts`."""
        return assembled({bytes([byte]): byte for byte in range(256)}, [], None, 256, self.vocabulary)


class Tiktoken(Spec):
    """A published vocabulary of OpenAI's, as the package tiktoken encodes with it; ids are tiktoken's.

    Attributes:
        name: `gpt2` and `r50k_base` are the 50,257 tokens of GPT-2, `cl100k_base` those of GPT-4.
        file: The `.tiktoken` file, where it is not to be looked for or downloaded. Its content is checked, so the place
            where it lies is no identity.
        vocabulary: As many as it has, unless more are asked for: ids that stay unused, so that the embedding has a size
            that suits the device.
    """

    kind: Literal["tiktoken"] = "tiktoken"
    name: TableName = "cl100k_base"
    file: str | None = setting(None, effect="efficiency")
    vocabulary: int = setting(0, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _as_many_as_it_has(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        table = TABLES.get(str(values.get("name", "cl100k_base")))
        return {"vocabulary": table.tokens, **values} if table else values

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        _refuse_too_few(self.vocabulary, TABLES[self.name].tokens)
        return self

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Read it; it learns nothing from `texts`.

        Raises:
            DataError: if it is not here and cannot be downloaded.
        """
        table, known = ranks.read_table(self.name, self.file), TABLES[self.name]
        return ranks.tokenizer_of(table, ranks.halves(table), known.pattern, known.end_of_text, self.vocabulary)


class Pruned(Spec):
    """A published vocabulary without the tokens that the training documents need least; LokiLM's has 32,000.

    Attributes:
        vocabulary: How many are left, `<|endoftext|>` among them, which is the last.
        base: What is pruned.
        smoothing: The documents are counted as if this share of their tokens, over and above them, were spread over
            the base by its ranks (see `pruning.prior`); 0 goes by the documents alone, which is costly on other text.
            Measured, 32,000 tokens by 12 MB of speeches: 0.1 costs 0.2 % more tokens on these and 1.3 % on
            Shakespeare, and saves 6 % on Python and 30 % on a mix of other scripts.
    """

    kind: Literal["pruned"] = "pruned"
    vocabulary: int = setting(32_000, ge=257)
    base: Tiktoken = Tiktoken()
    smoothing: float = setting(0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _is_smaller(self) -> Self:
        most = TABLES[self.base.name].tokens
        if self.vocabulary > most:
            raise ValueError(f"vocabulary: expected at most the {most} of {self.base.name}, got {self.vocabulary}")
        return self

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Count the tokens of `texts` and delete the others.

        Raises:
            DataError: if the base is not here and cannot be downloaded.
        """
        return pruned(self, texts)[0]


class HuggingFaceTokenizer(Spec):
    """A tokenizer in the format of Hugging Face; its content is identity, the place where it lies is not.

    Byte-pair encoding that changes no text: byte-level, as GPT-2's, Llama 3's or one that `workbench tokenizer` wrote,
    or with byte fallback, as that of Llama 2, TinyLlama, Mistral or Gemma, which write a space as `▁`: a `▁` in a text
    becomes its three bytes here, and comes back.

    Attributes:
        path: A `tokenizer.json`, or a folder with one, as `save_pretrained` writes it. Nothing is downloaded.
        vocabulary: As many as it has, unless more are asked for, because a model has more outputs.
        end_of_text: The token that ends a document; told by the folder, if it is not `<|endoftext|>`.
        normalizer: "dropped" leaves out a step that changes text before it is encoded, as Qwen's NFC does; the tokens
            of a text that it would not have changed are the same.
    """

    kind: Literal["hugging_face"] = "hugging_face"
    path: str = setting(effect="efficiency", min_length=1)
    vocabulary: int = setting(0, gt=0)
    end_of_text: str | None = None
    normalizer: Literal["kept", "dropped"] = "kept"

    @model_validator(mode="before")
    @classmethod
    def _as_many_as_it_has(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "vocabulary" in values or not isinstance(values.get("path"), str):
            return values
        return {**values, "vocabulary": pretrained.size(values["path"])}  # once: a record tells it where no file is

    def source_hash(self) -> str:
        """Return the SHA-256 of the file, which stands for it in identity.

        Raises:
            DataError: if it cannot be read.
        """
        return hashlib.sha256(pretrained.read(self.path)).hexdigest()

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Read it; it learns nothing from `texts`.

        Raises:
            DataError: if it cannot be read, would change text, or has no token that ends a document.
        """
        return pretrained.tokenizer_at(self.path, self.vocabulary, self.end_of_text, self.normalizer == "kept")


def _kind(values: Any) -> Any:
    """Take a tokenizer that does not say its kind for byte pairs, the only kind there once was."""
    return {"kind": "bpe", **values} if isinstance(values, dict) else values


TokenizerChoice = Annotated[
    Annotated[BytePairs | Bytes | Tiktoken | HuggingFaceTokenizer | Pruned, Field(discriminator="kind")],
    BeforeValidator(_kind),
]


def learns(choice: TokenizerChoice) -> bool:
    """Whether a tokenizer is made of the training documents, and not only read or written down."""
    return isinstance(choice, BytePairs | Pruned)


def making(choice: TokenizerChoice, documents: int) -> str:
    """Say how a tokenizer comes about, given the number of training documents.

    >>> making(BytePairs(vocabulary=2048), 1200)
    'training a tokenizer of 2,048 tokens on 1,200 documents'
    >>> making(Tiktoken(name="gpt2"), 1200)
    'reading the vocabulary gpt2 of 50,257 tokens'
    """
    if isinstance(choice, BytePairs):
        return f"training a tokenizer of {choice.vocabulary:,} tokens on {documents:,} documents"
    if isinstance(choice, Pruned):
        base = choice.base.name
        return f"pruning the vocabulary {base} to {choice.vocabulary:,} tokens by what {documents:,} documents need"
    if isinstance(choice, Tiktoken):
        return f"reading the vocabulary {choice.name} of {choice.vocabulary:,} tokens"
    if isinstance(choice, HuggingFaceTokenizer):
        return f"reading the tokenizer of {choice.vocabulary:,} tokens in {choice.path}"
    return "taking bytes as tokens: no tokenizer is trained"


def pruned(choice: Pruned, texts: Iterable[str]) -> tuple[Tokenizer, int, int]:
    """Prune a vocabulary by what `texts` need.

    Returns:
        The tokenizer; the tokens that the texts have in the whole vocabulary; and as predicted in the pruned one.

    Raises:
        DataError: if the base is not here and cannot be downloaded.
    """
    table, known = ranks.read_table(choice.base.name, choice.base.file), TABLES[choice.base.name]
    made = ranks.halves(table)
    counts = _counts(ranks.tokenizer_of(table, made, known.pattern, known.end_of_text, known.tokens), texts)
    place = {piece: number for number, piece in enumerate(table)}
    pairs = [(place[made[piece][0]], place[made[piece][1]]) if piece in made else None for piece in table]
    counted = counts[list(table.values())]
    left = prune(counted, pairs, choice.vocabulary - 1, choice.smoothing)
    pieces = list(table)
    kept = {pieces[number]: token for token, number in enumerate(left.kept.tolist())}
    tokenizer = ranks.tokenizer_of(kept, made, known.pattern, len(kept), choice.vocabulary)
    return tokenizer, int(counted.sum()), int(counted.sum()) + left.extra


def _counts(tokenizer: Tokenizer, texts: Iterable[str]) -> np.ndarray:
    """Return how often every token stands in the texts, int64[vocabulary]."""
    counts, left = np.zeros(tokenizer.vocabulary, np.int64), iter(texts)
    while batch := list(islice(left, COUNTED_AT_ONCE)):
        for tokens in tokenizer.encode_batch(batch):
            counts += np.bincount(tokens, minlength=len(counts))
    return counts
