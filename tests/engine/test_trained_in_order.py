"""Training on documents in a declared order: resumed, stacked and after a rollback as on shuffled ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_jobs import BATCH, CONTEXT, job, same, stream

from workbench.data.curricula import SortedStream
from workbench.data.mixing import MixedStream
from workbench.data.order import Stream
from workbench.data.ordering import Curriculum, Weighted
from workbench.records import Seeds
from workbench.training.cohort import train_together
from workbench.training.feeding import Feed, StreamFeed
from workbench.training.loop import Interrupted, Job, train

STEPS = 8
BUDGET = STEPS * BATCH * CONTEXT
EARLY = Weighted(weights={"web": 1, "made": ((0, 2), (0.5, 0))})


def ordered(kind: str, seed: int = 0) -> Stream:
    train_file = stream()._train
    count = len(train_file.hashes)
    if kind == "weighted":
        sources = (np.arange(count) % 3 == 0).astype(np.uint8)
        return MixedStream(train_file, sources, ("web", "made"), EARLY, BUDGET, seed)
    return SortedStream(train_file, np.diff(train_file.offsets).astype(float), Curriculum(), BUDGET, seed)


def on(folder: Path, kind: str, seed: int = 0) -> Job:
    feed: Feed = StreamFeed(ordered(kind, seed), CONTEXT)
    return replace(job(folder, STEPS, feed=feed), seeds=Seeds.all(seed))


@pytest.mark.parametrize("kind", ["weighted", "curriculum"])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(kind: str, tmp_path: Path) -> None:
    whole, asked = train(on(tmp_path / "whole", kind)), iter([False] * 4 + [True])
    with pytest.raises(Interrupted):
        train(on(tmp_path / "parts", kind), stop=lambda: next(asked))
    assert same(whole, train(on(tmp_path / "parts", kind)))
    assert not same(whole, train(replace(job(tmp_path / "shuffled", STEPS), seeds=Seeds.all(0))))


def test_a_stack_of_seeds_reads_what_each_reads_alone(tmp_path: Path) -> None:
    kind = "weighted"
    together = train_together([on(tmp_path / f"{seed}-together", kind, seed) for seed in (0, 1)])
    for seed, one in enumerate(together):
        alone = train(on(tmp_path / f"{seed}-alone", kind, seed))
        for ours, theirs in zip(one.model.parameters(), alone.model.parameters(), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)


def test_after_a_rollback_shares_go_on_with_other_text() -> None:
    feed = StreamFeed(ordered("weighted"), CONTEXT)
    again = feed.restarted(1)
    first, other = (one.sequences(0, STEPS * BATCH).places for one in (feed, again))
    assert first is not None
    assert other is not None
    assert not torch.equal(first, other)
    offsets = stream()._train.offsets
    shares = []
    for places in (first, other):
        documents = np.searchsorted(offsets, places.numpy().ravel(), side="right") - 1
        shares.append((documents % 3 == 0).reshape(2, -1).mean(1))
    assert shares[0] == pytest.approx(shares[1], abs=2 * 60 / BUDGET * 2)
    assert shares[0][0] > 0.3 > shares[0][1]
