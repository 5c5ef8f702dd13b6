"""LayerSkip against the formulas of its paper and a loop over sequences."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from architectures import testing
from architectures.accounting import flops_per_token
from architectures.component import effect_of
from architectures.depth import FullDepth
from architectures.layerskip import LayerSkip, LayerSkipModule, depth_factor, enabled_exits, exit_weights, time_factor
from architectures.positions import Alibi
from architectures.specimens import host, moved, nats_of, random_batch
from architectures.testing import check_cache, check_gradients, check_variants

DEEP = host().vary(layers=4)


def trained(depth, architecture=DEEP):
    return moved(architecture.vary(depth=depth)).train()


def naive_weights(layers, scale, enabled):
    """Equations of section 4.1 of arXiv:2404.16710, as sums; blocks and exits count from 0."""
    e = [scale * sum(range(layer + 1)) for layer in range(layers - 1)]
    e.append(layers - 1 + scale * sum(range(layers - 1)))
    on = [layer in range(layers - enabled, layers) for layer in range(layers)]
    total = sum(weight for weight, counts in zip(e, on, strict=True) if counts)
    return [weight / total if counts else 0 for weight, counts in zip(e, on, strict=True)]


@settings(max_examples=50, deadline=None)
@given(layers=st.integers(2, 40), scale=st.floats(0.01, 5), progress=st.floats(0, 1), dropout=st.floats(0.01, 0.9))
def test_rates_and_weights_are_those_of_the_paper(layers, scale, progress, dropout):
    for layer in range(layers):
        assert depth_factor(layer, layers) == pytest.approx(math.exp(layer * math.log(2) / (layers - 1)) - 1)
    assert time_factor(progress) == pytest.approx(math.exp(progress * math.log(2)) - 1)
    rates = LayerSkip(dropout=dropout).rates(layers, progress)
    assert rates[0] == 0
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(dropout * time_factor(progress))
    assert LayerSkip(dropout=dropout, curriculum="none").rates(layers, progress)[-1] == pytest.approx(dropout)
    enabled = enabled_exits(layers, progress)
    assert exit_weights(layers, scale, enabled) == pytest.approx(naive_weights(layers, scale, enabled))
    assert sum(exit_weights(layers, scale, enabled)) == pytest.approx(1)


@given(layers=st.integers(2, 16), more=st.integers(0, 40))
def test_the_gradual_curriculum_trains_one_exit_more_every_2_l_th_of_training(layers, more):
    progress = (more + 0.5) / (2 * layers)
    assert enabled_exits(layers, progress) == min(layers, more + 1)


def by_sequence(model, batch, kept):
    """Every sequence alone through the blocks that it does not skip, (sequences, layers) in `kept`."""
    hidden = []
    for row in range(len(batch.tokens)):
        one = replace(
            batch,
            tokens=batch.tokens[row : row + 1],
            positions=None if batch.positions is None else batch.positions[row : row + 1],
            documents=None if batch.documents is None else batch.documents[row : row + 1],
        )
        x = model.position.embed(model.embedding(one.tokens), one.positions)
        current = model._begin(one, None)
        for layer, block in enumerate(model.blocks):
            x = block(x, current) if kept[row, layer] else x
        hidden.append(model.final_norm(x))
    return torch.cat(hidden)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("position", [host().position, Alibi()], ids=repr)
def test_a_step_equals_a_loop_over_sequences_that_skip_blocks(packed, position):
    architecture = DEEP.vary(position=position)
    model = trained(LayerSkip(dropout=0.6, curriculum="none", exit_loss=0), architecture)
    batch = random_batch(architecture, sequences=5)
    if packed:
        steps = torch.arange(12).expand(5, 12)
        cuts = torch.arange(3, 8)[:, None]
        batch = replace(
            batch, documents=(steps >= cuts).long(), positions=torch.where(steps < cuts, steps, steps - cuts)
        )
    rates = [0.6 * depth_factor(layer, 4) for layer in range(4)]
    torch.manual_seed(3)
    drawn = [torch.rand(5) >= rate if rate else torch.ones(5, dtype=torch.bool) for rate in rates]
    kept = torch.stack(drawn, dim=1)
    assert 2 < (~kept).sum() < 12
    torch.manual_seed(3)
    got = model(batch, torch.tensor(0.5))
    torch.testing.assert_close(got.hidden, by_sequence(model, batch, kept), atol=1e-5, rtol=1e-5)


def test_a_dropped_sequence_costs_nothing(monkeypatch):
    model, batch = trained(LayerSkip(dropout=0.9, curriculum="none")), random_batch(DEEP, sequences=40)
    read: list[int] = []
    model.blocks[3].register_forward_pre_hook(lambda _, given: read.append(len(given[0])))
    torch.manual_seed(0)
    for _ in range(20):
        model(batch, torch.tensor(0.0))
    assert sum(read) / 20 / 40 == pytest.approx(0.1, abs=0.03)
    monkeypatch.setattr(LayerSkip, "rates", lambda self, layers, progress: [0.0, 1.0, 1.0, 1.0])
    read.clear()
    model(batch, torch.tensor(0.0))
    assert read == []


def test_dropout_follows_the_curriculum():
    model, batch = trained(LayerSkip(dropout=0.5)), random_batch(DEEP, sequences=400)
    read: list[int] = []
    model.blocks[3].register_forward_pre_hook(lambda _, given: read.append(len(given[0])))
    torch.manual_seed(0)
    for progress in (0.0, 0.5, 1.0):
        model(batch, torch.tensor(progress))
    assert read[0] == 400
    assert read[1] / 400 == pytest.approx(1 - 0.5 * (math.sqrt(2) - 1), abs=0.08)
    assert read[2] / 400 == pytest.approx(0.5, abs=0.08)


def test_training_minimises_the_weighted_loss_of_every_exit():
    model, batch = trained(LayerSkip(dropout=0, exit_loss=0.7)), random_batch(DEEP)
    batch = replace(batch, weights=torch.rand(batch.weights.shape))
    output = model(batch)
    nats = model.nats(output, batch)
    last = (nats * batch.weights).sum() / batch.weights.sum()
    minimised = last + sum(model.penalties(output, batch, nats).values())
    expected = 0.0
    for exit, weight in enumerate(naive_weights(4, 0.7, 4), 1):
        logits = model.logits(model(batch, exit=exit).hidden)
        costs = -logits.log_softmax(-1).gather(-1, batch.targets[..., None])[..., 0]
        expected += weight * (costs * batch.weights).sum() / batch.weights.sum()
    torch.testing.assert_close(minimised, expected)


def test_the_gradual_curriculum_goes_from_the_last_exit_to_the_first():
    model, batch = trained(LayerSkip(dropout=0, exits="gradual")), random_batch(DEEP)
    counts = [len(model(batch, torch.tensor(progress)).exits) for progress in (0.0, 0.125, 0.25, 0.375, 1.0)]
    assert counts == [0, 1, 2, 2, 2]  # the first exit has weight 0


@pytest.mark.parametrize("depth", [LayerSkip(dropout=0.5, curriculum="none"), LayerSkip(dropout=0.9, exits="gradual")])
def test_evaluated_it_is_the_full_model_and_draws_nothing(depth):
    model, batch = moved(DEEP.vary(depth=depth)), random_batch(DEEP)
    before = torch.get_rng_state()
    output = model(batch)
    assert torch.equal(before, torch.get_rng_state())
    assert (output.exits, output.penalties) == ((), {})
    torch.testing.assert_close(nats_of(model, batch), nats_of(moved(DEEP), batch), rtol=0, atol=0)
    assert model.cache().recomputes is None


@pytest.mark.parametrize(
    "depth", [LayerSkip(dropout=0, exits="gradual"), LayerSkip(exit_loss=0, curriculum="none")], ids=repr
)
def test_away_from_its_defaults_it_keeps_the_contract(depth, monkeypatch):
    monkeypatch.setattr(testing, "variants", lambda *_, **__: iter(()))  # they are tried with the defaults
    assert all(effect_of(field) == "training" for name, field in LayerSkip.model_fields.items() if name != "kind")
    check_variants(DEEP.vary(depth=depth))
    check_cache(DEEP.vary(depth=depth))
    check_gradients(DEEP.vary(depth=depth))


def test_the_contract_catches_a_way_of_training_that_changes_what_is_evaluated(monkeypatch):
    monkeypatch.setattr(testing, "variants", lambda *_, **__: iter(()))
    monkeypatch.setattr(LayerSkip, "build", lambda self, shape: Shallow())
    with pytest.raises(AssertionError, match=r"depth: LayerSkip.* changes what is computed, and says training only"):
        check_variants(DEEP)
    with pytest.raises(AssertionError, match=r"depth: FullDepth.* changes what is computed, and says training only"):
        check_variants(DEEP.vary(depth=LayerSkip()))


class Shallow(LayerSkipModule):
    def __init__(self):
        super().__init__(LayerSkip(), 4)

    def forward(self, x, step, current, layers, progress):
        return super().forward(step(0, x, current), step, current, layers, progress)


def test_whether_a_step_draws_random_numbers_is_told():
    assert DEEP.vary(depth=LayerSkip()).draws
    assert not DEEP.vary(depth=LayerSkip(dropout=0)).draws
    assert not DEEP.draws


def test_flops_are_those_of_training_and_of_evaluation_apart():
    full = flops_per_token(DEEP)
    exits = flops_per_token(DEEP.vary(depth=LayerSkip(dropout=0)))
    assert exits.forward == full.forward
    assert exits.training == full.training + 3 * 2 * (2 * 29 * 16)  # two exits more, of 29 tokens and width 16
    model, batch = trained(LayerSkip(dropout=0)), random_batch(DEEP, sequences=1)
    counter = FlopCounterMode(display=False)
    model.use_backend("reference")
    with counter:
        output = model(batch)
        model.penalties(output, batch, model.nats(output, batch))
    counted = {str(name).split(".")[-1]: flops for name, flops in counter.get_flop_counts()["Global"].items()}
    attention = counted.pop("bmm") * 13 / 24
    assert (sum(counted.values()) + attention) / 12 == pytest.approx(exits.training / 3)
    dropped = flops_per_token(DEEP.vary(depth=LayerSkip(dropout=0.5, exit_loss=0)))
    blocks = full.training - 3 * 2 * 29 * 16
    share = sum(1 - 0.5 * (1 / math.log(2) - 1) * depth_factor(layer, 4) for layer in range(4)) / 4
    assert dropped.training == pytest.approx(3 * 2 * 29 * 16 + blocks * share)


def test_one_model_has_one_specification():
    assert LayerSkip(dropout=0) == LayerSkip(dropout=0, curriculum="none")
    assert LayerSkip(exit_loss=0) == LayerSkip(exit_loss=0, exits="gradual")
    with pytest.raises(ValidationError, match="dropout: expected above 0 where exit_loss is 0"):
        LayerSkip(dropout=0, exit_loss=0)


def test_models_too_shallow_are_refused():
    with pytest.raises(
        ValidationError, match="depth: expected at least 2 layers, as the first is never dropped, got 1"
    ):
        host().vary(layers=1, depth=LayerSkip(exit_loss=0))
    message = r"depth\.exit_loss: expected 0 below 3 layers, as the first exit has no weight, got 0\.2"
    with pytest.raises(ValidationError, match=message):
        host().vary(layers=2, depth=LayerSkip())
    assert isinstance(host().depth, FullDepth)


def test_a_curriculum_without_progress_is_refused():
    model, batch = trained(LayerSkip()), random_batch(DEEP)
    with pytest.raises(ValueError, match="progress: expected the share of training done"):
        model(batch)
