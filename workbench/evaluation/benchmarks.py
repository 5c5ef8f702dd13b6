"""Items of benchmarks: every choice by its log-probability, or an answer that the model writes.

Promises that every run answers the same items after the same examples, in words that follow from the task and its files
alone; that ties are ties; and that no item is lost: of one that is longer than the context the beginning is cut, and
its scores are flagged (`records.TRUNCATED`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from workbench.data.benchmarks import read_examples, read_items
from workbench.data.items import Item
from workbench.data.prepared import Prepared
from workbench.data.tokenizer import Tokenizer
from workbench.errors import DataError
from workbench.evaluation import choosing, numbers
from workbench.evaluation.asking import Asked
from workbench.evaluation.formats import answers, asked_by_harness, asked_whole
from workbench.evaluation.requests import Encoded, Measured, Request, encode, encode_whole, measured, shortened
from workbench.evaluation.scoring import Score
from workbench.evaluation.tasks import BenchmarkItems, Drawing, View
from workbench.records import TRUNCATED
from workbench.seeds import generator


class Posed(NamedTuple):
    """An item, and what is asked of the model: one request per choice, or the prompt of an answer to be written."""

    item: Item
    requests: tuple[Encoded, ...]

    @property
    def flags(self) -> int:
        """What is said of all its scores."""
        return TRUNCATED if any(request.truncated for request in self.requests) else 0


def draw(task: BenchmarkItems, prepared: Prepared, context: int) -> list[Posed]:
    """Return the items of a benchmark in tokens; those of files that did not change are kept from the time before.

    Raises:
        DataError: for files that cannot be read, or fewer examples than are to be shown.
    """
    return list(_drawn(task, task.benchmark.source_hash(), prepared.tokenizer, context))


def ask(task: BenchmarkItems, items: Sequence[Posed], view: View, asked: Asked) -> list[Score]:
    """Ask a model about the items."""
    if task.writes:
        return list(_written(task, items, asked))
    requests = [request for posed in items for request in posed.requests]
    found = iter(measured(asked, requests, view, greedy=task.benchmark.name == "lambada"))
    scores: list[Score] = []
    for posed in items:
        scores += _scored(task, posed, [next(found) for _ in posed.requests])
    return scores


# --- asking


@lru_cache(maxsize=4)
def _drawn(task: BenchmarkItems, source: str, tokenizer: Tokenizer, context: int) -> tuple[Posed, ...]:
    items, pool = read_items(task.benchmark), read_examples(task.benchmark)
    asked = [asked_of(task, item, pool) for item in items]
    if task.protocol == "stlm":
        whole = [request.continuation for requests in asked for request in requests]
        encoded = iter(encode_whole(whole, tokenizer, context))
    else:
        flat = [request for requests in asked for request in requests]
        encoded = iter(_prompts(flat, tokenizer, context) if task.writes else encode(flat, tokenizer, context))
    return tuple(
        Posed(item, tuple(shortened(next(encoded), context) for _ in requests))
        for item, requests in zip(items, asked, strict=True)
    )


def asked_of(task: BenchmarkItems, item: Item, pool: Sequence[Item] = ()) -> list[Request]:
    """Return what is asked about an item, in words: context and continuation of every choice.

    Args:
        task: Which says how.
        item: One of its benchmark.
        pool: The items from which examples are taken.

    Raises:
        DataError: if there are fewer examples than are to be shown.
    """
    name = task.benchmark.name
    if task.protocol == "stlm":
        return [Request("", text) for text in asked_whole(name, item)]
    if name == "winobias":
        return [Request("", sentence) for sentence in item.choices]
    return asked_by_harness(name, item, examples(task, item, pool))


def examples(task: BenchmarkItems, item: Item, pool: Sequence[Item]) -> list[Item]:
    """Return what is shown before an item: in MMLU the first of its subject, else drawn by a stream of the item's own.

    Raises:
        DataError: if there are fewer than the task shows.
    """
    name = task.benchmark.name
    others = [one for one in pool if one.cluster == item.cluster] if name == "mmlu" else pool
    if name == "mmlu" or not task.shots:
        order: Sequence[int] = range(len(others))
    else:
        stream = generator(0, f"evaluation/{name}/examples/{item.name}")
        order = stream.choice(len(others), min(task.shots + 1, len(others)), replace=False).tolist()
    shown = [others[number] for number in order if others[number].question != item.question][: task.shots]
    if len(shown) < task.shots:
        raise DataError(
            "there are too few examples to show",
            where=f"{task.benchmark.examples}, before item {item.name}",
            expected=f"{task.shots}" + (f" of the subject {item.cluster}" if name == "mmlu" else ""),
            got=f"{len(shown)}",
        )
    return shown


def _prompts(requests: list[Request], tokenizer: Tokenizer, context: int) -> list[Encoded]:
    """Return contexts after which the model writes; of a longer one it reads the last `context` tokens."""
    encoded = tokenizer.encode_batch([request.context for request in requests])
    if tokenizer.begin_of_text is not None:
        encoded = [tokenizer.begun(tokens) for tokens in encoded]
    return [Encoded(tokens[-context:], 1, truncated=len(tokens) > context) for tokens in encoded]


# --- scoring


def _scored(task: BenchmarkItems, posed: Posed, found: list[Measured]) -> Iterator[Score]:
    item, held = posed.item, tuple(-one.nats for one in found)
    if task.benchmark.name == "lambada":
        values = {"accuracy": float(bool(found[0].greedy)), "answer_nats": found[0].nats}
    elif task.benchmark.name == "winobias":
        values = {"stereotype": choosing.accuracy(held, item.truths), "preference": choosing.margin(held, item.truths)}
    else:
        values = _chosen(task, posed, held)
    values |= {own.metric: own.value(item, held) for own in task.own}
    yield from (Score(name, item.name, item.cluster, values[name], flags=posed.flags) for name in task.produces)


def _chosen(task: BenchmarkItems, posed: Posed, held: tuple[float, ...]) -> dict[str, float]:
    item, said = posed.item, answers(task.benchmark.name, posed.item)
    lengths = {
        "accuracy_per_character": [len(answer) for answer in said],
        "accuracy_per_byte": [len(answer.encode()) for answer in said],
        "accuracy_per_token": [request.scored for request in posed.requests],
    }
    return {
        "accuracy": choosing.accuracy(held, item.truths),
        **{name: choosing.accuracy(np.divide(held, sizes).tolist(), item.truths) for name, sizes in lengths.items()},
        "margin": choosing.margin(held, item.truths),
        "truth_probability": choosing.truth_probability(held, item.truths),
        "truth_log_probability": choosing.truth_log_probability(held, item.truths),
    }


def _written(task: BenchmarkItems, items: Sequence[Posed], asked: Asked) -> Iterator[Score]:
    """Have the model write every answer, greedily, and compare the final number."""
    drawing = Drawing(tokens=task.tokens, temperature=0)
    tokens = asked.write([posed.requests[0].tokens for posed in items], drawing, "evaluation/gsm8k")
    for posed, written in zip(items, tokens, strict=True):
        item, text = posed.item, numbers.ended(asked.tokenizer.decode(written, continued=True))
        values = {
            "exact_match": float(numbers.same(numbers.strict(text), item.answer)),
            "exact_match_flexible": float(numbers.same(numbers.flexible(text), item.answer)),
            **{own.metric: own.value(item, text) for own in task.own},
        }
        yield from (Score(name, item.name, item.cluster, values[name], flags=posed.flags) for name in task.produces)
