"""How a plan's runs are carried out: on how many devices, compiled or not, with activations kept or computed again.

Resolved once per plan, like all numerics. Refuses by name what cannot be carried out so.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from architectures.architecture import Architecture
from architectures.dropout import Constant
from workbench.errors import PlanError
from workbench.records import Numerics
from workbench.training.objective import Objective

BACKEND = "inductor"


def executing(
    numerics: Numerics,
    architectures: Sequence[Architecture],
    *,
    devices: int = 1,
    sharded: bool = False,
    compiled: bool = False,
    recompute: bool = False,
) -> Numerics:
    """Return the numerics of a plan with how its runs are carried out, see `records.Numerics`.

    Raises:
        PlanError: if there are not as many devices, nothing to shard, or an arm cannot be compiled.
    """
    if devices > 1 and numerics.device == "cuda" and devices > torch.cuda.device_count():
        raise PlanError(
            "a run asks for more GPUs than there are",
            where="numerics.devices (--devices)",
            expected=f"at most {torch.cuda.device_count()}",
            got=devices,
            fix='--devices with fewer, or numerics=NumericsRequest(device="cpu") for processes without one',
        )
    if sharded and devices == 1:
        raise PlanError(
            "there is nothing to shard over",
            where="numerics.sharded (--sharded)",
            expected="--devices 2 or more",
            got=1,
        )
    wanted = {"devices": devices if devices > 1 else None, "compiled": compiled, "recompute": recompute}
    if numerics.execution != "loop" and any(wanted.values()):
        raise PlanError(
            "runs that share a device step as one model, in one way only",
            where="numerics.execution (--execution)",
            expected=f"loop with {', '.join(name for name, value in wanted.items() if value)}",
            got=numerics.execution,
        )
    if compiled:
        for architecture in architectures:
            refuse_uncompilable(architecture)
    told = {"devices": devices, "sharded": sharded, "compiled": compiled, "recompute": recompute}
    return numerics.model_copy(update=told)


def refuse_uncompilable(architecture: Architecture) -> None:
    """Refuse to compile a model whose steps differ from each other in more than their numbers.

    Raises:
        PlanError: naming the component.
    """
    reason = None
    if not isinstance(architecture.dropout.schedule, Constant):
        reason = f"dropout.schedule {architecture.dropout.schedule.kind}, which changes the rates in every step"
    elif architecture.depth.kind == "layer_skip":
        reason = "depth layer_skip, in which other sequences skip other blocks in every step"
    elif architecture.embedding.reads_bytes:
        reason = f"embedding {architecture.embedding.kind}, whose batches differ in shape in every step"
    elif getattr(architecture.thinking, "draws", False):
        reason = f"thinking {architecture.thinking.kind} at random places"
    if reason is not None:
        raise PlanError(
            "an arm cannot be compiled",
            where="numerics.compiled",
            expected="an architecture whose training steps are alike",
            got=reason,
            fix="leave compiled out for every arm, or compare other architectures",
        )


def prepared(objective: Objective, numerics: Numerics) -> Objective:
    """Make an objective train as `numerics` says, before it is replicated or sharded; parameters keep their names."""
    objective.model.recompute = numerics.recompute
    if numerics.compiled:
        # sharded weights come and go between blocks, where a graph must end
        for unit in objective.model.blocks if numerics.sharded else (objective,):
            unit.compile(backend=BACKEND)
    return objective
