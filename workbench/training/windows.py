"""Windows that hold whole pieces of text, epoch after epoch, and what does not fill one is padding.

Promises that no piece repeats before all have been read, and that any window can be recomputed. How an epoch is packed
is the caller's; here is best fit, and how packed windows are laid out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np


class Windows:
    """The windows of one epoch after the other, by number.

    Args:
        pack: From an epoch to its windows, each int64[pieces]: the pieces that it holds, in their order.
    """

    def __init__(self, pack: Callable[[int], Sequence[np.ndarray]]) -> None:
        self._firsts = [0]  # number of the first window of every epoch
        self.epoch = lru_cache(maxsize=2)(pack)  # two: a batch may end one epoch and begin the next

    def at(self, number: int) -> tuple[int, np.ndarray]:
        """Return the epoch of a window, and its pieces."""
        while self._firsts[-1] <= number:
            self._firsts.append(self._firsts[-1] + len(self.epoch(len(self._firsts) - 1)))
        epoch = int(np.searchsorted(self._firsts, number, side="right")) - 1
        return epoch, self.epoch(epoch)[number - self._firsts[epoch]]


def laid_out(windows: Sequence[tuple[np.ndarray, np.ndarray]], context: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay pieces out in windows of `context` tokens, one after the other, padding at the end.

    Args:
        windows: For each, where its pieces begin in a file of tokens and how long they are, int64[pieces] both.
        context: Tokens of a window.

    Returns:
        Where every token of a window lies in the file, -1 for padding, and the number of its piece within the window,
        a further one for padding; int64 (windows, context) both.
    """
    places, numbers = np.full((len(windows), context), -1), np.empty((len(windows), context), np.int64)
    for row, (begins, sizes) in enumerate(windows):
        filled = int(sizes.sum())
        shifts = begins - (np.cumsum(sizes) - sizes)
        places[row, :filled] = np.repeat(shifts, sizes) + np.arange(filled)
        numbers[row, :filled] = np.repeat(np.arange(len(sizes)), sizes)
        numbers[row, filled:] = len(sizes)
    return places, numbers


def best_fit(sizes: np.ndarray, capacity: int) -> np.ndarray:
    """Return the window of every piece, int64[pieces]: the fullest in which there is room, or else a new one.

    Args:
        sizes: From 1 to `capacity`, in the order in which pieces are placed; largest first wastes least.
        capacity: Of a window.

    >>> best_fit(np.array([5, 4, 3, 2, 1]), 6)
    array([0, 1, 2, 1, 0])
    """
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms, count = 0, 0  # in `rooms` bit r is set where a window has room for r
    found = np.empty(len(sizes), np.int64)
    for piece, size in enumerate(sizes.tolist()):
        room, window, fitting = capacity, count, rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            window = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            count += 1
        found[piece] = window
        if left := room - size:
            by_room[left].append(window)
            rooms |= 1 << left
    return found
