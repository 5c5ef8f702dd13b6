"""The contract suite over every member of every union, over presets, and over what it must catch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from architectures import testing
from architectures.attention import MultiHead
from architectures.embeddings import Table
from architectures.feedforward import Gelu, SwiGLU
from architectures.positions import Alibi, AlibiModule, PositionModule, Rotary
from architectures.presets import tiny
from architectures.testing import check_architecture, check_component, example, host, members
from architectures.transformer import Architecture, Dropout

AXES = [axis for axis in Architecture.model_fields if members(axis)]
KINDS = [kind for axis in AXES for kind in members(axis)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_choice_of_every_axis_keeps_the_contract(kind):
    check_component(example(kind))


@pytest.mark.parametrize(
    "component",
    [
        MultiHead(heads=4, key_value_heads=2),
        Rotary(layout="interleaved"),
        Table(tied=False),
        SwiGLU(width=8, bias=True),
    ],
    ids=repr,
)
def test_choices_away_from_their_defaults_keep_it_too(component):
    check_component(component)


def test_presets_keep_the_contract():
    check_architecture(tiny().vary(context=16))


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Any legal combination of choices."""
    axes = {axis: example(draw(st.sampled_from(members(axis)))) for axis in AXES if axis != "attention"}
    key_value_heads = draw(st.sampled_from([1, 2, 4]))
    changed = host().vary(attention=MultiHead(heads=4, key_value_heads=key_value_heads))
    if axes["norm"].kind == "none":
        axes["residual"] = host().residual
    return changed.vary(**axes)


@settings(max_examples=6, deadline=None)
@given(architecture=architectures())
def test_random_legal_combinations_keep_the_contract(architecture):
    check_architecture(architecture)


def test_a_bias_that_does_nothing_is_caught(monkeypatch):
    """A published branch has shipped an ALiBi constant over keys, which softmax ignores."""
    monkeypatch.setattr(AlibiModule, "bias", PositionModule.bias)
    with pytest.raises(AssertionError, match=r"position: NoPosition.* changes nothing"):
        check_component(Alibi())


def test_a_rotation_that_ignores_its_base_is_caught(monkeypatch):
    from architectures import positions

    real = positions._plain_cosine_and_sine
    monkeypatch.setattr(positions, "_plain_cosine_and_sine", lambda width, base, *rest: real(width, 10_000.0, *rest))
    with pytest.raises(AssertionError, match=r"position\.base changes nothing"):
        check_component(Rotary())


def test_a_peek_at_the_future_is_caught(monkeypatch):
    def build(self, shape):
        module = torch.nn.Identity()
        module.forward = lambda x: x.roll(-1, dims=1)
        return module

    monkeypatch.setattr(Gelu, "build", build)
    with pytest.raises(AssertionError, match="a token changes earlier nats"):
        check_component(Gelu(width=4))


def test_a_parameter_without_a_gradient_is_caught(monkeypatch):
    from architectures.feedforward import TwoLayerModule

    monkeypatch.setattr(TwoLayerModule, "forward", lambda self, x: self.up(x)[..., : x.shape[-1]])
    with pytest.raises(AssertionError, match=r"no gradient reaches blocks\.0\.feed_forward\.down\.weight"):
        check_component(Gelu(width=24))


def test_randomness_from_the_global_generator_is_caught(monkeypatch):
    real = testing.initialise

    def careless(model, architecture, noise):
        real(model, architecture, noise)
        torch.rand(1)

    monkeypatch.setattr(testing, "initialise", careless)
    with pytest.raises(AssertionError, match="advances torch's global generator"):
        check_architecture(host())


def test_something_that_is_no_choice_of_an_axis_is_refused():
    with pytest.raises(ValueError, match="expected a member of an axis of Architecture, got Architecture"):
        check_component(host())


def test_dropout_is_a_training_field_and_is_not_asked_to_change_the_function():
    check_component(Dropout(residual=0.1))
