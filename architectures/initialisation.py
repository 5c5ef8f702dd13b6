"""Where parameters start: a scale times noise that is keyed by the parameter's name.

`initialise` asks the caller for noise per (name, shape) and never draws any itself, so that two variants start every
parameter they share from the same noise. Gains start at 1 and biases at 0 under every scheme.

Refuses a parameter whose role it does not know, and a model that is no longer the plain float32 model on the CPU that
`Architecture.build` returned: compiled, sharded or wrapped models have other names, and other names have other noise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from architectures.component import Component

if TYPE_CHECKING:
    from architectures.transformer import Architecture

Noise = Callable[[str, tuple[int, ...]], "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]

ROLES = {
    "gain": r"(blocks\.\d+\.\w+_norm|final_norm)\.weight",
    "bias": r"(.+\.)?bias",
    "table": r"(embedding|position|head)\.weight",
    "residual": r"blocks\.\d+\.(attention\.output|feed_forward\.down)\.weight",
    "projection": r"blocks\.\d+\.(attention\.(query|key|value)|feed_forward\.(gate|up))\.weight",
}


class Gpt2(Component):
    """std for everything, std / sqrt(2 layers) for projections into the residual stream (GPT-2, section 2.3)."""

    kind: Literal["gpt2"] = "gpt2"
    std: float = Field(0.02, gt=0)

    def deviation(self, role: str, width: int, layers: int) -> float:
        """Return the standard deviation of a parameter of this role."""
        return self.std / math.sqrt(2 * layers) if role == "residual" else self.std


class SmallInit(Component):
    """sqrt(2 / (5 width)) for everything (Nguyen & Salazar 2019, arXiv:1910.05895).

    Projections into the residual stream start at 1 / (layers sqrt(width)), as in TinyLlama's code.
    """

    kind: Literal["small"] = "small"

    def deviation(self, role: str, width: int, layers: int) -> float:
        """Return the standard deviation of a parameter of this role."""
        return 1 / (layers * math.sqrt(width)) if role == "residual" else math.sqrt(2 / (5 * width))


Initialisation = Annotated[Gpt2 | SmallInit, Field(discriminator="kind")]


def initialise(model: nn.Module, architecture: Architecture, noise: Noise) -> None:
    """Set every parameter of a freshly built model.

    Args:
        model: What `architecture.build()` returned: float32, on the CPU, not compiled, sharded or wrapped.
        architecture: Names the scheme.
        noise: (parameter name, shape) to standard normal float32 noise, with the seed bound by the caller.

    Raises:
        ValueError: for a parameter of unknown role, device or precision, or noise of another shape.
    """
    for name, parameter in model.named_parameters():
        role = role_of(name)
        if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
            raise ValueError(
                f"{name}: expected a float32 parameter on the CPU, got {parameter.dtype} on {parameter.device}; "
                "initialise first, then cast, move, shard or compile"
            )
        with torch.no_grad():
            if role in ("gain", "bias"):
                parameter.fill_(1.0 if role == "gain" else 0.0)
                continue
            drawn = torch.from_numpy(noise(name, tuple(parameter.shape)))
            if drawn.shape != parameter.shape or drawn.dtype != torch.float32:
                raise ValueError(
                    f"{name}: expected float32 noise of shape {tuple(parameter.shape)}, "
                    f"got {drawn.dtype} of {tuple(drawn.shape)}"
                )
            deviation = architecture.initialisation.deviation(role, architecture.width, architecture.layers)
            torch.mul(drawn, deviation, out=parameter)


def role_of(name: str) -> str:
    """Return the role of a parameter, a key of `ROLES`.

    Raises:
        ValueError: for a name that no rule covers.
    """
    for role, pattern in ROLES.items():
        if re.fullmatch(pattern, name):
            return role
    raise ValueError(
        f"{name}: expected the name of a known role ({', '.join(ROLES)}), got one that no rule covers; "
        "add it to ROLES in architectures/initialisation.py, or initialise before the model is wrapped"
    )
