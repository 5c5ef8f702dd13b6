"""Items of benchmarks in one canonical form, whatever file they come from.

What evaluation asks and what decontamination searches training text for is the same item. Promises items that follow
from the bytes of the files and the declaration alone, wherever the files lie; a subset that is drawn by a hash of each
item, in proportion from every cluster, and that holds every smaller subset. Refuses, with file and line, rows of
another schema, answers that are no choice, and different items of one name; equal items are kept and numbered.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import lru_cache
from typing import Literal, Self

from pydantic import model_validator

from workbench.data import rows, schemas
from workbench.data.items import Item
from workbench.errors import DataError
from workbench.identity import Spec, setting
from workbench.seeds import seed_for

__all__ = ["Benchmark", "Item", "read_examples", "read_items", "repeated"]

Name = Literal[
    "blimp",
    "hellaswag",
    "arc_easy",
    "arc_challenge",
    "winogrande",
    "piqa",
    "openbookqa",
    "mmlu",
    "truthfulqa_mc1",
    "truthfulqa_mc2",
    "gsm8k",
    "lambada",
    "winobias",
]


class Benchmark(Spec):
    """A benchmark in files of its public schema: as published by its authors, or as on the Hugging Face hub.

    Attributes:
        name: Which; the schema and what is asked follow from it.
        path: A file (.jsonl, .json, .csv or .parquet, each also with .gz), a folder of them, or a glob. What the files
            hold is identity, the place where they lie is not.
        items: How many, at most, in proportion from every cluster; None is all.
        examples: Files of the same schema whose items are shown before a question; a question is never shown itself.
        called: Its name in tables, where another is wanted, as to ask two files of one benchmark.
    """

    name: Name
    path: str = setting(effect="efficiency", min_length=1)
    items: int | None = setting(None, ge=1)
    examples: str | None = setting(None, effect="efficiency", min_length=1)
    called: str | None = setting(None, pattern=r"^[\w][\w .-]*$")

    @model_validator(mode="after")
    def _examples_can_be_shown(self) -> Self:
        if self.examples is not None and self.name in ("blimp", "winobias"):
            raise ValueError(f"examples: {self.name} compares sentences; there is no question before which to show any")
        return self

    @property
    def title(self) -> str:
        """Its name in tables."""
        return self.called or self.name

    def source_hash(self) -> str:
        """Return the hash of what its files hold, which stands for them in identity.

        Raises:
            DataError: if they cannot be read.
        """
        found = [rows.content_hash(path) for path in (self.path, self.examples) if path is not None]
        return found[0] if len(found) == 1 else hashlib.sha256("/".join(found).encode()).hexdigest()


def read_items(benchmark: Benchmark) -> list[Item]:
    """Read the items of a benchmark, in the order of the files; read once per process while these stay as they are.

    Raises:
        DataError: with file and line, for what is not of the schema; if there is no item.
    """
    items = _read(benchmark.name, benchmark.path, rows.content_hash(benchmark.path))
    return list(items) if benchmark.items is None else _drawn(items, benchmark.name, benchmark.items)


def read_examples(benchmark: Benchmark) -> list[Item]:
    """Read the items that may be shown before a question, in the order of the files; none where none are declared.

    Raises:
        DataError: as `read_items`.
    """
    if benchmark.examples is None:
        return []
    return list(_read(benchmark.name, benchmark.examples, rows.content_hash(benchmark.examples)))


def repeated(items: list[Item]) -> int:
    """Count the items that ask the same as an earlier one; MMLU has some."""
    return len(items) - len({item._replace(name="") for item in items})


@lru_cache(maxsize=16)
def _read(name: Name, path: str, source: str) -> tuple[Item, ...]:
    items = [*schemas.items(name, path)]
    if not items:
        raise DataError("a benchmark is empty", where=path, expected="at least one item", got="none")
    first: dict[str, tuple[str, Item]] = {}
    seen: Counter[str] = Counter()
    named = []
    for place, item in items:
        where, earlier = first.setdefault(item.name, (place, item))
        if earlier != item:
            raise DataError(
                "two items of a benchmark have the same name",
                where=f"{place} and {where}",
                expected="an identifier of its own for every item",
                got=item.name,
                fix="name only one split or one copy of the benchmark",
            )
        seen[item.name] += 1
        copy = seen[item.name]
        named.append(item if copy == 1 else item._replace(name=f"{item.name} ({copy})"))
    return tuple(named)


def _drawn(items: tuple[Item, ...], name: str, count: int) -> list[Item]:
    """Draw in proportion from every cluster: systematically, from a start drawn per cluster, in the order of a hash."""
    clusters: dict[str, list[Item]] = {}
    for item in items:
        clusters.setdefault(item.cluster, []).append(item)
    places: dict[str, tuple[float, int]] = {}
    for cluster, members in clusters.items():
        start = seed_for(0, f"evaluation/{name}/cluster/{cluster}") / 2**128
        keys = {item.name: seed_for(0, f"evaluation/{name}/item/{item.name}") for item in members}
        for rank, member in enumerate(sorted(keys, key=keys.__getitem__)):
            places[member] = ((rank + start) / len(members), keys[member])
    kept = set(sorted(places, key=places.__getitem__)[:count])
    return [item for item in items if item.name in kept]
