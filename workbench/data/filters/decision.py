"""What a filter decides about documents, and what the filters share in deciding it.

Promises that a choice by score is a function of the set of documents: ties go by hash, never by place, and clustering
sees documents in the order of their hashes. Linear algebra runs on one thread, so that no decision depends on how many
cores a machine has; another build of numpy or scikit-learn may still move a document that lies right on a threshold,
which is why filters.json names the versions.
"""

from __future__ import annotations

import contextlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workbench.data.corpora import Document
from workbench.data.shelves import hashes_of
from workbench.errors import MissingExtra
from workbench.identity import Spec
from workbench.seeds import seed_for

EXTRA = "data"


@dataclass(frozen=True)
class Decision:
    """What becomes of each document.

    Attributes:
        keep: bool[documents].
        score: float64[documents]: what was compared with a threshold, or ranked; NaN where there was nothing to.
        reasons: Names of the rules that dropped each document; empty for one that is kept.
        beside: int64[documents]: the document that stands for this one, as its near duplicate; -1 where there is none.
        figures: What the filter has to say about itself, such as the area under a classifier's curve.
    """

    keep: np.ndarray
    score: np.ndarray
    reasons: tuple[tuple[str, ...], ...]
    beside: np.ndarray | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


class Rule(Spec, ABC):
    """What every filter has: a decision about documents, in the order they are given. It changes none of them."""

    @abstractmethod
    def decide(self, documents: Sequence[Document]) -> Decision:
        """Decide which documents to keep.

        Raises:
            DataError: if the filter cannot work on these documents, or what it needs cannot be read.
            MissingExtra: if a library it needs is not installed.
        """


def decided(keep: np.ndarray, score: np.ndarray, reason: str, **more: Any) -> Decision:
    """Return the decision of a filter with one rule."""
    reasons = tuple(() if kept else (reason,) for kept in keep.tolist())
    return Decision(keep.astype(bool), score.astype(np.float64), reasons, **more)


def by_hash(documents: Sequence[Document]) -> np.ndarray:
    """Return the places of documents in the order of their hashes, int64[documents]."""
    hashes = hashes_of(documents)
    return np.array(sorted(range(len(hashes)), key=hashes.__getitem__), dtype=np.int64)


def lowest(score: np.ndarray, share: float, documents: Sequence[Document]) -> np.ndarray:
    """Keep the share of documents with the lowest scores, bool[documents]; NaN counts as lowest, ties go by hash."""
    order = by_hash(documents)
    ranked = order[np.argsort(np.where(np.isnan(score), -np.inf, score)[order], kind="stable")]
    keep = np.zeros(len(documents), dtype=bool)
    keep[ranked[: round(share * len(documents))]] = True
    return keep


def whole_seed(seed: int, name: str) -> int:
    """Return the seed that a library gets which takes 32 bits."""
    return seed_for(seed, f"filters/{name}") % 2**32


def needed(module: str, package: str) -> Any:
    """Import a library of the extra `data` where it is used, so that planning needs none of them.

    Raises:
        MissingExtra: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and module.split(".")[0] != error.name.split(".")[0]:
            raise  # the library is there and lacks something of its own
        raise MissingExtra(package, EXTRA) from None


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Hold linear algebra to one thread: sums over threads are rounded in another order each time."""
    with needed("threadpoolctl", "scikit-learn").threadpool_limits(limits=1):
        yield
