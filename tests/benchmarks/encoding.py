"""How fast a token file is written, against `encode_batch_fast` of the `tokenizers` library on the same text.

Ours ends with the tokens on disk; the library's with its own objects in memory. It is asked twice: for documents as
they are, and for their paragraphs, which suits it better where they are long. All take turns in one process.

    python -m tests.benchmarks.encoding [FILE]    # the embedded speeches, unless told
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from workbench.data.corpora import Corpus, Files, Speeches, read_documents
from workbench.data.token_files import write_tokens
from workbench.data.tokenizer import BytePairs

ROUNDS = 3
BAR = 0.8
LEARNED_FROM = 2_000_000  # characters; which merges there are hardly matters here


def main(arguments: list[str] | None = None) -> None:
    """Print megabytes of text a second, and the ratios."""
    corpus: Corpus = Files(path=arguments[0]) if arguments else Speeches()
    documents = read_documents(corpus)
    texts = [document.text for document in documents]
    paragraphs = [paragraph for text in texts for paragraph in text.split("\n\n")]
    size = sum(len(text.encode()) for text in texts)
    tokenizer = BytePairs(vocabulary=4096).train(["".join(texts)[:LEARNED_FROM]])
    library = tokenizer._model
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Callable[[], object]] = {
            "token file": lambda: write_tokens(Path(folder), documents, tokenizer, (), lambda line: None),
            "`encode_batch_fast`, documents": lambda: library.encode_batch_fast(texts),
            "`encode_batch_fast`, paragraphs": lambda: library.encode_batch_fast(paragraphs),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - began)
    ours = statistics.median(seconds["token file"])
    print(f"{size / 1e6:.1f} MB of text, {len(texts):,} documents\n")
    print("| | MB a second | ours is so many times as fast |\n|---|--:|--:|")
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"| {name} | {size / median / 1e6:.2f} | {median / ours:.2f} |")
    print(f"\nbar: {BAR} times the library's throughput")


if __name__ == "__main__":
    main(sys.argv[1:])
