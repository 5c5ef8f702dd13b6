"""The contract that every architecture keeps, as checks that run on a component or a model in one line.

    check_component(MyPosition(strength=2.0))
    check_architecture(my_architecture)

Each check raises AssertionError, naming the promise that is broken. Models are evaluated as they are scored; every
parameter is first moved away from its start, so that nothing hides behind a zero.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, vmap
from torch.func import functional_call
from torch.nn import Module, Parameter, functional

from architectures.architecture import Architecture
from architectures.component import Component
from architectures.drawing import stream, streams
from architectures.hooks import axis_of
from architectures.own import is_own
from architectures.specimens import (
    HOSTS,
    close,
    fingerprint,
    host,
    members,
    moved,
    nats_of,
    noise,
    random_batch,
    same,
    started,
    traced,
    twins,
    variants,
)
from architectures.transformer import Batch, Transformer


def check_component(component: Component, *, ignores: Collection[str] = ()) -> None:
    """Check one component, of ours or of the user's, in a small model (`host`), on the axis to which it belongs.

    A field whose other legal values cannot be guessed names some to try: `Field(examples=[...])`.

    Args:
        component: What is checked.
        ignores: Axes that have no effect beside it, on purpose: "position" for an attention that knows no positions.

    Raises:
        AssertionError: naming the broken promise.
        ValueError: if the component belongs to no axis, or its axis cannot take it.
    """
    own = [axis_of(component)] if is_own(component) else []
    for axis in own or Architecture.model_fields:
        if own or type(component) in members(axis):
            return check_architecture(host().vary(**HOSTS.get(axis, {}), **{axis: component}), ignores=ignores)
    raise ValueError(f"component: expected a member of an axis of Architecture, got {type(component).__name__}")


def check_architecture(architecture: Architecture, *, ignores: Collection[str] = ()) -> None:
    """Check every promise on one architecture; quick for small ones, since it builds about thirty variants.

    Args:
        architecture: What is checked.
        ignores: Axes that are not asked to have an effect.

    Raises:
        AssertionError: naming the broken promise.
    """
    check_round_trip(architecture)
    check_build_is_deterministic(architecture)
    check_shapes(architecture)
    check_causality(architecture)
    check_length(architecture)
    check_gradients(architecture)
    check_randomness(architecture)
    check_backends_agree(architecture)
    check_cache(architecture)
    check_packing(architecture)
    check_stacking(architecture)
    check_variants(architecture, ignores=ignores)


def check_round_trip(architecture: Architecture) -> None:
    """An architecture survives JSON unchanged."""
    again = Architecture.model_validate_json(architecture.model_dump_json())
    _require(again == architecture, f"JSON changes the architecture: {architecture!r} became {again!r}")


def check_build_is_deterministic(architecture: Architecture) -> None:
    """Building and initialising twice gives the same bits, sets every parameter, and leaves torch's generator alone."""
    before = torch.get_rng_state()
    first, second = started(architecture), started(architecture)
    _require(torch.equal(before, torch.get_rng_state()), "building or initialising advances torch's global generator")
    for (name, parameter), other in zip(first.named_parameters(), second.parameters(), strict=True):
        _require(parameter.isfinite().all(), f"initialisation leaves {name} unset")
        _require(torch.equal(parameter, other), f"{name} starts differently the second time")


def check_shapes(architecture: Architecture) -> None:
    """Hidden states, logits and nats have their shapes; nats are finite, and the cross-entropy of logits if any."""
    model, batch = moved(architecture), random_batch(architecture)
    output = model(batch)
    nats = model.nats(output, batch)
    _require(
        output.hidden.shape == (*batch.tokens.shape, architecture.width), f"hidden is {tuple(output.hidden.shape)}"
    )
    _require(nats.shape == batch.tokens.shape and nats.dtype == torch.float32, f"nats are {nats.dtype} {nats.shape}")
    _require(nats.isfinite().all(), "nats are not finite")
    if not model.head.has_logits:
        return
    logits = model.logits(output.hidden)
    _require(logits.shape == (*batch.tokens.shape, architecture.vocabulary), f"logits are {tuple(logits.shape)}")
    expected = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none").view_as(nats)
    _require(close(nats, expected), "nats are not the cross-entropy of the logits")


def check_causality(architecture: Architecture) -> None:
    """A token changes no earlier nats, and does change later ones."""
    model, batch = moved(architecture), random_batch(architecture)
    middle = batch.tokens.shape[1] // 2
    tokens = batch.tokens.clone()
    tokens[:, middle] = (tokens[:, middle] + 1) % architecture.vocabulary
    before = nats_of(model, batch)
    after = nats_of(model, Batch(tokens, batch.targets, batch.weights))
    _require(close(before[:, :middle], after[:, :middle]), "a token changes earlier nats")
    _require(not close(before[:, middle + 1 :], after[:, middle + 1 :]), "attention sees nothing")


def check_length(architecture: Architecture) -> None:
    """At 2 and 4 times the context earlier nats stay as they are; beyond its reach the model refuses."""
    model, batch, reach = moved(architecture), random_batch(architecture), architecture.reach()
    before = nats_of(model, batch)
    for times in (2, 4):
        longer = Batch(*(part.repeat(1, times) for part in (batch.tokens, batch.targets, batch.weights)))
        if reach is None or longer.tokens.shape[1] <= reach:
            nats = nats_of(model, longer)
            _require(nats.isfinite().all(), f"nats are not finite at {times} times the context")
            kept = close(nats[:, : architecture.context], before)
            _require(kept, f"earlier nats differ at {times} times the context")
            continue
        try:
            nats_of(model, longer)
        except ValueError:
            continue
        raise AssertionError(f"a sequence of {times} times the context is accepted, which is beyond reach() = {reach}")


def check_gradients(architecture: Architecture) -> None:
    """A gradient of the nats reaches every parameter, as it is evaluated or, if not, as it is trained.

    Or, where a parameter decides and does not compute: a gradient of a penalty, and the nats depend on it.
    """
    model, batch = moved(architecture), random_batch(architecture)
    model.nats(model(batch), batch).sum().backward()  # type: ignore[no-untyped-call]
    if all(_reached(parameter) for parameter in model.parameters()):
        return
    with torch.random.fork_rng():
        output = model.train()(batch, torch.tensor(1.0))
        nats = model.nats(output, batch)
        penalties = model.penalties(output, batch, nats)
    nats.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
    left = {name: parameter for name, parameter in model.named_parameters() if not _reached(parameter)}
    if penalties:
        torch.stack(list(penalties.values())).sum().backward()  # type: ignore[no-untyped-call]
    model.eval()
    for name, parameter in left.items():
        depends = any(_decides(model, batch, left, name, trial) for trial in range(8))
        _require(_reached(parameter) and depends, f"no gradient reaches {name}")


def _reached(parameter: Tensor) -> bool:
    return parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)


def _decides(model: Transformer, batch: Batch, left: dict[str, Parameter], name: str, trial: int) -> bool:
    """Return whether nats change with one of the parameters that decide, all of them elsewhere.

    Elsewhere, because where the others stand one of them may decide nothing: a network of negative outputs lets no
    token pass, whatever goes in.
    """
    kept = {other: parameter.detach().clone() for other, parameter in left.items()}
    with torch.no_grad():
        for other, parameter in left.items():
            parameter.copy_(torch.from_numpy(noise(f"elsewhere/{other}/{trial}", tuple(parameter.shape))))
        before = nats_of(model, batch)
        shape = tuple(left[name].shape)
        left[name].copy_(torch.from_numpy(noise(f"decides/{name}/{trial}", shape)) * 100)  # a decision is a long way
        after = nats_of(model, batch)
        for other, parameter in left.items():
            parameter.copy_(kept[other])
    return not torch.equal(before, after)


def check_randomness(architecture: Architecture) -> None:
    """Evaluation draws nothing from torch's generator, and training does so only where `draws` says it."""
    model, batch = moved(architecture), random_batch(architecture)
    for training in (False, True):
        before = torch.get_rng_state()
        model.train(training)(batch, torch.tensor(0.5))
        drew, may = not torch.equal(before, torch.get_rng_state()), training and architecture.draws
        torch.set_rng_state(before)
        how = "training" if training else "evaluation"
        _require(may or not drew, f"{how} draws random numbers, which it does not declare")


def check_backends_agree(architecture: Architecture) -> None:
    """Every attention backend that accepts the model computes the same nats."""
    model, batch = moved(architecture), random_batch(architecture)
    model.use_backend("reference")
    expected = nats_of(model, batch)
    for name, objection in architecture.backends().items():
        if objection is None:
            model.use_backend(name)
            _require(close(nats_of(model, batch), expected), f"backend {name} differs")


def check_cache(architecture: Architecture) -> None:
    """Hidden states of tokens that are read one by one are those of the whole sequence, cached or recomputed."""
    model, batch = moved(architecture), random_batch(architecture)
    cache, pieces, start = model.cache(), [], 0
    with torch.no_grad():
        whole = model(batch).hidden
        for size in (3, 1, 1, batch.tokens.shape[1] - 5):
            part = (slice(None), slice(start, start + size))
            piece = Batch(batch.tokens[part], batch.targets[part], batch.weights[part])
            pieces.append(model(piece, cache=cache).hidden)
            start += size
    how = "a cache" if cache.recomputes is None else "recomputation"
    _require(close(torch.cat(pieces, dim=1), whole), f"{how} changes hidden states")


def check_packing(architecture: Architecture) -> None:
    """Two documents in one sequence, with positions of their own, have the nats of each alone, unless `unpacked`."""
    if architecture.unpacked() is not None:
        return
    model, batch = moved(architecture), random_batch(architecture)
    first = batch.tokens.shape[1] // 3
    time = torch.arange(batch.tokens.shape[1])
    positions = torch.where(time < first, time, time - first).expand(batch.tokens.shape)
    documents = (time >= first).long().expand(batch.tokens.shape)
    packed = nats_of(model, replace(batch, positions=positions, documents=documents))
    for part in (slice(0, first), slice(first, None)):
        alone = Batch(batch.tokens[:, part], batch.targets[:, part], batch.weights[:, part])
        _require(close(packed[:, part], nats_of(model, alone)), "a document sees another one in its sequence")


def check_stacking(architecture: Architecture) -> None:
    """Two models have in one stack the nats and gradients that each has alone, in training, unless `unstacked`."""
    if architecture.unstacked() is not None:
        return
    single = [_Trained(model.train()) for model in (started(architecture), moved(architecture))]
    drawn = random_batch(architecture, sequences=4)
    shape = 2, 2, architecture.context  # each model has sequences of its own
    tokens, targets, weights = drawn.tokens.view(shape), drawn.targets.view(shape), drawn.weights.view(shape)
    states, alone = [], []
    with torch.random.fork_rng(devices=[]):
        for seed, (one, *held) in enumerate(zip(single, tokens, targets, weights, strict=True)):
            torch.manual_seed(seed)
            states.append(stream("cpu"))
            alone.append(one(Batch(*held)))
    known = [list(one.parameters()) for one in single]
    apart = [
        torch.autograd.grad(nats.sum(), held, materialize_grads=True) for nats, held in zip(alone, known, strict=True)
    ]
    names = [name for name, _ in single[0].named_parameters()]
    stack = [torch.stack([one.detach() for one in both]).requires_grad_() for both in zip(*known, strict=True)]

    def pass_through(held: list[Tensor], *batch: Tensor) -> Tensor:
        return cast(Tensor, functional_call(single[0], dict(zip(names, held, strict=True)), (Batch(*batch),)))

    try:
        with torch.random.fork_rng(devices=[]), streams(states):
            nats = vmap(pass_through)(stack, tokens, targets, weights)
    except RuntimeError as error:
        raise AssertionError(f"two models cannot pass as one stack: {error}") from error
    _require(close(nats, torch.stack(alone)), "nats in a stack differ from those of each model alone")
    gradients = torch.autograd.grad(nats.sum(), stack, materialize_grads=True)
    for name, got, *both in zip(names, gradients, *apart, strict=True):
        _require(close(got, torch.stack(both)), f"the gradient of {name} in a stack differs from that of a model alone")


class _Trained(Module):
    """A model in training as one call: from a batch to nats, (batch, time)."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """Return nats halfway through training."""
        output = self.model(batch, torch.tensor(0.5))
        penalties = self.model.penalties(output, batch, nats := self.model.nats(output, batch))
        return nats + sum(penalties.values())


def check_variants(architecture: Architecture, *, ignores: Collection[str] = ()) -> None:
    """Every field whose effect is "function" changes what is computed, or which parameters there are.

    A choice whose effect is "training" does not, and a parameter that two variants share, by name and shape, starts
    equal in both.
    """
    start, reference = traced(architecture)
    for path, variant in variants(architecture, ignores=ignores):
        other_start, found = traced(variant)
        _require(not same(reference, found), f"{path} changes nothing")
        if variant.layers != architecture.layers or variant.width != architecture.width:
            continue  # scales depend on both
        for name, parameter in other_start.items():
            if name in start and start[name].shape == parameter.shape:
                _require(torch.equal(start[name], parameter), f"{name} starts differently when {path} changes")
    for path, twin in twins(architecture):
        _require(same(reference, fingerprint(twin)), f"{path} changes what is computed, and says training only")


def _require(kept: bool | Tensor, broken: str) -> None:
    if not kept:
        raise AssertionError(broken)
