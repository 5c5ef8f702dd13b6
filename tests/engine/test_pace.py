"""The steps of a stage: a budget of tokens spent once, whatever the batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from workbench.training.pace import BatchWarmup, pace
from workbench.training.recipe import Pretraining

WARMUPS = st.one_of(
    st.none(),
    st.builds(
        BatchWarmup,
        start=st.integers(1, 7),
        share=st.floats(0.01, 1.0),
        shape=st.sampled_from(["linear", "doubling"]),
    ),
)


def sizes(tokens: int, batch: int, context: int, warmup: BatchWarmup | None) -> list[int]:
    held = pace(tokens, batch, context, warmup)
    return [held.size(step) for step in range(held.steps)]


@given(tokens=st.integers(1, 20_000), batch=st.integers(8, 64), context=st.integers(1, 64), warmup=WARMUPS)
def test_the_budget_is_spent_once_and_rounded_up_to_whole_steps(
    tokens: int, batch: int, context: int, warmup: BatchWarmup | None
) -> None:
    held = pace(tokens, batch, context, warmup)
    assert held.first(0) == 0
    assert held.first(held.steps) * context == held.tokens
    assert tokens <= held.tokens < tokens + batch * context  # one step fewer would not have been enough
    assert held.tokens == pace(tokens, batch, context).tokens
    found = sizes(tokens, batch, context, warmup)
    assert sum(found) == held.first(held.steps)
    assert found[:-1] == sorted(found[:-1])
    assert found[0] == (min(warmup.start, sum(found)) if warmup else batch)
    assert 0 < min(found) <= max(found) <= batch


def test_without_a_warmup_every_step_is_the_whole_batch() -> None:
    assert sizes(1025, 4, 128, None) == [4, 4, 4]


def test_a_linear_warmup_follows_the_tokens_read_and_ends_where_it_says() -> None:
    context, batch, budget = 16, 32, 16 * 32 * 100
    found = sizes(budget, batch, context, BatchWarmup(start=8, share=0.25))
    read = np.concatenate([[0], np.cumsum(found)]) * context
    for begun, size in list(zip(read, found, strict=False))[:-1]:  # the last takes what is left
        assert size == (32 if begun >= budget / 4 else 8 + math.floor(24 * begun / (budget / 4)))


def test_a_doubling_warmup_keeps_to_powers_of_two_for_equal_shares_of_tokens() -> None:
    context, batch, budget = 4, 32, 4 * 32 * 200
    found = sizes(budget, batch, context, BatchWarmup(start=4, share=0.6, shape="doubling"))
    assert sorted(set(found)) == [4, 8, 16, 32]
    spent = {size: found.count(size) * size * context for size in (4, 8, 16)}
    assert all(tokens == pytest.approx(budget * 0.2, rel=0.02) for tokens in spent.values())


def test_a_warmup_that_would_shrink_the_batch_and_a_part_above_the_batch_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"batch_warmup.start: expected below batch 8, got 8"):
        Pretraining(batch=8, batch_warmup=BatchWarmup(start=8))
    with pytest.raises(ValidationError, match=r"microbatch: expected at most batch 8, got 9"):
        Pretraining(batch=8, microbatch=9)
