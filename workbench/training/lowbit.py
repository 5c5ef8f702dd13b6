"""Eight bits, as two separate switches: what AdamW keeps, and what linear layers multiply. Both through torchao.

The states of AdamW (`AdamW(states="int8")`) are kept in blocks of 256 with one scale each (arXiv:2110.02861), as plain
tensors, so that a checkpoint holds them bit for bit; a parameter below 4,096 elements, or not of whole blocks, keeps
float32. Matrix multiplications (`Numerics.matmul`) are those of every linear layer in training, forward and backward:
"fp8" with one scale per tensor (arXiv:2209.05433), "int8" with one per row. Weights stay as they are, the token table
and the head are multiplied as before, and so is everything in evaluation.

Refuses what the machine cannot do or the installation has not (`refuse_unsupported`).
"""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from architectures.architecture import Architecture
from architectures.layers import Linear
from workbench.errors import MissingExtra, PlanError
from workbench.records import Numerics

BLOCK, SMALLEST = 256, 4096  # torchao's; smaller parameters are few, and matter
MULTIPLE = 16  # of both sides of a matrix, for tensor cores
CAPABILITY = {"fp8": (8, 9), "int8": (8, 0)}
Adjust = Callable[..., None]


class EightBitAdamW(torch.optim.Optimizer):
    """AdamW whose moments are kept in eight bits; the arithmetic of one step is float32, and torchao's.

    Args:
        groups: Parameters with their weight decay.
        rate: Learning rate.
        betas: Of the two moments.
        epsilon: Added to the root of the second.

    Raises:
        MissingExtra: without torchao.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], rate: float, betas: tuple[float, float], epsilon: float
    ) -> None:
        self._kept, self._adjust = _optimizer_parts()
        super().__init__(groups, {"lr": rate, "betas": betas, "eps": epsilon})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do one step with the gradients that are there; a parameter without one is left as it is."""
        for group in self.param_groups:
            rate = torch.tensor(group["lr"], dtype=torch.float32)
            for weight in group["params"]:
                if weight.grad is not None:
                    self._adjust_one(weight, rate, group)

    def _adjust_one(self, weight: Tensor, rate: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state |= {"step": torch.zeros((), device=weight.device)}
            for moment in ("exp_avg", "exp_avg_sq"):
                state |= _nothing_kept(moment, weight)
        state["step"] += 1
        moments = [self._moment(state, moment) for moment in ("exp_avg", "exp_avg_sq")]
        adjust = _compiled(self._adjust) if weight.is_cuda else self._adjust
        adjust(
            weight.detach(),
            weight.grad,
            state["step"],
            *moments,
            None,
            rate,
            *group["betas"],
            group["weight_decay"],
            group["eps"],
            True,  # decoupled weight decay
            False,  # no stochastic rounding: weights are float32
        )

    def _moment(self, state: dict[str, Tensor], moment: str) -> Tensor:
        """Return a moment as torchao sees it; what it writes there lands in `state`."""
        held = state[moment]
        if f"{moment}_scale" not in state:
            return held
        signed = moment == "exp_avg"
        table = _table(self._kept, signed, held.device)
        return self._kept(held, state[f"{moment}_scale"], table, signed, torch.float32)  # type: ignore[no-any-return]


def in_few_bits(model: nn.Module, matmul: str, *, emulate: bool = False) -> nn.Module:
    """Let every linear layer of a model multiply in eight bits in training; names and weights stay.

    Args:
        model: Changed where it stands.
        matmul: "same" changes nothing; "fp8" or "int8".
        emulate: Round to fp8 and multiply in float32, for a machine without such instructions.

    Raises:
        MissingExtra: without torchao.
    """
    if matmul == "same":
        return model
    lower = _float8(emulate) if matmul == "fp8" else _integer8()
    for name, module in list(model.named_modules()):
        if type(module) is Linear:
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, FewBits(module, lower(module)))
    return model


class FewBits(Linear):
    """A linear layer that multiplies in few bits in training, and as it stands otherwise.

    Args:
        own: The layer, whose parameters it takes.
        low: What multiplies them in few bits; it holds the same parameters, and is no submodule.
    """

    def __init__(self, own: nn.Linear, low: Callable[[Tensor], Tensor]) -> None:
        super().__init__(own.in_features, own.out_features, bias=own.bias is not None, device="meta")
        self.weight, self.bias, self._low = own.weight, own.bias, (low,)

    def forward(self, x: Tensor) -> Tensor:
        """Map x, (..., in_features), to (..., out_features)."""
        if not self.training:
            return functional.linear(x, self.weight, self.bias)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        return self._low[0](x.contiguous())


def refuse_unsupported(configurations: Iterable[Any], numerics: Numerics) -> None:
    """Refuse eight bits that this machine, this installation or an arm cannot have.

    Args:
        configurations: Of all arms that are trained here.
        numerics: As resolved.

    Raises:
        PlanError: naming the switch, and what it needs.
        MissingExtra: without torchao.
    """
    held = list(configurations)
    kept = any(getattr(stage.optimizer, "states", "float32") == "int8" for one in held for stage in one.training)
    if not kept and numerics.matmul == "same":
        return
    switch = f"numerics.matmul {numerics.matmul}" if numerics.matmul != "same" else "optimizer.states int8"
    if numerics.sharded or numerics.execution != "loop":
        got = "sharded parameters" if numerics.sharded else f"execution {numerics.execution}"
        raise PlanError("eight bits need whole models, one at a time", where=switch, expected="loop, whole", got=got)
    if numerics.matmul != "same":
        _refuse_device(numerics, switch)
        for architecture in dict.fromkeys(one.architecture for one in held):
            if reason := misfit(architecture):
                raise PlanError("an arm has matrices that eight bits cannot multiply", where=switch, got=reason)
    _torchao()


def misfit(architecture: Architecture) -> str | None:
    """Return why the linear layers of a model cannot all be multiplied in eight bits, or None."""
    for name, module in architecture.outline().named_modules():
        if isinstance(module, nn.Linear):
            if type(module) is not Linear:
                return f"{name}, a {type(module).__name__}, which is not a plain linear layer"
            if module.in_features % MULTIPLE or module.out_features % MULTIPLE:
                return f"{name}, {module.out_features} x {module.in_features}, whose sides are no multiples of 16"
    return None


def _refuse_device(numerics: Numerics, switch: str) -> None:
    least = CAPABILITY[numerics.matmul]
    wanted = f"a CUDA device of compute capability {least[0]}.{least[1]} or more"
    if numerics.device == "cuda":
        found = torch.cuda.get_device_capability()
        if found < least:
            got = f"{torch.cuda.get_device_name()}, {found[0]}.{found[1]}"
            raise PlanError("the device has no such arithmetic", where=switch, expected=wanted, got=got)
    elif numerics.matmul == "fp8":
        raise PlanError(
            "the device has no such arithmetic",
            where=switch,
            expected=wanted,
            got="a CPU",
            fix='numerics.matmul "int8" runs on a CPU too, though no faster',
        )


def _torchao() -> None:
    try:
        with _quietly():
            import torchao  # noqa: F401
    except ImportError:
        raise MissingExtra("torchao", "lowbit") from None


@contextmanager
def _quietly() -> Iterator[None]:
    """Drop what torchao tells of kernels that were built for other machines."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    told, sys.stderr = sys.stderr, open(os.devnull, "w")  # noqa: SIM115 - closed below
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        sys.stderr.close()
        sys.stderr = told
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _optimizer_parts() -> tuple[Any, Adjust]:
    _torchao()
    with _quietly():
        from torchao.optim.adam import single_param_adam
        from torchao.optim.subclass_8bit import OptimState8bit
    return OptimState8bit, single_param_adam


@functools.lru_cache(maxsize=8)
def _table(kept: Any, signed: bool, device: torch.device) -> Tensor:
    """Return the value that every code stands for, float32 (256,)."""
    table: Tensor = kept.zeros((BLOCK,), signed, BLOCK, device).qmap
    return table


@functools.lru_cache(maxsize=1)
def _compiled(adjust: Adjust) -> Adjust:
    compiled: Adjust = torch.compile(adjust, fullgraph=True, dynamic=False)

    def run(*given: Any) -> None:
        with torch._dynamo.utils.disable_cache_limit():  # one program per shape of a parameter
            compiled(*given)

    return run


def bytes_per_element(shape: Sequence[int]) -> float:
    """Return what both moments of a parameter of that shape take, per element."""
    return 2 * (1 + 4 / BLOCK) if _in_blocks(math.prod(shape)) else 8.0


def _in_blocks(elements: int) -> bool:
    return elements >= SMALLEST and elements % BLOCK == 0


def _nothing_kept(moment: str, weight: Tensor) -> dict[str, Tensor]:
    if not _in_blocks(weight.numel()):
        return {moment: torch.zeros_like(weight)}
    codes = torch.zeros_like(weight, dtype=torch.uint8)
    return {moment: codes, f"{moment}_scale": torch.zeros(weight.numel() // BLOCK, device=weight.device)}


def _float8(emulate: bool) -> Callable[[nn.Linear], Callable[[Tensor], Tensor]]:
    _torchao()
    with _quietly():
        from torchao.float8 import Float8LinearConfig
        from torchao.float8.float8_linear import Float8Linear
    config = Float8LinearConfig(emulate=emulate)
    return lambda module: Float8Linear.from_float(module, config)


def _integer8() -> Callable[[nn.Linear], Callable[[Tensor], Tensor]]:
    _torchao()
    with _quietly():
        from torchao.prototype.quantized_training import Int8MixedPrecisionTrainingConfig
        from torchao.prototype.quantized_training.int8_mixed_precision import Int8MixedPrecisionTrainingLinear
    config = Int8MixedPrecisionTrainingConfig(module_swap=True)

    def lower(module: nn.Linear) -> Callable[[Tensor], Tensor]:
        sides = (module.in_features, module.out_features)
        low = Int8MixedPrecisionTrainingLinear(*sides, bias=module.bias is not None, device="meta", config=config)
        low.weight, low.bias = module.weight, module.bias
        return low  # type: ignore[no-any-return]

    return lower
