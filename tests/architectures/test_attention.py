"""Attention against the formula: masks, biases, groups, windows, documents, and the norm of queries and keys."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from architectures import backends, masks
from architectures.accounting import flops_per_token, parameters
from architectures.attention import MultiHead
from architectures.backends import BACKENDS, Backend, attend
from architectures.masks import LinearBias, Mask, NoBias, Places
from architectures.positions import Alibi, Learned, NoPosition, Rotary, Sinusoidal, alibi_slopes
from architectures.presets import tiny
from architectures.specimens import host, moved, nats_of, random_batch, started
from architectures.testing import check_component
from architectures.transformer import Batch

EVERYWHERE = ("reference", "sdpa")  # what runs and trains on every device; the others: test_backends.py


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def inputs(heads: int = 4, key_value_heads: int = 4, time: int = 9, width: int = 8) -> list[torch.Tensor]:
    shapes = [(2, heads, time, width)] + [(2, key_value_heads, time, width)] * 2
    return [drawn(*shape, seed=index) for index, shape in enumerate(shapes)]


def naive(q, k, v, mask=Mask(), slopes=None, positions=None, documents=None):  # noqa: B008
    """Attention as in the papers, one score at a time."""
    batch, heads, time, width = q.shape
    group, mixed = heads // k.shape[1], torch.zeros(q.shape, dtype=torch.float64)
    positions = np.arange(time) if positions is None else np.asarray(positions)
    for b, h, i in np.ndindex(batch, heads, time):
        places = positions[b] if positions.ndim == 2 else positions
        scores, values = [], []
        for j in range(time):
            distance = int(places[i] - places[j])
            hidden = (mask.causal and distance < 0) or (mask.window is not None and abs(distance) >= mask.window)
            if hidden or (documents is not None and documents[b, i] != documents[b, j]):
                continue
            score = q[b, h, i].double() @ k[b, h // group, j].double() / width**0.5
            scores.append(score - slopes[h] * abs(distance) if slopes else score)
            values.append(v[b, h // group, j].double())
        mixed[b, h, i] = torch.stack(scores).softmax(0) @ torch.stack(values)
    return mixed


@pytest.mark.parametrize("backend", EVERYWHERE)
@pytest.mark.parametrize("key_value_heads", [4, 2, 1])
@pytest.mark.parametrize("mask", [Mask(causal, window) for causal in (True, False) for window in (None, 1, 3, 9)])
@pytest.mark.parametrize("slopes", [None, alibi_slopes(4)])
def test_every_backend_computes_the_formula(backend, key_value_heads, mask, slopes):
    q, k, v = inputs(key_value_heads=key_value_heads)
    bias = LinearBias(slopes) if slopes else NoBias()
    mixed = attend(q, k, v, mask=mask, bias=bias, backend=backend)
    torch.testing.assert_close(mixed.double(), naive(q, k, v, mask, slopes), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", EVERYWHERE)
@pytest.mark.parametrize("slopes", [None, alibi_slopes(4)])
@pytest.mark.parametrize("mask", [Mask(), Mask(window=2), Mask(causal=False), Mask(causal=False, window=3)])
@pytest.mark.parametrize("restart", [True, False])
def test_a_query_sees_keys_of_its_own_document_only(backend, slopes, mask, restart):
    q, k, v = inputs()
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 5, 5], [7, 7, 2, 2, 2, 2, 2, 2, 2]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0, 1], [0, 1, 0, 1, 2, 3, 4, 5, 6]]) if restart else None
    places = Places(positions, positions, documents, documents)
    bias = LinearBias(slopes) if slopes else NoBias()
    mixed = attend(q, k, v, mask=mask, bias=bias, places=places, backend=backend)
    expected = naive(q, k, v, mask, slopes, positions, documents)
    torch.testing.assert_close(mixed.double(), expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    heads=st.sampled_from([(1, 1), (2, 1), (4, 2), (6, 3), (6, 6)]),
    time=st.integers(1, 40),
    mask=st.builds(Mask, st.booleans(), st.none() | st.integers(1, 45)),
    linear=st.booleans(),
    plain=st.booleans(),
    documents=st.booleans(),
)
def test_sdpa_equals_the_reference_forward_and_backward(heads, time, mask, linear, plain, documents):
    bias = LinearBias(alibi_slopes(heads[0])) if linear else NoBias()
    positions = None if plain else torch.arange(time) * 3 + 1
    owners = torch.arange(time).expand(2, time) // 5 if documents else None
    results = []
    for backend in EVERYWHERE:
        tensors = [x.requires_grad_() for x in inputs(*heads, time=time)]
        places = Places(positions, positions, owners, owners)
        mixed = attend(*tensors, mask=mask, bias=bias, places=places, backend=backend)
        results.append([mixed, *torch.autograd.grad((mixed * drawn(*mixed.shape, seed=9)).sum(), tensors)])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("backend", EVERYWHERE)
@pytest.mark.parametrize("bias", [NoBias(), LinearBias(alibi_slopes(4))])
@pytest.mark.parametrize("mask", [Mask(), Mask(window=3)])
@pytest.mark.parametrize("last", [1, 2])
@pytest.mark.parametrize("explicit", [True, False])
def test_the_last_queries_alone_get_the_same_answer(backend, bias, mask, last, explicit):
    q, k, v = inputs()
    whole = attend(q, k, v, mask=mask, bias=bias, backend=backend)
    places = Places(torch.arange(9 - last, 9), torch.arange(9)) if explicit else Places()
    few = attend(q[:, :, -last:], k, v, mask=mask, bias=bias, places=places, backend=backend)
    torch.testing.assert_close(few, whole[:, :, -last:], atol=1e-6, rtol=1e-5)


def test_more_queries_than_keys_need_positions():
    q, k, v = inputs()
    with pytest.raises(ValueError, match="expected positions for more queries than keys, got 9 and 4"):
        attend(q, k[:, :, :4], v[:, :, :4], mask=Mask(), bias=NoBias())


@pytest.mark.parametrize("mask", [Mask(), Mask(window=9), Mask(window=100)])
def test_plain_causal_sdpa_takes_the_fast_path(monkeypatch, mask):
    seen = {}

    def spy(*_, **options):
        seen.update(options)
        return torch.zeros(2, 4, 9, 8)

    monkeypatch.setattr(backends.functional, "scaled_dot_product_attention", spy)
    attend(*inputs(), mask=mask, bias=NoBias())
    assert seen["is_causal"]
    assert seen.get("attn_mask") is None


def test_the_dense_bias_is_made_once_for_all_layers(monkeypatch):
    masks._plain_dense.cache_clear()
    for _ in range(3):
        attend(*inputs(), mask=Mask(), bias=LinearBias(alibi_slopes(4)))
    assert masks._plain_dense.cache_info().misses == 1

    made, real = [], masks._addend
    monkeypatch.setattr(masks, "_addend", lambda *rest: made.append(1) or real(*rest))
    model, batch = moved(host()), random_batch(host())
    documents = torch.zeros_like(batch.tokens)
    nats_of(model, dataclasses.replace(batch, documents=documents))
    assert len(model.blocks) > 1
    assert made == [1]


def test_a_bias_made_in_inference_mode_serves_training_later():
    masks._plain_dense.cache_clear()
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
    with pytest.raises(ValueError, match="expected one of reference, sdpa, flex, flash, got 'fastest'"):
        attend(*inputs(), mask=Mask(), bias=NoBias(), backend="fastest")


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


@given(context=st.integers(1, 30), window=st.none() | st.integers(1, 40), causal=st.booleans())
@settings(max_examples=60, deadline=None)
def test_visible_keys_are_those_of_the_lowered_mask(context, window, causal):
    mask = Mask(causal, window)
    addend = masks.dense(mask, NoBias(), Places(), context, context, torch.float32, torch.device("cpu"))
    seen = context if addend is None else (addend == 0).sum().item() / context
    assert mask.visible(context) == pytest.approx(seen)


def test_flops_fall_with_the_window_and_not_below_it():
    whole, context = tiny(), tiny().context
    windowed = whole.vary(attention=whole.attention.vary(window=16))
    saved = flops_per_token(whole).forward - flops_per_token(windowed).forward
    keys = np.mean([position + 1 - min(position + 1, 16) for position in range(context)])
    assert saved == pytest.approx(whole.layers * 4 * whole.width * keys)
    wide = whole.vary(attention=whole.attention.vary(window=context))
    assert flops_per_token(wide).forward == flops_per_token(whole).forward


def test_a_window_reaches_as_far_as_layers_carry_it_and_no_further():
    architecture = host().vary(attention=MultiHead(heads=4, window=3))
    model, batch = moved(architecture), random_batch(architecture)
    before = nats_of(model, batch)
    tokens = batch.tokens.clone()
    tokens[:, 2] = (tokens[:, 2] + 1) % architecture.vocabulary
    after = nats_of(model, dataclasses.replace(batch, tokens=tokens))
    reached = 2 + architecture.layers * (3 - 1)
    assert ((before - after).abs() > 1e-6).any(0).nonzero().max().item() == reached


@pytest.mark.parametrize("attention", [MultiHead(heads=4, window=3), MultiHead(heads=4, query_key_norm=True)], ids=repr)
def test_window_and_norm_keep_the_contract(attention):
    check_component(attention)


def test_window_and_norm_leave_what_was_as_it_was():
    assert MultiHead.model_validate_json('{"kind": "multi_head", "heads": 4}') == MultiHead(heads=4)
    for wrong in (0, -1):
        with pytest.raises(ValidationError, match="window"):
            MultiHead(heads=4, window=wrong)


def test_query_key_norm_is_the_formula_before_rotation():
    architecture = host().vary(attention=MultiHead(heads=4, key_value_heads=2, query_key_norm=True))
    model = moved(architecture)
    layer, x = model.blocks[0].attention, drawn(2, 12, 16)
    seen = {}

    def rotate(q, k, *_):
        seen.update(q=q, k=k)
        return q, k

    model.position.rotate = rotate
    batch = random_batch(architecture)
    layer.register_forward_pre_hook(lambda _, given: (x, given[1]))
    nats_of(model, batch)  # both layers rotate; compare the first by calling it alone
    layer(x, model._begin(batch, None))
    for name, heads in (("query", 4), ("key", 2)):
        raw = getattr(layer, name)(x).view(2, 12, heads, 4)
        gain = getattr(layer, f"{name}_norm").weight
        expected = raw / (raw.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * gain
        torch.testing.assert_close(seen[name[0]], expected.transpose(1, 2), atol=1e-6, rtol=1e-5)


def test_query_key_norm_makes_attention_blind_to_the_scale_of_queries_and_keys():
    architecture = host().vary(attention=MultiHead(heads=4, query_key_norm=True))
    model, batch = moved(architecture), random_batch(architecture)
    before = nats_of(model, batch)
    with torch.no_grad():
        for block in model.blocks:
            block.attention.query.weight.mul_(50)
            block.attention.key.weight.mul_(0.5)
    torch.testing.assert_close(nats_of(model, batch), before, atol=1e-4, rtol=1e-4)


def test_query_key_norm_and_window_train_under_bfloat16_autocast():
    architecture = host().vary(attention=MultiHead(heads=4, window=5, query_key_norm=True))
    model, batch = moved(architecture), random_batch(architecture)
    exact = nats_of(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.nats(model(batch), batch)
    rough.sum().backward()
    assert (rough - exact).abs().max() < 0.2
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_query_key_norm_starts_at_one_and_counts_as_attention():
    plain, normed = host(), host().vary(attention=MultiHead(heads=4, query_key_norm=True))
    gains = {name: value for name, value in started(normed).named_parameters() if name.endswith("_norm.weight")}
    own = {name: value for name, value in gains.items() if ".attention." in name}
    assert sorted(own) == [f"blocks.{i}.attention.{name}_norm.weight" for i in range(2) for name in ("key", "query")]
    assert all(torch.equal(value, torch.ones(4)) for value in own.values())
    assert parameters(normed)["attention"] - parameters(plain)["attention"] == 2 * 2 * 4


@pytest.mark.parametrize(
    "position", [NoPosition(), Learned(), Sinusoidal(), Rotary(), Rotary(layout="interleaved"), Alibi()]
)
@pytest.mark.parametrize("attention", [MultiHead(heads=4), MultiHead(heads=4, key_value_heads=2, window=2)], ids=repr)
def test_packed_documents_equal_each_alone(position, attention):
    architecture = host().vary(position=position, attention=attention)
    model, batch = moved(architecture), random_batch(architecture)
    cuts = [[(0, 5), (5, 6), (6, 12)], [(0, 1), (1, 10), (10, 12)]]
    documents, positions = torch.zeros_like(batch.tokens), torch.zeros_like(batch.tokens)
    for row, spans in enumerate(cuts):
        for index, (start, end) in enumerate(spans):
            documents[row, start:end], positions[row, start:end] = index, torch.arange(end - start)
    packed = nats_of(model, dataclasses.replace(batch, documents=documents, positions=positions))
    for row, spans in enumerate(cuts):
        for start, end in spans:
            part = (slice(row, row + 1), slice(start, end))
            alone = nats_of(model, Batch(batch.tokens[part], batch.targets[part], batch.weights[part]))
            torch.testing.assert_close(packed[part], alone, atol=1e-5, rtol=1e-5)


def test_projections_with_biases_keep_the_contract():
    check_component(MultiHead(heads=4, key_value_heads=2, bias=True))


@pytest.mark.parametrize(("position", "has_effect"), [(NoPosition(), False), (Learned(), False), (Rotary(), True)])
def test_a_bias_of_the_keys_has_an_effect_only_where_keys_are_turned(position, has_effect):
    architecture = host().vary(position=position, attention=MultiHead(heads=4, bias=True))
    model, batch = moved(architecture), random_batch(architecture)
    before = nats_of(model, batch)
    with torch.no_grad():
        model.get_parameter("blocks.0.attention.key.bias").add_(1.0)
    assert (not torch.allclose(nats_of(model, batch), before, atol=1e-5)) == has_effect


def test_biases_start_at_zero_and_count_as_attention():
    plain, biased = host(), host().vary(attention=MultiHead(heads=4, key_value_heads=2, bias=True))
    added = {name: value for name, value in started(biased).named_parameters() if name.endswith("bias")}
    names = ("key", "output", "query", "value")
    assert sorted(added) == [f"blocks.{i}.attention.{name}.bias" for i in range(2) for name in names]
    assert not any(value.any() for value in added.values())
    grouped = plain.vary(attention=MultiHead(heads=4, key_value_heads=2))
    assert parameters(biased)["attention"] - parameters(grouped)["attention"] == 2 * (16 + 8 + 8 + 16)
