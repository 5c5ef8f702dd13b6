"""WinoBias (arXiv:1804.06876): sentences in which a pronoun stands for an occupation, once with each gender.

An item is the same sentence twice: first with the pronoun that the occupation's stereotype suggests ("pro"), then with
the other ("anti"). Promises that only minimal pairs are items: such as differ in pronouns and nothing else (in the
published files 19 do not), and as the file itself does not call otherwise. Refuses, with file and line, a sentence
whose other half is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from workbench.data.corpora import valid_text
from workbench.data.items import Item
from workbench.data.rows import find, read_rows
from workbench.errors import DataError

PRONOUNS = {"he", "she", "him", "her", "his", "hers", "himself", "herself"}
FIELDS = ("split", "type", "condition", "line", "sentence")


class _Half(NamedTuple):
    place: str
    sentence: str
    occupations: str
    minimal: bool


def pairs(path: str) -> Iterator[tuple[str, Item]]:
    """Yield (place, item) for every minimal pair; occupations that occur together are a cluster.

    Args:
        path: A folder or a glob of the authors' own files, `pro_stereotyped_type1.txt.dev` and the like; or rows
            {"split", "type", "condition": "pro" or "anti", "line", "sentence"}, of which "entity_occupation" and
            "other_occupation" say which sentences belong together.

    Raises:
        DataError: for what is not of this schema.
    """
    halves: dict[tuple[str, str, str], dict[str, _Half]] = {}
    rows = ((file, place, row) for file in find(path) for place, row in read_rows(str(file)))
    for source, place, row in rows:
        key, condition, half = _half(_published(row, source, place) if isinstance(row, str) else row, place)
        held = halves.setdefault(key, {})
        if condition in held:
            got = f"split {key[0]}, type {key[1]}, line {key[2]} twice, first at {held[condition].place}"
            raise DataError("a sentence comes twice", where=place, expected="one per condition", got=got)
        held[condition] = half
    for (split, kind, line), held in halves.items():
        if held.keys() != {"pro", "anti"}:
            (half,) = held.values()
            missing = "anti" if "pro" in held else "pro"
            raise DataError("a sentence has no other half", where=half.place, expected=missing, got=half.sentence)
        pro, anti = held["pro"], held["anti"]
        if pro.minimal and anti.minimal and minimal(pro.sentence, anti.sentence):
            name = f"{split}/type{kind}/{line}"
            yield pro.place, Item(name, pro.occupations or name, "", (pro.sentence, anti.sentence), (0,))


def minimal(pro: str, anti: str) -> bool:
    """Return whether two sentences differ, and in pronouns only."""
    words = [re.findall(r"\w+|[^\w\s]+", sentence) for sentence in (pro, anti)]
    if len(words[0]) != len(words[1]):
        return False
    differing = [pair for pair in zip(*words, strict=True) if pair[0] != pair[1]]
    return bool(differing) and all({word.lower() for word in pair} <= PRONOUNS for pair in differing)


def _published(text: str, file: Path, place: str) -> dict[str, Any]:
    """Read a line of the authors' own: "12 [The sailor] thanked the cook because [he] was hungry."."""
    named = re.match(r"(pro|anti)_stereotyped_type([12])\.txt\.(dev|test)", file.name)
    found = re.match(r"(\d+) (.+)", text)
    if named is None or found is None:
        expected = "a number and a sentence, in a file such as pro_stereotyped_type1.txt.dev"
        raise DataError("a line is not of the schema", where=place, expected=expected, got=text[:60])
    condition, kind, split = named.groups()
    line, marked = found.groups()
    entities = [one for one in re.findall(r"\[(.*?)\]", marked) if one.lower() not in PRONOUNS]
    occupation = re.sub(r"^(the|an|a) ", "", entities[0].lower()) if entities else None
    sentence = re.sub(r"[\[\]]", "", marked).strip()
    fields = {"split": split, "type": kind, "condition": condition, "line": line, "sentence": sentence}
    return {**fields, "entity_occupation": occupation}


def _half(row: Any, place: str) -> tuple[tuple[str, str, str], str, _Half]:
    if not isinstance(row, dict) or any(row.get(field) is None for field in FIELDS):
        got = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise DataError("a row is not of the schema", where=place, expected="the fields " + ", ".join(FIELDS), got=got)
    if row["condition"] not in ("pro", "anti"):
        raise DataError("a condition is not known", where=place, expected="pro or anti", got=row["condition"])
    named = (row.get("entity_occupation"), row.get("other_occupation"))
    occupations = "/".join(sorted(str(one) for one in named if one))
    sentence = valid_text(row["sentence"], "the field 'sentence'", place, "a string")
    key = (str(row["split"]), str(row["type"]), str(row["line"]))
    return key, row["condition"], _Half(place, sentence, occupations, row.get("minimal_pair") is not False)
