"""Norms against torch's own and against the formula, gradients included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from architectures.component import Shape
from architectures.norms import LayerNorm, NoNorm, RMSNorm


def built(norm: RMSNorm | LayerNorm, width: int) -> torch.nn.Module:
    shape = Shape(width, heads=1, key_value_heads=1, head_width=width, layers=1, layer=0, context=1, vocabulary=2)
    module = norm.build(shape)
    random = np.random.default_rng(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.from_numpy(random.standard_normal(width, dtype=np.float32)))
    return module


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3),
    time=st.integers(1, 5),
    width=st.integers(1, 40),
    scale=st.floats(1e-3, 1e3),
    epsilon=st.sampled_from([1e-8, 1e-5, 1e-1]),
)
def test_rms_norm_and_its_gradients_equal_those_of_torch(batch, time, width, scale, epsilon):
    module = built(RMSNorm(epsilon=epsilon), width)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((batch, time, width))).float() * scale
    x.requires_grad_()
    weights = torch.from_numpy(np.random.default_rng(2).standard_normal((batch, time, width))).float()
    results = []
    for normalised in (module(x), functional.rms_norm(x, (width,), module.weight, epsilon)):
        results.append([normalised, *torch.autograd.grad((normalised * weights).sum(), [x, module.weight])])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5 * float(expected.detach().abs().max() + 1), rtol=1e-4)


def test_rms_norm_computes_in_float32_and_answers_in_bfloat16():
    module = built(RMSNorm(), 64).bfloat16()
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 64), dtype=np.float32)).bfloat16()
    expected = functional.rms_norm(x.float(), (64,), module.weight.float(), 1e-5)
    assert module(x).dtype == torch.bfloat16
    torch.testing.assert_close(module(x).float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_follows_the_formula(bias):
    module = built(LayerNorm(bias=bias, epsilon=0.1), 8)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 8), dtype=np.float32))
    expected = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 0.1).sqrt() * module.weight
    torch.testing.assert_close(module(x), expected + module.bias if bias else expected)


@pytest.mark.parametrize("epsilon", [1e-6, 1e-5])
def test_rms_norm_follows_the_formula_where_epsilon_decides(epsilon):
    """STLM's epsilon and TinyLlama's, on activations so small that they give different results."""
    module = built(RMSNorm(epsilon=epsilon), 8)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 8))) * 1e-3
    expected = x / ((x * x).sum(-1, keepdim=True) / 8 + epsilon) ** 0.5 * module.weight.double()
    torch.testing.assert_close(module(x.float()).double(), expected, atol=1e-6, rtol=1e-5)


def test_no_norm_changes_nothing_and_owns_nothing():
    module = built(NoNorm(), 8)
    x = torch.ones(1, 2, 8)
    assert module(x) is x
    assert list(module.parameters()) == []
