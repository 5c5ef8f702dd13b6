"""Small models to try things on: hosts, examples of every choice, other legal values, what tells two models apart.

What the contract suite (`architectures.testing`) and tests are made of. Everything follows from fixed noise: the same
models and batches every time.
"""

from __future__ import annotations

import functools
import hashlib
import typing
from collections.abc import Collection, Iterator
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from torch import Tensor

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.component import Component, effect_of
from architectures.feedforward import Gelu
from architectures.initialisation import initialise
from architectures.positions import Rotary
from architectures.transformer import Batch, Transformer

Fingerprint = tuple[dict[str, tuple[int, ...]], Tensor]

TOLERANCE = 1e-5
# Sizes of the host that an axis needs if each of its fields is to have another legal value.
HOSTS: dict[str, dict[str, int]] = {"sharing": {"layers": 4}, "depth": {"layers": 4}}


def host() -> Architecture:
    """Return the small model in which single components are checked."""
    return Architecture(
        width=16,
        layers=2,
        context=12,
        vocabulary=29,
        position=Rotary(),
        attention=MultiHead(heads=4),
        feed_forward=Gelu(width=24),
    )


def variants(architecture: Architecture, *, ignores: Collection[str] = ()) -> Iterator[tuple[str, Architecture]]:
    """Yield (path, architecture) for other values of every field whose effect is "function", one change at a time."""
    for axis, field in Architecture.model_fields.items():
        if effect_of(field) != "function" or axis in ignores:
            continue
        held = getattr(architecture, axis)
        for value in _others(held, field):
            changed = _varied(architecture, **{axis: value})
            if changed is not None:
                yield axis, changed
                break
        for kind in members(axis):
            if kind is type(held) or (trains_only(axis, kind) and trains_only(axis, type(held))):
                continue
            if (changed := _varied(architecture, **{axis: example(kind)})) is not None:
                yield f"{axis}: {example(kind)!r}", changed
        if isinstance(held, Component):
            yield from _inner_variants(architecture, axis, held)


def twins(architecture: Architecture) -> Iterator[tuple[str, Architecture]]:
    """Yield (path, architecture) for every choice that, by what it says, changes training only."""
    for axis in Architecture.model_fields:
        held = getattr(architecture, axis)
        if not trains_only(axis, type(held)):
            continue
        for kind in members(axis):
            if kind is not type(held) and trains_only(axis, kind):
                changed = _varied(architecture, **{axis: example(kind)})
                if changed is not None:
                    yield f"{axis}: {example(kind)!r}", changed


def trains_only(axis: str, kind: type) -> bool:
    """Return whether a choice is evaluated as the default of its axis: it is that, or its `effect` is "training"."""
    is_default = kind is type(Architecture.model_fields[axis].default)
    return is_default or getattr(kind, "effect", "function") == "training"


def _inner_variants(architecture: Architecture, axis: str, held: Component) -> Iterator[tuple[str, Architecture]]:
    for name, field in type(held).model_fields.items():
        if name == "kind" or effect_of(field) != "function":
            continue
        for value in _others(getattr(held, name), field):
            component = _varied(held, **{name: value})
            changed = None if component is None else _varied(architecture, **{axis: component})
            if component != held and changed is not None:
                yield f"{axis}.{name}", changed
                break
        else:
            raise AssertionError(f"{axis}.{name}: found no other legal value to try")


def members(axis: str) -> tuple[type[Component], ...]:
    """Return the classes of a union axis of Architecture; none for an axis that is not a union."""
    annotation = Architecture.model_fields[axis].annotation
    kinds = typing.get_args(annotation) or (annotation,)
    return tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Component))


def example(kind: type[Component]) -> Component:
    """Return a small instance of a class: its defaults, and 4 wherever a number is required."""
    return kind(**{name: 4 for name, field in kind.model_fields.items() if field.is_required()})


def started(architecture: Architecture) -> Transformer:
    """Return the model as it starts, from noise keyed by parameter name."""
    model = architecture.build(spelling=invented(architecture))
    initialise(model, architecture, noise)
    return model


def invented(architecture: Architecture) -> list[bytes] | None:
    """Return bytes for every token but the first, three or more and no two alike, where the model reads bytes."""
    if not architecture.embedding.reads_bytes:
        return None
    size = -(-architecture.vocabulary.bit_length() // 8)
    learned = range(1, architecture.vocabulary)
    return [b"", *(token.to_bytes(size, "big") + b"." * (2 + token % 2) for token in learned)]


def moved(architecture: Architecture) -> Transformer:
    """Return the model in evaluation mode, every parameter away from its start, as if trained for a while."""
    return _move(started(architecture))


def _move(model: Transformer) -> Transformer:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.from_numpy(noise(f"moved/{name}", tuple(parameter.shape))), alpha=0.3)
    return model.eval()


def random_batch(architecture: Architecture, sequences: int = 2) -> Batch:
    """Return sequences of `context` tokens drawn uniformly from the vocabulary, always the same."""
    generator = np.random.Generator(np.random.Philox(key=0))
    drawn = generator.integers(0, architecture.vocabulary, (sequences, architecture.context + 1))
    tokens = torch.from_numpy(drawn)
    return Batch(tokens[:, :-1], tokens[:, 1:], torch.ones(sequences, architecture.context))


def nats_of(model: Transformer, batch: Batch) -> Tensor:
    """Return nats per target, without gradients."""
    with torch.no_grad():
        return model.nats(model(batch), batch)


def fingerprint(architecture: Architecture) -> Fingerprint:
    """Return what tells two architectures apart: names and shapes of their parameters, and nats on a fixed batch."""
    return traced(architecture)[1]


def traced(architecture: Architecture) -> tuple[dict[str, Tensor], Fingerprint]:
    """Return where the parameters start, and the fingerprint of the moved model."""
    model = started(architecture)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    shapes = {name: tuple(parameter.shape) for name, parameter in start.items()}
    return start, (shapes, nats_of(_move(model), random_batch(architecture)))


def close(got: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors agree up to rounding."""
    # Relative to the largest value: without norms activations grow to thousands, and rounding with them.
    return torch.allclose(got, expected, rtol=0, atol=TOLERANCE * max(1.0, float(expected.detach().abs().max())))


def same(a: Fingerprint, b: Fingerprint) -> bool:
    """Return whether two fingerprints agree up to rounding."""
    return a[0] == b[0] and close(a[1], b[1])


@functools.lru_cache(maxsize=1024)
def noise(name: str, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return standard normal noise, float32, that a name and a shape alone decide."""
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "big")
    return np.random.Generator(np.random.Philox(key=key)).standard_normal(shape, dtype=np.float32)


def _others(value: Any, field: FieldInfo) -> list[Any]:
    if field.examples:
        return [one for one in field.examples if one != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value * 2, value + 1, value // 2, 1]
    if isinstance(value, float):
        return [value * 1000, value / 1000, 0.5]
    if typing.get_origin(field.annotation) is Literal:
        return [choice for choice in typing.get_args(field.annotation) if choice != value]
    return [1, 2, 6] if value is None else []


def _varied(component: Any, **changes: Any) -> Any:
    try:
        return component.vary(**changes)
    except ValidationError:
        return None
