"""Texts that a teacher writes, as training data for others: checked against benchmarks, and written again if need be.

The file holds one JSON object a line, {"text": ..., "prompt": ..., "tries": ...}, and is a corpus like any other
(`Files`), by itself or as a part of a mixture. A manifest beside it says who wrote it, from what, and what was found.
Promises that a text follows (to rounding) from teacher, prompt, number and try alone; that no text in the file shares
13 words in a row, or a whole short item, with a benchmark that was named; and a file that is whole or not there.
Refuses to replace a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from workbench.data.benchmarks import Benchmark, read_items
from workbench.data.building import Report
from workbench.data.decontamination import EXCERPT, SHOWN, Shared
from workbench.data.documents import Document
from workbench.data.overlap import SHORTEST, WORDS, Needles
from workbench.data.tokenizer import Tokenizer
from workbench.errors import DataError, StoreError
from workbench.evaluation.generation import extend
from workbench.evaluation.scoring import evaluating
from workbench.evaluation.tasks import Drawing
from workbench.identity import Spec, canonical, digest, setting
from workbench.seeds import generator, seed_for
from workbench.store import write_durably

TOGETHER = 64  # texts that are written at the same time


class Wanted(Spec):
    """What a teacher is asked to write.

    Attributes:
        texts: How many.
        drawing: How long each is at most, and how tokens are drawn.
        seed: Of what is drawn.
        benchmarks: Of which no text may hold an item.
        n: Words in a row that count as overlap.
        shortest: Words of a shorter item that is searched for as a whole.
        tries: How often a text that overlaps, or is empty, is written before it is left out.
    """

    texts: int = setting(ge=1)
    drawing: Drawing = Drawing()
    seed: int = setting(0)
    benchmarks: tuple[Benchmark, ...] = setting(())
    n: int = setting(WORDS, ge=3)
    shortest: int = setting(SHORTEST, ge=1)
    tries: int = setting(5, ge=1)


class Manifest(Spec):
    """What was written, and what was found in it.

    Attributes:
        teacher: Who wrote it, for people.
        teacher_hash: Hash of its weights.
        prompts_hash: Hash of the prompts.
        wanted: What it was asked for; benchmarks by the hash of their files.
        texts: How many there are.
        again: How often a text was written again.
        overlapping: Texts that overlapped with a benchmark, each try counted.
        empty: Texts without a word, each try counted.
        left_out: Texts that still overlapped, or were empty, after the last try.
        prompts_left_out: Prompts that overlap with a benchmark by themselves, from which nothing was written.
        shared: By benchmark, the first of the words that were found.
        sha256: Of the file.
    """

    teacher: str
    teacher_hash: str
    prompts_hash: str
    wanted: dict[str, Any]
    texts: int
    again: int
    overlapping: int
    empty: int
    left_out: int
    prompts_left_out: int
    shared: dict[str, tuple[Shared, ...]]
    sha256: str


@dataclass(frozen=True)
class Writer:
    """A teacher that is ready to write, ours or of Hugging Face.

    Attributes:
        told: Who, for people.
        source: Hash of its weights.
        model: A `Transformer`, or what has its cache, hidden states and logits.
        tokenizer: Its own.
        context: Tokens it sees at once.
        device: Where the model lies.
    """

    told: str
    source: str
    model: Any
    tokenizer: Tokenizer
    context: int
    device: str = "cpu"


@dataclass
class _Tally:
    again: int = 0
    overlapping: int = 0
    empty: int = 0
    left_out: int = 0
    shared: dict[str, list[Shared]] = field(default_factory=dict)


def write_texts(writer: Writer, prompts: Sequence[str], wanted: Wanted, path: Path, report: Report) -> Manifest:
    """Have a teacher write texts into a file, and a manifest beside it (`manifest_of`).

    Args:
        writer: Who writes.
        prompts: What texts begin with, one after the other, over and over; at least one, which may be empty.
        wanted: How many texts, and what they may not hold.
        path: The file; made, and never replaced.
        report: Told how far it is.

    Raises:
        DataError: if the file is there already, a benchmark cannot be read, or every prompt overlaps with one.
        StoreError: if the file cannot be written.
        WorkbenchError: if the model has no logits.
    """
    if path.exists():
        raise DataError(
            "there is such a file already", where=path, got=f"{path.stat().st_size:,} bytes", fix="name another one"
        )
    guard = _Guard(wanted)
    clean = [prompt for prompt in prompts if not guard.hits(prompt)]
    if not clean:
        raise DataError(
            "every prompt overlaps with a benchmark",
            where=", ".join(benchmark.title for benchmark in wanted.benchmarks) or "prompts",
            expected="a prompt that holds none of its items",
            got=f"{len(prompts):,} prompts",
        )
    tally = _Tally()
    count, hashed = _keep(path, _rows(writer, clean, wanted, guard, tally, report))
    manifest = Manifest(
        teacher=writer.told,
        teacher_hash=writer.source,
        prompts_hash=digest(*prompts),
        wanted=canonical(wanted),
        texts=count,
        again=tally.again,
        overlapping=tally.overlapping,
        empty=tally.empty,
        left_out=tally.left_out,
        prompts_left_out=len(prompts) - len(clean),
        shared={title: tuple(found) for title, found in tally.shared.items()},
        sha256=hashed,
    )
    write_durably(manifest_of(path), manifest.model_dump_json(indent=2).encode())
    return manifest


def _keep(path: Path, rows: Iterator[dict[str, Any]]) -> tuple[int, str]:
    """Write rows as JSON lines, the file whole or not at all; return how many, and the SHA-256."""
    hashed, count = hashlib.sha256(), 0
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as handle:
            for row in rows:
                line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
                handle.write(line)
                hashed.update(line)
                count += 1
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(part, path)
    except OSError as error:
        raise StoreError("texts cannot be written", where=path, got=error.strerror or str(error)) from None
    finally:
        part.unlink(missing_ok=True)
    return count, hashed.hexdigest()


def manifest_of(path: Path) -> Path:
    """Return where the manifest of a file of texts lies."""
    return path.with_name(path.name + ".manifest.json")


def beginnings(documents: Sequence[Document], words: int, seed: int) -> list[str]:
    """Return the first words of documents as prompts, each once, in an order drawn by the documents' text."""
    order = sorted(documents, key=lambda document: seed_for(seed, f"texts/prompt/{document.hash}"))
    first = re.compile(rf"\s*((?:\S+\s+){{0,{words - 1}}}\S+)")
    found = (first.match(document.text) for document in order)
    return list(dict.fromkeys(match[1] for match in found if match))


# --- writing and checking


class _Guard:
    """Says which benchmark items a text holds."""

    def __init__(self, wanted: Wanted) -> None:
        self._needles = {
            benchmark.title: Needles(read_items(benchmark), wanted.n, wanted.shortest)
            for benchmark in wanted.benchmarks
        }

    def hits(self, text: str) -> dict[str, list[Shared]]:
        """Return by benchmark what a text shares with it."""
        found = {
            title: [Shared(document="", item=hit.item, words=hit.words[:EXCERPT]) for hit in needles.find([text])]
            for title, needles in self._needles.items()
        }
        return {title: held for title, held in found.items() if held}


def _rows(
    writer: Writer, prompts: Sequence[str], wanted: Wanted, guard: _Guard, tally: _Tally, report: Report
) -> Iterator[dict[str, Any]]:
    for first in range(0, wanted.texts, TOGETHER):
        numbers = range(first, min(first + TOGETHER, wanted.texts))
        done = _written(writer, prompts, wanted, numbers, guard, tally)
        yield from (done[number] for number in sorted(done))
        tally.left_out += len(numbers) - len(done)
        found = f"; {tally.overlapping:,} overlapped with a benchmark" if wanted.benchmarks else ""
        report(f"wrote {numbers.stop:,} of {wanted.texts:,} texts{found}")


def _written(
    writer: Writer, prompts: Sequence[str], wanted: Wanted, numbers: Sequence[int], guard: _Guard, tally: _Tally
) -> dict[int, dict[str, Any]]:
    """Write some texts, by number; those that may not stay are written again from the next stream."""
    done: dict[int, dict[str, Any]] = {}
    left = list(numbers)
    for attempt in range(wanted.tries):
        tally.again += len(left) if attempt else 0
        begun = [prompts[number % len(prompts)] for number in left]
        streams = [generator(wanted.seed, f"texts/{number}/{attempt}") for number in left]
        for number, prompt, rest in zip(left, begun, _continued(writer, begun, wanted, streams), strict=True):
            text = prompt + rest
            hits = guard.hits(text)
            for title, found in hits.items():
                told = tally.shared.setdefault(title, [])
                told += [one.model_copy(update={"document": f"text {number}, try {attempt + 1}"}) for one in found]
                del told[SHOWN:]
            tally.overlapping += bool(hits)
            tally.empty += not rest.strip()
            if rest.strip() and not hits:
                done[number] = {"text": text, "prompt": prompt, "tries": attempt + 1}
        left = [number for number in left if number not in done]
        if not left:
            break
    return done


def _continued(
    writer: Writer, prompts: Sequence[str], wanted: Wanted, streams: Sequence[np.random.Generator]
) -> list[str]:
    tokenizer = writer.tokenizer
    with evaluating(writer.model):
        tokens = extend(
            writer.model,
            [tokenizer.begun(begun) for begun in tokenizer.encode_batch(list(prompts))],
            context=writer.context,
            drawing=wanted.drawing,
            streams=streams,
            stop=tokenizer.end_of_text,
            device=writer.device,
        )
    return [tokenizer.decode(one, continued=bool(prompt)) for one, prompt in zip(tokens, prompts, strict=True)]
