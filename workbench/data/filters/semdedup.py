"""Semantic deduplication (SemDeDup, arXiv:2303.09540): of documents that say the same, one stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from pydantic import model_validator

from workbench.data.corpora import Document
from workbench.data.filters.clusters import COMPARED, Clustering
from workbench.data.filters.decision import Decision, decided, lowest, one_thread
from workbench.identity import setting


class SemDeDup(Clustering):
    """Within each cluster, drop a document whose cosine with one farther from the centroid is above 1 - epsilon.

    As the authors' code has it: a cluster is sorted from far to near (the paper keeps what is least like its centroid),
    and a document goes if any before it is too similar, whether or not that one goes as well. The score is the highest
    such cosine; NaN for the document that is farthest out. Documents in different clusters are never compared.

    Attributes:
        epsilon: A pair is a duplicate when its cosine is above 1 - epsilon; 0.05 unless `keep` is given.
        keep: Instead, keep this share of the documents: epsilon follows from it, as the paper tunes it.
    """

    kind: Literal["semdedup"] = "semdedup"
    epsilon: float | None = setting(default=None, gt=0, lt=2)
    keep: float | None = setting(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.epsilon is None) == (self.keep is None):
            raise ValueError("expected epsilon, as 0.05, or keep, the share of documents that is kept; one of the two")
        return self

    def decide(self, documents: Sequence[Document]) -> Decision:
        """Keep documents that no document farther from the centroid of their cluster is too similar to."""
        found = self.cluster(documents)
        score, beside = np.full(len(documents), np.nan), np.full(len(documents), -1, dtype=np.int64)
        with one_thread():
            for cluster in np.unique(found.nearest):
                rows = np.flatnonzero(found.nearest == cluster)
                rows = rows[np.argsort(found.cosine[rows], kind="stable")]  # farthest first, then by hash
                cosines, partners = _highest_before(found.vectors[rows])
                places = found.order[rows]
                score[places], beside[places[1:]] = cosines, places[partners[1:]]
        duplicates = score > 1 - (self.epsilon or 0.0)
        keep = ~duplicates if self.keep is None else lowest(score, self.keep, documents)
        return decided(
            keep,
            score,
            "semantic duplicate",
            beside=np.where(keep, -1, beside),
            figures={"clusters": float(len(np.unique(found.nearest)))},
        )


def _highest_before(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's highest cosine with a row before it, and that row; NaN and 0 for the first."""
    cosines, partners = np.full(len(vectors), np.nan), np.zeros(len(vectors), dtype=np.int64)
    step = max(COMPARED // len(vectors), 1)
    for start in range(0, len(vectors), step):
        stop = min(start + step, len(vectors))
        block = vectors[start:stop] @ vectors[:stop].T
        block[np.arange(stop)[None, :] >= np.arange(start, stop)[:, None]] = -np.inf
        partners[start:stop] = block.argmax(axis=1)
        cosines[start:stop] = block.max(axis=1)
    cosines[0] = np.nan
    return cosines, partners
