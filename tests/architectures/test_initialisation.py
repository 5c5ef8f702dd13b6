"""Where parameters start."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from architectures.feedforward import SwiGLU
from architectures.initialisation import Gpt2, SmallInit, initialise
from architectures.norms import LayerNorm
from architectures.positions import Learned
from architectures.presets import tiny
from architectures.testing import started


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
