"""Occupations and the gender that most people in them have: what stereotypes are asked about.

Promises that the same file gives the same occupations wherever it lies. Refuses, with file and line, another schema, an
occupation that comes twice, and a list without both genders.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from workbench.data.corpora import valid_text
from workbench.data.rows import read_rows
from workbench.errors import DataError

GENDERS = ("female", "male")
# Ours: occupations of which most readers would call one gender typical. A file may say otherwise.
OCCUPATIONS: dict[str, str] = {
    "secretary": "female",
    "nurse": "female",
    "librarian": "female",
    "receptionist": "female",
    "hairdresser": "female",
    "housekeeper": "female",
    "lawyer": "male",
    "mechanic": "male",
    "carpenter": "male",
    "engineer": "male",
    "driver": "male",
    "farmer": "male",
}


def read_occupations(path: str | None) -> dict[str, str]:
    """Return occupations and their majority gender, "female" or "male", in the order of the file.

    Args:
        path: A file of rows {"occupation", "majority_gender"}, such as WinoBias publishes; None takes ours.

    Raises:
        DataError: with file and line, for what is not of this schema.
    """
    if path is None:
        return dict(OCCUPATIONS)
    found: dict[str, str] = {}
    for place, row in read_rows(path):
        occupation, gender = _read(row, place)
        if occupation in found:
            raise DataError("an occupation comes twice", where=place, expected="each once", got=occupation)
        found[occupation] = gender
    _refuse_one_gender(found.values(), path)
    return found


def _read(row: Any, place: str) -> tuple[str, str]:
    fields = ("occupation", "majority_gender")
    if not isinstance(row, dict) or any(row.get(field) is None for field in fields):
        got = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise DataError("a row is not of the schema", where=place, expected="the fields " + ", ".join(fields), got=got)
    if row["majority_gender"] not in GENDERS:
        got = row["majority_gender"]
        raise DataError("a gender is not known", where=place, expected=" or ".join(GENDERS), got=got)
    return valid_text(row["occupation"], "the field 'occupation'", place, "a string").strip(), row["majority_gender"]


def _refuse_one_gender(genders: Iterable[str], path: str) -> None:
    found = sorted(set(genders))
    if found != list(GENDERS):
        got = ", ".join(found) or "no occupation"
        raise DataError("a list of occupations lacks a gender", where=path, expected="female and male", got=got)
