"""One run on several devices: every device steps through the same loop with its share of each step's sequences.

The loss is divided by the weights of the whole step and gradients are *summed* over the devices, so that a step is that
of one process whatever the number of devices and however unevenly they share it: up to rounding, except where training
draws random numbers, which every device draws from a stream of its own. What decides the course of a run (loss,
gradient norm, a wish to stop) is agreed on, so that all devices end together. Checkpoints hold whole tensors under
the names of one process: saved on two devices, resumed on one, and the reverse.

`Replicated` keeps the model on every device, `Sharded` a share of every tensor (weights, gradients, moments). Processes
are started as torchrun starts them and find each other through its environment variables, or through a file.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from architectures.architecture import Architecture
from workbench.errors import WorkbenchError
from workbench.records import Numerics

if TYPE_CHECKING:
    from workbench.training.objective import Objective

MEETING = "WORKBENCH_MEETING"  # a file through which the processes of one machine find each other
PATIENCE = datetime.timedelta(hours=1)  # for a device that is late; one that is gone is noticed at once
EVERY_BLOCK = ("full", "mixture_of_depths")  # depth choices that pass through the same blocks on every device


@dataclass(frozen=True)
class Passing:
    """Sequences of a step that pass through the model at once.

    Attributes:
        first: The first of them, counted in the step.
        count: How many.
        counts: False where a device has nothing left to do, and keeps the others company with sequences that another
            one counts.
    """

    first: int
    count: int
    counts: bool = True


class Alone:
    """One process: the whole of every step, and nobody to agree with."""

    rank, size = 0, 1
    whole = True  # whether the tensors of the model are whole on every device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes, tells and scores."""
        return self.rank == 0

    def passes(self, sequences: int, together: int | None) -> list[Passing]:
        """Return what of a step of `sequences` passes through the model here, as many passes on every device.

        Args:
            sequences: Of the step, on all devices.
            together: The most that pass through one device at once; None is its share of the step.
        """
        mine = sequences * self.rank // self.size, sequences * (self.rank + 1) // self.size
        longest = -(-sequences // self.size)
        together = together or longest
        starts = [mine[0] + begin for begin in range(0, longest, together)]
        company = Passing(mine[0] if mine[0] < mine[1] else 0, 1, counts=False)
        return [Passing(start, min(together, mine[1] - start)) if start < mine[1] else company for start in starts]

    def stream(self, name: str) -> str:
        """Return the name of this device's stream of random numbers."""
        return name if self.leads else f"{name}/rank/{self.rank}"

    def wrap(self, objective: Objective, architecture: Architecture) -> nn.Module:
        """Return what is called for a forward pass; made before the optimizer, which is that of its parameters."""
        return objective

    @contextlib.contextmanager
    def accumulating(self, wrapped: nn.Module, last: bool) -> Iterator[None]:
        """Do a forward and backward pass in it; gradients are those of all devices after the `last` of a step."""
        yield

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
        """Scale gradients down to a global norm of `limit`; return the norm before, over all devices."""
        return torch.nn.utils.clip_grad_norm_(parameters, limit)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of values of sequences that pass here, (batch, time), as one number per model."""
        return values.sum()

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a 0-dim tensor over all devices."""
        return value

    def sums(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return the sum of every 0-dim tensor over all devices."""
        return list(values)

    def most(self, *values: float) -> tuple[float, ...]:
        """Return the largest of each value over all devices; of flags, whether any device has it."""
        return values

    def wait(self) -> None:
        """Wait for all devices."""


class Replicated(Alone):
    """The model on every device, gradients summed while they are computed (DistributedDataParallel).

    Args:
        device: "cpu" or "cuda".

    The process group must be there (`joined`).
    """

    def __init__(self, device: str) -> None:
        from torch import distributed

        self._device, self._group = device, distributed
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def wrap(self, objective: Objective, architecture: Architecture) -> nn.Module:
        """Return the objective, replicated."""
        from torch.nn.parallel import DistributedDataParallel

        # a component may leave parameters out of a step; it also keeps buckets, and with them rounding, as they are
        wrapped = DistributedDataParallel(objective, find_unused_parameters=True, gradient_as_bucket_view=True)
        wrapped.register_comm_hook(None, _summed)
        return wrapped

    @contextlib.contextmanager
    def accumulating(self, wrapped: nn.Module, last: bool) -> Iterator[None]:
        """Do a forward and backward pass in it; gradients are summed in the `last` of a step."""
        with contextlib.nullcontext() if last else wrapped.no_sync():  # type: ignore[operator]
            yield

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a 0-dim tensor over all devices."""
        summed = value.clone()
        self._group.all_reduce(summed)
        return summed

    def sums(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return the sum of every 0-dim tensor over all devices."""
        summed = self.sum(torch.stack([value.double() for value in values]))
        return [one.to(value.dtype) for value, one in zip(values, summed, strict=True)]

    def most(self, *values: float) -> tuple[float, ...]:
        """Return the largest of each value over all devices; of flags, whether any device has it."""
        largest = torch.tensor(values, dtype=torch.float64)  # on the CPU: no accelerator is waited for
        self._group.all_reduce(largest, op=self._group.ReduceOp.MAX)
        return tuple(largest.tolist())

    def wait(self) -> None:
        """Wait for all devices."""
        self.most(0.0)


class Sharded(Replicated):
    """Every device keeps a share of every tensor and gathers a block's weights while it needs them (FSDP2).

    Each block is gathered by itself where all devices pass through the same blocks with weights of their own; a model
    that shares weights between blocks, or draws which blocks a sequence passes, is gathered as a whole.
    """

    whole = False

    def wrap(self, objective: Objective, architecture: Architecture) -> nn.Module:
        """Shard the objective where it stands."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        mesh = init_device_mesh(self._device, (self.size,))
        apart = architecture.sharing.kind == "none" and architecture.depth.kind in EVERY_BLOCK
        for unit in (*(objective.model.blocks if apart else ()), objective):
            fully_shard(unit, mesh=mesh)
            assert isinstance(unit, FSDPModule)  # noqa: S101 - what fully_shard makes of a module
            unit.set_gradient_divide_factor(1.0)
            unit.set_force_sum_reduction_for_comms(True)  # gloo has no other sum
        assert isinstance(objective, FSDPModule)  # noqa: S101
        objective.set_reduce_scatter_unused_params(True)
        return objective

    @contextlib.contextmanager
    def accumulating(self, wrapped: nn.Module, last: bool) -> Iterator[None]:
        """Do a forward and backward pass in it; gradients are summed in each, so that no device holds whole ones."""
        yield

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
        """Scale gradients down to a global norm of `limit`; return the norm before, over all devices."""
        return gathered(super().clip(parameters, limit))


def gathered(value: Tensor) -> Tensor:
    """Return the whole of a tensor of which every device has a share; all devices must ask. Others as they are."""
    whole: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return whole


def like(value: Tensor, held: Tensor) -> Tensor:
    """Return the share of a whole tensor that this device has of `held`; all of it where that is whole."""
    if not hasattr(held, "device_mesh"):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(held, DTensor)  # noqa: S101 - nothing else has a mesh
    placed = value.to(held.device)
    return distribute_tensor(placed, held.device_mesh, held.placements, src_data_rank=None)


@contextlib.contextmanager
def joined(numerics: Numerics) -> Iterator[Alone]:
    """Meet the other processes of a run, and part from them at the end.

    Raises:
        WorkbenchError: if there are more or fewer than `numerics.devices`.
    """
    if numerics.devices == 1:
        yield Alone()
        return
    from torch import distributed

    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size != numerics.devices:
        raise WorkbenchError(
            "a run was started on another number of devices than it was planned for",
            expected=numerics.devices,
            got=size,
            fix=f"torchrun --nproc-per-node {numerics.devices}, or workbench run --devices {numerics.devices}",
        )
    named: dict[str, Any] = {}
    if meeting := os.environ.get(MEETING):
        named = {"store": torch._C._distributed_c10d.FileStore(meeting, size), "rank": rank, "world_size": size}
    if numerics.device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # agreements are made on the CPU, so that no accelerator is waited for
    backend = "cpu:gloo,cuda:nccl" if numerics.device == "cuda" else "gloo"
    # nats are a view, of which nobody changes anything
    warnings.filterwarnings("ignore", message=".*returned a view tensor.*", category=UserWarning)
    distributed.init_process_group(backend, timeout=PATIENCE, **named)
    try:
        yield Sharded(numerics.device) if numerics.sharded else Replicated(numerics.device)
    finally:
        distributed.destroy_process_group()


def _summed(state, bucket):  # type: ignore[no-untyped-def]  # torch refuses annotations as text
    """Sum a bucket of gradients over all devices; torch's own hook would return their mean."""
    from torch import distributed

    work = distributed.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])
