"""The contract suite over every member of every union, over presets, and over what it must catch."""

from __future__ import annotations

import typing
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from architectures import specimens
from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.component import Component
from architectures.dropout import Dropout
from architectures.embeddings import Table
from architectures.feedforward import Gelu, SwiGLU
from architectures.norms import NormModule
from architectures.positions import Alibi, AlibiModule, Learned, LearnedModule, PositionModule, Rotary
from architectures.presets import tiny
from architectures.specimens import HOSTS, example, host, members, started
from architectures.testing import check_architecture, check_component, check_length

# an architecture that fails is named by its fields as it is; to find a smaller one takes minutes
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)
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


def near(value: Any, field: FieldInfo) -> list[Any]:
    """Values that a field may take in a small model, the given one first."""
    if isinstance(value, Component):
        return [value]
    if isinstance(value, bool):
        return [value, not value]
    if typing.get_origin(field.annotation) is typing.Literal:
        return list(typing.get_args(field.annotation))
    return [None, 2, 6] if value is None else [value, value * 2]


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Any legal combination of choices and of their fields; what is refused stays as it was."""
    built = host()
    for axis in draw(st.permutations(AXES)):
        choice = example(draw(st.sampled_from(members(axis))))
        for name, field in type(choice).model_fields.items():
            value = draw(st.sampled_from(near(getattr(choice, name), field)))
            choice = legal(choice, **{name: value})
        built = legal(built, **{axis: choice}, **(HOSTS.get(axis, {}) if choice != getattr(built, axis) else {}))
    if built.norm.kind == "none":  # activations grow with depth and scale, and softmax amplifies their rounding
        plain = {axis: getattr(host(), axis) for axis in ("layers", "sharing", "depth", "initialisation")}
        # what is read from bytes is hundreds of times larger than a table's vectors, and as far amplified
        return built.vary(**plain, **({"embedding": host().embedding} if built.embedding.reads_bytes else {}))
    return built


def legal(component: Component, **changes: Any) -> Any:
    try:
        return component.vary(**changes)
    except ValidationError:
        return component


@settings(max_examples=4, deadline=None, phases=UNSHRUNK)
@given(architecture=architectures())
def test_random_legal_combinations_keep_the_contract(architecture):
    check_architecture(architecture)


@settings(max_examples=12, deadline=None, phases=UNSHRUNK)
@given(a=architectures(), b=architectures())
def test_what_two_random_architectures_share_by_name_and_shape_starts_equal(a, b):
    depth = max(a.layers, b.layers)
    first = started(a.vary(layers=depth))
    second = started(b.vary(layers=depth, initialisation=a.initialisation))
    known = dict(first.named_parameters())
    shared = [
        (name, parameter)
        for name, parameter in second.named_parameters()
        if name in known and known[name].shape == parameter.shape
    ]
    assert "blocks.0.attention.query.weight" in [name for name, _ in shared]
    for name, parameter in shared:
        assert torch.equal(known[name], parameter), name


def test_a_bias_that_does_nothing_is_caught(monkeypatch):
    """A published branch has shipped an ALiBi constant over keys, which softmax ignores."""
    monkeypatch.setattr(AlibiModule, "bias", PositionModule.bias)
    with pytest.raises(AssertionError, match=r"position: NoPosition.* changes nothing"):
        check_component(Alibi())


def test_a_rotation_that_ignores_its_base_is_caught(monkeypatch):
    from architectures import positions

    real = positions._constant_cosine_and_sine
    monkeypatch.setattr(positions, "_constant_cosine_and_sine", lambda width, base, *rest: real(width, 10_000.0, *rest))
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


def test_a_model_that_goes_on_beyond_its_reach_is_caught(monkeypatch):
    monkeypatch.setattr(LearnedModule, "embed", lambda self, x, positions: x + self.weight[0])
    with pytest.raises(AssertionError, match=r"2 times the context is accepted, which is beyond reach\(\) = 12"):
        check_length(host().vary(position=Learned()))


def test_a_norm_over_time_is_caught_at_a_longer_context(monkeypatch):
    """It depends on tokens yet to come, and on how many there are."""
    monkeypatch.setattr(NormModule, "forward", lambda self, x: x - x.mean(1, keepdim=True))
    with pytest.raises(AssertionError, match="earlier nats differ at 2 times the context"):
        check_length(host())


def test_a_parameter_without_a_gradient_is_caught(monkeypatch):
    from architectures.feedforward import TwoLayerModule

    monkeypatch.setattr(TwoLayerModule, "forward", lambda self, x: self.up(x)[..., : x.shape[-1]])
    with pytest.raises(AssertionError, match=r"no gradient reaches blocks\.0\.feed_forward\.down\.weight"):
        check_component(Gelu(width=24))


def test_randomness_from_the_global_generator_is_caught(monkeypatch):
    real = specimens.initialise

    def careless(model, architecture, noise):
        real(model, architecture, noise)
        torch.rand(1)

    monkeypatch.setattr(specimens, "initialise", careless)
    with pytest.raises(AssertionError, match="advances torch's global generator"):
        check_architecture(host())


def test_something_that_is_no_choice_of_an_axis_is_refused():
    with pytest.raises(ValueError, match="expected a member of an axis of Architecture, got Architecture"):
        check_component(host())


def test_dropout_is_a_training_field_and_is_not_asked_to_change_the_function():
    check_component(Dropout(residual=0.1))
