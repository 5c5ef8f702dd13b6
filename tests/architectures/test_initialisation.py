"""Where parameters start."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from architectures.component import Component
from architectures.embeddings import Table
from architectures.feedforward import SwiGLU
from architectures.initialisation import DepthScaled, Gpt2, SmallInit, TorchDefault, initialise
from architectures.norms import LayerNorm
from architectures.positions import Learned
from architectures.presets import tiny
from architectures.specimens import example, host, members, started


def ones(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("scheme", "plain", "residual"),
    [
        (Gpt2(std=0.02), 0.02, 0.02 / math.sqrt(6)),
        (SmallInit(), math.sqrt(2 / (5 * 128)), 1 / (3 * math.sqrt(128))),
    ],
)
def test_each_role_starts_at_its_scale(scheme, plain, residual):
    architecture = tiny().vary(
        layers=3, initialisation=scheme, norm=LayerNorm(), position=Learned(), feed_forward=SwiGLU(width=256, bias=True)
    )
    model = architecture.build()
    initialise(model, architecture, ones)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            expected = 0.0
        elif "norm" in name:
            expected = 1.0
        else:
            expected = residual if name.endswith(("output.weight", "down.weight")) else plain
        assert torch.allclose(parameter, torch.tensor(expected)), name


def test_depth_scaled_projections_add_less_the_deeper_they_stand():
    architecture = tiny().vary(layers=4, initialisation=DepthScaled(std=0.1))
    model = architecture.build()
    initialise(model, architecture, ones)
    for layer, block in enumerate(model.blocks, start=1):
        for weight in (block.attention.output.weight, block.feed_forward.down.weight):
            assert torch.allclose(weight, torch.tensor(0.1 / math.sqrt(2 * layer)))
        assert torch.allclose(block.feed_forward.up.weight, torch.tensor(0.1))
    last = tiny().vary(layers=4, initialisation=Gpt2(std=0.1))
    model_of_last = last.build()
    initialise(model_of_last, last, ones)
    torch.testing.assert_close(model.blocks[3].state_dict(), model_of_last.blocks[3].state_dict())


def test_torch_default_has_the_distribution_of_torchs_own_layers():
    """Quantile by quantile, for both kinds of layer and for fan-ins that differ."""
    architecture = tiny().vary(initialisation=TorchDefault(), embedding=Table(tied=False), position=Learned())
    model = started(architecture)
    torch.manual_seed(0)
    for parameter, theirs in [
        (model.embedding.weight, nn.Embedding(2048, 128).weight),
        (model.position.weight, nn.Embedding(128, 128).weight),
        (model.head.weight, nn.Linear(128, 2048).weight),
        (model.blocks[0].feed_forward.up.weight, nn.Linear(128, 384).weight),
        (model.blocks[0].feed_forward.down.weight, nn.Linear(384, 128).weight),
        (model.blocks[1].attention.output.weight, nn.Linear(128, 128).weight),
    ]:
        assert parameter.shape == theirs.shape
        points = torch.linspace(0.01, 0.99, 25)
        got, expected = (torch.quantile(tensor.detach().flatten(), points) for tensor in (parameter, theirs))
        torch.testing.assert_close(got, expected, atol=0.08 * float(theirs.detach().std()), rtol=0)
    bound = 1 / math.sqrt(384)
    assert model.blocks[0].feed_forward.down.weight.abs().max() <= bound
    assert model.blocks[0].feed_forward.down.weight.abs().max() > 0.999 * bound


def test_torch_default_keeps_the_order_of_the_noise_so_that_pairing_stays():
    ours, theirs = (started(host().vary(initialisation=scheme)) for scheme in (Gpt2(), TorchDefault()))
    a, b = (model.blocks[0].attention.query.weight.flatten() for model in (ours, theirs))
    assert torch.equal(a.argsort(), b.argsort())


@pytest.mark.parametrize("kind", members("initialisation"), ids=lambda kind: kind.__name__)
def test_every_scheme_and_each_of_its_fields_changes_where_parameters_start(kind):
    def start(scheme: Component) -> torch.Tensor:
        model = started(host().vary(initialisation=scheme, layers=3))
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    scheme = example(kind)
    others = [example(other) for other in members("initialisation") if other is not kind]
    others += [scheme.vary(**{name: 0.5}) for name in kind.model_fields if name != "kind"]
    for other in others:
        assert not torch.equal(start(scheme), start(other)), other


def test_noise_is_asked_for_by_name_and_shape():
    asked = {}

    def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
        asked[name] = shape
        return ones(name, shape)

    initialise(tiny().build(), tiny(), noise)
    assert asked["embedding.weight"] == (2048, 128)
    assert asked["blocks.1.feed_forward.down.weight"] == (128, 384)
    assert "final_norm.weight" not in asked


def test_a_parameter_of_unknown_role_is_refused():
    model = tiny().build()
    model.blocks[0].gamble = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"blocks\.0\.gamble\.weight: expected the name of a known role"):
        initialise(model, tiny(), ones)


def test_a_wrapped_model_is_refused():
    with pytest.raises(ValueError, match="initialise before the model is wrapped"):
        initialise(nn.DataParallel(tiny().build()), tiny(), ones)


def test_a_model_already_cast_is_refused():
    with pytest.raises(ValueError, match=r"expected a float32 parameter on the CPU, got torch\.bfloat16 on cpu"):
        initialise(tiny().build().bfloat16(), tiny(), ones)


def test_noise_of_another_shape_or_precision_is_refused():
    with pytest.raises(ValueError, match=r"embedding\.weight: expected float32 noise of shape \(2048, 128\)"):
        initialise(tiny().build(), tiny(), lambda name, shape: np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"got torch\.float64"):
        initialise(tiny().build(), tiny(), lambda name, shape: np.ones(shape))


def test_more_vocabulary_leaves_the_blocks_as_they_were():
    small, large = started(tiny()), started(tiny().vary(vocabulary=4096))
    for (name, parameter), other in zip(small.blocks.named_parameters(), large.blocks.parameters(), strict=True):
        assert torch.equal(parameter, other), name
