"""One optimizer step over parts of a batch, on one device or several: the arithmetic of training.

A step is the same whatever the parts it is computed in and the devices they lie on, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from workbench.records import Numerics
from workbench.training.feeding import Fed
from workbench.training.numerics import autocast
from workbench.training.parallel import Alone

ALONE = Alone()


@dataclass(frozen=True)
class Taken:
    """What one optimizer step saw: 0-dim tensors, so that no device is waited for.

    Attributes:
        loss: Weighted mean of nats per target.
        norm: Of the gradient, before clipping.
        costs: What else was minimised, by name.
        seen: What the terms saw beside their costs, by name.
    """

    loss: torch.Tensor
    norm: torch.Tensor
    costs: dict[str, torch.Tensor] = field(default_factory=dict)
    seen: dict[str, torch.Tensor] = field(default_factory=dict)


def take_step(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Sequence[Fed],
    numerics: Numerics,
    clip: float,
    progress: float,
    step: int = 0,
    parallel: Alone = ALONE,
    idle: int = 0,
) -> Taken:
    """Do one optimizer step over `parts`, which pass through the model one after the other.

    A target counts the same wherever it stands, so that the gradient is that of all parts in one batch, on whichever
    of several devices they pass. The last `idle` parts count nothing.
    """
    loss, costs, seen = compute_gradients(objective, parts, numerics, progress, step, parallel, idle)
    norm = parallel.clip(objective.parameters(), clip)
    optimizer.step()
    loss, *rest = parallel.sums([loss, *costs.values(), *seen.values()])
    told = dict(zip((*costs, *seen), rest, strict=True))
    return Taken(loss, norm, {name: told[name] for name in costs}, {name: told[name] for name in seen})


def compute_gradients(
    objective: nn.Module,
    parts: Sequence[Fed],
    numerics: Numerics,
    progress: float,
    step: int = 0,
    parallel: Alone = ALONE,
    idle: int = 0,
) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Put the gradient of a step in place of the one before; return loss, costs and what was seen, on this device.

    Takes what `take_step` takes.
    """
    now = torch.tensor(progress, dtype=torch.float64)
    counted = [part.batch.weights for part in parts[: len(parts) - idle]]
    counted += [torch.zeros_like(part.batch.weights) for part in parts[len(counted) :]]
    total = parallel.sum(torch.stack([parallel.total(weights) for weights in counted]).sum(0))
    objective.zero_grad(set_to_none=True)
    losses, costs, seen = [], dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for place, (part, weights) in enumerate(zip(parts, counted, strict=True)):
        with parallel.accumulating(objective, last=place == len(parts) - 1):
            with autocast(numerics):
                nats, further, also = objective(part.batch, now, part.places, step)
            loss, share = parallel.total(nats * weights) / total, parallel.total(weights) / total
            further = {name: cost * share for name, cost in further.items()}
            sum(further.values(), start=loss).sum().backward()
        losses.append(loss.detach())
        costs |= {name: costs.get(name, 0.0) + cost.detach() for name, cost in further.items()}
        seen |= {name: seen.get(name, 0.0) + value * share for name, value in also.items()}
    return torch.stack(losses).sum(0), costs, seen
