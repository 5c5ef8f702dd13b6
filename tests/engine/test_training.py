from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.bytes import Bytes
from architectures.dropout import Dropout, Early, Late
from architectures.feedforward import Gelu
from architectures.positions import Alibi, Rotary
from workbench.data.order import Stream
from workbench.data.prepared import TokenFile
from workbench.errors import PlanError, StoreError
from workbench.records import Numerics, Seeds, Status
from workbench.seeds import generator
from workbench.training.feeding import StreamFeed
from workbench.training.loop import Interrupted, Job, Step, Trained, build, train
from workbench.training.numerics import resolve, settle
from workbench.training.optimizers import make_optimizer
from workbench.training.recipe import AdamW, Pretraining

NUMERICS = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1)
SMALL = Architecture(
    width=32,
    layers=2,
    context=16,
    vocabulary=64,
    position=Rotary(),
    attention=MultiHead(heads=2),
    feed_forward=Gelu(width=64),
    dropout=Dropout(residual=0.1),
)


pytestmark = pytest.mark.usefixtures("deterministic")


def stream(seed: int = 0) -> Stream:
    lengths = generator(0, "test").integers(5, 60, size=40)
    tokens = generator(0, "tokens").integers(0, 64, size=int(lengths.sum())).astype(np.uint16)
    hashes = generator(0, "hashes").integers(0, 256, size=(40, 32)).astype(np.uint8)
    return Stream(TokenFile(tokens, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), hashes), seed)


def job(folder: Path, architecture: Architecture = SMALL, steps: int = 12, seed: int = 0, rate: float = 3e-3) -> Job:
    stage = Pretraining(tokens=steps * 4 * 16, batch=4, optimizer=AdamW(learning_rate=rate))
    return Job(architecture, stage, StreamFeed(stream(seed), 16), Seeds.all(seed), NUMERICS, folder)


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trained.model.state_dict().items()}


def same(one: Trained, other: Trained) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_budget_is_rounded_up_to_whole_steps() -> None:
    assert Pretraining(tokens=1025, batch=4).pace(context=128).steps == 3


def test_training_lowers_the_loss_and_records_the_curve(tmp_path: Path) -> None:
    trained = train(job(tmp_path, steps=60))
    losses = trained.curve["loss"].to_pylist()
    assert trained.status is Status.FINISHED
    assert losses[0] == pytest.approx(math.log(64), abs=0.2)
    assert np.mean(losses[-5:]) < losses[0] - 0.05
    assert trained.curve["tokens"].to_pylist()[-1] == 60 * 4 * 16 == trained.costs.tokens


def test_a_model_that_reads_bytes_is_told_them_trains_on_its_penalty_and_resumes(tmp_path: Path) -> None:
    embedding = Bytes(byte_width=8, heads=1, encoder_layers=1, decoder_layers=1, reconstruction=0.5)
    one = replace(job(tmp_path / "a", SMALL.vary(embedding=embedding)), spelling=[b"ab"] * 32 + [b"c"] * 32)
    whole, asked = train(one), iter([False] * 4 + [True])
    with pytest.raises(Interrupted):
        train(replace(one, folder=tmp_path / "b"), stop=lambda: next(asked))
    assert same(whole, train(replace(one, folder=tmp_path / "b")))
    plain = SMALL.vary(embedding=embedding.vary(reconstruction=0.0))
    other = train(replace(one, architecture=plain, folder=tmp_path / "c"))
    losses, others = (trained.curve["loss"].to_pylist() for trained in (whole, other))
    assert losses[0] == others[0]  # the penalty is trained on and is no part of the loss
    assert losses[1] != others[1]
    assert losses[-1] < losses[0] - 1


def test_equal_seeds_give_equal_weights_and_other_seeds_give_others(tmp_path: Path) -> None:
    first = train(job(tmp_path / "a"))
    assert same(first, train(job(tmp_path / "b")))
    assert not same(first, train(job(tmp_path / "c", seed=1)))


@pytest.mark.parametrize("stop_after", [1, 5, 11])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path, stop_after: int) -> None:
    whole = train(job(tmp_path / "whole"))
    asked = iter([False] * (stop_after - 1) + [True])
    with pytest.raises(Interrupted):
        train(job(tmp_path / "parts"), stop=lambda: next(asked))
    resumed = train(job(tmp_path / "parts"))
    assert same(whole, resumed)
    assert whole.curve.drop_columns([]).equals(resumed.curve)


def test_a_dropout_schedule_follows_the_progress_of_training_and_resumes_where_it_stood(tmp_path: Path) -> None:
    def trained(dropout: Dropout) -> Trained:
        return train(job(tmp_path / dropout.model_dump_json(), SMALL.vary(dropout=dropout)))

    schedules = Early(share=0.5), Late(share=0.5)
    early, late = (trained(Dropout(residual=0.1, schedule=schedule)) for schedule in schedules)
    none, constant = trained(Dropout()), trained(SMALL.dropout)
    losses = [one.curve["loss"].to_pylist() for one in (none, constant, early, late)]
    first, second = [one[:6] for one in losses], [one[6:] for one in losses]
    assert first[1] == first[2] != first[0] == first[3]
    assert second[1] != second[2]
    assert second[0] != second[3]
    asked = iter([False] * 4 + [True])
    parts = job(tmp_path / "parts", SMALL.vary(dropout=SMALL.dropout.vary(schedule=schedules[1])))
    with pytest.raises(Interrupted):
        train(parts, stop=lambda: next(asked))
    assert same(late, train(parts))


def test_a_trained_model_is_not_trained_again(tmp_path: Path) -> None:
    first = train(job(tmp_path))
    news: list[Step] = []
    again = train(job(tmp_path), watch=news.append)
    assert same(first, again)
    assert news == []
    assert again.costs == first.costs
    assert again.curve.equals(first.curve)


def test_damaged_final_weights_are_refused(tmp_path: Path) -> None:
    train(job(tmp_path, steps=2))
    path = tmp_path / "final.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(StoreError, match="damaged"):
        train(job(tmp_path, steps=2))


def test_a_run_whose_loss_stops_being_finite_is_recorded_as_diverged(tmp_path: Path) -> None:
    trained = train(job(tmp_path, rate=1e30))
    assert trained.status is Status.DIVERGED
    assert trained.reason is not None
    assert "nan" in trained.reason or "inf" in trained.reason
    assert train(job(tmp_path, rate=1e30)).status is Status.DIVERGED


def test_two_variants_start_equal_wherever_they_share_a_parameter() -> None:
    one = dict(build(SMALL, Seeds.all(7), NUMERICS).named_parameters())
    other = dict(build(SMALL.vary(position=Alibi()), Seeds.all(7), NUMERICS).named_parameters())
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_matrices_decay_and_gains_do_not() -> None:
    model = build(SMALL, Seeds.all(0), NUMERICS)
    decaying, others = make_optimizer(model, AdamW(weight_decay=0.3)).param_groups
    assert decaying["weight_decay"] == 0.3
    assert others["weight_decay"] == 0.0
    assert all(parameter.ndim >= 2 for parameter in decaying["params"])
    assert all(parameter.ndim < 2 for parameter in others["params"])
    assert sum(len(group["params"]) for group in (decaying, others)) == len(list(model.parameters()))


def test_numerics_are_resolved_to_what_all_arms_support() -> None:
    resolved = resolve("cpu", "auto", "auto", 1, [SMALL, SMALL.vary(position=Alibi())])
    assert (resolved.attention, resolved.precision, resolved.device) == ("sdpa", "float32", "cpu")


def test_numerics_that_cannot_be_had_are_refused() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(PlanError, match="CUDA"):
            resolve("cuda", "auto", "auto", 1, [SMALL])
    with pytest.raises(PlanError, match="no such backend"):
        resolve("cpu", "auto", "abacus", 1, [SMALL])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_on_the_gpu_repeats_itself(tmp_path: Path) -> None:
    numerics = resolve("cuda", "bfloat16", "auto", 1, [SMALL])
    settle(numerics)
    jobs = [
        Job(SMALL, Pretraining(tokens=640, batch=4), StreamFeed(stream(), 16), Seeds.all(0), numerics, tmp_path / name)
        for name in "ab"
    ]
    assert same(*(train(one) for one in jobs))
