"""Several models as one stack: attention under vmap, and what the contract suite says of components of the user's."""

from __future__ import annotations

from typing import ClassVar, Literal

import pytest
import torch
from own_components import Added, AddedPositions
from torch import Tensor

from architectures.backends import attend
from architectures.component import Component, Shape
from architectures.drawing import drop, stream, streams
from architectures.dropout import Dropout
from architectures.masks import Bias, LinearBias, Mask, NoBias, Places
from architectures.positions import PositionModule
from architectures.specimens import host
from architectures.testing import check_stacking


class Peeking(AddedPositions):
    def embed(self, x: Tensor, positions: Tensor | None) -> Tensor:
        return super().embed(x, positions) if x.sum().item() > 0 else x


class Told(Component):
    kind: Literal["test_stacking:Told"] = "test_stacking:Told"
    axis: ClassVar[str] = "position"
    stacks: ClassVar[bool] = True

    def build(self, shape: Shape) -> PositionModule:
        return AddedPositions(1.0)


class ByValue(Component):
    kind: Literal["test_stacking:ByValue"] = "test_stacking:ByValue"
    axis: ClassVar[str] = "position"
    stacks: ClassVar[bool] = True

    def build(self, shape: Shape) -> PositionModule:
        return Peeking(1.0)


def test_a_component_of_the_users_is_stacked_where_its_class_says_that_it_can() -> None:
    told = host().vary(position=Told())
    assert told.unstacked() is None
    check_stacking(told.vary(dropout=Dropout(residual=0.5, attention=0.5)))
    assert host().vary(position=Added()).unstacked() == (
        "position own_components:Added does not say that it can (stacks = True)"
    )


def test_a_component_that_says_so_and_looks_at_values_is_caught() -> None:
    with pytest.raises(AssertionError, match="cannot pass as one stack"):
        check_stacking(host().vary(position=ByValue()))


def test_a_model_whose_gradient_differs_in_a_stack_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = AddedPositions.embed

    def embed(self: AddedPositions, x: Tensor, positions: Tensor | None) -> Tensor:
        return real(self, x.detach() if torch._C._functorch.is_batchedtensor(x) else x, positions)

    monkeypatch.setattr(AddedPositions, "embed", embed)
    with pytest.raises(AssertionError, match=r"the gradient of .* in a stack differs"):
        check_stacking(host().vary(position=Told()))


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
@pytest.mark.parametrize("bias", [NoBias(), LinearBias((0.5, 0.25, 0.1, 0.05))], ids=["plain", "linear"])
@pytest.mark.parametrize("places", ["plain", "shared", "own"])
@pytest.mark.parametrize("window", [None, 3])
def test_attention_of_a_stack_is_that_of_each_model(backend: str, bias: Bias, places: str, window: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(3, 2, 4, 6, 8, generator=generator, requires_grad=True)  # models, batch, heads, time, width
    k, v = (torch.randn(3, 2, 2, 6, 8, generator=generator, requires_grad=True) for _ in range(2))
    documents = torch.randint(0, 2, (3, 2, 6), generator=generator).sort(dim=-1).values
    positions = torch.arange(6).expand(3, 2, 6) + documents

    def mixed(q: Tensor, k: Tensor, v: Tensor, positions: Tensor, documents: Tensor) -> Tensor:
        where = {"plain": Places(), "shared": Places(shared, shared)}.get(places)
        where = where or Places(positions, positions, documents, documents)
        return attend(q, k, v, mask=Mask(window=window), bias=bias, places=where, backend=backend)

    shared = torch.arange(6) * 2
    stacked = torch.vmap(mixed)(q, k, v, positions, documents)
    alone = torch.stack([mixed(*held) for held in zip(q, k, v, positions, documents, strict=True)])
    torch.testing.assert_close(stacked, alone)
    weights = torch.randn(alone.shape, generator=generator)
    for got, expected in zip(
        *(torch.autograd.grad((x * weights).sum(), (q, k, v)) for x in (stacked, alone)), strict=True
    ):
        torch.testing.assert_close(got, expected)


def test_keys_that_all_models_share_are_folded_too() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(3, 2, 4, 6, 8, generator=generator), torch.randn(2, 4, 6, 8, generator=generator)

    def mixed(q: Tensor) -> Tensor:
        return attend(q, k, k, mask=Mask(), bias=NoBias())

    torch.testing.assert_close(torch.vmap(mixed)(q), torch.stack([mixed(one) for one in q]))


def test_every_model_of_a_stack_drops_from_its_own_stream() -> None:
    x = torch.ones(3, 2, 50)
    states = []
    for seed in range(3):
        torch.manual_seed(seed)
        states.append(stream("cpu"))
    with streams(states):
        stacked = torch.vmap(lambda x: drop(drop(x, 0.5), 0.25))(x)
    for seed in range(3):
        torch.manual_seed(seed)
        assert torch.equal(stacked[seed], drop(drop(x[seed], 0.5), 0.25))
    with pytest.raises(RuntimeError, match="expected one for each of 3 models that draw together, got none"):
        torch.vmap(lambda x: drop(x, 0.5))(x)
