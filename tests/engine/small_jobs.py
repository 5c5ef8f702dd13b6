"""Training jobs of a fraction of a second, for the tests of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.dropout import Dropout
from architectures.feedforward import Gelu
from architectures.positions import Rotary
from workbench.data.order import Stream
from workbench.data.prepared import TokenFile
from workbench.records import Numerics, Seeds
from workbench.seeds import generator
from workbench.training.feeding import Fed, Feed, StreamFeed
from workbench.training.loop import Job, Trained
from workbench.training.recipe import Pretraining

NUMERICS = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1)
CONTEXT, BATCH = 16, 4
SMALL = Architecture(
    width=16,
    layers=1,
    context=CONTEXT,
    vocabulary=64,
    position=Rotary(),
    attention=MultiHead(heads=2),
    feed_forward=Gelu(width=32),
    dropout=Dropout(residual=0.1),
)


def stream(seed: int = 0) -> Stream:
    """Documents of eight of the 64 tokens only, so that the loss falls fast and other tokens are a surprise."""
    lengths = generator(0, "test").integers(5, 60, size=40)
    tokens = generator(0, "tokens").integers(0, 8, size=int(lengths.sum())).astype(np.uint16)
    hashes = generator(0, "hashes").integers(0, 256, size=(40, 32)).astype(np.uint8)
    return Stream(TokenFile(tokens, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), hashes), seed)


def job(
    folder: Path, steps: int = 12, architecture: Architecture = SMALL, feed: Feed | None = None, **fields: Any
) -> Job:
    stage = Pretraining(tokens=steps * BATCH * CONTEXT, batch=BATCH, **fields)
    return Job(architecture, stage, feed or StreamFeed(stream(), CONTEXT), Seeds.all(0), NUMERICS, folder)


def same(one: Trained, other: Trained) -> bool:
    ours, theirs = one.model.state_dict(), other.model.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@dataclass(frozen=True)
class Poisoned:
    """A feed whose sequences have other targets in some steps, until as many rollbacks were made as stand there."""

    steps: Mapping[int, int]
    inner: StreamFeed
    weight: float  # of the poisoned targets; nan poisons the loss itself
    rollbacks: int = 0

    def sequences(self, first: int, count: int) -> Fed:
        fed = self.inner.sequences(first, count)
        if self.rollbacks >= self.steps.get(first // BATCH, 0):
            return fed
        batch = fed.batch
        return replace(fed, batch=replace(batch, targets=63 - batch.targets, weights=batch.weights * self.weight))

    def restarted(self, number: int) -> Poisoned:
        return replace(self, inner=self.inner.restarted(number), rollbacks=number)
