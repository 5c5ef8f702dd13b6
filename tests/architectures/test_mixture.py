"""Mixture of depths against a loop over tokens that hides instead of gathering."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from architectures import backends, mixture
from architectures.accounting import flops_per_token, parameters
from architectures.attention import MultiHead, Pass
from architectures.masks import Places
from architectures.mixture import MixtureOfDepths
from architectures.positions import Alibi, NoPosition, Rotary
from architectures.specimens import host, moved, nats_of, random_batch, started
from architectures.testing import check_cache, check_causality, check_gradients
from architectures.transformer import Batch

DEEP = host().vary(layers=4)
HALF = MixtureOfDepths(capacity=0.5)
PREDICTED = MixtureOfDepths(capacity=0.3, every=1, router="predictor")


def chosen(model, layer, x, training):
    """Which tokens of one sequence, (time, width), pass: by sorting, or by each token's own sigmoid."""
    scores = [float(token @ model.depth.routers[str(layer)].weight[0]) for token in x]
    specification = model.depth.specification
    if training:
        count = max(1, round(specification.capacity * len(x)))
        return scores, sorted(range(len(x)), key=lambda time: -scores[time])[:count]
    decisions = scores
    if specification.router == "predictor":
        net = model.depth.predictors[str(layer)]
        hidden = functional.silu(x @ net.up.weight.T + net.up.bias)
        decisions = (hidden @ net.down.weight[0] + net.down.bias).tolist()
    return scores, [time for time, logit in enumerate(decisions) if torch.tensor(logit).sigmoid() > 0.5]


def naive(model, batch, training):
    """Pass every token through every block, hide from the picked ones the others, and keep what is picked."""
    hidden = []
    for row in range(len(batch.tokens)):
        time = batch.tokens.shape[1]
        positions = torch.arange(time) if batch.positions is None else batch.positions[row]
        documents = torch.zeros(time, dtype=torch.int64) if batch.documents is None else batch.documents[row]
        x = model.position.embed(model.embedding(batch.tokens[row : row + 1]), positions)
        for layer, block in enumerate(model.blocks):
            routed = str(layer) in model.depth.routers
            scores, picked = chosen(model, layer, x[0], training) if routed else ([], range(time))
            own = [int(documents[at]) if at in picked else 100 + at for at in range(time)]
            seen = torch.tensor(own)[None]
            passed = block(
                x, Pass(model.position, positions, 0.0, "reference", Places(positions, positions, seen, seen))
            )
            after = x.clone()
            for at in picked:
                gain = scores[at] if routed else 1.0
                after[0, at] = x[0, at] + gain * (passed[0, at] - x[0, at])
            x = after
        hidden.append(model.final_norm(x))
    return torch.cat(hidden)


def packed(batch):
    steps = torch.arange(12).expand(len(batch.tokens), 12)
    cuts = torch.arange(3, 3 + len(batch.tokens))[:, None]
    positions = torch.where(steps < cuts, steps, steps - cuts)
    return replace(batch, documents=(steps >= cuts).long(), positions=positions)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("depth", [HALF, PREDICTED], ids=["auxiliary", "predictor"])
@pytest.mark.parametrize("pack", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize(
    ("position", "attention"),
    [
        (Rotary(), MultiHead(heads=4)),
        (Alibi(), MultiHead(heads=4, key_value_heads=2)),
        (NoPosition(), MultiHead(heads=4, window=3)),
    ],
    ids=["rotary", "alibi", "window"],
)
def test_what_comes_back_is_that_of_a_loop_over_tokens(position, attention, pack, depth, training):
    model = moved(DEEP.vary(position=position, attention=attention, depth=depth)).train(training)
    batch = random_batch(DEEP, sequences=3)
    batch = packed(batch) if pack else batch
    with torch.no_grad():
        expected = naive(model, batch, training)
        for backend in ("reference", "sdpa"):
            model.use_backend(backend)
            torch.testing.assert_close(model(batch).hidden, expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    capacity=st.floats(0.01, 1),
    every=st.integers(1, 4),
    time=st.integers(1, 12),
    router=st.sampled_from(["auxiliary", "predictor"]),
)
def test_exactly_the_capacity_passes_in_training_and_only_the_decided_in_evaluation(capacity, every, time, router):
    depth = MixtureOfDepths(capacity=capacity, every=every, router=router)
    model = moved(DEEP.vary(depth=depth))
    whole = random_batch(DEEP)
    batch = Batch(whole.tokens[:, :time], whole.targets[:, :time], whole.weights[:, :time])
    read: dict[int, int] = {}
    for layer, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda _, given, layer=layer: read.update({layer: given[0].shape[1]}))
    with torch.no_grad():
        assert model.train()(batch).hidden.isfinite().all()
        routed = [layer for layer in range(4) if (layer + 1) % every == 0]
        count = max(1, round(capacity * time))
        assert [read[layer] for layer in range(4)] == [count if layer in routed else time for layer in range(4)]
        assert depth.shares(4, time, training=True) == [read[layer] / time for layer in range(4)]
        read.clear()
        decided = {}
        real = model.depth.decide

        def decide(layer, x):
            scores, decisions = real(layer, x)
            decided[layer] = int((decisions > 0).sum(dim=1).max())
            return scores, decisions

        model.depth.decide = decide
        assert model.eval()(batch).hidden.isfinite().all()
    assert {layer: read.get(layer, 0) for layer in routed} == decided


@pytest.mark.parametrize("depth", [HALF, PREDICTED], ids=["auxiliary", "predictor"])
def test_sequences_of_a_batch_do_not_know_each_other(depth):
    model, batch = moved(DEEP.vary(depth=depth)), random_batch(DEEP, sequences=4)
    with torch.no_grad():
        alone = [model(replace(batch, tokens=batch.tokens[row : row + 1])).hidden for row in range(4)]
        torch.testing.assert_close(model(batch).hidden, torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_where_order_alone_decides_plain_places_are_equal(monkeypatch, training):
    """Gathered tokens stand in order; their true positions matter to rotation, windows and biases only."""
    model, batch = moved(DEEP.vary(depth=HALF)).train(training), random_batch(DEEP)
    for name in ("reference", "sdpa"):
        model.use_backend(name)
        with torch.no_grad(), monkeypatch.context() as patch:
            quick = model(batch).hidden
            patch.setattr(backends, "ordered", lambda mask, bias: False)
            torch.testing.assert_close(quick, model(batch).hidden, atol=1e-6, rtol=1e-6)


def test_where_distance_matters_a_backend_is_asked_for_positions_of_its_own():
    on = {"device": "cuda", "dtype": torch.bfloat16}
    plain, routed = (DEEP.vary(position=Alibi(), depth=depth).backends(**on)["flash"] for depth in (DEEP.depth, HALF))
    assert "plain positions" not in str(plain)
    assert "flash-attn needs plain positions" in routed
    assert "plain positions" not in str(DEEP.vary(depth=HALF).backends(**on)["flash"])
    assert "plain positions" in DEEP.vary(depth=HALF, attention=MultiHead(heads=4, window=3)).backends(**on)["flash"]


def test_a_sequence_of_which_no_token_passes_skips_the_block():
    model, batch = moved(DEEP.vary(depth=HALF)), random_batch(DEEP)
    with torch.no_grad():
        model.depth.decide = lambda layer, x: (torch.ones(x.shape[:2]), torch.full(x.shape[:2], -1.0))
        skipped = model(batch).hidden
        x = model.embedding(batch.tokens)
        current = model._begin(batch, None)
        for layer in (0, 2):
            x = model.blocks[layer](x, current)
        torch.testing.assert_close(skipped, model.final_norm(x))


@pytest.mark.parametrize("depth", [HALF.vary(router_loss=0.3), PREDICTED], ids=["auxiliary", "predictor"])
def test_what_decides_learns_what_training_picked(depth):
    model, batch = moved(DEEP.vary(depth=depth)).train(), random_batch(DEEP)
    met = []
    real = model.depth.decide

    def decide(layer, x):
        met.append(real(layer, x))
        return met[-1]

    model.depth.decide = decide
    output = model(batch)
    expected = []
    for scores, decisions in met:
        threshold = scores.topk(depth.count(12), dim=1).values[:, -1:]
        picked, p = scores >= threshold, decisions.sigmoid()
        expected.append(-torch.where(picked, p.log(), (1 - p).log()).mean())
    penalties = model.penalties(output, batch, model.nats(output, batch))
    assert penalties.keys() == {"routing"}
    torch.testing.assert_close(penalties["routing"], depth.router_loss * torch.stack(expected).mean())
    penalties["routing"].backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    if depth.router == "predictor":
        assert reached == {name for name, _ in model.named_parameters() if name.startswith("depth.predictors")}
    else:
        assert {"depth.routers.1.weight", "blocks.0.attention.query.weight"} <= reached
    assert model.eval()(batch).penalties == {}


def test_the_router_is_on_the_path_of_the_gradient():
    model, batch = moved(DEEP.vary(depth=PREDICTED)).train(), random_batch(DEEP)
    model.nats(model(batch), batch).sum().backward()
    assert all(router.weight.grad.abs().sum() > 0 for router in model.depth.routers.values())
    assert all(parameter.grad is None for parameter in model.depth.predictors.parameters())


def test_routing_is_decided_in_float32_under_autocast():
    model, batch = moved(DEEP.vary(depth=PREDICTED)), random_batch(DEEP)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        scores, decisions = model.depth.decide(1, model.embedding(batch.tokens))
        assert scores.dtype == decisions.dtype == torch.float32
        assert model.train()(batch).hidden.isfinite().all()


def test_flops_are_those_that_torch_counts_in_training():
    for depth in (HALF, PREDICTED):
        architecture = DEEP.vary(depth=depth)
        model, batch = started(architecture).train(), random_batch(architecture, sequences=1)
        model.use_backend("reference")
        counted, scores = FlopCounterMode(display=False), 0.0
        with counted, torch.no_grad():
            model.nats(model(batch), batch)
        by_name = {str(name).split(".")[-1]: flops for name, flops in counted.get_flop_counts()["Global"].items()}
        by_name.pop("bmm")
        for share in depth.shares(4, 12, training=True):
            passing = share * 12
            scores += passing * 4 * 16 * (passing + 1) / 2
        assert flops_per_token(architecture).training / 3 == pytest.approx((sum(by_name.values()) + scores) / 12)


def test_parameters_are_named_by_the_block_they_route():
    names = [name for name, _ in moved(DEEP.vary(depth=PREDICTED.vary(every=2))).depth.named_parameters()]
    parts = ("up.weight", "up.bias", "down.weight", "down.bias")
    assert names == [f"routers.{layer}.weight" for layer in (1, 3)] + [
        f"predictors.{layer}.{part}" for layer in (1, 3) for part in parts
    ]
    assert parameters(DEEP.vary(depth=HALF))["depth"] == 2 * 16


def test_a_predictor_keeps_the_contract_too():
    architecture = DEEP.vary(depth=PREDICTED.vary(every=2))
    check_causality(architecture)
    check_gradients(architecture)
    check_cache(architecture)


def test_a_mixture_that_does_nothing_is_caught(monkeypatch):
    everything = lambda layer, x, step, current, *_: step(layer, x, current)  # noqa: E731
    monkeypatch.setattr(mixture, "_routed", everything)
    for depth in (HALF, PREDICTED.vary(every=2)):
        with pytest.raises(AssertionError, match=r"no gradient reaches depth\.routers"):
            check_gradients(DEEP.vary(depth=depth))


def test_it_generates_by_reading_the_sequence_again_and_says_so():
    model = moved(DEEP.vary(depth=HALF))
    assert model.cache().recomputes == "depth mixture_of_depths has no cache"


def test_routing_without_a_routed_block_is_refused():
    message = r"depth\.every: expected at most the 2 layers, or no block is routed, got 3"
    with pytest.raises(ValidationError, match=message):
        host().vary(depth=MixtureOfDepths(every=3))
    assert nats_of(moved(host().vary(depth=HALF)), random_batch(host())).isfinite().all()
