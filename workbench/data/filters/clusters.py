"""K-means over embeddings: the prototypes that two filters compare documents with."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.data.corpora import Document
from workbench.data.filters.decision import Rule, by_hash, needed, one_thread, whole_seed
from workbench.data.filters.embeddings import Embedding, TfidfEmbedding
from workbench.identity import setting

FITTED = 50_000  # documents that prototypes are fitted to; a larger corpus is sampled by hash
COMPARED = 2**24  # cosines held at a time: 64 MB


@dataclass(frozen=True)
class Clusters:
    """Embedded documents, in the order of their hashes, and the prototype nearest to each.

    Attributes:
        order: int64[documents]: place in the corpus of each row below.
        vectors: float32[documents, width], of unit length.
        nearest: int64[documents]: the nearest prototype.
        cosine: float32[documents]: cosine with it.
    """

    order: np.ndarray
    vectors: np.ndarray
    nearest: np.ndarray
    cosine: np.ndarray


class Clustering(Rule):
    """What filters by clusters have in common.

    Attributes:
        embedding: What documents are compared by.
        clusters: How many; about the square root of the number of documents unless told.
        seed: Of k-means.
    """

    embedding: Embedding = setting(default=TfidfEmbedding())
    clusters: int | None = setting(default=None, ge=1)
    seed: int = setting(default=0)

    def cluster(self, documents: Sequence[Document]) -> Clusters:
        """Embed documents and assign each to the prototype with which its cosine is highest."""
        order = by_hash(documents)
        vectors = self.embedding.embed([documents[place].text for place in order])
        count = min(self.clusters or round(len(documents) ** 0.5), len(documents))
        with one_thread():
            nearest, cosine = _assign(vectors, prototypes(vectors, count, self.seed))
        return Clusters(order, vectors, nearest, cosine)


def prototypes(vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the means of k-means (k-means++, Lloyd), float32[count, width], scaled to unit length.

    Rows should come in an order of their own, such as that of hashes: k-means depends on it.
    """
    cluster, exceptions = needed("sklearn.cluster", "scikit-learn"), needed("sklearn.exceptions", "scikit-learn")
    model = cluster.KMeans(count, n_init=1, max_iter=100, random_state=whole_seed(seed, "clusters"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)  # fewer distinct documents than clusters
        centres = model.fit(vectors[:FITTED]).cluster_centers_
    lengths = np.linalg.norm(centres, axis=1, keepdims=True)
    return np.asarray(centres / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _assign(vectors: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    nearest, cosine = np.zeros(len(vectors), dtype=np.int64), np.zeros(len(vectors), dtype=np.float32)
    step = max(COMPARED // len(centres), 1)
    for start in range(0, len(vectors), step):
        cosines = vectors[start : start + step] @ centres.T
        nearest[start : start + step] = cosines.argmax(axis=1)
        cosine[start : start + step] = cosines.max(axis=1)
    return nearest, cosine
