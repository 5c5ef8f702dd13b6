"""Examples with answers, for fine-tuning and for asking what was learned: a file of JSON lines and a template.

Promises that the same bytes and template give the same examples wherever the file lies; that an example is on the same
side of the split, and in the same place of the order, under every template; and that tokens never span the edge of an
answer, so that what counts as answer in training is what is asked in evaluation. Refuses malformed lines, unknown
roles, missing fields and empty answers, with file and line; never skips one silently.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import field_validator

from workbench.data.corpora import json_lines, valid_text
from workbench.data.splits import is_held_out
from workbench.data.tokenizer import Tokenizer
from workbench.errors import DataError
from workbench.identity import Spec, setting

ROLES = ("system", "user", "assistant")
PAIRS = (("prompt", "answer"), ("instruction", "output"))
EXPECTED = "messages, or prompt and answer, or instruction (with or without input) and output"


class Template(Spec):
    """How a conversation becomes text; `{}` stands for what was said. No token is added to the vocabulary.

    What the assistant's template has from the white space before `{}` on is the answer, and end_of_text follows it.
    """

    system: str = setting(default="{}\n\n")
    user: str = setting(default="User: {}\n")
    assistant: str = setting(default="Assistant: {}")

    @field_validator("system", "user", "assistant")
    @classmethod
    def _holds_one_place(cls, value: str) -> str:
        if value.count("{}") != 1:
            raise ValueError(f"expected {{}} once, where the content goes, got {value!r}")
        return value

    def pieces(self, turn: Turn) -> list[Piece]:
        """Return the text of one turn, what belongs to an answer apart."""
        before, after = getattr(self, turn.role).split("{}")
        if turn.role != "assistant":
            return [Piece(before + turn.content + after, False)]
        marker = before.rstrip()
        answer = Piece(before[len(marker) :] + turn.content + after, True)
        return [Piece(marker, False), answer] if marker else [answer]


class Turn(NamedTuple):
    """What one side of a conversation says."""

    role: str
    content: str


class Piece(NamedTuple):
    """Part of the text of an example, and whether it is the answer."""

    text: str
    answer: bool


class Answers(Spec):
    """A file of examples, one JSON object a line, and how to read them.

    Each line holds a chat, `{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", ...}]}`, or a pair,
    `{"prompt": "...", "answer": "..."}` or `{"instruction": "...", "input": "...", "output": "..."}`. Every turn of the
    assistant is an answer. Equal examples count once.

    Attributes:
        path: The file. Its content is identity, the place where it lies is not.
        template: How an example becomes text.
        held_out: Share of the examples that is never trained on, chosen by a hash of what is said.
    """

    path: str = setting(effect="efficiency", min_length=1)
    template: Template = Template()
    held_out: float = setting(default=0.1, ge=0, lt=1)

    def source_hash(self) -> str:
        """Return the SHA-256 of the file, which stands for it in identity.

        Raises:
            DataError: if it cannot be read.
        """
        try:
            found = Path(self.path).expanduser()
            held = found.stat()
            return _hash_of(found, held.st_size, held.st_mtime_ns)
        except OSError as error:
            raise DataError(
                "a file of examples cannot be read",
                where=self.path,
                expected="a file of JSON lines",
                got=error.strerror or str(error),
            ) from None


@lru_cache(maxsize=16)
def _hash_of(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@dataclass(frozen=True)
class Examples:
    """Tokenised examples, each without the end_of_text from which it begins.

    Attributes:
        tokens: int64[tokens]: example after example; an end_of_text follows every answer.
        scored: bool[tokens]: which belong to an answer.
        offsets: int64[examples + 1]; example e is `tokens[offsets[e]:offsets[e + 1]]`.
        hashes: SHA-256 of what is said, uint8[examples, 32].
        lines: int64[examples]: where each stands in its file, from 1.
        sizes: int64[examples]: UTF-8 bytes of its answers.
        end_of_text: From which every example begins.
    """

    tokens: np.ndarray
    scored: np.ndarray
    offsets: np.ndarray
    hashes: np.ndarray
    lines: np.ndarray
    sizes: np.ndarray
    end_of_text: int

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every example, int64[examples]."""
        return np.diff(self.offsets)

    def kept(self, rows: np.ndarray) -> Examples:
        """Return some of the examples, int64[kept], in that order."""
        spans = [slice(self.offsets[row], self.offsets[row + 1]) for row in rows]
        empty = [np.empty(0, np.int64)]
        return Examples(
            np.concatenate([self.tokens[span] for span in spans] or empty),
            np.concatenate([self.scored[span] for span in spans] or empty).astype(bool),
            np.concatenate([[0], np.cumsum(self.lengths[rows])]).astype(np.int64),
            self.hashes[rows],
            self.lines[rows],
            self.sizes[rows],
            self.end_of_text,
        )


@dataclass(frozen=True)
class Split:
    """The examples of a file on both sides of the split, and how many lines repeat an earlier one."""

    training: Examples
    held_out: Examples
    repeated: int


def read_answers(answers: Answers, tokenizer: Tokenizer) -> Split:
    """Read, split and tokenise a file of examples; read once per process while it stays as it is.

    Raises:
        DataError: with file and line, for what cannot be read; if there is no example.
    """
    return _read(answers, answers.source_hash(), tokenizer)


def read_said(answers: Answers) -> dict[str, str]:
    """Return what the distinct examples of a file say, turn after turn and without a template, by their hash in hex.

    Raises:
        DataError: with file and line, for what cannot be read; if there is no example.
    """
    turns, _ = _distinct(Path(answers.path).expanduser(), answers.source_hash())
    return {name: "\n".join(turn.content for turn in said) for name, (_, said) in turns.items()}


@lru_cache(maxsize=2)
def _distinct(path: Path, source: str) -> tuple[dict[str, tuple[int, list[Turn]]], int]:
    """Return (line, turns) of every distinct example by its hash, and how many lines there are."""
    turns: dict[str, tuple[int, list[Turn]]] = {}
    read = 0
    for number, place, row in json_lines(path, '{"prompt": "...", "answer": "..."}'):
        said, read = _turns(row, place), read + 1
        turns.setdefault(hashlib.sha256(json.dumps(said).encode()).hexdigest(), (number, said))
    if not turns:
        raise DataError("a file of examples is empty", where=path, expected="at least one example", got="none")
    return turns, read


@lru_cache(maxsize=4)
def _read(answers: Answers, source: str, tokenizer: Tokenizer) -> Split:
    turns, read = _distinct(Path(answers.path).expanduser(), source)
    examples = _tokenise(turns, answers.template, tokenizer)
    held = np.array([is_held_out(one, answers.held_out) for one in turns])
    return Split(examples.kept(np.flatnonzero(~held)), examples.kept(np.flatnonzero(held)), read - len(turns))


def _tokenise(turns: dict[str, tuple[int, list[Turn]]], template: Template, tokenizer: Tokenizer) -> Examples:
    pieces = [[piece for turn in said for piece in template.pieces(turn)] for _, said in turns.values()]
    first = iter(tokenizer.encode_batch([example[0].text for example in pieces]))
    rest = iter(tokenizer.encode_batch([one.text for example in pieces for one in example[1:]], continued=True))
    tokens, scored, lengths = [], [], []
    for example in pieces:
        end = tokenizer.end_of_text
        parts = [_ended(next(rest if number else first), one.answer, end) for number, one in enumerate(example)]
        tokens += parts
        scored += [np.full(len(part), piece.answer) for part, piece in zip(parts, example, strict=True)]
        lengths.append(sum(map(len, parts)))
    hashes = b"".join(map(bytes.fromhex, turns))
    return Examples(
        np.concatenate(tokens),
        np.concatenate(scored),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.frombuffer(hashes, np.uint8).reshape(-1, 32),
        np.array([number for number, _ in turns.values()], np.int64),
        np.array([sum(len(piece.text.encode()) for piece in example if piece.answer) for example in pieces], np.int64),
        tokenizer.end_of_text,
    )


def _ended(tokens: np.ndarray, answer: bool, end_of_text: int) -> np.ndarray:
    return np.append(tokens, end_of_text) if answer else tokens


# --- one line


def _turns(row: object, place: str) -> list[Turn]:
    """Return what a line says, turn by turn."""
    if not isinstance(row, dict):
        raise DataError("a line is not an example", where=place, expected="an object", got=type(row).__name__)
    said = list(_chat(row["messages"], place) if "messages" in row else _pair(row, place))
    if not any(turn.role == "assistant" for turn in said):
        roles = ", ".join(turn.role for turn in said) or "no message"
        raise DataError("an example has no answer", where=place, expected="a message of the assistant", got=roles)
    for turn in said:
        if turn.role == "assistant" and not turn.content.strip():
            raise DataError("an answer is empty", where=place, expected="text", got=repr(turn.content))
    return said


def _pair(row: dict[str, object], place: str) -> Iterator[Turn]:
    for asked, answered in PAIRS:
        if asked in row and answered in row:
            expected = f"{asked} and {answered}, each a string"
            texts = {
                field: valid_text(row[field], f"the field '{field}'", place, expected)
                for field in (asked, *(("input",) if asked == "instruction" and "input" in row else ()), answered)
            }
            question = "\n\n".join(text for field, text in texts.items() if field != answered and text)
            yield from (Turn("user", question), Turn("assistant", texts[answered]))
            return
    fields = ", ".join(map(str, row)) or "no field"
    raise DataError("a field of an example is missing", where=place, expected=EXPECTED, got=fields)


def _chat(messages: object, place: str) -> Iterator[Turn]:
    expected = "messages, a list of objects with role and content"
    if not isinstance(messages, list):
        raise DataError("a chat is not a list", where=place, expected=expected, got=type(messages).__name__)
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            got = ", ".join(map(str, message)) if isinstance(message, dict) else type(message).__name__
            raise DataError(f"messages.{number} is not a message", where=place, expected=expected, got=got)
        if message["role"] not in ROLES:
            got, known = repr(message["role"]), ", ".join(ROLES)
            raise DataError(f"messages.{number}.role is not known", where=place, expected=known, got=got)
        yield Turn(message["role"], valid_text(message["content"], f"messages.{number}.content", place, "a string"))
