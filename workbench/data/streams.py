"""The stream of training tokens that data declare: whichever order, one way to get it."""

from __future__ import annotations

import io

import numpy as np

from workbench.data.curricula import SortedStream
from workbench.data.difficulty import Compression, Length, Rarity, difficulty
from workbench.data.mixing import MixedStream
from workbench.data.order import Stream
from workbench.data.ordering import Curriculum, Shuffled
from workbench.data.prepared import Prepared
from workbench.identity import digest
from workbench.store import write_durably


def stream(prepared: Prepared, seed: int, budget: int) -> Stream:
    """Return the training documents in their declared order.

    Args:
        prepared: The documents, and the order that was declared for them.
        seed: The data seed.
        budget: Tokens that the training reads.

    Raises:
        DataError: if there is nothing to read, or not of every source that has a share.
        PlanError: if the order weighs other sources than there are.
    """
    order, train = prepared.order, prepared.train
    if isinstance(order, Shuffled):
        return Stream(train, seed)
    if isinstance(order, Curriculum):
        return SortedStream(train, measured(order.by, prepared), order, budget, seed)
    order.refuse_other_sources(prepared.sources, "data.order")
    assert train.sources is not None  # noqa: S101 - a mixture has them
    return MixedStream(train, train.sources, prepared.sources, order, budget, seed)


def measured(by: Length | Rarity | Compression, prepared: Prepared) -> np.ndarray:
    """Return the difficulty of every training document, float64[documents]; measured once per cache."""
    path = None if prepared.folder is None else prepared.folder / f"difficulty-{digest(by)}.npy"
    if path is not None and path.exists():
        found: np.ndarray = np.load(path)
        return found
    train = prepared.train
    found = difficulty(by, train.tokens, train.offsets, prepared.tokenizer.spelling)
    if path is not None and not isinstance(by, Length):  # which is quicker told than read
        held = io.BytesIO()
        np.save(held, found)
        write_durably(path, held.getvalue())
    return found
