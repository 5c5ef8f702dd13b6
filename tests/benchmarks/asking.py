"""Minimal pairs asked by our adapter and by lm-evaluation-harness's own model of the same exported weights.

Both answer the same requests with as many threads, in turn and each in a process of its own; the harness at its best
batch size of those tried. What is compared is the whole answer to all pairs, text to log-probability. Real pairs
(BLiMP) where they are at hand, else sentences of the embedded speeches with two words swapped.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.embeddings import Table
from architectures.exchange import export_model
from architectures.feedforward import SwiGLU
from architectures.initialisation import initialise
from architectures.norms import RMSNorm
from architectures.positions import Rotary
from tests.benchmarks.apart import Apart, clock_of
from workbench.data.corpora import Speeches, read_documents
from workbench.data.tokenizer import BytePairs
from workbench.evaluation.asking import Asked
from workbench.seeds import standard_normal
from workbench.training.numerics import keep_freed_memory

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "blimp.jsonl.gz"
BAR = 2
BATCHES = (1, 8, 32, 64, "auto")
FEW = 256  # requests by which its batch sizes are compared
MOST = 128  # sequences, where the harness finds out itself
CONTEXT, VOCABULARY, PARADIGMS = 256, 4096, 67


def main(arguments: list[str] | None = None) -> None:
    """Print how many times as fast as the harness's own model we are."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=2000, help="as many of each paradigm; all are 67,000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    asked = parser.parse_args(arguments)
    if find_spec("lm_eval") is None:
        print("not measured: lm_eval is not installed (extra eval)")
        return
    texts, told = sentences(asked.pairs)
    print(f"{len(texts) // 2:,} pairs of {told}, {parameters():,} parameters\n")
    print("| threads | ours, seconds | the harness's own model | ratio | bar | its batch sizes, relative to its best |")
    print("|--:|--:|--:|--:|---|---|")
    with tempfile.TemporaryDirectory() as name:
        exported(Path(name))
        difference = max(compare(name, texts, threads, asked.rounds) for threads in asked.threads)
    print(f"\nlargest difference of a log-probability {difference:.1e} (bar: 1e-4)")


def compare(folder: str, texts: list[str], threads: int, rounds: int) -> float:
    """Print a row of the table, and return the largest difference of an answer."""
    torch.set_num_threads(threads)
    ours, theirs = Apart(workbench, folder, texts), Apart(harness, folder, texts)
    taken, difference = [], 0.0
    for _ in range(rounds):
        (seconds, answers), (their_seconds, (expected, best, tried)) = ours.run(), theirs.run()
        taken.append((seconds, their_seconds))
        difference = max(abs(one - other) for (one, _), (other, _) in zip(answers, expected, strict=True))
    ours.end()
    theirs.end()
    shown = ", ".join(f"{batch}: {seconds / tried[best]:.2f}" for batch, seconds in tried.items())
    ratios = [other / own for own, other in taken]
    own, other = (statistics.median(one) for one in zip(*taken, strict=True))
    ratio = statistics.median(ratios)
    print(
        f"| {threads} | {own:.1f} | {other:.1f} | {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | "
        f"{BAR} {'met' if ratio >= BAR else '**missed**'} | {shown} |",
        flush=True,
    )
    return difference


def workbench(folder: str, texts: list[str]) -> Callable[[], Any]:
    """Return how our adapter answers."""
    from workbench.evaluation.adapter import Adapter

    keep_freed_memory()  # as `workbench evaluate` does
    asked, requests = exported(Path(folder) / "ours"), instances(texts)
    return lambda: Adapter(asked).loglikelihood(requests)


def harness(folder: str, texts: list[str]) -> Callable[[], Any]:
    """Return how the harness's own model answers at its best batch size: answers, that size, seconds by size tried."""
    from lm_eval.models.huggingface import HFLM

    requests = instances(texts)
    by_batch = {
        batch: HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=batch, max_batch_size=MOST)
        for batch in BATCHES
    }
    few = requests[:: max(1, len(requests) // FEW)]
    tried = {
        batch: best_of(2, lambda lm=lm: lm.loglikelihood(few, disable_tqdm=True)) for batch, lm in by_batch.items()
    }
    best = min(tried, key=lambda batch: tried[batch])
    return lambda: (by_batch[best].loglikelihood(requests, disable_tqdm=True), best, tried)


def sentences(pairs: int) -> tuple[list[str], str]:
    """Return the sentences of `pairs` minimal pairs, and what they are."""
    if not REAL.is_file():
        return list(swapped(pairs)), "speeches with two words swapped"
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with gzip.open(REAL, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            by_kind[row["UID"]].append(row)
    rows = [row for held in by_kind.values() for row in held[: -(-pairs // PARADIGMS)]][:pairs]
    return [row[name] for row in rows for name in ("sentence_good", "sentence_bad")], "BLiMP"


def swapped(pairs: int) -> Iterator[str]:
    """Yield sentences of the embedded corpus, each followed by itself with its third and fourth word swapped."""
    words = [sentence.split() for document in read_documents(Speeches()) for sentence in document.text.split(". ")]
    for one in [one for one in words if 6 <= len(one) <= 14][:pairs]:
        yield " ".join(one)
        yield " ".join([*one[:2], one[3], one[2], *one[4:]])


def instances(texts: list[str]) -> list[Any]:
    """Return the harness's requests for the log-probability of every text."""
    from lm_eval.api.instance import Instance

    return [
        Instance("loglikelihood", {}, ("", f" {text}"), number % 2, ("blimp", number // 2, 1))
        for number, text in enumerate(texts)
    ]


def architecture() -> Architecture:
    """Return a model of four million parameters that Llama can express."""
    return Architecture(
        width=192, layers=7, context=CONTEXT, vocabulary=VOCABULARY, position=Rotary(), norm=RMSNorm(),
        attention=MultiHead(heads=6), feed_forward=SwiGLU(width=512), embedding=Table(tied=True),
    )  # fmt: skip


def parameters() -> int:
    """Count its parameters."""
    return sum(parameter.numel() for parameter in architecture().build().parameters())


def exported(folder: Path) -> Asked:
    """Write a model with its tokenizer into a folder, and return it."""
    tokenizer = BytePairs(vocabulary=VOCABULARY).train([document.text for document in read_documents(Speeches())][-60:])
    model = architecture().build()
    initialise(model, architecture(), lambda name, shape: standard_normal(0, f"initialisation/{name}", shape))
    export_model(model.eval(), architecture(), folder, end_of_text=tokenizer.end_of_text)
    tokenizer.publish(folder, CONTEXT)
    return Asked(model, tokenizer, CONTEXT)


def best_of(times: int, run: Callable[[], Any]) -> float:
    """Return the fewest seconds that `run` took."""
    seconds, clock = [], clock_of(torch.get_num_threads())
    for _ in range(times):
        began = clock()
        run()
        seconds.append(clock() - began)
    return min(seconds)


if __name__ == "__main__":
    main()
