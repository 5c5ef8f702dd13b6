"""Pruning by distance to prototypes (Sorscher et al., arXiv:2206.14486, section 4): keep what is hard, or what is easy.

The paper finds that hard examples serve where data are plenty, easy ones where they are scarce.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from workbench.data.corpora import Document
from workbench.data.filters.clusters import Clustering
from workbench.data.filters.decision import Decision, decided, lowest
from workbench.identity import setting


class Prototypes(Clustering):
    """Rank documents by their distance to the nearest of the k-means prototypes, and keep a share from one end.

    The score is that distance, 1 - cosine: high for what is unlike any prototype.

    Attributes:
        keep: The share of documents that is kept.
        which: "hard", the farthest, or "easy", the nearest.
    """

    kind: Literal["prototypes"] = "prototypes"
    keep: float = setting(gt=0, le=1)
    which: Literal["hard", "easy"] = setting(default="hard")

    def decide(self, documents: Sequence[Document]) -> Decision:
        """Keep the share of documents that is farthest from, or nearest to, the prototypes."""
        found = self.cluster(documents)
        distance = np.empty(len(documents))
        distance[found.order] = 1 - found.cosine.astype(np.float64)
        hard = self.which == "hard"
        keep = lowest(-distance if hard else distance, self.keep, documents)
        figures = {"clusters": float(len(np.unique(found.nearest)))}
        return decided(keep, distance, "near a prototype" if hard else "far from prototypes", figures=figures)
