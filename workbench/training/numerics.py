"""Numerics: how the arithmetic is done, resolved once per plan to what every arm supports on the target device."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Sequence
from typing import Any

import torch

from architectures.architecture import Architecture
from architectures.compute import mfu
from workbench.errors import PlanError
from workbench.records import Numerics

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h: no memory is given back, none is mapped on its own
PREFERRED = {"cuda": ("sdpa", "reference"), "cpu": ("sdpa", "reference")}


def resolve(
    device: str,
    precision: str,
    attention: str,
    threads: int,
    architectures: Sequence[Architecture],
    *,
    packed: bool = False,
) -> Numerics:
    """Resolve "auto" to what all `architectures` support, from facts about the machine and never from a timing.

    bfloat16 is chosen on CUDA devices that have it. On a CPU it is left to the user: without the instructions for it a
    training step takes more than twice as long (measured: results/benchmarks/bench.md, tests/benchmarks/precision.py).

    Args:
        device: "cpu", "cuda" or "auto".
        precision: "float32", "bfloat16" or "auto".
        attention: A backend, or "auto".
        threads: Of this process.
        architectures: Of all arms.
        packed: Whether one of them trains on windows of several documents that are hidden from each other.

    Raises:
        PlanError: if the device is absent or an arm does not support the attention backend that was asked for.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise PlanError("the sweep asks for a CUDA device", expected="a visible device", got="none on this machine")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "auto":
        precision = "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    backends = PREFERRED[device] if attention == "auto" else (attention,)
    refusals: dict[str, str] = {}
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    for backend in backends:
        known = [one.backends(device, dtype, plain=not packed, documents=packed) for one in architectures]
        reasons = [reason for one in known if (reason := one.get(backend, "there is no such backend"))]
        if not reasons:
            return Numerics.model_validate(
                {"attention": backend, "precision": precision, "device": device, "threads": threads}
            )
        refusals[backend] = reasons[0]
    raise PlanError(
        "no attention backend supports every arm",
        expected="one of " + ", ".join(backends),
        got="; ".join(f"{backend}: {reason}" for backend, reason in refusals.items()),
    )


def settle(numerics: Numerics) -> None:
    """Make this process compute as `numerics` says, deterministically; call once, before the first tensor."""
    keep_freed_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(numerics.threads)
    torch.use_deterministic_algorithms(True)
    # with deterministic algorithms torch also fills every fresh tensor with NaN: a debugging aid that costs bandwidth
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def keep_freed_memory() -> bool:
    """Have the C allocator keep what is freed, since the next step asks for the same again; say whether it does.

    By default glibc gives large tensors back to the system and takes them anew, one page fault per 4 KiB: up to a tenth
    of an evaluation's time on a CPU. What a process holds then stays at its peak. Nothing happens without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, -1))


def utilised(tokens_per_second: float, architecture: Architecture, numerics: Numerics) -> float:
    """Return model FLOPs utilisation of the device at hand, FLOPs counted exactly; 0 where its peak is not known."""
    if numerics.device != "cuda":
        return 0.0
    device, together = torch.cuda.get_device_name(), numerics.devices
    return mfu(tokens_per_second, architecture, device, formula="exact", devices=together) or 0.0


def autocast(numerics: Numerics) -> contextlib.AbstractContextManager[Any]:
    """Return the context under which forward passes run."""
    if numerics.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(numerics.device, dtype=torch.bfloat16)
