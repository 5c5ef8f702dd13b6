"""Optimizers as choices: AdamW, Lion, Muon. A specification builds the optimizer of a model.

Which parameters decay is the same in all: those of two dimensions or more (matrices, tables) do, gains and biases do
not. A learning rate is the peak; the schedule multiplies every rate of an optimizer by the same factor. An optimizer
keeps all of its state per parameter in `state`, as tensors, so that a checkpoint holds it bit for bit, and never hides
a gradient that is not finite: the weights stop being finite with it. Refuses momentum outside [0, 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Discriminator, Field, Tag
from torch import Tensor, nn

from architectures.accounting import part_of
from workbench.identity import Spec, added, setting
from workbench.training.lowbit import EightBitAdamW, bytes_per_element

Momentum = Annotated[float, Field(ge=0, lt=1)]
BY_MUON = ("attention", "feed_forward")
ONE_MOMENT, TWO_MOMENTS = 4.0, 8.0  # bytes of float32 per element


class AdamW(Spec):
    """AdamW (arXiv 1711.05101). Matrices decay, vectors (gains, biases) do not; the rule is by number of dimensions.

    Attributes:
        learning_rate: Peak.
        betas: Of the two moments.
        epsilon: Added to the root of the second.
        weight_decay: Of what decays, per unit of learning rate.
        states: How the two moments are kept: "int8" in blocks with a scale each (`lowbit.EightBitAdamW`).
    """

    kind: Literal["adamw"] = "adamw"
    learning_rate: float = setting(default=3e-3, effect="training", gt=0)
    betas: tuple[Momentum, Momentum] = setting(default=(0.9, 0.95), effect="training")
    epsilon: float = setting(default=1e-8, effect="training", gt=0)
    weight_decay: float = setting(default=0.1, effect="training", ge=0)
    states: Literal["float32", "int8"] = added("float32", effect="training")

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return AdamW over two groups: what decays and what does not."""
        if self.states == "int8":
            groups = _groups(model.parameters(), self.weight_decay)
            return EightBitAdamW(groups, self.learning_rate, self.betas, self.epsilon)
        return _adamw(model.parameters(), self.learning_rate, self.betas, self.epsilon, self.weight_decay)

    def moments(self, name: str, shape: tuple[int, ...]) -> float:
        """Return the bytes kept per element of the parameter of that name and shape."""
        return TWO_MOMENTS if self.states == "float32" else bytes_per_element(shape)


class Lion(Spec):
    """Lion, the sign of an interpolated momentum (arXiv:2302.06675, algorithm 2).

    Every weight moves by the learning rate in every step, which is why its authors (section 5) take a rate 3 to 10
    times smaller than AdamW's, and a weight decay as many times larger, so that their product stays.

    Attributes:
        learning_rate: Peak.
        betas: Share of the momentum in the update, and in the next momentum.
        weight_decay: Of what decays, per unit of learning rate.
    """

    kind: Literal["lion"] = "lion"
    learning_rate: float = setting(default=3e-4, effect="training", gt=0)
    betas: tuple[Momentum, Momentum] = setting(default=(0.9, 0.99), effect="training")
    weight_decay: float = setting(default=1.0, effect="training", ge=0)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return Lion over two groups: what decays and what does not."""
        return _SignMomentum(_groups(model.parameters(), self.weight_decay), self.learning_rate, self.betas)

    def moments(self, name: str, shape: tuple[int, ...]) -> float:
        """Return the bytes kept per element of the parameter of that name and shape."""
        return ONE_MOMENT


class Muon(Spec):
    """Muon, momentum made orthogonal (Jordan 2024; arXiv:2502.16982), for the matrices of attention and feed-forward.

    All else (token table, head, positions, gains, biases, and what other components own) is trained by AdamW, as its
    authors do. Newton-Schulz iterations are done in bfloat16 on every device; their cost comes on top of the FLOPs per
    token of a plan, which are the model's.

    Attributes:
        learning_rate: Peak of what AdamW trains.
        matrix_learning_rate: Peak of the matrices.
        adjustment: How the rate of a matrix depends on its shape: "match_rms_adamw", 0.2 sqrt(larger side), which lets
            it share AdamW's rate and decay (arXiv:2502.16982 eq. 4), or "original", sqrt(rows / columns) where above 1.
        momentum: Share of the old momentum in the new, and of that in the update (Nesterov).
        iterations: Newton-Schulz iterations per step.
        betas: Of AdamW.
        epsilon: Of AdamW.
        weight_decay: Of what decays, whichever of the two trains it.
    """

    kind: Literal["muon"] = "muon"
    learning_rate: float = setting(default=3e-3, effect="training", gt=0)
    matrix_learning_rate: float = setting(default=3e-3, effect="training", gt=0)
    adjustment: Literal["match_rms_adamw", "original"] = setting(default="match_rms_adamw", effect="training")
    momentum: Momentum = setting(default=0.95, effect="training")
    iterations: int = setting(default=5, effect="training", ge=1, le=20)
    betas: tuple[Momentum, Momentum] = setting(default=(0.9, 0.95), effect="training")
    epsilon: float = setting(default=1e-8, effect="training", gt=0)
    weight_decay: float = setting(default=0.1, effect="training", ge=0)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return Muon over the matrices of attention and feed-forward beside AdamW over everything else."""
        named = list(model.named_parameters())
        chosen = {name for name, parameter in named if _by_muon(name, parameter.shape)}
        muon = torch.optim.Muon(
            [parameter for name, parameter in named if name in chosen],
            lr=self.matrix_learning_rate,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            ns_steps=self.iterations,
            adjust_lr_fn=self.adjustment,
        )
        others = [parameter for name, parameter in named if name not in chosen]
        return _Together(muon, _adamw(others, self.learning_rate, self.betas, self.epsilon, self.weight_decay))

    def moments(self, name: str, shape: tuple[int, ...]) -> float:
        """Return the bytes kept per element of the parameter of that name and shape."""
        return ONE_MOMENT if _by_muon(name, shape) else TWO_MOMENTS


def make_optimizer(model: nn.Module, recipe: AdamW | Lion | Muon) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe; every group keeps its peak rate as "peak", for `set_rates`."""
    optimizer = recipe.build(model)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every learning rate to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


class _SignMomentum(torch.optim.Optimizer):
    """The arithmetic of Lion: c = lerp(m, g, 1 - beta_1); w -= rate (sign(c) + decay w); m = lerp(m, g, 1 - beta_2)."""

    def __init__(self, groups: Iterable[dict[str, Any]], rate: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": rate, "betas": betas})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do one step with the gradients that are there; a parameter without one is left as it is."""
        for group in self.param_groups:
            weights = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not weights:
                continue
            gradients = [weight.grad for weight in weights]
            moments = [self._momentum(weight) for weight in weights]
            now, kept = group["betas"]
            mixed = torch._foreach_lerp(moments, gradients, 1 - now)
            updates = torch._foreach_sign(mixed)
            # torch's sign of nan is 0, which would freeze a diverged run and call it finished
            torch._foreach_mul_(mixed, 0.0)
            torch._foreach_add_(updates, mixed)
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, updates, alpha=-group["lr"])
            torch._foreach_lerp_(moments, gradients, 1 - kept)

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"]
        return momentum


class _Together(torch.optim.Optimizer):
    """Two optimizers over different parameters of one model, as one: the groups of both, and one state for both."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        self.param_groups = [group for part in parts for group in part.param_groups]
        for part in parts:
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do one step of each."""
        for part in self.parts:
            part.step()


def _by_muon(name: str, shape: Sequence[int]) -> bool:
    return len(shape) == 2 and part_of(name) in BY_MUON


def _adamw(
    parameters: Iterable[nn.Parameter], rate: float, betas: tuple[float, float], epsilon: float, decay: float
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(_groups(parameters, decay), lr=rate, betas=betas, eps=epsilon, fused=True)


def _groups(parameters: Iterable[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Return what decays and what does not, as far as there is any of each."""
    held = list(parameters)
    matrices = [parameter for parameter in held if parameter.ndim >= 2]
    others = [parameter for parameter in held if parameter.ndim < 2]
    groups = ({"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def _kind(value: Any) -> Any:
    return value.get("kind", "adamw") if isinstance(value, dict) else getattr(value, "kind", None)


Optimizer = Annotated[
    Annotated[AdamW, Tag("adamw")] | Annotated[Lion, Tag("lion")] | Annotated[Muon, Tag("muon")],
    Discriminator(_kind),  # a file that names no kind means what it meant when there was one
]
