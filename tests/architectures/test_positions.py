"""Positions against the formulas of their papers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from architectures.component import Shape
from architectures.masks import LinearBias
from architectures.positions import (
    Alibi,
    Learned,
    NoPosition,
    Rotary,
    RotaryModule,
    Rotation,
    Sinusoidal,
    alibi_slopes,
    ntk_base,
)
from architectures.specimens import host, moved, nats_of, random_batch
from architectures.transformer import Batch

SHAPE = Shape(width=32, heads=4, key_value_heads=4, head_width=8, layers=1, layer=0, context=16, vocabulary=10)


def drawn(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))


def rotated(
    q: torch.Tensor, layout: str, positions: torch.Tensor | None = None, base: float = 10_000.0
) -> torch.Tensor:
    return Rotary(base=base, layout=layout).build(SHAPE).rotate(q, q, positions)[0]


def test_interleaved_rotary_is_multiplication_of_complex_numbers():
    q = drawn(2, 4, 16, 8)
    pairs = torch.view_as_complex(q.double().unflatten(-1, (4, 2)).contiguous())
    frequency = 100.0 ** (-torch.arange(0, 8, 2).double() / 8)
    turned = pairs * torch.polar(torch.ones(16, 4).double(), torch.arange(16)[:, None] * frequency)
    expected = torch.view_as_real(turned).flatten(-2)
    torch.testing.assert_close(rotated(q, "interleaved", base=100.0).double(), expected, atol=1e-6, rtol=1e-6)


def test_the_two_rotary_layouts_differ_only_by_a_permutation():
    q = drawn(2, 4, 16, 8)
    order = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
    torch.testing.assert_close(rotated(q[..., order], "halves"), rotated(q, "interleaved")[..., order])


@pytest.mark.parametrize("layout", ["halves", "interleaved"])
def test_the_gradient_of_the_rotation_is_the_derivative(layout):
    q = drawn(1, 1, 5, 8).double().requires_grad_()
    module = Rotary(layout=layout).build(SHAPE)
    torch.autograd.gradcheck(lambda x: module.rotate(x, x, None)[0], (q,), atol=1e-4)


@pytest.mark.parametrize("own_angles", [False, True])
@pytest.mark.parametrize("layout", ["halves", "interleaved"])
def test_stacked_rotations_are_those_of_each_by_itself(layout, own_angles):
    x, angles = drawn(3, 2, 5, 4, 6).transpose(2, 3), drawn(3, 5, 3)

    def turned(x, angles):
        return Rotation.apply(x, angles.cos(), angles.sin(), layout == "interleaved")

    def gradient(x, angles):
        return torch.func.grad(lambda x: (turned(x, angles) ** 2 / 2 * angles.sum()).sum())(x)

    for function in (turned, gradient):
        together = torch.func.vmap(function, in_dims=(0, 0 if own_angles else None))(
            x, angles if own_angles else angles[0]
        )
        alone = [function(one, angles[seed if own_angles else 0]) for seed, one in enumerate(x)]
        torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", ["halves", "interleaved"])
def test_a_rotation_keeps_the_layout_of_heads_in_memory(layout):
    module = Rotary(layout=layout).build(SHAPE)
    q = drawn(2, 7, SHAPE.heads, SHAPE.head_width).transpose(1, 2)
    turned, _ = module.rotate(q, q, None)
    assert turned.stride() == q.stride()


@given(shift=st.integers(0, 10_000), layout=st.sampled_from(["halves", "interleaved"]))
def test_rotary_scores_depend_on_distance_only(shift, layout):
    q, k = drawn(1, 1, 16, 8), drawn(2, 1, 16, 8)[1:]
    module, near = Rotary(layout=layout).build(SHAPE), torch.arange(16)
    scores = [a @ b.transpose(2, 3) for a, b in (module.rotate(q, k, at) for at in (near, near + shift))]
    torch.testing.assert_close(scores[0], scores[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", ["halves", "interleaved"])
def test_explicit_positions_equal_the_plain_range(layout):
    q = drawn(1, 4, 16, 8)
    torch.testing.assert_close(rotated(q, layout), rotated(q, layout, torch.arange(16)), atol=0, rtol=0)


def test_rotary_keeps_distant_positions_apart_in_bfloat16():
    q = torch.ones(1, 1, 1, 8, dtype=torch.bfloat16)
    far = [rotated(q, "halves", torch.tensor([at])) for at in (2000, 2001)]
    assert far[0].dtype == torch.bfloat16
    assert not torch.equal(far[0], far[1])


def test_a_table_made_in_inference_mode_serves_training_later():
    with torch.inference_mode():
        rotated(drawn(1, 4, 11, 8), "halves")
    later = drawn(1, 4, 11, 8).requires_grad_()
    rotated(later, "halves").sum().backward()
    assert later.grad is not None
    assert later.grad.isfinite().all()


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (1, [2**-8]),
        (4, [0.25, 0.0625, 0.015625, 0.00390625]),
        (6, [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]),
        (8, [2.0**-h for h in range(1, 9)]),
        (12, [2.0**-h for h in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]),
        (16, [2 ** (-h / 2) for h in range(1, 17)]),
    ],
)
def test_alibi_slopes_follow_the_paper(heads, slopes):
    assert alibi_slopes(heads) == pytest.approx(slopes, rel=1e-12)


@given(heads=st.integers(1, 200))
def test_alibi_slopes_equal_the_published_code(heads):
    def published(n: int) -> list[float]:  # github.com/ofirpress/attention_with_linear_biases, get_slopes
        if math.log2(n).is_integer():
            start = 2 ** (-(2 ** -(math.log2(n) - 3)))
            return [start * start**i for i in range(n)]
        power = 2 ** math.floor(math.log2(n))
        return published(power) + published(2 * power)[0::2][: n - power]

    assert alibi_slopes(heads) == pytest.approx(published(heads), rel=1e-9)


def test_alibi_describes_one_slope_per_head_and_leaves_embeddings_alone():
    module = Alibi().build(SHAPE)
    assert module.bias() == LinearBias((0.25, 0.0625, 0.015625, 0.00390625))
    x = drawn(1, 3, 32)
    assert module.embed(x, None) is x


def test_sinusoids_follow_the_paper():
    added = Sinusoidal().build(SHAPE).embed(torch.zeros(1, 16, 32), None)[0]
    for position in (0, 1, 15):
        for pair in (0, 7, 15):
            angle = position / 10_000 ** (2 * pair / 32)
            assert added[position, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert added[position, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_the_amplitude_of_sinusoids_is_beside_embeddings_of_any_scale():
    x = torch.zeros(1, 16, 32)
    full, small = (Sinusoidal(amplitude=amplitude).build(SHAPE).embed(x, None) for amplitude in (1.0, 0.02))
    torch.testing.assert_close(small, full * 0.02)


def test_learned_positions_add_the_rows_they_are_told():
    module = Learned().build(SHAPE)
    torch.nn.init.zeros_(module.weight)
    with torch.no_grad():
        module.weight[5] = 1.0
    assert module.embed(torch.zeros(1, 16, 32), None)[0, 5].eq(1).all()
    assert module.embed(torch.zeros(1, 2, 32), torch.tensor([0, 5]))[0, 1].eq(1).all()


def test_learned_positions_refuse_a_sequence_longer_than_their_table():
    with pytest.raises(ValueError, match="expected at most 16 tokens, the rows of the learned table, got 17"):
        Learned().build(SHAPE).embed(torch.zeros(1, 17, 32), None)


@pytest.mark.parametrize("layout", ["halves", "interleaved"])
def test_a_condensed_rotation_is_that_of_the_positions_divided(layout):
    """Position interpolation and TinyLlama's condense_ratio: position m turns as m / 4 does."""
    q = drawn(1, 2, 16, 8)
    got = Rotary(condense=4.0, layout=layout).build(SHAPE).rotate(q, q, None)[0]
    torch.testing.assert_close(got[:, :, ::4], rotated(q[:, :, ::4], layout, torch.arange(4)))
    pairs = q.double().unflatten(-1, (4, 2)) if layout == "interleaved" else torch.stack(q.double().chunk(2, -1), -1)
    angles = torch.arange(16)[:, None] / 4.0 * 10_000.0 ** (-torch.arange(0, 8, 2).double() / 8)
    turned = torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones(16, 4).double(), angles)
    expected = torch.view_as_real(turned)
    expected = expected.flatten(-2) if layout == "interleaved" else torch.cat(expected.unbind(-1), -1)
    torch.testing.assert_close(got.double(), expected, atol=1e-6, rtol=1e-6)


@given(scale=st.floats(1, 64), head_width=st.sampled_from([4, 8, 64, 128]), base=st.floats(100, 1e6))
def test_an_ntk_base_stretches_the_longest_wavelength_only(scale, head_width, base):
    stretched = ntk_base(base, scale, head_width)
    last = (head_width - 2) / head_width
    assert stretched**last == pytest.approx(base**last * scale, rel=1e-9)


def test_an_ntk_base_that_cannot_be_is_refused():
    with pytest.raises(
        ValueError, match=r"position\.base: expected a head width above 2 and a scale >= 1, got 2 and 4"
    ):
        ntk_base(10_000.0, 4, 2)


UNLIMITED = [NoPosition(), Sinusoidal(), Rotary(), Rotary(condense=2.0), Alibi()]


@pytest.mark.parametrize("position", UNLIMITED, ids=repr)
@pytest.mark.parametrize("times", [2, 4])
def test_a_model_is_evaluated_beyond_its_training_context(position, times):
    architecture = host().vary(position=position)
    model, batch = moved(architecture), random_batch(architecture.vary(context=times * 12))
    assert architecture.reach() is None
    nats = nats_of(model, batch)
    assert nats.isfinite().all()
    within = Batch(batch.tokens[:, :12], batch.targets[:, :12], batch.weights[:, :12])
    torch.testing.assert_close(nats[:, :12], nats_of(model, within), atol=1e-5, rtol=1e-5)
    for kind in (NoPosition(), Rotary(base=50.0)):
        if kind != position:
            assert not torch.allclose(nats[:, 12:], nats_of(moved(host().vary(position=kind)), batch)[:, 12:])


def test_the_training_context_is_no_part_of_the_function_where_reach_is_unlimited():
    for position in UNLIMITED:
        short, long = (moved(host().vary(position=position, context=context)) for context in (12, 48))
        batch = random_batch(host().vary(context=48))
        torch.testing.assert_close(nats_of(short, batch), nats_of(long, batch))


def test_a_trained_rotation_is_condensed_for_a_longer_evaluation_by_the_same_weights():
    trained = moved(host())
    condensed = host().vary(position=Rotary(condense=4.0)).build()
    condensed.load_state_dict(trained.state_dict())
    batch = random_batch(host().vary(context=48))
    assert not torch.allclose(nats_of(trained, batch), nats_of(condensed.eval(), batch))


def test_learned_positions_reach_as_far_as_their_table_and_say_so_beyond():
    architecture = host().vary(position=Learned())
    assert architecture.reach() == 12
    model = moved(architecture)
    nats_of(model, random_batch(architecture))
    with pytest.raises(ValueError, match=r"position: expected at most 12 tokens, .* got 24; evaluate at the"):
        nats_of(model, random_batch(architecture.vary(context=24)))


def test_the_layers_of_a_pass_make_the_angles_of_given_positions_once(monkeypatch):
    made = []
    angles = RotaryModule._angles
    monkeypatch.setattr(RotaryModule, "_angles", lambda self, *given: made.append(given) or angles(self, *given))
    architecture = host().vary(position=Rotary(), layers=3)
    model, batch = moved(architecture), random_batch(architecture)
    at = torch.arange(batch.tokens.shape[1]).flip(0).expand_as(batch.tokens)
    for passes in (1, 2):
        nats_of(model, replace(batch, positions=at))
        assert len(made) == passes
