"""What training costs: FLOPs by named formula, model FLOPs utilisation, memory, and whether a claim is possible at all.

Promises that no figure stands without the name of its formula: utilisation of one and the same run is 51 % or 59 %
depending on whether attention counts. Refuses to guess the peak of a device that is not in the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from architectures.accounting import Flops, effective_parameters, flops_per_token, part_of, shapes
from architectures.architecture import Architecture
from architectures.scaling import inner_width

DOUBTFUL = 0.7  # above what well-tuned dense training reaches; PaLM's best is 0.58 with attention (arXiv:2204.02311)


@dataclass(frozen=True)
class Device:
    """An accelerator.

    Attributes:
        name: What it is called here.
        peak: Dense bfloat16 FLOP/s with float32 accumulation, as its maker states it (half of "with sparsity").
        source: Where the figure stands.
        words: Words of its name as the driver tells it.
    """

    name: str
    peak: float
    source: str
    words: tuple[str, ...]


DEVICES = (  # the first whose words all occur is meant: the special before the general
    Device("H200 SXM", 989.5e12, "NVIDIA H200 datasheet: 1,979 with sparsity", ("H200",)),
    Device("H100 PCIe", 756.5e12, "NVIDIA H100 datasheet: 1,513 with sparsity", ("H100", "PCIe")),
    Device("H100 NVL", 835.5e12, "NVIDIA H100 datasheet: 1,671 with sparsity", ("H100", "NVL")),
    Device("H100 SXM", 989.5e12, "NVIDIA H100 datasheet: 1,979 with sparsity", ("H100",)),
    Device("A100", 312e12, "NVIDIA A100 datasheet: 312", ("A100",)),
    Device("A10", 125e12, "NVIDIA A10 datasheet: 125", ("A10",)),
    Device("L40S", 362.05e12, "NVIDIA L40S datasheet: 362.05", ("L40S",)),
    Device("L40", 181.05e12, "NVIDIA L40 datasheet: 181.05", ("L40",)),
    Device("RTX 4090", 165.2e12, "NVIDIA Ada whitepaper: 165.2", ("RTX", "4090")),
    Device("RTX 3090", 71e12, "NVIDIA GA102 whitepaper: 71", ("RTX", "3090")),
)


@dataclass(frozen=True)
class Memory:
    """Bytes of training, with what is counted.

    Attributes:
        states: Of weights, gradients and optimizer.
        activations: Of one microbatch, kept for the backward pass, however many are accumulated.
        formula: What is counted, in words.
    """

    states: int
    activations: int
    formula: str


@dataclass(frozen=True)
class Plausibility:
    """What a claimed training run implies.

    Attributes:
        tokens_per_second: Per device.
        flops_per_second: Per device.
        utilisation: Share of the device's peak; None for an unknown device.
        verdict: "impossible" above 100 %, "doubtful" above 70 %, else "possible"; "unknown" for an unknown device.
        formula: How FLOPs were counted.
    """

    tokens_per_second: float
    flops_per_second: float
    utilisation: float | None
    verdict: str
    formula: str


def device_named(name: str) -> Device | None:
    """Return the device of that name, ours or the driver's; None where the table has no such device.

    >>> device_named("NVIDIA H100 80GB HBM3").name
    'H100 SXM'
    """
    told = name.casefold()
    # whole words, so that no A10 is taken for an A100; "A100-SXM4-40GB" is A100, SXM4, 40GB
    words = set(told.replace("-", " ").replace("_", " ").split())
    if "laptop" in words:  # which share the name of a faster card
        return None
    for device in DEVICES:
        if told == device.name.casefold() or {word.casefold() for word in device.words} <= words:
            return device
    return None


def six_n(count: float) -> Flops:
    """Return 2 FLOPs per parameter forward, 6 in training, embeddings included (Kaplan et al. 2020, arXiv:2001.08361).

    Args:
        count: Parameters N.
    """
    return Flops(forward=2.0 * count, training=6.0 * count, formula="6N: 2 FLOPs per parameter, three times")


def six_n_and_attention(count: float, layers: int, width: int, context: int) -> Flops:
    """Return 3 (2 N + 4 L d T) per token, as TinyLlama's code counts (lit-gpt's `estimate_flops`).

    All parameters, embeddings included, and attention over the whole context, as if there were no causal mask.
    """
    forward = 2.0 * count + 4.0 * layers * width * context
    return Flops(forward, 3 * forward, "6N + attention: 3 (2 N + 4 L d T) per token, no causal mask")


def flops_by_formula(architecture: Architecture) -> dict[str, Flops]:
    """Return FLOPs per token by "exact", "6N" and "6N + attention"."""
    count = effective_parameters(architecture)  # a matrix that layers share is multiplied by in each of them
    return {
        "exact": flops_per_token(architecture),
        "6N": six_n(count),
        "6N + attention": six_n_and_attention(count, architecture.layers, architecture.width, architecture.context),
    }


def utilisation(tokens_per_second: float, flops: Flops, device: Device) -> float:
    """Return the share of a device's peak that its tokens per second of training use; `flops` names the formula."""
    return tokens_per_second * flops.training / device.peak


def mfu(
    tokens_per_second: float, architecture: Architecture, device: str, *, formula: str = "exact", devices: int = 1
) -> float | None:
    """Return model FLOPs utilisation: the share of the dense bfloat16 peak that training uses (arXiv:2204.02311, B).

    Args:
        tokens_per_second: Of all devices together.
        architecture: What is trained.
        device: Name of the device, ours or the driver's.
        formula: How FLOPs are counted, a key of `flops_by_formula`; to be told beside the figure.
        devices: How many of them train together.

    Returns:
        From 0 to 1; None for a device whose peak is not known, such as every CPU.

    Raises:
        ValueError: for an unknown formula.
    """
    counted = flops_by_formula(architecture)
    if formula not in counted:
        raise ValueError(f"formula: expected one of {', '.join(counted)}, got '{formula}'")
    known = device_named(device)
    return None if known is None else utilisation(tokens_per_second / devices, counted[formula], known)


def plausibility(
    *, tokens: float, count: float, devices: int, hours: float, device: str, flops: Flops | None = None
) -> Plausibility:
    """Compute what a claimed training run would have demanded of every device.

    Args:
        tokens: Tokens trained on, epochs included.
        count: Parameters.
        devices: Number of devices.
        hours: Wall-clock time.
        device: Name of the device.
        flops: Per token; 6N where nothing better is known.

    Raises:
        ValueError: for a number that is not positive.
    """
    for name, value in {"tokens": tokens, "count": count, "devices": devices, "hours": hours}.items():
        if not value > 0:
            raise ValueError(f"{name}: expected a positive number, got {value}")
    flops = flops or six_n(count)
    rate = tokens / devices / (hours * 3600)
    known = device_named(device)
    share = utilisation(rate, flops, known) if known else None
    if share is None:
        verdict = "unknown"
    else:
        verdict = "impossible" if share > 1 else "doubtful" if share > DOUBTFUL else "possible"
    return Plausibility(rate, rate * flops.training, share, verdict, flops.formula)


def two_moments(name: str, shape: tuple[int, ...]) -> float:
    """Return the bytes that AdamW keeps per element of a parameter: two moments in float32."""
    return 8.0


def memory(
    architecture: Architecture,
    sequences: int,
    *,
    precision: str = "bfloat16",
    optimizer: str = "AdamW",
    moments: Callable[[str, tuple[int, ...]], float] = two_moments,
) -> Memory:
    """Estimate the memory of training on microbatches of `sequences`.

    Args:
        architecture: The model.
        sequences: Sequences of the training context in one microbatch, which is the batch unless gradients accumulate.
        precision: Of activations, "bfloat16" or "float32"; weights and gradients stay float32.
        optimizer: What the formula calls the optimizer.
        moments: Returns how many bytes the optimizer keeps per element of the parameter of a name and shape.

    Raises:
        ValueError: for another precision.
    """
    sizes = {"bfloat16": 2, "float32": 4}
    if precision not in sizes:
        raise ValueError(f"precision: expected one of {', '.join(sizes)}, got '{precision}'")
    tokens = sequences * architecture.context
    length, depth = architecture.thinking.extended(architecture.context), architecture.depth
    passed = sequences * length * sum(depth.shares(architecture.layers, length, training=True))
    read = tokens * depth.readings(architecture.layers, training=True)
    kept = getattr(architecture.embedding, "kept", None)
    inner, scores = kept(architecture.shape()) if kept else (0, architecture.vocabulary)
    elements = passed * _kept(architecture) + read * 2 * architecture.width + tokens * inner
    # the head's log-probabilities are float32 whatever the precision
    activations = elements * sizes[precision] + read * 4 * scores
    held = [(math.prod(shape), 8 + moments(name, shape)) for name, shape in shapes(architecture).items()]
    states = sum(count * each for count, each in held)
    mean = states / sum(count for count, _ in held)
    return Memory(round(states), round(activations), _formula(precision, optimizer, mean))


def _kept(architecture: Architecture) -> int:
    """Count the elements that one layer keeps per token for the backward pass, without attention probabilities."""
    shape = architecture.shape()
    held = shapes(architecture)
    norms = sum(name.startswith("blocks.0.") and part_of(name) == "norms" and name.endswith("weight") for name in held)
    inner = inner_width(architecture)
    gated = "blocks.0.feed_forward.gate.weight" in held
    attention = (3 * shape.heads + 2 * shape.key_value_heads) * shape.head_width
    return 2 * norms * architecture.width + attention + (4 if gated else 2) * inner


def _formula(precision: str, optimizer: str, mean: float) -> str:
    return (
        f"states: {mean:.3g} bytes per parameter (float32 weight, gradient, and what {optimizer} keeps); activations "
        "of a microbatch, per token and block it passes: input and output of every norm, queries, keys, values, "
        "attention's result twice, the inner feed-forward (4 times its width if gated, else 2) in "
        f"{precision}, and float32 log-probabilities of every prediction, on average over training; not counted: "
        "attention probabilities (no backend but the reference keeps them), routers and dropout masks"
    )
