"""What of a task's items must not stand in training text, and which items do.

Promises one rule for every source of items (`data.overlap`): of our own benchmarks the question with every answer to
it, of a task of lm-evaluation-harness what it asks with every answer, without its examples, and every longer text of
the document. Tasks on held-out documents have no such items.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from workbench.data.contamination import Text, overlapping, overlapping_items
from workbench.data.overlap import WORDS, split
from workbench.data.prepared import Prepared
from workbench.evaluation.tasks import BenchmarkItems, LmEval, Task


class Sought(NamedTuple):
    """An item by the name of its scores, and its texts."""

    name: str
    texts: tuple[str, ...]


def is_searched(task: Task) -> bool:
    """Whether a task has items that could stand in training text, and are no part of the held-out text."""
    return isinstance(task, BenchmarkItems | LmEval)


def contaminated(task: Task, items: Sequence[Any], prepared: Prepared, further: Sequence[Text] = ()) -> frozenset[str]:
    """Return the names of a task's items that overlap with the training text.

    Args:
        task: What is asked.
        items: As the task drew them.
        prepared: The data that the model was trained on.
        further: What else it was trained on, or may have been.

    Raises:
        DataError: if a benchmark cannot be read.
        StoreError: if what was found cannot be kept.
    """
    if isinstance(task, BenchmarkItems):
        return overlapping(prepared, task.benchmark, further)
    if isinstance(task, LmEval):
        from workbench.evaluation.harness import quiet, seeded  # it needs lm-eval, which few tasks do

        with quiet(), seeded():
            sought = [Sought(one.name, texts_of(one.task, one.task.eval_docs[one.number])) for one in items]
        return overlapping_items(prepared, sought, further)
    return frozenset()


def texts_of(task: Any, document: Any) -> tuple[str, ...]:
    """Return the texts of one document of a task of lm-evaluation-harness."""
    asked, target = task.doc_to_text(document), task.doc_to_target(document)
    choices = task.doc_to_choice(document) if task.OUTPUT_TYPE == "multiple_choice" else []
    if isinstance(asked, str):
        answers = [*_strings(choices)] or [*_strings(target)] or [""]
        joined = [f"{asked} {answer}" for answer in answers]
    else:  # the choices differ in what stands before the answer
        joined = [f"{choice} {answer}" for choice in _strings(choices) for answer in [*_strings(target)] or [""]]
    longer = [text for text in _strings(document) if len(split(text)) >= WORDS]
    return tuple(dict.fromkeys([*joined, *longer]))


def _strings(value: Any) -> Iterator[str]:
    """Yield every text in a value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings(value.values())
    elif isinstance(value, Iterable):
        for held in value:
            yield from _strings(held)
