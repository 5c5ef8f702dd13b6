"""What a step minimises: accumulated parts, and terms beside the mean of nats, against torch and against formulas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from architectures.bytes import Bytes
from architectures.dropout import Dropout
from architectures.layerskip import LayerSkip
from architectures.presets import tiny
from architectures.specimens import started
from architectures.transformer import Batch, Transformer
from tests.engine.test_training import NUMERICS, SMALL, job, same, weights
from workbench.configuration import Configuration
from workbench.errors import PlanError
from workbench.training.feeding import Fed
from workbench.training.loop import Interrupted, Trained, train
from workbench.training.objective import LabelSmoothing, Objective, ZLoss
from workbench.training.pace import BatchWarmup
from workbench.training.recipe import AdamW, Pretraining
from workbench.training.stepping import take_step

PLAIN = SMALL.vary(dropout=Dropout())
EXITS = PLAIN.vary(layers=3, depth=LayerSkip(dropout=0.0, exit_loss=0.3))


def fed(sequences: int = 6) -> Fed:
    draw = torch.Generator().manual_seed(1)
    tokens, targets = torch.randint(0, 64, (2, sequences, 16), generator=draw)
    return Fed(Batch(tokens, targets, torch.rand(sequences, 16, generator=draw)))


def model_of(architecture: Any = PLAIN) -> Transformer:
    return started(architecture).train()


def gradients(model: Transformer) -> dict[str, torch.Tensor]:
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def parts(whole: Fed, *counts: int) -> list[Fed]:
    firsts = [sum(counts[:place]) for place in range(len(counts))]
    return [whole.part(first, count) for first, count in zip(firsts, counts, strict=True)]


@pytest.mark.parametrize("architecture", [PLAIN, EXITS], ids=["plain", "exits"])
@pytest.mark.parametrize("counts", [(3, 3), (1, 2, 3), (4, 2)])
def test_accumulated_parts_leave_the_gradient_of_the_whole_batch(architecture: Any, counts: tuple[int, ...]) -> None:
    found = []
    for some in ((6,), counts):
        model = model_of(architecture)
        torch.manual_seed(0)
        taken = take_step(
            Objective(model, (ZLoss(0.01), LabelSmoothing(0.1))),
            torch.optim.SGD(model.parameters(), lr=0.0),
            parts(fed(), *some),
            NUMERICS,
            1e9,
            0.5,
        )
        found.append((taken, gradients(model)))
    (whole, expected), (split, got) = found
    torch.testing.assert_close(split.loss, whole.loss)
    torch.testing.assert_close(split.norm, whole.norm)
    torch.testing.assert_close(split.costs, whole.costs)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_a_part_that_does_not_count_leaves_the_step_as_it_is() -> None:
    counts, silent = fed(4), fed(2)
    silent = Fed(Batch(silent.batch.tokens, silent.batch.targets, torch.zeros(2, 16)))
    found = []
    for some in ([counts], [counts, silent]):
        model = model_of(EXITS)
        objective = Objective(model, (ZLoss(0.01), LabelSmoothing(0.1)))
        taken = take_step(objective, torch.optim.SGD(model.parameters(), lr=0.0), some, NUMERICS, 1e9, 0.5)
        found.append((taken.loss, taken.norm, taken.costs, gradients(model)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_the_terms_of_the_loss_are_those_of_their_formulas() -> None:
    model, whole = model_of(), fed()
    nats, costs, _ = Objective(model, (ZLoss(0.01), LabelSmoothing(0.2)))(whole.batch, torch.tensor(0.5))
    logits = model.logits(model(whole.batch, torch.tensor(0.5)).hidden)
    weight = whole.batch.weights / whole.batch.weights.sum()
    torch.testing.assert_close(nats, model.nats(model(whole.batch, torch.tensor(0.5)), whole.batch))
    squared = torch.log(torch.exp(logits.double()).sum(-1)) ** 2
    assert costs["z_loss"].item() == pytest.approx(0.01 * (squared * weight).sum().item(), rel=1e-5)
    smoothed = functional.cross_entropy(
        logits.flatten(0, 1), whole.batch.targets.flatten(), label_smoothing=0.2, reduction="none"
    ).view_as(nats)
    torch.testing.assert_close((nats * weight).sum() + costs["label_smoothing"], (smoothed * weight).sum())


def trained(folder: Path, **changes: Any) -> Trained:
    stage = Pretraining(tokens=12 * 4 * 16, batch=4, optimizer=AdamW(learning_rate=3e-3), **changes)
    return train(replace(job(folder), stage=stage))


def test_terms_change_the_weights_and_stand_on_the_curve_beside_the_plain_loss(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain")
    with_terms = trained(tmp_path / "terms", z_loss=1e-2, label_smoothing=0.1)
    assert not same(plain, with_terms)
    assert "z_loss" not in plain.curve.column_names
    curve = with_terms.curve.to_pylist()
    assert curve[0]["loss"] == pytest.approx(plain.curve["loss"][0].as_py(), rel=1e-5)  # the mean of nats, in both
    assert all(point["z_loss"] > 0 for point in curve)


def test_microbatches_and_a_growing_batch_resume_where_they_stood(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"microbatch": 3, "batch_warmup": BatchWarmup(start=1, share=0.5), "z_loss": 1e-3}
    whole, asked = trained(tmp_path / "whole", **changes), iter([False] * 6 + [True])
    stage = Pretraining(tokens=12 * 4 * 16, batch=4, optimizer=AdamW(learning_rate=3e-3), **changes)
    with pytest.raises(Interrupted):
        train(replace(job(tmp_path / "parts"), stage=stage), stop=lambda: next(asked))
    resumed = train(replace(job(tmp_path / "parts"), stage=stage))
    assert same(whole, resumed)
    assert resumed.costs.tokens == stage.pace(16).tokens == whole.curve["tokens"].to_pylist()[-1]


def test_a_microbatch_as_large_as_the_batch_is_the_batch_bit_for_bit(tmp_path: Path) -> None:
    assert same(trained(tmp_path / "plain"), trained(tmp_path / "one part", microbatch=4))
    assert weights(trained(tmp_path / "two parts", microbatch=2)).keys() == weights(trained(tmp_path / "plain")).keys()


def test_a_term_over_the_vocabulary_is_refused_for_a_model_over_bytes() -> None:
    embedding = Bytes(byte_width=8, heads=1, encoder_layers=1, decoder_layers=1)
    one = Configuration(architecture=tiny().vary(embedding=embedding), stages=(Pretraining(z_loss=1e-4),))
    with pytest.raises(PlanError, match=r"stages.0\n.*\n.*z_loss with embedding bytes"):
        one.refuse_unanswerable("arm 'bytes'")
