"""The public schemas of benchmarks: what a row of each looks like, and the item it is.

Every schema is taken as its authors publish it and as it is on the Hugging Face hub. Refuses, with file and line, a row
without the fields it needs (saying which there are), an answer that is no choice, and texts that are empty.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from workbench.data.corpora import valid_text
from workbench.data.items import Item
from workbench.data.rows import find, labels_beside, read_rows, text_of
from workbench.data.winobias import pairs
from workbench.errors import DataError

Fields = dict[str, Any]
Placed = tuple[str, Item]
LETTERS = "ABCDEFGHIJ"


def items(name: str, path: str) -> Iterator[Placed]:
    """Yield (place, item) for every row of a benchmark's files; names may still repeat.

    Args:
        name: Of the benchmark.
        path: A file, a folder or a glob.

    Raises:
        DataError: with file and line, for what is not of the schema.
    """
    if name == "winobias":
        yield from pairs(path)
    elif name == "mmlu":
        yield from _mmlu(path)
    elif name == "piqa":
        yield from ((place, _piqa(row, place)) for place, row in _with_labels(path))
    else:
        read = _READERS[name]
        for place, row in read_rows(path):
            yield place, read(_fields(row, place), place)


# --- one row of each schema


def _blimp(row: Fields, place: str) -> Item:
    good, bad, paradigm = (_text(row, field, place) for field in ("sentence_good", "sentence_bad", "UID"))
    number = row.get("pairID", row.get("pair_id"))
    name = f"{paradigm}/{number}" if number is not None else f"{paradigm}/{_hash(good, bad)}"
    return Item(name, paradigm, "", (good, bad), (0,))


def _hellaswag(row: Fields, place: str) -> Item:
    activity = _text(row, "activity_label", place)
    if "ctx_a" in row and "ctx_b" in row:
        begun = _text(row, "ctx_a", place) + " " + _text(row, "ctx_b", place, empty=True).capitalize()
    else:
        begun = _text(row, "ctx", place)
    endings = _texts(row, "endings", place)
    whole = _text(row, "ctx", place) if "ctx" in row else begun
    return _item(
        place,
        cluster="",
        question=cleaned(begun).strip(),
        choices=tuple(map(cleaned, endings)),
        truth=_number(row, "label", len(endings), place),
        prompt=cleaned(f"{activity}: {begun}"),
        verbatim=(whole, *endings),
    )


def cleaned(text: str) -> str:
    """Remove what WikiHow left in HellaSwag, as lm-evaluation-harness 0.4.13 does."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _arc(row: Fields, place: str) -> Item:
    question, choices, labels = _labelled(row, "question", place)
    return _item(place, "", question, choices, _key(row, labels, place), name=row.get("id"))


def _openbookqa(row: Fields, place: str) -> Item:
    question, choices, labels = _labelled(row, "question_stem" if "question_stem" in row else "question", place)
    return _item(place, "", question, choices, _key(row, labels, place), name=row.get("id"))


def _winogrande(row: Fields, place: str) -> Item:
    sentence = _text(row, "sentence", place)
    if "_" not in sentence:
        raise DataError("a sentence has no gap", where=place, expected="an underscore, for the options", got=sentence)
    choices = _text(row, "option1", place), _text(row, "option2", place)
    truth = _number(row, "answer", 2, place, first=1)
    return _item(place, "", sentence, choices, truth, name=row.get("qID", row.get("id")))


def _piqa(row: Fields, place: str) -> Item:
    choices = _text(row, "sol1", place), _text(row, "sol2", place)
    truth = _number(row, "label", 2, place)
    return _item(place, "", _text(row, "goal", place), choices, truth)


def _truthfulqa(row: Fields, place: str, targets: str) -> Item:
    held = _required(row, targets, place)
    if isinstance(held, dict) and "choices" not in held:  # the authors' own file: {answer: 1 or 0}
        held = {"choices": [*held], "labels": [*held.values()]}
    inner, where = _fields(held, place), f"{place}, {targets}"
    choices, labels = _texts(inner, "choices", where), _required(inner, "labels", where)
    if not isinstance(labels, list) or len(labels) != len(choices) or not set(labels) <= {0, 1}:
        expected, got = f"{len(choices)} labels, each 1 or 0", json.dumps(labels)
        raise DataError("labels do not fit the choices", where=where, expected=expected, got=got)
    truths = tuple(number for number, label in enumerate(labels) if label)
    most = 1 if targets == "mc1_targets" else len(choices) - 1
    if not 1 <= len(truths) <= most or len(choices) < 2:
        expected = ("exactly one" if most == 1 else "at least one") + " true choice, and one that is not"
        raise DataError("no choice is the answer", where=where, expected=expected, got=f"{len(truths)} true")
    question, category = _text(row, "question", place), row.get("category")
    name = row.get("id") or _hash(question, *choices)
    return Item(str(name), str(category or name), question, choices, truths)


def _gsm8k(row: Fields, place: str) -> Item:
    question, answer = _text(row, "question", place), _text(row, "answer", place)
    if "#### " not in answer:
        raise DataError("an answer has no final number", where=place, expected="#### and a number", got=answer[-60:])
    name = str(row.get("id") or _hash(question, answer))
    return Item(name, name, question, (), (), answer)


def _lambada(row: Fields, place: str) -> Item:
    text = _text(row, "text", place)
    passage, gap, word = text.rpartition(" ")
    if not (passage.strip() and gap and word):
        raise DataError("a passage has no last word", where=place, expected="words, parted by spaces", got=text[-60:])
    name = str(row.get("id") or _hash(text))
    return Item(name, name, passage, (), (), word)


_READERS: dict[str, Callable[[Fields, str], Item]] = {
    "blimp": _blimp,
    "hellaswag": _hellaswag,
    "arc_easy": _arc,
    "arc_challenge": _arc,
    "winogrande": _winogrande,
    "openbookqa": _openbookqa,
    "truthfulqa_mc1": lambda row, place: _truthfulqa(row, place, "mc1_targets"),
    "truthfulqa_mc2": lambda row, place: _truthfulqa(row, place, "mc2_targets"),
    "gsm8k": _gsm8k,
    "lambada": _lambada,
}


# --- files whose rows do not tell everything


def _mmlu(path: str) -> Iterator[Placed]:
    """Read MMLU: rows with fields as on the hub, or the authors' CSV files without a header, one per subject."""
    for file in find(path):
        for place, row in read_rows(str(file), header=False):
            yield place, _mmlu_row(row, file, place) if isinstance(row, list) else _mmlu_fields(row, place)


def _mmlu_row(row: list[str], file: Path, place: str) -> Item:
    if len(row) != 6 or row[5].strip() not in tuple("ABCD"):
        expected = "six columns: the question, four choices, and which is true (A to D)"
        raise DataError(
            "a row is not of the schema", where=place, expected=expected, got=", ".join(map(repr, row))[:90]
        )
    subject = re.sub(r"_(test|dev|val)$", "", file.name.partition(".")[0])
    return _item(place, subject, row[0], tuple(row[1:5]), LETTERS.index(row[5].strip()))


def _mmlu_fields(row: object, place: str) -> Item:
    fields = _fields(row, place)
    question, choices = _text(fields, "question", place), _texts(fields, "choices", place)
    if len(choices) != 4:
        raise DataError("an item has not four choices", where=place, expected="four", got=len(choices))
    answer = _required(fields, "answer", place)
    known = {"answer": LETTERS.index(answer) if answer in tuple("ABCD") else answer}
    return _item(place, _text(fields, "subject", place), question, choices, _number(known, "answer", 4, place))


def _with_labels(path: str) -> Iterator[tuple[str, Fields]]:
    """Read rows whose labels may stand in a file of their own, one a line: `valid-labels.lst` beside `valid.jsonl`."""
    for file in find(path):
        read = [(place, _fields(row, place)) for place, row in read_rows(str(file))]
        beside = labels_beside(file)
        if beside is None or all("label" in row for _, row in read):
            yield from read
            continue
        labels = text_of(beside).split()
        if len(labels) != len(read):
            raise DataError("labels do not fit the rows", where=beside, expected=f"{len(read)} lines", got=len(labels))
        for (place, row), label in zip(read, labels, strict=True):
            yield place, {**row, "label": label}


# --- what rows have in common


def _item(
    place: str,
    cluster: str,
    question: str,
    choices: tuple[str, ...],
    truth: int,
    *,
    name: object = None,
    prompt: str = "",
    verbatim: tuple[str, ...] = (),
) -> Item:
    """Return an item with one truth; one without an identifier is named by what it asks."""
    if len(choices) < 2:
        raise DataError("there is nothing to choose", where=place, expected="two or more choices", got=len(choices))
    if any(not choice.strip() for choice in choices):
        raise DataError("a choice is empty", where=place, expected="text", got=json.dumps(choices, ensure_ascii=False))
    named = str(name) if name is not None else _hash(question, *choices)
    named = f"{cluster}/{named}" if cluster else named
    return Item(named, cluster or named, question, choices, (truth,), prompt=prompt, verbatim=verbatim)


def _hash(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def _fields(row: object, place: str) -> Fields:
    if not isinstance(row, dict):
        raise DataError("a row is not an object", where=place, expected="an object with fields", got=type(row).__name__)
    return row


def _required(row: Fields, field: str, place: str) -> Any:
    if row.get(field) is None:
        got = ", ".join(str(name) for name, value in row.items() if value is not None) or "no field"
        fix = "check that this is the benchmark it is called; see the schemas in data/schemas.py"
        raise DataError("a row is not of the schema", where=place, expected=f"the field '{field}'", got=got, fix=fix)
    return row[field]


def _text(row: Fields, field: str, place: str, *, empty: bool = False) -> str:
    text = valid_text(_required(row, field, place), f"the field '{field}'", place, "a string")
    if not (empty or text.strip()):
        raise DataError(f"the field '{field}' is empty", where=place, expected="text", got=repr(text))
    return text


def _texts(row: Fields, field: str, place: str) -> tuple[str, ...]:
    held = _required(row, field, place)
    if not isinstance(held, list) or not held:
        got = "an empty list" if held == [] else type(held).__name__
        raise DataError(f"the field '{field}' holds no choices", where=place, expected="a list of strings", got=got)
    return tuple(valid_text(text, f"a text of '{field}'", place, "a string") for text in held)


def _labelled(row: Fields, field: str, place: str) -> tuple[str, tuple[str, ...], list[str]]:
    """Return question, choices and their labels: {"question", "choices": {"text", "label"}}, or the authors' own."""
    if isinstance(row.get(field), dict):  # {"question": {"stem": ..., "choices": [{"text": ..., "label": ...}]}}
        inner, where = row[field], f"{place}, {field}"
        held = _required(inner, "choices", where)
        listed = [_fields(one, where) for one in held] if isinstance(held, list) else []
        choices = {"text": [one.get("text") for one in listed], "label": [one.get("label") for one in listed]}
        question = _text(inner, "stem", where)
    else:
        question, choices = _text(row, field, place), _fields(_required(row, "choices", place), f"{place}, choices")
    texts = _texts(choices, "text", f"{place}, choices")
    labels = _required(choices, "label", f"{place}, choices")
    if not isinstance(labels, list) or len(labels) != len(texts):
        expected = f"{len(texts)} labels, one for each choice"
        raise DataError("labels do not fit the choices", where=place, expected=expected, got=json.dumps(labels))
    return question, texts, [str(label) for label in labels]


def _key(row: Fields, labels: list[str], place: str) -> int:
    key = str(_required(row, "answerKey", place)).strip()
    if key not in labels:
        raise DataError(
            "an answer is none of the choices", where=place, expected=", ".join(labels), got=key or "nothing"
        )
    return labels.index(key)


def _number(row: Fields, field: str, choices: int, place: str, *, first: int = 0) -> int:
    """Return which choice is true, counted from 0; the file counts from `first`, in digits or as a number."""
    value = str(_required(row, field, place)).strip()
    if not value.isdecimal() or not first <= int(value) < choices + first:
        expected = f"a number from {first} to {choices - 1 + first}"
        fix = None if value else "the labels of this split are not public; take one whose labels are"
        raise DataError(
            "an answer is none of the choices", where=place, expected=expected, got=value or "nothing", fix=fix
        )
    return int(value) - first
