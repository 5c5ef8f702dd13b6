"""Feed of a fine-tuning stage: examples with answers, packed into windows of the context.

Promises that no example repeats before all have been read; that any window can be recomputed from the examples and the
data seed; and that an example that shares a window with others, hidden from them, costs what it costs alone. The last
window of an epoch, and what does not fill one, is padded; padding never counts. Counts what it had to cut.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from architectures.transformer import Batch
from workbench.data.answers import Examples
from workbench.data.order import sort_keys
from workbench.errors import DataError
from workbench.training.feeding import Fed, restarting
from workbench.training.windows import Windows, laid_out

Loss = Literal["answer", "everything"]


class AnswersFeed:
    """Examples in the order of the data seed, epoch after epoch, as many in a window as fit one after the other.

    An example that is longer than a window is cut at its end, and left out where nothing of an answer is left.

    Args:
        examples: What is trained on.
        seed: The data seed.
        context: Tokens of a window.
        loss: Whether every token counts, or only those of answers.
        packed: Whether a window may hold several examples, hidden from each other.
        rollback: Number of the rollback after which this order begins.

    Raises:
        DataError: if no example has an answer within the context.
    """

    def __init__(
        self,
        examples: Examples,
        seed: int,
        context: int,
        *,
        loss: Loss = "answer",
        packed: bool = True,
        rollback: int = 0,
    ) -> None:
        self.examples, self.seed, self.context = examples, seed, context
        self.loss, self.packed, self.rollback = loss, packed, rollback
        begins = examples.offsets[:-1]
        answered = [
            examples.scored[begin : min(begin + context, end)].any()
            for begin, end in zip(begins, examples.offsets[1:], strict=True)
        ]
        self._usable = np.flatnonzero(answered)
        if not len(self._usable):
            raise DataError(
                "there is nothing to fine-tune on",
                where="answers",
                expected=f"an example whose answer begins within the context of {context} tokens",
                got=f"none of {len(answered)} examples",
                fix="use a longer context, shorter prompts, or a smaller held_out",
            )
        self._windows = Windows(self._pack)

    @property
    def windows(self) -> int:
        """How many windows the first epoch fills; others fill about as many."""
        return len(self._windows.epoch(0))

    @property
    def left_out(self) -> int:
        """How many examples have no answer within the context."""
        return len(self.examples.lengths) - len(self._usable)

    @property
    def cut(self) -> int:
        """How many of the examples that are trained on are longer than the context."""
        return int((self.examples.lengths[self._usable] > self.context).sum())

    def restarted(self, number: int) -> AnswersFeed:
        """Return the same examples in the order that rollback `number` gives them."""
        return AnswersFeed(self.examples, self.seed, self.context, loss=self.loss, packed=self.packed, rollback=number)

    def position(self, window: int) -> tuple[int, tuple[int, ...]]:
        """Return the epoch of a window and the lines of its examples."""
        epoch, rows = self._windows.at(window)
        return epoch, tuple(int(line) for line in self.examples.lines[rows])

    def sequences(self, first: int, count: int) -> Fed:
        """Return windows `first` to `first + count`."""
        examples = self.examples
        held = [self._windows.at(number)[1] for number in range(first, first + count)]
        sizes = np.minimum(examples.lengths, self.context)
        places, numbers = laid_out([(examples.offsets[rows], sizes[rows]) for rows in held], self.context)
        positions, real = restarting(numbers), places >= 0
        targets = np.where(real, examples.tokens[places], examples.end_of_text)
        tokens = np.where(real & (positions > 0), examples.tokens[places - 1], examples.end_of_text)
        weights = real & (examples.scored[places] | (self.loss == "everything"))
        batch = Batch(torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(weights).float())
        if self.packed:
            batch = replace(batch, positions=torch.from_numpy(positions), documents=torch.from_numpy(numbers))
        return Fed(batch)

    def _pack(self, epoch: int) -> list[np.ndarray]:
        """Return the examples of every window of an epoch, in order: the next example that does not fit begins one."""
        keys = sort_keys(self.examples.hashes[self._usable], self.seed, epoch, self.rollback)
        order = self._usable[np.argsort(keys, kind="stable")]
        if not self.packed:
            return list(order[:, None])
        ends = np.cumsum(np.minimum(self.examples.lengths[order], self.context))
        windows, start = [], 0
        while start < len(order):
            filled = ends[start - 1] if start else 0
            stop = int(np.searchsorted(ends, filled + self.context, side="right"))
            windows.append(order[start:stop])
            start = stop
        return windows
