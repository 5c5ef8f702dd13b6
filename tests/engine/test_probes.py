"""Probes say what the definition says, and change no bit of what is trained."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_jobs import NUMERICS, SMALL, job, same
from torch import nn
from torch.nn import functional

from architectures.accounting import part_of
from architectures.dropout import Dropout
from architectures.feedforward import ReLU
from workbench.identity import digest
from workbench.records import Seeds
from workbench.seeds import standard_normal
from workbench.training.checkpoints import load_checkpoint
from workbench.training.loop import Interrupted, Job, build, train
from workbench.training.optimizers import make_optimizer
from workbench.training.probes import Prober, Probes, mean_cosines
from workbench.training.recipe import Pretraining

NONE = Probes(points=0)
ALL = Probes(points=20, agreement_every=4, gradients=3)


pytestmark = pytest.mark.usefixtures("deterministic")


def stopped(one: Job, after: int) -> nn.Module:
    """Return the model of a run that was stopped after so many steps."""
    asked: Iterator[bool] = iter([False] * (after - 1) + [True])
    with pytest.raises(Interrupted):
        train(one, stop=lambda: next(asked))
    model = build(one.architecture, Seeds.all(0), NUMERICS)
    assert load_checkpoint(one.folder, model, make_optimizer(model, one.stage.optimizer)).step == after
    return model


def test_a_run_that_is_probed_ends_with_the_weights_of_one_that_is_not(tmp_path: Path) -> None:
    rough = job(tmp_path / "a", 12, SMALL.vary(layers=2, dropout=Dropout(residual=0.2)), probes=NONE, microbatch=2)
    bare, probed = (
        train(rough),
        train(replace(rough, folder=tmp_path / "b", stage=rough.stage.model_copy(update={"probes": ALL}))),
    )
    assert same(bare, probed)
    assert bare.curve.equals(probed.curve.select(bare.curve.column_names))
    assert set(probed.curve.column_names) > set(bare.curve.column_names)


def test_probes_are_no_part_of_identity() -> None:
    assert digest(Pretraining()) == digest(Pretraining(probes=ALL)) == digest(Pretraining(probes=NONE))


def test_a_step_is_measured_against_the_weights_before_it(tmp_path: Path) -> None:
    one = job(tmp_path / "whole", 10, clip=0.01)
    trained = train(one)
    row = trained.curve.to_pylist()[9]
    before = dict(stopped(replace(one, folder=tmp_path / "parts"), 9).named_parameters())
    after = dict(trained.model.named_parameters())
    for part in {part_of(name) for name in before} | {None}:
        names = [name for name in before if part in (None, part_of(name))]
        weight = math.sqrt(sum(before[name].square().sum().item() for name in names))
        moved = math.sqrt(sum((after[name] - before[name]).square().sum().item() for name in names))
        suffix = f"/{part}" if part else ""
        assert row[f"weight_norm{suffix}"] == pytest.approx(weight, rel=1e-5)
        assert row[f"update_ratio{suffix}"] == pytest.approx(moved / weight, rel=1e-4)
    parts = [value for name, value in row.items() if name.startswith("gradient_norm/")]
    assert row["gradient_norm"] > 0.1  # far above the clip
    assert math.hypot(*parts) == pytest.approx(row["gradient_norm"], rel=1e-5)


def test_the_residual_stream_is_measured_after_each_block_over_all_parts_of_a_batch(tmp_path: Path) -> None:
    deep = SMALL.vary(layers=2, dropout=Dropout())
    whole = train(job(tmp_path / "whole", 10, deep)).curve.to_pylist()[9]
    parted = train(job(tmp_path / "parted", 10, deep, microbatch=2)).curve.to_pylist()[9]
    one = job(tmp_path / "stopped", 10, deep)
    model = stopped(one, 9)
    entered: list[torch.Tensor] = []
    model.final_norm.register_forward_pre_hook(lambda module, given: entered.append(given[0]))
    model(one.feed.sequences(one.pace.first(9), one.pace.size(9)).batch)
    assert whole["residual_rms/2"] == pytest.approx(entered[0].square().mean().sqrt().item(), rel=1e-5)
    assert parted["residual_rms/2"] == pytest.approx(whole["residual_rms/2"], rel=1e-3)
    assert parted["residual_rms/1"] != parted["residual_rms/2"]


def test_a_unit_is_dead_that_is_zero_at_every_position_of_a_step(tmp_path: Path) -> None:
    relu = SMALL.vary(layers=2, dropout=Dropout(), feed_forward=ReLU(width=32, bias=True))
    whole = train(job(tmp_path / "whole", 10, relu)).curve.to_pylist()[9]
    parted = train(job(tmp_path / "parted", 10, relu, microbatch=2)).curve.to_pylist()[9]
    one = job(tmp_path / "stopped", 10, relu)
    model, hidden = stopped(one, 9), list[torch.Tensor]()
    for block in model.blocks:  # type: ignore[union-attr]
        block.feed_forward.up.register_forward_hook(lambda module, given, x: hidden.append(x))  # type: ignore[union-attr]
    model(one.feed.sequences(one.pace.first(9), one.pace.size(9)).batch)
    shares = [(values.flatten(0, 1).max(0).values <= 0).float().mean().item() for values in hidden]
    assert [whole[f"dead_units/{place}"] for place in (1, 2)] == pytest.approx(shares)
    assert parted["dead_units/1"] == pytest.approx(whole["dead_units/1"])
    assert 0 < shares[0] < 1
    assert not any(name.startswith("dead_units") for name in train(job(tmp_path / "gelu", 10)).curve.column_names)


def test_probes_are_made_at_points_of_the_curve_and_at_most_every_tenth_step(tmp_path: Path) -> None:
    curve = train(job(tmp_path, 14)).curve
    assert [row["step"] for row in curve.to_pylist() if row["weight_norm"] is not None] == [10]
    model = build(SMALL, Seeds.all(0), NUMERICS)

    def steps(rule: Probes, steps: int, interval: int) -> tuple[list[int], list[int]]:
        prober, compared = Prober(rule, model, steps, interval), []
        probed = []
        for done in range(interval, steps + 1, interval):
            with prober.over(done):
                pass
            probed += [done] if prober.row(0.0) else []
            compared += [done] if prober.compares(done) else []
        return probed, compared

    assert steps(Probes(), 35, 1) == ([10, 20, 30], [])
    assert steps(Probes(points=5, agreement_every=63), 210, 2) == ([42, 84, 126, 168, 210], [64, 126, 190])
    assert steps(Probes(points=1000), 100_000, 1000)[0] == list(range(1000, 100_001, 1000))
    assert steps(NONE, 100, 1) == ([], [])


def test_the_mean_cosine_is_that_of_all_pairs() -> None:
    model = build(SMALL, Seeds.all(0), NUMERICS)
    noise = [
        {
            name: torch.from_numpy(0.1 + standard_normal(number, name, tuple(weight.shape)))
            for name, weight in model.named_parameters()
        }
        for number in range(4)
    ]

    def gradients() -> Iterator[int]:
        for number, drawn in enumerate(noise):
            for name, weight in model.named_parameters():
                weight.grad = drawn[name]
            yield number

    found = mean_cosines(model, gradients())
    block = [
        torch.cat([value.flatten() for name, value in drawn.items() if name.startswith("blocks.0.")]) for drawn in noise
    ]
    pairs = [functional.cosine_similarity(a, b, dim=0).item() for a, b in itertools.combinations(block, 2)]
    assert found["gradient_cosine/block/1"] == pytest.approx(np.mean(pairs), abs=1e-5)
    layers = [value for name, value in found.items() if "/" in name]
    assert found["gradient_cosine"] == pytest.approx(np.mean(layers))


def test_gradients_are_compared_at_the_weights_as_they_stand_on_the_text_of_the_last_steps(tmp_path: Path) -> None:
    plain = SMALL.vary(dropout=Dropout())
    one = job(tmp_path / "whole", 8, plain, probes=ALL)
    row = train(one).curve.to_pylist()[3]
    model = stopped(replace(one, folder=tmp_path / "parts"), 4)
    heads = []
    for step in (1, 2, 3):
        batch = one.feed.sequences(one.pace.first(step), one.pace.size(step)).batch
        model.zero_grad()
        model.nats(model(batch), batch).mean().backward()
        heads.append(model.get_parameter("embedding.weight").grad.flatten().clone())
    pairs = [functional.cosine_similarity(a, b, dim=0).item() for a, b in itertools.combinations(heads, 2)]
    assert row["gradient_cosine/embedding"] == pytest.approx(np.mean(pairs), abs=1e-5)


def test_gradients_of_the_same_text_agree_wholly(tmp_path: Path) -> None:
    one = job(tmp_path, 8, SMALL.vary(dropout=Dropout()), probes=ALL)

    class Stuck:
        def sequences(self, first: int, count: int) -> object:
            return one.feed.sequences(0, count)

    curve = train(replace(one, feed=Stuck())).curve.to_pylist()  # type: ignore[arg-type]
    assert curve[3]["gradient_cosine"] == pytest.approx(1.0, abs=1e-5)
