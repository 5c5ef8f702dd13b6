"""Pruning and quantisation of a trained model, against naive loops and torch's own fake quantisation."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from architectures.architecture import AXES, Architecture
from architectures.embeddings import Table
from architectures.posthoc import matrices, prune, quantise
from architectures.sharing import Adapted, Shared
from architectures.specimens import HOSTS, example, host, members, moved, nats_of, random_batch
from architectures.transformer import Transformer

SMALL = host()


def weights(model: Transformer) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def untouched(before: dict[str, Tensor], after: dict[str, Tensor], touched: set[str]) -> None:
    for name in before.keys() - touched:
        assert torch.equal(before[name], after[name]), name


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("embeddings", [False, True])
def test_pruning_the_model_zeroes_the_smallest_weights_of_all_matrices_together(share: float, embeddings: bool) -> None:
    model = moved(SMALL)
    before, chosen = weights(model), matrices(model, embeddings=embeddings)
    everything = sorted(float(weight.abs()) for name in chosen for weight in before[name].flatten())
    count = round(share * len(everything))
    prune(model, share, embeddings=embeddings)
    after = weights(model)
    assert sum(int((after[name] == 0).sum()) for name in chosen) == count
    threshold = everything[count] if count < len(everything) else float("inf")
    for name in chosen:
        assert torch.equal(after[name], torch.where(before[name].abs() < threshold, 0.0, before[name]))
    untouched(before, after, set(chosen))


@settings(max_examples=15)
@given(share=st.floats(0, 1))
def test_pruning_each_matrix_takes_the_same_share_of_every_one(share: float) -> None:
    model = moved(SMALL.vary(layers=1))
    before = weights(model)
    prune(model, share, scope="matrix")
    after = weights(model)
    for name in matrices(model):
        smallest = sorted(before[name].flatten().tolist(), key=abs)[: round(share * before[name].numel())]
        assert int((after[name] == 0).sum()) == len(smallest)
        assert not set(smallest) - {0.0} & set(after[name].flatten().tolist())


def test_equal_magnitudes_are_pruned_in_order_and_never_one_too_many() -> None:
    model = moved(SMALL)
    with torch.no_grad():
        for parameter in matrices(model).values():
            parameter.fill_(-0.5)
    prune(model, 0.25)
    kept = torch.cat([parameter.flatten() for parameter in matrices(model).values()]) != 0
    assert int((~kept).sum()) == round(0.25 * len(kept))
    assert kept[int((~kept).sum()) :].all()


@pytest.mark.parametrize("embeddings", [False, True])
def test_quantised_rows_are_those_of_a_naive_loop_and_of_torchs_fake_quantisation(embeddings: bool) -> None:
    model = moved(SMALL)
    before, chosen = weights(model), matrices(model, embeddings=embeddings)
    quantise(model, embeddings=embeddings)
    after = weights(model)
    for name in chosen:
        scale = before[name].abs().amax(dim=1) / 127
        zeros = torch.zeros(len(scale), dtype=torch.int32)
        theirs = torch.fake_quantize_per_channel_affine(before[name], scale, zeros, 0, -127, 127)
        torch.testing.assert_close(after[name], theirs, rtol=1e-6, atol=1e-7)
        row = before[name][1].tolist()
        step = max(abs(weight) for weight in row) / 127
        naive = torch.tensor([round(weight / step) * step for weight in row])
        torch.testing.assert_close(after[name][1], naive, rtol=1e-5, atol=1e-6)
        assert len(after[name][0].unique()) <= 255
        assert not torch.equal(before[name], after[name])
    untouched(before, after, set(chosen))


def test_quantising_twice_is_quantising_once_and_a_row_of_zeros_stays() -> None:
    model = moved(SMALL)
    with torch.no_grad():
        model.blocks[0].attention.query.weight[2] = 0.0  # type: ignore[union-attr,index]
    quantise(model)
    once = weights(model)
    quantise(model)
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all()
        torch.testing.assert_close(parameter.detach(), once[name], rtol=1e-6, atol=0)
    assert not once["blocks.0.attention.query.weight"][2].any()


@pytest.mark.parametrize(
    "architecture",
    [
        SMALL.vary(sharing=Shared(part="block")),
        SMALL.vary(sharing=Adapted(rank=2, alpha=4.0)),
        SMALL.vary(embedding=Table(tied=False)),
    ],
)
def test_matrices_that_layers_share_are_changed_once_and_adapters_are_matrices_too(architecture: Architecture) -> None:
    model = moved(architecture)
    names = [name for name, parameter in model.named_parameters() if name.startswith("blocks") and parameter.ndim == 2]
    assert list(matrices(model)) == names
    prune(model, 0.5)
    zeros = sum(int((parameter == 0).sum()) for parameter in matrices(model).values())
    assert zeros == round(0.5 * sum(parameter.numel() for parameter in matrices(model).values()))
    assert ("head.weight" in matrices(model, embeddings=True)) == (architecture.embedding == Table(tied=False))


@pytest.mark.parametrize("axis", [axis for axis in AXES if axis != "initialisation"])
def test_every_choice_of_every_axis_can_be_pruned_and_quantised_and_goes_on_predicting(axis: str) -> None:
    for kind in members(axis):
        architecture = SMALL.vary(**HOSTS.get(axis, {}), **{axis: example(kind)})
        model, batch = moved(architecture), random_batch(architecture)
        nats = [nats_of(model, batch)]
        for change in (quantise, partial(prune, share=0.5, embeddings=True)):
            change(model)
            nats.append(nats_of(model, batch))
        assert nats[-1].isfinite().all(), kind.__name__
        assert not torch.equal(nats[0], nats[1]), kind.__name__
        assert not torch.equal(nats[1], nats[2]), kind.__name__


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share: expected 0 to 1"):
        prune(moved(SMALL), share)
