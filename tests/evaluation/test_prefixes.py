"""Shared beginnings: what is run once gives what is run every time, whatever is shared."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.component import Component
from architectures.embeddings import Table
from architectures.feedforward import Gelu
from architectures.initialisation import initialise
from architectures.mixture import MixtureOfDepths
from architectures.positions import Alibi, Learned, Rotary
from architectures.transformer import Batch, Transformer
from workbench.evaluation import prefixes
from workbench.evaluation.prefixes import measure_after
from workbench.evaluation.scoring import measure_sequences
from workbench.seeds import standard_normal

CONTEXT, VOCABULARY = 24, 11


def built(position: Component, **changes: Any) -> Transformer:
    architecture = Architecture(
        width=16, layers=2, context=CONTEXT, vocabulary=VOCABULARY, position=position, embedding=Table(tied=True),
        attention=changes.pop("attention", MultiHead(heads=2)), feed_forward=Gelu(width=32), **changes,
    )  # fmt: skip
    model = architecture.build()
    initialise(model, architecture, lambda name, shape: 20 * standard_normal(0, f"initialisation/{name}", shape))
    return model.eval()


MODELS = {
    "rotary": built(Rotary()),
    "learned": built(Learned()),
    "alibi, window": built(Alibi(), attention=MultiHead(heads=2, window=5)),
    "recomputes": built(Rotary(), depth=MixtureOfDepths()),
}

# sequences that share beginnings of every length: branches of a few stems
tokens = st.lists(st.integers(0, VOCABULARY - 1), min_size=0, max_size=8)
sequences = st.lists(st.tuples(st.integers(0, 2), tokens, tokens, st.integers(1, 20)), min_size=1, max_size=12)
STEMS = ([0, 3, 1, 4, 1, 5, 9, 2], [0, 3, 1, 4], [7])


def grown(drawn: list[tuple[int, list[int], list[int], int]]) -> tuple[list[np.ndarray], list[int]]:
    """Return sequences and how much of each is given."""
    made = [np.array([*STEMS[stem], *middle, *end, 2], np.int64) for stem, middle, end, _ in drawn]
    return made, [min(first, len(one) - 1) for one, (*_, first) in zip(made, drawn, strict=True)]


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=8)
@given(drawn=sequences, batch=st.sampled_from([1, 30, 1000]), attention=st.sampled_from([0.0, prefixes.ATTENTION, 1.0]))
def test_every_token_costs_what_it_costs_alone(
    name: str, drawn: list[tuple[int, list[int], list[int], int]], batch: int, attention: float
) -> None:
    asked, first = grown(drawn)
    model = MODELS[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes, "ATTENTION", attention)  # rows of all, of some, of one
        found = measure_after(model, asked, first, batch=batch, device="cpu", greedy=True)
    alone = measure_sequences(model, asked, batch=1, device="cpu")["nats"]
    for one, given_, nats, greedy, expected in zip(asked, first, found["nats"], found["greedy"], alone, strict=True):
        np.testing.assert_allclose(nats, expected[given_ - 1 :], rtol=1e-5, atol=2e-5)
        row = torch.from_numpy(one)[None]
        logits = model.logits(model(Batch(row[:, :-1], row[:, 1:], torch.ones(row[:, 1:].shape))).hidden)[0]
        best = logits.argmax(-1).numpy()[given_ - 1 :]
        assert (greedy == (best == one[given_:])).all()


def test_a_shared_beginning_passes_through_the_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[int] = []
    model = MODELS["rotary"]
    forward = model.forward

    def count(batch: Batch, **settings: Any) -> Any:
        passed.append(batch.tokens.numel())
        return forward(batch, **settings)

    monkeypatch.setattr(model, "forward", count)
    stem = list(range(10))
    options = [np.array([*stem, option, 5]) for option in range(6)]
    measure_after(model, options, [10] * 6, batch=100, device="cpu")
    assert sum(passed) == 10 + 6
    passed.clear()
    letters = [np.array([*stem, option]) for option in range(6)]  # one token each: the same input six times
    measure_after(model, letters, [10] * 6, batch=100, device="cpu")
    assert sum(passed) == 10


@settings(max_examples=60)
@given(drawn=sequences, attention=st.floats(0, 0.5))
def test_rows_cost_least_of_all_ways_to_cut_them(
    drawn: list[tuple[int, list[int], list[int], int]], attention: float
) -> None:
    inputs = sorted({tuple(one[:-1].tolist()) for one in grown(drawn)[0]})[:8]
    lengths = [*map(len, inputs)]
    common = [0, *(prefixes._alike(one, other) for one, other in pairwise(inputs))]

    def cost(cuts: Sequence[int]) -> float:
        tokens = [sum(lengths[begin:end]) - sum(common[begin + 1 : end]) for begin, end in pairwise(cuts)]
        return sum(one * (1 + attention * one) for one in tokens)

    inner = range(1, len(inputs))
    ways = ([0, *chosen, len(inputs)] for count in range(len(inputs)) for chosen in combinations(inner, count))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes, "ATTENTION", attention)
        found = prefixes._cuts(lengths, common)
    assert cost(found) == pytest.approx(min(map(cost, ways)))


def test_progress_ends_with_every_sequence_done() -> None:
    told: list[tuple[int, int]] = []
    asked, first = grown([(0, [1], [], 1), (0, [1], [], 1), (1, [2, 3], [4], 2)])
    measure_after(MODELS["rotary"], asked, first, batch=8, device="cpu", progress=lambda *news: told.append(news))
    assert told[-1] == (3, 3)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
