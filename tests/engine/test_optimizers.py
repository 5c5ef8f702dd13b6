"""Optimizers against the formulas of their papers, what they train and decay, and their state across interruptions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.embeddings import Table
from architectures.feedforward import Gelu
from architectures.positions import Learned
from architectures.presets import tiny
from architectures.transformer import Transformer
from workbench.configuration import Configuration
from workbench.data.order import Stream
from workbench.data.prepared import TokenFile
from workbench.errors import PlanError
from workbench.planning import plan
from workbench.records import Numerics, Seeds, Status
from workbench.seeds import generator
from workbench.sweep import Arm, Metric, Sweep
from workbench.training.checkpoints import Progress, load_checkpoint, save_checkpoint
from workbench.training.feeding import StreamFeed
from workbench.training.loop import Interrupted, Job, Trained, build, train
from workbench.training.optimizers import AdamW, Lion, Muon, Optimizer, make_optimizer, set_rates
from workbench.training.recipe import Constant, InverseSquareRoot, Pretraining, WarmupStableDecay

NUMERICS = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1)
SMALL = Architecture(
    width=16, layers=2, context=16, vocabulary=64, position=Learned(), embedding=Table(tied=False),
    attention=MultiHead(heads=2, query_key_norm=True), feed_forward=Gelu(width=40),
)  # fmt: skip
CHOICES = [
    AdamW(),
    Lion(learning_rate=1e-3),
    Muon(),
    Muon(adjustment="original", matrix_learning_rate=0.02, momentum=0.9, iterations=3),
]
BASELINE = Configuration(architecture=tiny())
CHOICE = pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: f"{choice.kind}-{choice.learning_rate}")


pytestmark = pytest.mark.usefixtures("deterministic")


def model() -> Transformer:
    return build(SMALL, Seeds.all(0), NUMERICS)


def draw_gradients(seed: int, *models: Transformer) -> dict[str, torch.Tensor]:
    """Give every parameter a gradient, the same in all models, and return the gradients by name."""
    drawn = {
        name: torch.from_numpy(generator(seed, name).standard_normal(tuple(parameter.shape), dtype=np.float32))
        for name, parameter in models[0].named_parameters()
    }
    for each in models:
        for name, parameter in each.named_parameters():
            parameter.grad = drawn[name].clone()
    return drawn


def job(folder: Path, choice: Optimizer, steps: int = 12) -> Job:
    lengths = generator(0, "test").integers(5, 60, size=40)
    tokens = generator(0, "tokens").integers(0, 64, size=int(lengths.sum())).astype(np.uint16)
    hashes = generator(0, "hashes").integers(0, 256, size=(40, 32)).astype(np.uint8)
    stream = Stream(TokenFile(tokens, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), hashes), 0)
    stage = Pretraining(tokens=steps * 4 * 16, batch=4, optimizer=choice, schedule=WarmupStableDecay(decay=0.5))
    return Job(SMALL, stage, StreamFeed(stream, SMALL.context), Seeds.all(0), NUMERICS, folder)


def same(one: Trained, other: Trained) -> bool:
    ours, theirs = one.model.state_dict(), other.model.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@CHOICE
def test_every_parameter_is_trained_by_exactly_one_group_and_only_matrices_decay(choice: Optimizer) -> None:
    held = model()
    groups = make_optimizer(held, choice).param_groups
    trained = [parameter for group in groups for parameter in group["params"]]
    assert len(trained) == len(set(trained)) == len(list(held.parameters()))
    for group in groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (choice.weight_decay if parameter.ndim >= 2 else 0.0)


def test_adamw_is_that_of_torch_over_matrices_and_the_rest_bit_for_bit() -> None:
    ours, theirs = model(), model()
    optimizer = make_optimizer(ours, AdamW(learning_rate=2e-3, betas=(0.8, 0.9), epsilon=1e-6, weight_decay=0.3))
    matrices = [parameter for parameter in theirs.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in theirs.parameters() if parameter.ndim < 2]
    oracle = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.3}, {"params": others, "weight_decay": 0.0}],
        lr=2e-3, betas=(0.8, 0.9), eps=1e-6, fused=True,
    )  # fmt: skip
    for step in range(4):
        draw_gradients(step, ours, theirs)
        optimizer.step()
        oracle.step()
    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_lion_does_what_algorithm_2_of_its_paper_says() -> None:
    held = model()
    choice = Lion(learning_rate=0.01, betas=(0.8, 0.95), weight_decay=0.5)
    optimizer = make_optimizer(held, choice)
    expected = {name: parameter.detach().double() for name, parameter in held.named_parameters()}
    momentum = {name: torch.zeros_like(value) for name, value in expected.items()}
    for step in range(5):
        rate = 0.01 * (1 - step / 5)
        set_rates(optimizer, 1 - step / 5)
        for name, gradient in draw_gradients(step, held).items():
            decay = 0.5 if expected[name].ndim >= 2 else 0.0
            update = torch.sign(0.8 * momentum[name] + 0.2 * gradient)
            expected[name] = expected[name] - rate * (update + decay * expected[name])
            momentum[name] = 0.95 * momentum[name] + 0.05 * gradient
        optimizer.step()
    for name, parameter in held.named_parameters():
        torch.testing.assert_close(parameter.double(), expected[name], atol=1e-6, rtol=1e-5)


def orthogonalised(matrix: torch.Tensor, iterations: int) -> torch.Tensor:
    """Apply Muon's quintic to the singular values of a matrix, where Newton-Schulz applies it to products of it."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(iterations):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ torch.diag(values) @ right


@pytest.mark.parametrize(
    ("adjustment", "scale"),
    [
        ("match_rms_adamw", lambda rows, columns: 0.2 * max(rows, columns) ** 0.5),
        ("original", lambda rows, columns: max(1, rows / columns) ** 0.5),
    ],
)
def test_muon_orthogonalises_the_momentum_of_inner_matrices_and_leaves_the_rest_to_adamw(
    adjustment: str, scale: Callable[[int, int], float]
) -> None:
    held, twin = model(), model()
    choice = Muon.model_validate(
        {"learning_rate": 1e-3, "matrix_learning_rate": 0.02, "momentum": 0.9, "iterations": 4, "weight_decay": 0.5}
        | {"adjustment": adjustment}
    )
    optimizer, oracle = make_optimizer(held, choice), make_optimizer(twin, AdamW(learning_rate=1e-3, weight_decay=0.5))
    start = {name: parameter.detach().double() for name, parameter in held.named_parameters()}
    inner = [
        f"blocks.{block}.{name}.weight" for block in range(2)
        for name in (*(f"attention.{role}" for role in ("query", "key", "value", "output")), "feed_forward.up",
                     "feed_forward.down")
    ]  # fmt: skip
    expected = {name: start[name] for name in inner}
    momentum = {name: torch.zeros_like(start[name]) for name in inner}
    for step in range(3):
        drawn = draw_gradients(step, held, twin)
        optimizer.step()
        oracle.step()
        for name in inner:
            momentum[name] = 0.9 * momentum[name] + 0.1 * drawn[name]
            update = orthogonalised(0.9 * momentum[name] + 0.1 * drawn[name], 4)
            expected[name] = (1 - 0.02 * 0.5) * expected[name] - 0.02 * scale(*update.shape) * update
    others = dict(twin.named_parameters())
    for name, parameter in held.named_parameters():
        if name in inner:  # iterations are in bfloat16, which keeps two to three digits
            wrong = (parameter.double() - expected[name]).norm() / (expected[name] - start[name]).norm()
            assert wrong < 0.03, (name, wrong)
        else:
            assert torch.equal(parameter, others[name]), name


def test_a_schedule_scales_both_rates_of_muon() -> None:
    optimizer = make_optimizer(model(), Muon(learning_rate=1e-3, matrix_learning_rate=0.02))
    for factor in (0.5, 0.25, 1.0):
        set_rates(optimizer, factor)
        assert sorted({group["lr"] for group in optimizer.param_groups}) == [1e-3 * factor, 0.02 * factor]
        assert [group["lr"] for part in optimizer.parts for group in part.param_groups] == [  # type: ignore[attr-defined]
            group["lr"] for group in optimizer.param_groups
        ]


@CHOICE
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(choice: Optimizer, tmp_path: Path) -> None:
    whole = train(job(tmp_path / "whole", choice))
    asked = iter([False] * 4 + [True])
    with pytest.raises(Interrupted):
        train(job(tmp_path / "parts", choice), stop=lambda: next(asked))
    resumed = train(job(tmp_path / "parts", choice))
    assert same(whole, resumed)
    assert whole.curve.equals(resumed.curve)
    losses = whole.curve["loss"].to_pylist()
    assert losses[-1] < losses[0]


@CHOICE
def test_a_checkpoint_holds_all_of_the_state(choice: Optimizer, tmp_path: Path) -> None:
    one, other = model(), model()
    written, read = make_optimizer(one, choice), make_optimizer(other, choice)
    for step in range(2):
        draw_gradients(step, one)
        written.step()
    save_checkpoint(tmp_path, one, written, Progress(step=2))
    assert load_checkpoint(tmp_path, other, read).step == 2
    for (name, parameter), twin in zip(one.named_parameters(), other.parameters(), strict=True):
        ours, theirs = written.state[parameter], read.state[twin]
        assert ours.keys() == theirs.keys() != set(), name
        assert all(torch.equal(ours[moment], theirs[moment]) for moment in ours), name


@CHOICE
def test_a_gradient_that_is_not_finite_is_not_hidden(choice: Optimizer, tmp_path: Path) -> None:
    held = model()
    optimizer = make_optimizer(held, choice)
    draw_gradients(0, held)
    held.blocks[0].attention.query.weight.grad[0, 0] = float("nan")  # type: ignore[index, union-attr]
    optimizer.step()
    assert not held.blocks[0].attention.query.weight.isfinite().all()  # type: ignore[union-attr, operator]
    rates = {"learning_rate": 1e30} | ({"matrix_learning_rate": 1e30} if isinstance(choice, Muon) else {})
    assert train(job(tmp_path, choice.model_copy(update=rates), steps=4)).status is Status.DIVERGED


def test_optimizers_are_read_back_from_plain_values_and_impossible_ones_refused() -> None:
    read = TypeAdapter(Optimizer)
    for choice in CHOICES:
        assert read.validate_python(choice.model_dump(mode="json")) == choice
    assert read.validate_python({"learning_rate": 0.1}) == AdamW(learning_rate=0.1)
    with pytest.raises(ValidationError, match=r"betas\.1\n.*less than 1"):
        Lion(betas=(0.9, 1.0))
    with pytest.raises(ValidationError, match="'adamw', 'lion', 'muon'"):
        read.validate_python({"kind": "sgd"})


def planned(*arms: Arm) -> list[set[str]]:
    sweep = Sweep(
        question="?", baseline=BASELINE, arms=arms, seeds=5, metric=Metric(name="bits_per_byte", smallest_effect=0.1)
    )
    held = plan(sweep, NUMERICS, lambda variant: "corpus")
    return [{entry["path"] for entry in arm.difference} for arm in held.arms[1:]]


def test_a_plan_shows_a_schedule_and_an_optimizer_as_one_declared_difference_each() -> None:
    schedule, optimizer = planned(
        Arm(name="1", axis="stages.0.schedule", configuration=BASELINE.vary(stages__0__schedule=InverseSquareRoot())),
        Arm(name="2", axis="stages.0.optimizer", configuration=BASELINE.vary(optimizer=Lion())),
    )
    assert schedule == {"stages.0.schedule.kind"}
    assert "stages.0.optimizer.kind" in optimizer
    assert all(path.startswith("stages.0.optimizer.") for path in optimizer)


def test_an_optimizer_that_brings_another_schedule_unsaid_is_refused() -> None:
    both = BASELINE.vary(optimizer=Lion(), stages__0__schedule=Constant())
    with pytest.raises(PlanError, match=r"stages\.0\.schedule"):
        planned(Arm(name="1", axis="stages.0.optimizer", configuration=both))
