"""Cross-entropy under a table, in pieces: torch's own is the oracle."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from architectures.cross_entropy import LinearCrossEntropy
from architectures.embeddings import Factorised, Table
from architectures.specimens import host, moved, random_batch
from workbench.seeds import standard_normal


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return rows, a table and targets, one of which occurs several times."""
    rows, table = (
        torch.from_numpy(standard_normal(0, name, (length, 6))).to(dtype).requires_grad_()
        for name, length in (("rows", 11), ("table", 9))
    )
    return rows, table, torch.tensor([0, 8, 3, 3, 3, 1, 0, 5, 7, 2, 3])


@pytest.mark.parametrize("pieces", [1, 4, 11, 100])
def test_nats_and_gradients_are_those_of_torch(pieces: int) -> None:
    rows, table, targets = inputs()
    costs = torch.linspace(-1, 2, len(rows))  # a gradient of its own for every row, one of them none
    found = LinearCrossEntropy.apply(rows, table, targets, pieces)
    expected = functional.cross_entropy(rows @ table.t(), targets, reduction="none")
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad((nats * costs).sum(), (rows, table)) for nats in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_the_backward_pass_is_the_derivative() -> None:
    rows, table, targets = inputs(torch.float64)
    assert torch.autograd.gradcheck(lambda x, y: LinearCrossEntropy.apply(x, y, targets, 4), (rows, table))


def test_logits_that_are_far_apart_cost_what_they_are_apart() -> None:
    rows, table = torch.tensor([[200.0]]), torch.tensor([[1.0], [0.0], [-1.0]])
    nats = [LinearCrossEntropy.apply(rows, table, torch.tensor([target]), 1).item() for target in range(3)]
    assert nats == [0.0, 200.0, 400.0]


def test_two_backward_passes_through_one_forward_pass_agree() -> None:
    rows, table, targets = inputs()
    nats = LinearCrossEntropy.apply(rows, table, targets, 4).sum()
    first, second = (torch.autograd.grad(nats, (rows, table), retain_graph=True) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("choice", [Table(), Factorised(rank=4)])
def test_a_head_trains_by_it_and_is_read_without_it_alike(choice, tied, monkeypatch) -> None:
    architecture = host().vary(embedding=choice.model_copy(update={"tied": tied}))
    model, batch = moved(architecture), random_batch(architecture)
    calls = []
    apply = LinearCrossEntropy.apply
    monkeypatch.setattr(LinearCrossEntropy, "apply", lambda *given: calls.append(given) or apply(*given))
    trained = model.nats(model(batch), batch)
    with torch.no_grad():
        read = model.nats(model(batch), batch)
    assert len(calls) == 1
    torch.testing.assert_close(trained.detach(), read)
    logits = functional.cross_entropy(model.logits(model(batch).hidden).flatten(0, 1), batch.targets.flatten())
    ours, theirs = (torch.autograd.grad(cost, list(model.parameters())) for cost in (trained.mean(), logits))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
