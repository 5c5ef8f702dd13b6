"""Leaving a model early: the same for all tokens, or each where it is sure."""

from __future__ import annotations

import pytest
import torch

from architectures.embeddings import TokenHead
from architectures.exits import AtExit, Confident
from architectures.residual import PostNorm
from architectures.specimens import host, moved, random_batch
from workbench.evaluation.scoring import evaluating, measure_sequences

ARCHITECTURE = host().vary(layers=4)


@pytest.fixture
def model():
    return moved(ARCHITECTURE)


@pytest.fixture
def batch():
    return random_batch(ARCHITECTURE)


def nats_at(model, batch, exit):
    at = AtExit(model, exit)
    return at.nats(at(batch), batch).detach()


def test_an_exit_is_a_shallower_model_with_the_same_last_norm(model, batch):
    shallow = moved(ARCHITECTURE.vary(layers=2))
    shallow.load_state_dict({name: model.state_dict()[name] for name in shallow.state_dict()})
    expected = shallow.nats(shallow(batch), batch)
    torch.testing.assert_close(nats_at(model, batch, 2), expected.detach(), rtol=0, atol=0)


def test_the_last_exit_is_the_model(model, batch):
    torch.testing.assert_close(nats_at(model, batch, 4), model.nats(model(batch), batch).detach(), rtol=0, atol=0)


def test_every_exit_of_a_model_without_a_last_norm_works():
    architecture = ARCHITECTURE.vary(residual=PostNorm())
    found = [nats_at(moved(architecture), random_batch(architecture), exit) for exit in (1, 2, 3, 4)]
    assert all(nats.isfinite().all() for nats in found)
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("threshold", [0.15, 0.25, 0.4])
def test_each_token_leaves_where_a_loop_over_tokens_and_exits_lets_it_go(model, batch, threshold):
    confident = Confident(model, threshold)
    with torch.no_grad():
        output = confident(batch)
        nats, layers = confident.nats(output, batch), confident.layers(output, batch)
        exits = [model(batch, exit=exit).hidden for exit in (1, 2, 3, 4)]
    depths = set()
    for row in range(len(batch.tokens)):
        for time in range(batch.tokens.shape[1]):
            for depth, hidden in enumerate(exits, 1):
                probabilities = model.logits(hidden[row, time]).softmax(-1)
                if probabilities.max() > threshold or depth == 4:
                    break
            assert layers[row, time] == depth
            torch.testing.assert_close(nats[row, time], -probabilities[batch.targets[row, time]].log())
            depths.add(depth)
    assert len(depths) > 1


def test_at_threshold_1_it_is_the_model_and_at_0_the_first_exit(model, batch):
    for threshold, exit in ((1.0, 4), (0.0, 1)):
        confident = Confident(model, threshold)
        output = confident(batch)
        assert (confident.layers(output, batch) == exit).all()
        torch.testing.assert_close(confident.nats(output, batch), model.nats(model(batch, exit=exit), batch))


def test_no_block_is_asked_once_every_token_has_left(model, batch):
    asked = []
    model.blocks[1].register_forward_hook(lambda *_: asked.append(1))
    Confident(model, 0.0)(batch)
    assert asked == []


def test_a_model_of_one_block_has_one_exit():
    architecture = host().vary(layers=1)
    model, batch = moved(architecture), random_batch(architecture)
    confident = Confident(model, 0.5)
    assert (confident.layers(confident(batch), batch) == 1).all()


@pytest.mark.parametrize("wrap", [lambda model: AtExit(model, 2), lambda model: Confident(model, 0.5)])
def test_evaluation_scores_what_is_wrapped_as_it_scores_a_model(model, batch, wrap):
    wrapped = wrap(model)
    model.train()
    with evaluating(wrapped):
        assert not model.training
        sequence = torch.cat([batch.tokens[0], batch.targets[0, -1:]]).numpy()
        (scored,) = measure_sequences(wrapped, [sequence], batch=64, device="cpu")["nats"]
        expected = wrapped.nats(wrapped(batch), batch)[0].detach()
    assert model.training
    assert wrapped.training
    torch.testing.assert_close(torch.from_numpy(scored), expected)


@pytest.mark.parametrize("exit", [0, 5, -1])
def test_an_exit_that_is_not_there_is_refused(model, exit):
    with pytest.raises(ValueError, match=f"exit: expected 1 to 4 blocks, got {exit}"):
        AtExit(model, exit)


def test_a_threshold_that_is_no_probability_is_refused(model):
    with pytest.raises(ValueError, match=r"threshold: expected a probability from 0 to 1, got 1\.5"):
        Confident(model, 1.5)


def test_confidence_of_a_model_without_logits_is_refused(model, monkeypatch):
    monkeypatch.setattr(TokenHead, "has_logits", False)
    with pytest.raises(ValueError, match="model: expected one with logits"):
        Confident(model, 0.5)
