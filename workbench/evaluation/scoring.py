"""Token log-probabilities of many sequences, in batches of similar length.

Promises the same numbers, to rounding, whatever the batch size: sequences are padded on the right, where a causal model
cannot see. Draws no random number and leaves the model in the mode in which it came.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from architectures.transformer import Batch

# What was measured at every token but the first of a sequence, by name: "nats", and "layers" where tokens leave early.
Answers = Mapping[str, Sequence[np.ndarray]]
Progress = Callable[[int, int], None]


class LanguageModel(Protocol):
    """What evaluation asks of a model: the cost in nats of every target, float32[batch, time]."""

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""

    def __call__(self, batch: Batch) -> Any:
        """Run the model."""

    def nats(self, output: Any, batch: Batch) -> torch.Tensor:
        """Return the cross-entropy of every target in nats."""

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation mode."""


class Score(NamedTuple):
    """One value of one item; the weight is what a mean over items weighs it by, flags say what else is known of it."""

    metric: str
    item: str
    cluster: str
    value: float
    weight: float = 1.0
    flags: int = 0


def measure_sequences(
    model: LanguageModel,
    sequences: Sequence[np.ndarray],
    *,
    batch: int,
    device: torch.device | str,
    progress: Progress | None = None,
    measures: Sequence[str] = ("nats",),
) -> dict[str, list[np.ndarray]]:
    """Return what each token costs given those before it in its sequence, in nats, or more about it from one pass.

    Args:
        model: A causal model in evaluation mode.
        sequences: int64[tokens + 1] each; the first token is given and not scored.
        batch: Tokens in one forward pass, padding included.
        device: Where the model lies.
        progress: Told (sequences done, sequences in all) after every pass.
        measures: Methods of the model that take its output and the batch, and return float32 (batch, time).

    Returns:
        By measure, float32[tokens] for each sequence, in the order given.
    """
    found: dict[str, list[np.ndarray]] = {name: [np.empty(0, np.float32)] * len(sequences) for name in measures}
    done = 0
    for rows in _similar_lengths(sequences, batch):
        packed, weights = _pad([sequences[row] for row in rows])
        tokens = torch.from_numpy(packed).to(device)
        request = Batch(tokens[:, :-1], tokens[:, 1:], torch.from_numpy(weights).to(device))
        with torch.no_grad():
            output = model(request)
            measured = {name: getattr(model, name)(output, request).float().cpu().numpy() for name in measures}
        for name, values in measured.items():
            for row, value in zip(rows, values, strict=True):
                found[name][row] = value[: len(sequences[row]) - 1].copy()
        done += len(rows)
        if progress is not None:
            progress(done, len(sequences))
    return found


@contextlib.contextmanager
def evaluating(model: LanguageModel) -> Iterator[None]:
    """Put the model in evaluation mode (no dropout), and back afterwards."""
    before = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(before)


def _similar_lengths(sequences: Sequence[np.ndarray], batch: int) -> Iterator[list[int]]:
    """Group the sequences, longest first, such that no group padded to its longest exceeds `batch` tokens."""
    order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row]))
    while order:
        count = max(1, batch // max(1, len(sequences[order[0]]) - 1))
        yield order[:count]
        order = order[count:]


def _pad(sequences: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    longest = max(map(len, sequences))
    packed = np.zeros((len(sequences), longest), np.int64)
    weights = np.zeros((len(sequences), longest - 1), np.float32)
    for row, sequence in enumerate(sequences):
        packed[row, : len(sequence)] = sequence
        weights[row, : len(sequence) - 1] = 1
    return packed, weights
