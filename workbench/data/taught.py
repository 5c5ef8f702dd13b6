"""Examples for fine-tuning and the items of benchmarks: which examples share words with them, and which are trained on.

Where data declare a decontamination, it holds for examples as for documents. An example that shares words with an item
is left out of training under both "remove" and "cut": a question without some of its words, or an answer without its
end, would teach something else. Under "flag" it is trained on and counted. What is searched is what is said, turn after
turn, without the words of the template. Examples that are held out are left alone, as nothing trains on them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from workbench.data.answers import Answers, Examples, read_answers, read_said
from workbench.data.contamination import Text
from workbench.data.decontamination import Decontamination, overlapping_documents
from workbench.data.documents import Document
from workbench.data.prepared import Prepared
from workbench.data.tokenizer import Tokenizer
from workbench.errors import DataError
from workbench.identity import digest


class Taught(NamedTuple):
    """What fine-tuning trains on.

    Attributes:
        examples: Those trained on.
        searchable: What they say, to be searched for items.
        of: How many examples are not held out.
        overlapping: Of them, those that share words with a benchmark of the declared decontamination.
        left_out: Of those, how many are not trained on.
    """

    examples: Examples
    searchable: Text
    of: int
    overlapping: int
    left_out: int


def taught(answers: Answers, prepared: Prepared) -> Taught:
    """Return the examples that are trained on, given what the data declare; found once per process.

    Raises:
        DataError: with file and line, for what cannot be read; if every example shares words with a benchmark.
    """
    spec = prepared.decontamination
    return _taught(answers, answers.source_hash(), prepared.tokenizer, spec, digest(spec))


@lru_cache(maxsize=4)
def _taught(answers: Answers, source: str, tokenizer: Tokenizer, spec: Decontamination | None, searched: str) -> Taught:
    examples, said = read_answers(answers, tokenizer).training, read_said(answers)
    texts = [said[row.tobytes().hex()] for row in examples.hashes]
    found: set[int] = set()
    if spec is not None:
        named = [Document(f"line {line}", text) for line, text in zip(examples.lines.tolist(), texts, strict=True)]
        found = overlapping_documents(spec, named)
    kept = np.arange(len(texts))
    if spec is not None and spec.action != "flag" and found:
        kept = np.array([number for number in kept.tolist() if number not in found], np.int64)
        if not len(kept):
            raise DataError(
                "decontamination leaves nothing to fine-tune on",
                where=answers.path,
                expected="an example that shares no words with the benchmarks of data.decontamination",
                got=f"all {len(texts):,} examples that are not held out share some",
                fix='train on other examples, or let them be and counted (action="flag")',
            )
    searchable = Text(digest("examples", answers, searched), lambda: [texts[number] for number in kept.tolist()])
    return Taught(examples.kept(kept), searchable, len(texts), len(found), len(texts) - len(kept))
