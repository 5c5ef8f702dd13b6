"""Adjusting p-values for the size of their family. Promises monotone results; refuses p-values that are no numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.errors import StatisticsError


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Adjust p-values over their last axis so that the family-wise error is held under any dependence.

    Holm (1979), "A simple sequentially rejective multiple test procedure": the j-th smallest of K is multiplied by
    K - j + 1, never falls below its predecessor, and is capped at 1.

    Args:
        p: float[..., K], raw p-values of one family per row.

    Returns:
        float64[..., K], adjusted p-values in the order given.

    Raises:
        StatisticsError: for a p-value outside [0, 1] or not a number.
    """
    raw = np.asarray(p, np.float64)
    if not ((raw >= 0) & (raw <= 1)).all():
        raise StatisticsError("a p-value is not a probability", expected="numbers from 0 to 1", got=raw)
    order = np.argsort(raw, axis=-1, kind="stable")
    factors = np.arange(raw.shape[-1], 0, -1)
    stepped = np.maximum.accumulate(np.take_along_axis(raw, order, axis=-1) * factors, axis=-1)
    adjusted = np.empty_like(raw)
    np.put_along_axis(adjusted, order, np.minimum(stepped, 1.0), axis=-1)
    return adjusted
