"""The one shape in which every method of comparing arms with a baseline answers.

A method takes complete blocks of scores, float64[..., 1 + arms, seeds] with the baseline in row 0 and the seeds shared
down the columns, and a level; leading axes are independent data sets, so that the same code that judges a sweep can be
judged on thousands of simulated ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Comparison(NamedTuple):
    """What a method says of every arm, each float64[..., arms]; differences are arm minus baseline.

    `low` and `high` are infinite where the method has no interval at the level asked for; `p` is two-sided and
    `p_adjusted` is the same adjusted over the arms.
    """

    estimate: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p: NDArray[np.float64]
    p_adjusted: NDArray[np.float64]


Compare = Callable[[NDArray[np.float64], float], Comparison]
