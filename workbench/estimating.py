"""How long a plan will take on this machine: a few real steps of every distinct arm, timed, before anything is run.

An estimate for people; no part of a plan's hash, and never used to choose numerics, which must not depend on a clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from architectures.accounting import flops_per_token
from architectures.architecture import Architecture
from architectures.transformer import Batch
from workbench.command import Command
from workbench.data.benchmarks import read_items
from workbench.data.mixing import times_read
from workbench.data.ordering import Weighted
from workbench.data.prepared import known_facts
from workbench.evaluation.tasks import BenchmarkItems, BitsPerByte, HeldOutAnswers, SwappedWords, Task, View
from workbench.identity import digest
from workbench.planning import Plan, PlannedArm
from workbench.records import Numerics, Seeds, Status
from workbench.seeds import generator
from workbench.store import Store
from workbench.training.feeding import Fed
from workbench.training.loop import build
from workbench.training.numerics import settle
from workbench.training.objective import Objective
from workbench.training.optimizers import make_optimizer
from workbench.training.recipe import Training
from workbench.training.stepping import take_step

STEPS = 4
BYTES_PER_TOKEN = 3.0  # of a small vocabulary on English text
WORDS_PER_SENTENCE, TOKENS_PER_WORD = 18, 1.6


def seconds_per_cell(plan: Plan, store: Store) -> dict[str, float | None]:
    """Return the expected seconds of one cell of every arm; None for a command that has not run yet.

    What an arm's committed runs took is used where there are any; else `STEPS` training steps are timed. An arm whose
    models an arm before it trains costs its evaluation only; teachers cost the first arm that learns from them. Of
    several devices the share of one is timed, and what they tell each other is not counted.
    """
    timed: dict[str, float] = {}
    paid: set[str] = set()
    trains = _trainers(plan)
    expected = _measured(plan, store)
    for arm in plan.arms:
        configuration: Any = arm.configuration
        if arm.name in expected:
            continue
        if isinstance(configuration, Command):
            expected[arm.name] = None
            continue
        context, training = configuration.architecture.context, 0.0
        for place, stage in enumerate(configuration.training):
            key = digest(configuration.architecture, stage.batch, stage.microbatch, stage.optimizer.kind)
            if key not in timed:
                timed[key] = step_seconds(configuration.architecture, stage, plan.numerics)
            seconds = timed[key] / (stage.batch * context)  # per token
            training += seconds * stage.pace(context).tokens if (arm.name, place) in trains else 0.0
        # a forward pass is about a third of a training step
        devices = plan.numerics.devices if plan.numerics else 1
        expected[arm.name] = training + devices * seconds / 3 * _evaluated_tokens(configuration)
        expected[arm.name] += seconds / arm.size["flops_per_token"] * _teaching_flops(plan, arm, paid)
    return expected


def _teaching_flops(plan: Plan, arm: PlannedArm, paid: set[str]) -> float:
    """Return what teachers that are not `paid` for yet cost per cell of an arm; they then are."""
    configuration: Any = arm.configuration
    flops = 0.0
    for teacher, size in zip(configuration.teachers, arm.size.get("teachers", ()), strict=True):
        key = digest(teacher, configuration.data)
        if key not in paid:
            # windows overlap by half
            flops += size["training_flops"] / len(plan.sweep.seeds) + 2 * size["flops_per_token"] * arm.size["tokens"]
        paid.add(key)
    return flops


def epochs(plan: Plan, store: Store) -> dict[str, float]:
    """Return how often every arm's pretraining reads its documents, for arms whose data are prepared already."""
    found = {}
    for arm in plan.arms:
        configuration: Any = arm.configuration
        if isinstance(configuration, Command):
            continue
        facts = known_facts(configuration.data, configuration.data.fingerprint(), store.cache)
        if facts is not None and facts.training_tokens:
            tokens = configuration.pretraining.pace(configuration.architecture.context).tokens
            found[arm.name] = tokens / facts.training_tokens
    return found


def sources_read(plan: Plan, store: Store) -> dict[str, dict[str, float]]:
    """Return how often the pretraining of arms with weighted sources reads each, for data that are prepared already."""
    found = {}
    for arm in plan.arms:
        configuration: Any = arm.configuration
        if isinstance(configuration, Command) or not isinstance(configuration.data.order, Weighted):
            continue
        facts = known_facts(configuration.data, configuration.data.fingerprint(), store.cache)
        if facts is not None:
            tokens = {source.name: source.training_tokens for source in facts.sources}
            budget = configuration.pretraining.pace(configuration.architecture.context).tokens
            found[arm.name] = times_read(configuration.data.order, tokens, budget)
    return found


def _trainers(plan: Plan) -> set[tuple[str, int]]:
    """Return who trains what first: (arm, place of the stage)."""
    first: dict[str, tuple[str, int]] = {}
    for trial in plan.trials:
        for place, key in enumerate(trial.model_keys):
            first.setdefault(key, (trial.arm, place))
    return set(first.values())


def _measured(plan: Plan, store: Store) -> dict[str, float | None]:
    took: dict[str, list[float]] = {}
    for trial in plan.trials:
        record = store.record(trial.run_id)
        if record is not None and record.status is Status.FINISHED:
            took.setdefault(trial.arm, []).append(record.costs.total_seconds)
    return {arm: statistics.median(seconds) for arm, seconds in took.items()}


def step_seconds(architecture: Architecture, stage: Training, numerics: Numerics | None) -> float:
    """Return the seconds of a training step on this machine: the median of `STEPS`, after one that warms up."""
    assert numerics is not None  # noqa: S101 - a plan with a configuration has numerics
    settle(numerics)
    spelling = [token.to_bytes(int(BYTES_PER_TOKEN), "big") for token in range(architecture.vocabulary)]
    model = build(architecture, Seeds.all(0), numerics, spelling)
    model.recompute = numerics.recompute
    optimizer = make_optimizer(model, stage.optimizer)
    batch = -(-stage.batch // numerics.devices)
    shape = (batch, architecture.context)
    drawn = generator(0, "estimate").integers(0, architecture.vocabulary, shape, dtype=np.int64)
    tokens = torch.from_numpy(drawn).to(numerics.device)
    fed = Fed(Batch(tokens, tokens, torch.ones(shape, device=numerics.device)))
    at_once = stage.microbatch or batch
    parts = [fed.part(first, min(at_once, batch - first)) for first in range(0, batch, at_once)]
    objective, seconds = Objective(model, stage.terms()), []
    for _ in range(1 + STEPS):
        began = time.perf_counter()
        take_step(objective, optimizer, parts, numerics, stage.clip, 0.0).loss.item()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def _evaluated_tokens(configuration: Any) -> float:
    """Return the tokens that go through the model at its training context, and as many as the other views cost.

    A model on its way is asked every task in its first view, as often as the trajectory is long.
    """
    asked = [(task, task.views) for task in configuration.evaluation.tasks]
    asked += [(task, task.views[:1]) for task in configuration.evaluation.tasks] * len(configuration.trajectory)
    return sum(_asked_tokens(task, views, configuration.architecture) for task, views in asked)


def _asked_tokens(task: Task, views: Sequence[View], architecture: Architecture) -> float:
    if isinstance(task, BitsPerByte):
        text = task.documents * task.bytes_per_document / BYTES_PER_TOKEN
        return text * sum(_cost(view, task, architecture) for view in views)
    if isinstance(task, SwappedWords):
        return 2 * task.items * WORDS_PER_SENTENCE * TOKENS_PER_WORD
    if isinstance(task, HeldOutAnswers):
        return task.items * architecture.context  # at most
    if isinstance(task, BenchmarkItems):
        items = read_items(task.benchmark)
        size = sum(len(text.encode()) for item in items for text in item.texts)
        return (1 + task.shots) * size / BYTES_PER_TOKEN + len(items) * task.tokens * task.writes
    return 0.0  # pairs of occupations are few, and what lm-evaluation-harness asks it says when it is asked


def _cost(view: View, task: BitsPerByte, architecture: Architecture) -> float:
    """Return what a view costs per token of text, in tokens through the whole model at its training context."""
    context, layers = architecture.context * view.multiple, architecture.layers
    overlap = context / min(context, task.stride or max(1, 3 * context // 4))
    whole = flops_per_token(architecture).forward
    head = architecture.embedding.flops(architecture.shape()) / whole
    to_exit = [head + (1 - head) * exit / layers for exit in range(1, layers + 1)]
    if view.exit is not None:
        return overlap * to_exit[view.exit - 1]
    if view.confidence is not None:
        return overlap * sum(to_exit)  # one pass to every exit, at most
    return overlap * flops_per_token(architecture.vary(context=context)).forward / whole
