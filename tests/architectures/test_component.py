"""Specifications: closed, frozen, checked when made."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.feedforward import Gelu, Plain, SwiGLU, matched_width
from architectures.norms import NoNorm
from architectures.positions import Rotary, Sinusoidal
from architectures.presets import tiny
from architectures.residual import PostNorm


def test_a_misspelt_field_is_refused_by_name():
    with pytest.raises(ValidationError, match="thta"):
        Rotary(thta=500.0)


def test_a_component_cannot_change_after_it_is_made():
    with pytest.raises(ValidationError, match="frozen"):
        tiny().width = 64


def test_vary_validates_the_whole_again():
    with pytest.raises(ValidationError, match=r"attention\.heads: expected a divisor of width 102, got 4"):
        tiny().vary(width=102)
    with pytest.raises(ValidationError, match="Extra inputs"):
        tiny().vary(hieght=3)


def test_non_finite_numbers_are_refused():
    with pytest.raises(ValidationError, match="finite"):
        Rotary(base=float("inf"))


def test_a_class_derived_from_a_finished_choice_is_refused():
    with pytest.raises(TypeError, match="expected a class derived from Component, got one derived from Rotary"):

        class Scaled(Rotary):
            kind: Literal["rotary"] = "rotary"
            scale: float = 2.0


def test_a_base_that_leaves_the_kind_to_its_choices_may_be_derived_from_and_its_choices_may_not():
    class Cubed(Plain):
        kind: Literal["cubed"] = "cubed"

        def activation(self, x: torch.Tensor) -> torch.Tensor:
            return x**3

    assert list(Cubed.model_fields) == ["kind", "width", "bias"]  # the order in which a record shows them
    with pytest.raises(TypeError, match="got one derived from Cubed"):

        class Steeper(Cubed):
            kind: Literal["steeper"] = "steeper"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": MultiHead(heads=6)}, r"attention\.heads: expected a divisor of width 128, got 6"),
        ({"width": 132, "attention": MultiHead(heads=4)}, r"position: expected an even head width, got 33"),
        (
            {"width": 129, "attention": MultiHead(heads=3), "position": Sinusoidal()},
            "position: expected an even width",
        ),
        (
            {"attention": MultiHead(heads=64)},
            "position: expected a head width of at least 4: one wavelength has no base, got 2",
        ),
        (
            {"norm": NoNorm(), "residual": PostNorm()},
            r"residual: expected pre_norm or parallel where norm is none, got post_norm",
        ),
        ({"position": {"kind": "rotray"}}, r"rotray"),
    ],
)
def test_an_impossible_combination_is_refused_with_path_expectation_and_finding(changes, message):
    with pytest.raises(ValidationError, match=message):
        tiny().vary(**changes)


def test_key_value_heads_must_divide_heads():
    with pytest.raises(ValidationError, match="key_value_heads: expected a divisor of heads 8, got 3"):
        MultiHead(heads=8, key_value_heads=3)


def test_one_model_has_one_specification():
    assert MultiHead(heads=4, key_value_heads=4) == MultiHead(heads=4)
    assert MultiHead(heads=4, key_value_heads=4).model_dump_json() == MultiHead(heads=4).model_dump_json()


@given(
    heads=st.sampled_from([1, 2, 4, 8]),
    half_width=st.integers(2, 8),
    layers=st.integers(1, 3),
    base=st.floats(2, 1e6),
    layout=st.sampled_from(["halves", "interleaved"]),
)
def test_every_legal_architecture_survives_json(heads, half_width, layers, base, layout):
    architecture = tiny().vary(
        width=heads * half_width * 2,
        layers=layers,
        position=Rotary(base=base, layout=layout),
        attention=MultiHead(heads=heads, key_value_heads=1),
    )
    assert Architecture.model_validate_json(architecture.model_dump_json()) == architecture


@given(units=st.integers(1, 300), width=st.integers(1, 300))
def test_matched_width_gives_equal_parameters(units, width):
    matched = matched_width(SwiGLU, Gelu(width=3 * units), width)
    assert 3 * matched * width == 2 * (3 * units) * width
    assert matched_width(Gelu, SwiGLU(width=2 * units), width) == 3 * units


def test_matched_width_counts_biases_and_refuses_where_no_whole_width_matches():
    assert matched_width(Gelu, Gelu(width=77, bias=True), width=16) == 77
    with pytest.raises(ValueError, match=r"has 128,000 parameters, got 127,872 at width 333 and 128,256 at 334"):
        matched_width(SwiGLU, Gelu(width=500), width=128)
