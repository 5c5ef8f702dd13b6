"""The control of every filter: as many documents, chosen by nothing but chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from workbench.data.corpora import Document
from workbench.data.filters.decision import Decision, Rule, decided
from workbench.identity import setting
from workbench.seeds import seed_for


class RandomDrop(Rule):
    """Keep about a share of the documents, by a hash of each: what a filter with the same share has to beat.

    Whether a document is kept depends on its text and the seed alone, so that the control of a larger share keeps all
    that the control of a smaller one keeps.

    Attributes:
        keep: The share.
        seed: Another one keeps other documents.
    """

    kind: Literal["random"] = "random"
    keep: float = setting(gt=0, le=1)
    seed: int = setting(default=0)

    def decide(self, documents: Sequence[Document]) -> Decision:
        """Keep documents whose number in [0, 1), drawn from the stream `filters/random/<hash>`, is below the share."""
        drawn = [seed_for(self.seed, f"filters/random/{document.hash}") / 2**128 for document in documents]
        score = np.array(drawn, dtype=np.float64)
        return decided(score < self.keep, score, "chance")
