"""Attention backends against the formula and against each other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from architectures import attention
from architectures.attention import BACKENDS, Backend, LinearBias, Mask, NoBias, attend
from architectures.positions import alibi_slopes


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def inputs(heads: int = 4, key_value_heads: int = 4, time: int = 9, width: int = 8) -> list[torch.Tensor]:
    shapes = [(2, heads, time, width)] + [(2, key_value_heads, time, width)] * 2
    return [drawn(*shape, seed=index) for index, shape in enumerate(shapes)]


def naive(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool, slopes: tuple[float, ...] | None):
    """Attention as in the papers, one score at a time."""
    batch, heads, time, width = q.shape
    group, mixed = heads // k.shape[1], torch.zeros(q.shape, dtype=torch.float64)
    for b, h, i in np.ndindex(batch, heads, time):
        seen = range(i + 1) if causal else range(time)
        scores = [q[b, h, i].double() @ k[b, h // group, j].double() / width**0.5 for j in seen]
        if slopes:
            scores = [score - slopes[h] * abs(i - j) for score, j in zip(scores, seen, strict=True)]
        weights = torch.stack(scores).softmax(0)
        mixed[b, h, i] = sum(weight * v[b, h // group, j].double() for weight, j in zip(weights, seen, strict=True))
    return mixed


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("key_value_heads", [4, 2, 1])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("slopes", [None, alibi_slopes(4)])
def test_every_backend_computes_the_formula(backend, key_value_heads, causal, slopes):
    q, k, v = inputs(key_value_heads=key_value_heads)
    bias = LinearBias(slopes) if slopes else NoBias()
    mixed = attend(q, k, v, mask=Mask(causal), bias=bias, backend=backend)
    torch.testing.assert_close(mixed.double(), naive(q, k, v, causal, slopes), atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    heads=st.sampled_from([(1, 1), (2, 1), (4, 2), (6, 3), (6, 6)]),
    time=st.integers(1, 40),
    causal=st.booleans(),
    linear=st.booleans(),
    plain=st.booleans(),
)
def test_sdpa_equals_the_reference_forward_and_backward(heads, time, causal, linear, plain):
    bias = LinearBias(alibi_slopes(heads[0])) if linear else NoBias()
    positions = None if plain else torch.arange(time) * 3 + 1
    results = []
    for backend in ("reference", "sdpa"):
        tensors = [x.requires_grad_() for x in inputs(*heads, time=time)]
        mixed = attend(
            *tensors, mask=Mask(causal), bias=bias, q_positions=positions, k_positions=positions, backend=backend
        )
        results.append([mixed, *torch.autograd.grad((mixed * drawn(*mixed.shape, seed=9)).sum(), tensors)])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bias", [NoBias(), LinearBias(alibi_slopes(4))])
def test_the_last_queries_alone_get_the_same_answer_by_explicit_positions(backend, bias):
    q, k, v = inputs()
    whole = attend(q, k, v, mask=Mask(), bias=bias, backend=backend)
    last = attend(
        q[:, :, -2:],
        k,
        v,
        mask=Mask(),
        bias=bias,
        q_positions=torch.tensor([7, 8]),
        k_positions=torch.arange(9),
        backend=backend,
    )
    torch.testing.assert_close(last, whole[:, :, -2:], atol=1e-6, rtol=1e-5)


def test_plain_causal_sdpa_takes_the_fast_path(monkeypatch):
    seen = {}

    def spy(*_, **options):
        seen.update(options)
        return torch.zeros(2, 4, 9, 8)

    monkeypatch.setattr(attention.functional, "scaled_dot_product_attention", spy)
    attend(*inputs(), mask=Mask(causal=True), bias=NoBias())
    assert seen["is_causal"]
    assert seen.get("attn_mask") is None


def test_the_dense_bias_is_made_once_for_all_layers():
    attention._plain_dense.cache_clear()
    for _ in range(3):
        attend(*inputs(), mask=Mask(), bias=LinearBias(alibi_slopes(4)))
    assert attention._plain_dense.cache_info().misses == 1


def test_a_bias_made_in_inference_mode_serves_training_later():
    attention._plain_dense.cache_clear()
    bias = LinearBias(alibi_slopes(4))
    with torch.inference_mode():
        attend(*inputs(), mask=Mask(), bias=bias)
    later = [x.requires_grad_() for x in inputs()]
    attend(*later, mask=Mask(), bias=bias).sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in later)


def test_dropout_drops_attention_and_keeps_its_mean():
    q, k, v = inputs(time=64)
    kept = attend(q, k, torch.ones_like(v), mask=Mask(), bias=NoBias(), backend="reference")
    dropped = attend(q, k, torch.ones_like(v), mask=Mask(), bias=NoBias(), backend="reference", dropout=0.25)
    assert not torch.allclose(kept, dropped)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.1)


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="expected one of reference, sdpa, got 'flash'"):
        attend(*inputs(), mask=Mask(), bias=NoBias(), backend="flash")


def test_a_backend_that_objects_says_why(monkeypatch):
    def no_bias(case):
        return "it knows no bias" if case.bias != NoBias() else None

    entry = Backend(BACKENDS["sdpa"].compute, no_bias)
    monkeypatch.setitem(BACKENDS, "plain", entry)
    attend(*inputs(), mask=Mask(), bias=NoBias(), backend="plain")
    with pytest.raises(ValueError, match="got 'plain': it knows no bias"):
        attend(*inputs(), mask=Mask(), bias=LinearBias(alibi_slopes(4)), backend="plain")


def test_descriptions_are_values():
    assert dataclasses.replace(Mask(), causal=False) == Mask(causal=False)
    assert hash(LinearBias((0.5,))) == hash(LinearBias((0.5,)))
