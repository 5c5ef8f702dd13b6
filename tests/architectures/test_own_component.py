"""A component from outside the package: accepted on every axis, refused with a reason, told apart by its source."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from own_components import (
    OWN,
    Added,
    Bilinear,
    BilinearModule,
    Dense,
    NormedTable,
    Reversed,
    RunningMean,
    Scale,
    Warmth,
)
from pydantic import ConfigDict, ValidationError
from torch import Tensor, nn
from torch.nn import functional

from architectures import own
from architectures.accounting import flops_per_token, parameters
from architectures.architecture import AXES, Architecture
from architectures.attention import MultiHead
from architectures.component import Component, Shape
from architectures.compute import memory
from architectures.depth import FullDepth
from architectures.embeddings import Table
from architectures.exchange import configuration
from architectures.feedforward import Gelu
from architectures.hooks import BUILT, HOOKS
from architectures.initialisation import Gpt2
from architectures.positions import Rotary
from architectures.residual import PreNorm
from architectures.specimens import host, started
from architectures.testing import check_component, check_randomness, check_variants


def test_there_is_an_example_for_every_axis_and_a_list_of_hooks() -> None:
    assert set(OWN) == set(HOOKS) == set(AXES)
    assert set(BUILT) <= set(HOOKS)


@pytest.mark.parametrize("axis", sorted(set(AXES) - {"thinking"}))
def test_a_component_from_outside_keeps_the_contract_on_every_axis(axis: str) -> None:
    check_component(OWN[axis], ignores=set(AXES) - {axis})  # the others are checked with the example, below


def test_thinking_takes_a_component_from_outside_whose_idleness_is_caught() -> None:
    with pytest.raises(AssertionError, match=r"thinking: NoThinking.* changes nothing"):
        check_variants(host().vary(thinking=OWN["thinking"]), ignores=set(AXES) - {"thinking"})


def test_an_attention_that_forgets_positions_is_caught_unless_it_says_so() -> None:
    architecture, others = host().vary(attention=RunningMean()), set(AXES) - {"position"}
    with pytest.raises(AssertionError, match=r"position.* changes nothing"):
        check_variants(architecture, ignores=others)
    check_variants(architecture, ignores={*others, "position"})


@settings(max_examples=15, deadline=None)
@given(axes=st.sets(st.sampled_from(sorted(AXES))))
def test_any_of_them_together_survive_json_and_dictionaries(axes: set[str]) -> None:
    architecture = host().vary(**{axis: OWN[axis] for axis in axes})
    again = Architecture.model_validate_json(architecture.model_dump_json())
    assert again == architecture == Architecture.model_validate(architecture.model_dump())
    assert [type(getattr(again, axis)) for axis in axes] == [type(OWN[axis]) for axis in axes]


def test_a_dictionary_is_resolved_by_its_kind_and_its_fields_are_checked() -> None:
    varied = host().vary(feed_forward={"kind": "own_components:Bilinear", "width": 5})
    assert varied.feed_forward == Bilinear(width=5)
    with pytest.raises(ValidationError, match=r"feed_forward\.widht\n  Extra inputs"):
        host().vary(feed_forward={"kind": "own_components:Bilinear", "width": 5, "widht": 6})


def test_a_kind_that_is_not_loaded_is_refused_and_never_imported(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "trap_of_own_test.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValidationError, match=r"norm\n.*got 'trap_of_own_test:Norm'; classes are never imported"):
        host().vary(norm={"kind": "trap_of_own_test:Norm"})


def test_an_installed_package_is_found_by_its_entry_point(monkeypatch: Any) -> None:
    point = importlib.metadata.EntryPoint("mean", "own_components:RunningMean", own.GROUP)
    monkeypatch.setattr(own, "_descendants", lambda kind: iter(()))  # as if nothing had imported it
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [point] if group == own.GROUP else [])
    assert type(host().vary(attention={"kind": point.value}).attention) is RunningMean


class NoKind(Component):
    axis: ClassVar[str] = "norm"


class BuiltInKind(Component):
    kind: Literal["scale"] = "scale"
    axis: ClassVar[str] = "norm"


class TwoKinds(Component):
    kind: Literal["test_own_component:TwoKinds", "other:TwoKinds"] = "test_own_component:TwoKinds"
    axis: ClassVar[str] = "norm"


class NoAxis(Component):
    kind: Literal["test_own_component:NoAxis"] = "test_own_component:NoAxis"


class NoHooks(Component):
    kind: Literal["test_own_component:NoHooks"] = "test_own_component:NoHooks"
    axis: ClassVar[str] = "attention"
    heads: int = 4


class Thawed(Component):
    model_config = ConfigDict(frozen=False)
    kind: Literal["test_own_component:Thawed"] = "test_own_component:Thawed"
    axis: ClassVar[str] = "norm"


class StrangeRole(Component):
    kind: Literal["test_own_component:StrangeRole"] = "test_own_component:StrangeRole"
    axis: ClassVar[str] = "norm"
    roles: ClassVar[dict[str, str]] = {"weight": "weird"}

    def build(self, shape: Shape) -> nn.Module:
        return Scale(shape.width)


class IdleRole(Component):
    kind: Literal["test_own_component:IdleRole"] = "test_own_component:IdleRole"
    axis: ClassVar[str] = "norm"
    roles: ClassVar[dict[str, str]] = {"wieght": "gain"}

    def build(self, shape: Shape) -> nn.Module:
        return Scale(shape.width)


class NoRole(Component):
    kind: Literal["test_own_component:NoRole"] = "test_own_component:NoRole"
    axis: ClassVar[str] = "thinking"

    def build(self, shape: Shape) -> nn.Module:
        return Warmth(shape.width)

    def extended(self, time: int) -> int:
        return time


class WrongModule(Component):
    kind: Literal["test_own_component:WrongModule"] = "test_own_component:WrongModule"
    axis: ClassVar[str] = "position"

    def build(self, shape: Shape) -> nn.Module:
        return nn.Identity()


class Buffered(Component):
    kind: Literal["test_own_component:Buffered"] = "test_own_component:Buffered"
    axis: ClassVar[str] = "feed_forward"

    def build(self, shape: Shape) -> nn.Module:
        return nn.BatchNorm1d(shape.width, affine=False)


class DropsNothing(Component):
    kind: Literal["test_own_component:DropsNothing"] = "test_own_component:DropsNothing"
    axis: ClassVar[str] = "feed_forward"
    drops_hidden: ClassVar[bool] = True

    def build(self, shape: Shape) -> nn.Module:
        return nn.Identity()


@pytest.mark.parametrize(
    ("axis", "component", "message"),
    [
        ("attention", Added(), "attention\n.*expected a component of this axis, got Added, whose axis is position"),
        ("norm", NoAxis(), "expected NoAxis to declare axis: ClassVar.*, one of attention, .*, got None"),
        ("norm", NoKind(), r"expected NoKind to declare kind: Literal\[.*:NoKind\"\] = .*, got None"),
        ("norm", BuiltInKind(), "expected BuiltInKind to declare kind: .*test_own_component:BuiltInKind.*got 'scale'"),
        ("norm", TwoKinds(), "expected kind of TwoKinds to have no other value"),
        ("norm", Thawed(), "expected Thawed frozen and closed"),
        ("attention", NoHooks(), "the hooks of attention .*mask: the Mask.*got none of key_value_heads, mask, build"),
        ("norm", StrangeRole(), "expected roles of StrangeRole among gain, .*, got weird"),
        ("norm", IdleRole(), "norm: expected roles for parameters that it has, got wieght; it has weight"),
        ("thinking", NoRole(), r"thinking: expected roles: .*\"start\": .* how it starts .*got no role for start"),
        ("position", WrongModule(), r"position: expected build\(shape\) to return a PositionModule, got Identity"),
        ("feed_forward", Buffered(), "feed_forward: expected parameters only, .*got buffer running_mean"),
        ("feed_forward", DropsNothing(), "expected a FeedForwardModule where drops_hidden is True, got Identity"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Component) else None,
)
def test_what_cannot_work_is_refused_when_the_architecture_is_made(
    axis: str, component: Component, message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        host().vary(**{axis: component})


def test_a_built_in_on_the_wrong_axis_is_refused_as_before() -> None:
    with pytest.raises(ValidationError, match="attention"):
        host().vary(attention=Rotary())


def test_a_class_made_in_a_function_is_refused_as_its_surroundings_are_no_part_of_its_source() -> None:
    class Hidden(Component):
        kind: Literal["test_own_component:Hidden"] = "test_own_component:Hidden"
        axis: ClassVar[str] = "norm"

    with pytest.raises(ValidationError, match="expected a class at the top level of its module"):
        host().vary(norm=Hidden())


def test_the_built_ins_have_every_hook_that_is_asked_of_others() -> None:
    built_in = {
        "attention": MultiHead(heads=4),
        "position": Rotary(),
        "feed_forward": Gelu(width=4),
        "norm": host().norm,
        "residual": PreNorm(),
        "embedding": Table(),
        "sharing": host().sharing,
        "depth": FullDepth(),
        "thinking": host().thinking,
        "initialisation": Gpt2(),
    }
    for axis, hooks in HOOKS.items():
        assert [hook for hook in hooks if not hasattr(built_in[axis], hook)] == [], axis


def test_its_parameters_start_as_their_roles_say_and_count_to_its_part() -> None:
    architecture = host().vary(attention=RunningMean(), embedding=NormedTable())
    start = dict(started(architecture).named_parameters())
    assert torch.equal(start["embedding.norm.weight"], torch.ones(16))
    drawn = start["blocks.0.attention.mixing.weight"]
    assert drawn.std().item() == pytest.approx(0.02 / 2, rel=0.2)  # "residual": divided by sqrt(2 layers)
    assert parameters(architecture)["attention"] == 2 * 16 * 16
    assert parameters(architecture)["embedding"] == 29 * 16 + 16


def test_flops_that_are_no_linear_layer_are_those_that_it_tells() -> None:
    architecture = host().vary(attention=RunningMean())
    layer = 2 * (16 * 16 + 2 * 16 * 24) + 3
    assert flops_per_token(architecture).forward == 2 * layer + 2 * 29 * 16


def test_what_cannot_be_told_of_it_is_refused_and_not_guessed() -> None:
    architecture = host().vary(attention=RunningMean(), feed_forward=Dense())
    with pytest.raises(ValueError, match=r"feed_forward: expected one with a matrix `down`.*Dense, which has none"):
        memory(architecture, 4)
    with pytest.raises(ValueError, match="attention is own_components:RunningMean, expected multi_head"):
        configuration(architecture)


def test_without_a_cache_the_model_recomputes_and_says_so() -> None:
    assert host().vary(attention=RunningMean()).recomputes() == "attention own_components:RunningMean has no cache"
    assert host().vary(depth=Reversed()).recomputes() == "depth own_components:Reversed has no cache"


# --- what the suite catches


class Broken(Component):
    """A feed-forward that is wrong in the way it is told."""

    kind: Literal["test_own_component:Broken"] = "test_own_component:Broken"
    axis: ClassVar[str] = "feed_forward"
    width: int = 24
    fault: Literal["none", "future", "idle field", "draws", "no gradient"] = "none"

    def build(self, shape: Shape) -> nn.Module:
        return BrokenModule(shape.width, 24 if self.fault == "idle field" else self.width, self.fault)


class BrokenModule(BilinearModule):
    def __init__(self, width: int, inner: int, fault: str) -> None:
        super().__init__(width, inner, sharp=False)
        self.fault = fault

    def forward(self, x: Tensor) -> Tensor:
        if self.fault == "no gradient":
            return self.leave(self.gate(x))
        if self.fault == "draws" and self.training:
            x = functional.dropout(x, 0.1)
        out = super().forward(x)
        return out.roll(-1, dims=1) if self.fault == "future" else out


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("future", "a token changes earlier nats"),
        ("idle field", r"feed_forward\.width changes nothing"),
        ("draws", "training draws random numbers, which it does not declare"),
        ("no gradient", r"no gradient reaches blocks\.0\.feed_forward\.up\.weight"),
    ],
)
def test_a_broken_component_is_caught_with_the_promise_it_breaks(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_component(Broken.model_validate({"fault": fault}), ignores=set(AXES) - {"feed_forward"})


def test_a_component_that_draws_and_says_so_is_no_fault() -> None:
    with pytest.raises(AssertionError, match="draws"):
        check_randomness(host().vary(feed_forward=Broken(fault="draws")))
    Broken.draws = True  # type: ignore[attr-defined]
    try:
        architecture = host().vary(feed_forward=Broken(fault="draws"))
        assert architecture.draws
        check_randomness(architecture)
    finally:
        del Broken.draws  # type: ignore[attr-defined]
