"""Probes: what a run tells of itself beside its loss, as further columns of the learning curve.

Looked at are the norm of the weights and of their gradient, and how far a step moves the weights, over all and by part
of the model (`architectures.accounting.part_of`); the root mean square of the residual stream after each block; the
share of dead units of each feed-forward whose activation is zero for negative values; and, where asked for, how far
the gradients of several steps agree. A probe draws nothing and changes no bit of the weights, so that it is no part of
identity.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from architectures.accounting import part_of
from architectures.feedforward import FeedForwardModule
from architectures.transformer import Transformer
from workbench.identity import Spec, setting
from workbench.training.parallel import gathered

LEAST = 10  # steps between two probes, which keeps what they cost below 3 % (tests/benchmarks/overhead.py)


class Probes(Spec):
    """What is looked at while a model trains, and how often.

    Attributes:
        points: Points of the learning curve at which weights, gradients and activations are looked at, evenly spaced,
            but at most one in ten steps. 0 is none.
        agreement_every: Steps between two measurements of how far gradients agree; 0 is none. Each computes
            `gradients` further gradients and so costs as much as that many steps.
        gradients: How many gradients are compared: those of the text of the last steps, at the weights as they stand.
    """

    points: int = setting(default=20, effect="efficiency", ge=0)
    agreement_every: int = setting(default=0, effect="efficiency", ge=0)
    gradients: int = setting(default=10, effect="efficiency", ge=2)


class Prober:
    """Looks at one run as its rule says.

    Args:
        rule: Of the stage.
        model: What is trained.
        steps: Of the run.
        interval: Steps between two points of its curve.
        compiled: Whether the model is compiled: its activations are then not to be seen.
    """

    def __init__(self, rule: Probes, model: Transformer, steps: int, interval: int, compiled: bool = False) -> None:
        self.rule, self._model, self._compiled = rule, model, compiled
        every = max(LEAST, steps // rule.points) if rule.points else 0
        self._looked = _points(every, steps, interval)
        self._compared = _points(rule.agreement_every, steps, interval)
        self._row: dict[str, float] = {}
        self._clipped = 0.0

    def looks(self, done: int) -> bool:
        """Say whether the step after which `done` are is looked at."""
        return done in self._looked

    @contextlib.contextmanager
    def over(self, done: int) -> Iterator[None]:
        """Take a step in it, after which `done` are; leaves gradients and weights as they are."""
        self._row = {}
        if done not in self._looked:
            yield
            return
        # on the CPU, so that an accelerator's memory holds no weight twice
        before = [gathered(weight.detach()).to("cpu", copy=True) for weight in self._model.parameters()]
        seen: dict[int, list[Tensor]] = {}
        alive: dict[int, list[Tensor]] = {}
        hooks = []
        for place, block in enumerate([] if self._compiled else self._model.blocks, 1):
            hooks.append(block.register_forward_hook(partial(_see, seen, place)))
            for layer in block.modules():
                if isinstance(layer, FeedForwardModule) and _can_die(layer):
                    hooks.append(layer.down.register_forward_pre_hook(partial(_see_alive, alive, place)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        self._row = self._norms(before)
        for place, squares in sorted(seen.items()):
            self._row[f"residual_rms/{place}"] = math.sqrt(torch.stack(squares).mean().item())
        for place, units in sorted(alive.items()):
            self._row[f"dead_units/{place}"] = 1 - torch.stack(units).any(0).float().mean().item()

    def compares(self, done: int) -> bool:
        """Say whether gradients are to be compared after `done` steps."""
        return done in self._compared

    def compare(self, gradients: Iterable[object]) -> None:
        """Add how far gradients agree: the mean cosine between two of them, by layer, and its mean over layers.

        Args:
            gradients: Puts one after the other into the parameters of the model.
        """
        buffers = [buffer.clone() for buffer in self._model.buffers()]
        self._row |= mean_cosines(self._model, gradients)
        for buffer, held in zip(self._model.buffers(), buffers, strict=True):
            buffer.copy_(held)

    def row(self, norm: float) -> dict[str, float]:
        """Return what was seen of the last step, given the norm of its gradient before clipping."""
        scale = norm / self._clipped if self._clipped else 1.0
        return {
            name: value * scale if name.startswith("gradient_norm/") else value for name, value in self._row.items()
        }

    def _norms(self, before: list[Tensor]) -> dict[str, float]:
        squares: dict[str, list[tuple[str, Tensor]]] = {"weight": [], "gradient": [], "update": []}
        for (name, weight), held in zip(self._model.named_parameters(), before, strict=True):
            part, now = part_of(name), gathered(weight.detach())
            squares["weight"].append((part, _square(held)))
            squares["update"].append((part, _square(now - held.to(now.device))))
            if weight.grad is not None:
                squares["gradient"].append((part, _square(gathered(weight.grad))))
        weights, gradients, updates = (_by_part(squares[kind]) for kind in ("weight", "gradient", "update"))
        self._clipped = gradients.pop("", 0.0)
        row = {_named("weight_norm", part): norm for part, norm in weights.items()}
        row |= {_named("gradient_norm", part): norm for part, norm in gradients.items()}
        return row | {_named("update_ratio", part): updates[part] / norm for part, norm in weights.items() if norm > 0}


def mean_cosines(model: nn.Module, gradients: Iterable[object]) -> dict[str, float]:
    """Return the mean cosine between two gradients, for every block and every other part, and its mean over them.

    With unit vectors u of n gradients it is (|sum u|^2 - n) / (n (n - 1)), so that no two gradients are held at once.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    layers = {name: _layer(name) for name, _ in model.named_parameters()}
    for _ in gradients:
        held: dict[str, list[Tensor]] = {}
        for name, weight in model.named_parameters():
            if weight.grad is not None:
                held.setdefault(layers[name], []).append(gathered(weight.grad).detach().float().flatten())
        for layer, parts in held.items():
            flat = torch.cat(parts)
            norm = torch.linalg.vector_norm(flat)
            if norm > 0:
                sums[layer] = sums.get(layer, 0.0) + flat / norm
                counts[layer] = counts.get(layer, 0) + 1
    cosines = {
        layer: (_square(sums[layer]).item() - count) / (count * (count - 1))
        for layer, count in counts.items()
        if count > 1
    }
    if not cosines:
        return {}
    mean = sum(cosines.values()) / len(cosines)
    return {"gradient_cosine": mean} | {f"gradient_cosine/{layer}": value for layer, value in cosines.items()}


def _points(every: int, steps: int, interval: int) -> set[int]:
    """Return the first point of the curve at or after each `every` steps."""
    return {math.ceil(step / interval) * interval for step in range(every, steps + 1, every)} if every else set()


def _see(seen: dict[int, list[Tensor]], place: int, block: nn.Module, given: Any, x: Tensor) -> None:
    seen.setdefault(place, []).append(_square(x.detach()) / x.numel())


def _can_die(layer: FeedForwardModule) -> bool:
    """Say whether the activation of a feed-forward is zero for negative values, as a ReLU's is."""
    activation = getattr(layer, "activation", None)
    with torch.no_grad():
        return activation is not None and not activation(torch.tensor([-1.0, -2.0])).any()


def _see_alive(alive: dict[int, list[Tensor]], place: int, down: nn.Module, given: tuple[Tensor, ...]) -> None:
    """Take in which hidden units, (..., inner), are not zero at some position; a dead one is zero at all of a step."""
    alive.setdefault(place, []).append((given[0].detach() != 0).flatten(0, -2).any(0))


def _square(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dtype=torch.float32)
    return norm.square()


def _by_part(squares: list[tuple[str, Tensor]]) -> dict[str, float]:
    """Return the norm of everything, as "", and of every part."""
    sums: dict[str, float] = {"": 0.0}
    values = torch.stack([square.cpu() for _, square in squares]).tolist() if squares else []
    for (part, _), value in zip(squares, values, strict=True):
        sums[""] += value
        sums[part] = sums.get(part, 0.0) + value
    return {part: math.sqrt(value) for part, value in sums.items()}


def _named(quantity: str, part: str) -> str:
    return f"{quantity}/{part}" if part else quantity


def _layer(name: str) -> str:
    block = re.match(r"blocks\.(\d+)\.", name)
    return f"block/{int(block[1]) + 1}" if block else part_of(name)
