"""What every component costs: a training step with it, against the base, and against what its FLOPs predict.

Run by `make bench`. Every member of every axis is read from its union, at its defaults, then with each of its options,
so that a new choice is measured without touching this file; so is every attention backend that can train here. A step
is forward, backward, clip and fused AdamW in float32 on one thread. All take turns, the base between them, and are
timed in seconds of the processor, so that neither drift nor another process counts. FLOPs are of matrix multiplications
only: the ratio of both shows what elementwise work and memory traffic add.
"""

from __future__ import annotations

import argparse
import statistics
import time
import typing
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from torch import Tensor, nn

from architectures.accounting import flops_per_token
from architectures.architecture import AXES, Architecture
from architectures.component import Component, effect_of
from architectures.dropout import Dropout
from architectures.initialisation import initialise
from architectures.specimens import members
from architectures.transformer import Batch
from tests.benchmarks.step_speed import ARCHITECTURE as BASE
from tests.benchmarks.step_speed import LAYERS, SEQUENCES, TIME, VOCABULARY, WIDTH

BAR = 1.5
REQUIRED = 4  # the value of a required number that the base's own component does not have
BESIDE = 4  # steps between two of the base
Case = tuple[Architecture, str]


def cases() -> Iterator[tuple[str, Case]]:
    """Yield (name, (architecture, backend)) for every backend and component but those of the base."""
    for backend, objection in BASE.backends(training=True).items():
        if objection is None and backend != "sdpa":
            yield f"backend: {backend}", (BASE, backend)
    for axis in AXES:
        if effect_of(Architecture.model_fields[axis]) == "function":
            yield from ((name, (architecture, "sdpa")) for name, architecture in _on_axis(axis))
    for place in (name for name, field in Dropout.model_fields.items() if not isinstance(field.default, Component)):
        yield f"dropout: {place}", (BASE.vary(dropout=Dropout.model_validate({place: 0.1})), "sdpa")


def _on_axis(axis: str) -> Iterator[tuple[str, Architecture]]:
    held, named = getattr(BASE, axis), set()
    for kind in members(axis):
        plain = held if type(held) is kind else _plain(kind, held)
        if plain != held and (architecture := _varied(BASE, axis, plain)) is not None:
            yield f"{axis}: {kind.__name__}", architecture
        for name, field in kind.model_fields.items():
            for value, option in _options(plain, name, field):
                architecture = _varied(BASE, axis, option)
                if (name, value) not in named and architecture is not None:
                    named.add((name, value))  # an option that several members have is measured with the first
                    yield f"{axis}: {kind.__name__}, {name} {value}", architecture


def _plain(kind: type[Component], held: Component) -> Component:
    required = [name for name, field in kind.model_fields.items() if field.is_required()]
    return kind.model_validate({name: getattr(held, name, REQUIRED) for name in required})


def _options(component: Component, name: str, field: FieldInfo) -> Iterator[tuple[Any, Component]]:
    """Yield the other choices of a field, none for one that is a magnitude, and the first legal size for one unset."""
    value = getattr(component, name)
    if isinstance(value, bool):
        values = [not value]
    elif typing.get_origin(field.annotation) is Literal:
        values = [choice for choice in typing.get_args(field.annotation) if choice != value]
    else:
        values = [TIME // 4, 1] if value is None else []
    legal = ((one, _varied(component, name, one)) for one in values)
    found = ((one, option) for one, option in legal if option is not None)
    yield from islice(found, 1) if value is None else found


def _varied(component: Any, name: str, value: Any) -> Any:
    try:
        return component.vary(**{name: value})
    except ValidationError:
        return None


def trainer(architecture: Architecture, backend: str) -> Callable[[], None]:
    """Return a function that does one training step of a model on random tokens."""
    random = np.random.default_rng(0)
    spelling = [random.bytes(length) for length in random.integers(1, 8, VOCABULARY)]  # 4 bytes a token, as counted
    model = architecture.build(backend=backend, spelling=spelling if architecture.embedding.reads_bytes else None)
    initialise(model, architecture, lambda name, shape: random.standard_normal(shape, dtype=np.float32))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = torch.from_numpy(random.integers(0, VOCABULARY, (SEQUENCES, TIME + 1)))
    batch = Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), torch.ones(SEQUENCES, TIME))
    total, halfway = batch.weights.sum(), torch.tensor(0.5)

    def loss() -> Tensor:
        output = model(batch, halfway)
        nats = model.nats(output, batch)
        mean = (nats * batch.weights).sum() / total
        return sum(model.penalties(output, batch, nats).values(), start=mean)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def measure(measured: dict[str, Case], rounds: int) -> tuple[float, dict[str, float]]:
    """Return the base's seconds per step, and those of every case as multiples of the base's beside it, medians both.

    The first round warms up and is dropped.
    """
    base = trainer(BASE, "sdpa")
    steps = {name: trainer(*case) for name, case in measured.items()}
    taken: list[float] = []
    ratios: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for place, (name, step) in enumerate(steps.items()):
            if place % BESIDE == 0:
                taken.append(_seconds(base))
            ratio = _seconds(step) / taken[-1]
            if turn:
                ratios[name].append(ratio)
    return statistics.median(taken), {name: statistics.median(found) for name, found in ratios.items()}


def _seconds(step: Callable[[], None]) -> float:
    began = time.process_time()
    step()
    return time.process_time() - began


def main(given: Sequence[str] | None = None) -> None:
    """Print every cost as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="measure the cases whose name contains this")
    arguments = parser.parse_args(given)
    torch.set_num_threads(1)
    chosen = {name: case for name, case in cases() if arguments.only in name}
    seconds, ratios = measure(chosen, arguments.rounds)
    tokens, flops = SEQUENCES * TIME / seconds, flops_per_token(BASE).training
    print(f"E{WIDTH} L{LAYERS} T{TIME} B{SEQUENCES} V{VOCABULARY}, 1 thread. The base, {_told(BASE)}: ", end="")
    print(f"{tokens:,.0f} tokens/s, {flops / 1e6:.1f} MFLOPs a token. Bar: {BAR} of what FLOPs predict.\n")
    print("| component | tokens/s | time | FLOPs | time / FLOPs | bar |\n|---|--:|--:|--:|--:|---|")
    for name, ratio in ratios.items():
        predicted = flops_per_token(chosen[name][0]).training / flops
        excess = ratio / predicted
        met = "met" if excess <= BAR else "**missed**"
        print(f"| {name} | {tokens / ratio:,.0f} | {ratio:.2f} | {predicted:.2f} | {excess:.2f} | {met} |")
    print()
    for backend, objection in BASE.backends(training=True).items():
        if objection is not None:
            print(f"Not measured: backend {backend}, {objection}.")


def _told(architecture: Architecture) -> str:
    return ", ".join(type(getattr(architecture, axis)).__name__ for axis in AXES[:5])


if __name__ == "__main__":
    main()
