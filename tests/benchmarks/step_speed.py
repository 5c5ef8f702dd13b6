"""How fast a training step is, against two others that compute the same, and against what the machine can do.

Run by `make bench`. Ours is the step of the training loop. Against it stand `transformers`' Llama, and the most direct
PyTorch that takes the same step: fused projections, SDPA, fused AdamW, and nothing that could be left out. All take the
same tokens through models of the same shape, in turns, so that a busy machine slows all alike; ratios are medians over
rounds. Each has a process of its own, as its users run it: what one asks of the allocator is not given to the others.
Peak is what large float32 matrix multiplications reach beside them, at as many threads.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from architectures.accounting import flops_per_token
from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.feedforward import SwiGLU
from architectures.positions import Rotary
from architectures.transformer import Batch
from tests.benchmarks.apart import Apart
from workbench.records import Numerics, Seeds
from workbench.training.feeding import Fed
from workbench.training.loop import build
from workbench.training.numerics import settle
from workbench.training.objective import Objective
from workbench.training.optimizers import AdamW, make_optimizer
from workbench.training.stepping import take_step

WIDTH, INNER, LAYERS, HEADS, TIME, SEQUENCES, VOCABULARY = 128, 344, 4, 4, 128, 16, 4096
ARCHITECTURE = Architecture(
    width=WIDTH,
    layers=LAYERS,
    context=TIME,
    vocabulary=VOCABULARY,
    position=Rotary(),
    attention=MultiHead(heads=HEADS),
    feed_forward=SwiGLU(width=INNER),
)
WIDER = ARCHITECTURE.vary(
    width=256, layers=6, context=256, attention=MultiHead(heads=8), feed_forward=SwiGLU(width=688)
)
CASES = ((ARCHITECTURE, SEQUENCES), (WIDER, 8))
BARS = {"transformers' Llama": 1.10, "bare PyTorch": 1.00}
IN_BFLOAT16, BFLOAT16_BAR = "ours in bfloat16", 1.30
PEAK_SIDE = 1536
RATE = 1e-4
Step = Callable[[], object]


def ours(architecture: Architecture, batch: Batch, precision: str = "float32") -> Step:
    """Return a step of the training loop."""
    threads = torch.get_num_threads()
    numerics = Numerics.model_validate(
        {"attention": "sdpa", "precision": precision, "device": "cpu", "threads": threads}
    )
    settle(numerics)
    model = build(architecture, Seeds.all(0), numerics).train()
    optimizer, objective = make_optimizer(model, AdamW(learning_rate=RATE)), Objective(model)

    return lambda: take_step(objective, optimizer, [Fed(batch)], numerics, 1.0, 0.0)


def llama(architecture: Architecture, batch: Batch) -> Step:
    """Return a step of `transformers`' Llama."""
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=architecture.width,
            intermediate_size=architecture.feed_forward.width,
            num_hidden_layers=architecture.layers,
            num_attention_heads=architecture.attention.heads,
            num_key_value_heads=architecture.attention.heads,
            max_position_embeddings=architecture.context,
            vocab_size=architecture.vocabulary,
            tie_word_embeddings=True,
            use_cache=False,
            attn_implementation="sdpa",
        )
    )
    return _plain_step(model, lambda: model(input_ids=batch.tokens, labels=batch.tokens).loss)


def bare(architecture: Architecture, batch: Batch) -> Step:
    """Return a step of the most direct model."""
    model = Bare(architecture)
    return _plain_step(model, lambda: model(batch.tokens, batch.targets))


def _plain_step(model: nn.Module, loss: Callable[[], Tensor]) -> Step:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def peak(architecture: Architecture, batch: Batch) -> Step:
    """Return a large matrix multiplication, which depends on neither."""
    square = torch.randn(PEAK_SIDE, PEAK_SIDE)
    return lambda: torch.mm(square, square)


SIDES: dict[str, Callable[[Architecture, Batch], Step]] = {
    "ours": ours,
    "transformers' Llama": llama,
    "bare PyTorch": bare,
    IN_BFLOAT16: lambda architecture, batch: ours(architecture, batch, "bfloat16"),
    "peak": peak,
}


class BareBlock(nn.Module):
    """Attention and SwiGLU as one writes them down: one matrix for queries, keys and values, one for gate and up."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.feed_forward_norm = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.projections = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.gate_and_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        batch, time, width = x.shape
        projected = self.projections(self.attention_norm(x)).view(batch, time, 3, self.heads, width // self.heads)
        q, k, v = projected.permute(2, 0, 3, 1, 4)
        q, k = _rotated(q, cosine, sine), _rotated(k, cosine, sine)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, time, width))
        gate, up = self.gate_and_up(self.feed_forward_norm(x)).chunk(2, dim=-1)
        return x + self.down(functional.silu(gate) * up)


class Bare(nn.Module):
    """A Llama in fifty lines, its head tied to the table."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        width, heads = architecture.width, architecture.attention.heads
        self.table = nn.Embedding(architecture.vocabulary, width)
        nn.init.normal_(self.table.weight, std=0.02)
        self.blocks = nn.ModuleList(
            BareBlock(width, architecture.feed_forward.width, heads) for _ in range(architecture.layers)
        )
        self.norm = nn.RMSNorm(width, eps=1e-5)
        half = width // heads // 2
        angles = torch.arange(architecture.context)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cosine", torch.cat((angles.cos(), angles.cos()), dim=-1))
        self.register_buffer("sine", torch.cat((-angles.sin(), angles.sin()), dim=-1))

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.table(tokens)
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        logits = functional.linear(self.norm(x), self.table.weight)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def _rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    return x * cosine + x.roll(x.shape[-1] // 2, dims=-1) * sine


@dataclass(frozen=True)
class Speed:
    """What was measured of one shape.

    Attributes:
        tokens: Of one step.
        seconds: Medians, by side.
        ratios: Median over rounds of a side's time over ours.
        share: Of the peak that ours reaches by its exact FLOPs.
        peak: FLOP/s of matrix multiplications, median.
    """

    tokens: int
    seconds: dict[str, float]
    ratios: dict[str, float]
    share: float
    peak: float


def measure(architecture: Architecture, sequences: int, rounds: int) -> Speed:
    """Time every side in turns; the first round warms up and is dropped."""
    names = [*SIDES] if has_bfloat16(Path("/proc/cpuinfo")) else [name for name in SIDES if name != IN_BFLOAT16]
    sides = {name: Apart(step_of, name, architecture, sequences) for name in names}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name in names if turn % 2 else reversed(names):  # who follows whom differs
            seconds, _ = sides[name].run()
            if turn:
                times[name].append(seconds)
    for side in sides.values():
        side.end()
    return _speed(architecture, sequences * architecture.context, times)


def step_of(name: str, architecture: Architecture, sequences: int) -> Step:
    """Return the step of a side, on random tokens."""
    step = SIDES[name](architecture, random_batch(architecture, sequences))

    def take() -> None:
        step()

    return take


def _speed(architecture: Architecture, tokens: int, times: dict[str, list[float]]) -> Speed:
    seconds = {name: statistics.median(taken) for name, taken in times.items()}
    ratios = {
        name: statistics.median(theirs / own for theirs, own in zip(taken, times["ours"], strict=True))
        for name, taken in times.items()
    }
    multiplied = 2 * PEAK_SIDE**3
    share = flops_per_token(architecture).training * tokens / multiplied * ratios["peak"]
    return Speed(tokens, seconds, ratios, share, multiplied / seconds["peak"])


def random_batch(architecture: Architecture, sequences: int) -> Batch:
    """Return random tokens, each with the next as its target."""
    shape = (sequences, architecture.context + 1)
    tokens = torch.from_numpy(np.random.default_rng(1).integers(0, architecture.vocabulary, shape))
    weights = torch.ones(sequences, architecture.context)
    return Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), weights)


def has_bfloat16(cpuinfo: Path) -> bool:
    """Say whether the processor multiplies bfloat16 by its own instructions, as far as Linux tells."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(text.split()))


def main(given: Sequence[str] | None = None) -> None:
    """Print the comparison as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(given)
    torch.set_num_threads(arguments.threads)
    print("Ratio: our tokens/s in float32 over those of the side; for ours in bfloat16, over ours in float32.\n")
    print("| training step | threads | side | tokens/s | ratio | bar |")
    print("|---|--:|---|--:|--:|---|")
    notes = []
    for architecture, sequences in CASES:
        found = measure(architecture, sequences, arguments.rounds)
        shape = f"E{architecture.width} L{architecture.layers} T{architecture.context} B{sequences} "
        shape += f"V{architecture.vocabulary}"
        for name, seconds in found.seconds.items():
            if name != "peak":
                rate = f"{found.tokens / seconds:,.0f}"
                print(f"| {shape} | {arguments.threads} | {name} | {rate} | {_compared(name, found.ratios[name])} |")
        notes.append(
            f"{shape}: {found.share:.0%} of the measured peak of {found.peak / 1e9:.0f} GFLOP/s in float32, "
            "FLOPs counted exactly."
        )
    print("\n" + "\n".join(notes))
    if not has_bfloat16(Path("/proc/cpuinfo")):
        print("This processor has no instructions for bfloat16: the bar of 1.3x for it does not apply.")


def _compared(name: str, ratio: float) -> str:
    if name == IN_BFLOAT16:
        return f"{1 / ratio:.2f} | {_judged(1 / ratio, BFLOAT16_BAR)}"
    return f"{ratio:.2f} | {_judged(ratio, BARS[name])}" if name in BARS else " | "


def _judged(ratio: float, bar: float) -> str:
    return f"{bar:.2f} {'met' if ratio >= bar else '**missed**'}"


if __name__ == "__main__":
    main()
