"""A stack of seeds against the loop, seed by seed, and what it must refuse."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from architectures.architecture import Architecture
from architectures.bytes import Bytes
from architectures.component import Component
from architectures.dropout import Dropout, Late
from architectures.layerskip import LayerSkip
from architectures.specimens import HOSTS, example, host, members
from architectures.thinking import PauseTokens
from architectures.transformer import Batch
from workbench.errors import PlanError
from workbench.records import Numerics, Seeds, Status
from workbench.running import Runner
from workbench.session import open_session
from workbench.training import cohort
from workbench.training.checkpoints import kept
from workbench.training.cohort import Abreast, refuse_unstacked, seeds_at_once, train_together
from workbench.training.feeding import Fed
from workbench.training.loop import Interrupted, Job, Trained, train
from workbench.training.numerics import resolve, settle
from workbench.training.probes import Probes
from workbench.training.recipe import AdamW, BatchWarmup, Lion, Muon, Pretraining, Rollback

NUMERICS = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1)
AXES = [axis for axis in Architecture.model_fields if members(axis)]
KINDS = [(axis, kind) for axis in AXES for kind in members(axis)]
EVERY = {"host": host()} | {  # what the host has already is no other model
    f"{axis} {kind.__name__}": varied
    for axis, kind in KINDS
    if (varied := host().vary(**{axis: example(kind)}, **HOSTS.get(axis, {}))).unstacked() is None
    and type(getattr(host(), axis)) is not kind
}
SMALL = host().vary(layers=1)
with_torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="torchao is not installed (extra lowbit)"
)
UNSTACKED = {"Bytes", "LayerSkip"}  # the reasons stand in Architecture.unstacked


pytestmark = pytest.mark.usefixtures("deterministic")


@dataclass(frozen=True)
class Patterns:
    """Sequences that can be learned, other ones for every seed.

    Attributes:
        seed: Which.
        poisoned: From this sequence on nothing is finite.
        packed: Whether each sequence holds two documents.
    """

    seed: int
    poisoned: int | None = None
    packed: bool = False

    def sequences(self, first: int, count: int) -> Fed:
        generator = torch.Generator().manual_seed(1000 * self.seed + first)
        starts = torch.randint(0, SMALL.vocabulary, (count, 1), generator=generator)
        read = (starts + torch.arange(SMALL.context + 1) * (2 + self.seed)) % SMALL.vocabulary
        weights = torch.rand(count, SMALL.context, generator=generator) + 0.5
        if self.poisoned is not None and first >= self.poisoned:
            weights = weights * torch.nan
        time, second = torch.arange(SMALL.context).expand(count, -1), 4 + self.seed
        positions, documents = torch.where(time < second, time, time - second), (time >= second).long()
        places = (positions, documents) if self.packed else (None, None)
        return Fed(Batch(read[:, :-1], read[:, 1:], weights, *places), time + first)

    def restarted(self, number: int) -> Patterns:
        return self


def jobs(
    folder: Path, architecture: Architecture = SMALL, *, steps: int = 6, seeds: Sequence[int] = (0, 1, 2), **stage: Any
) -> list[Job]:
    recipe = Pretraining(**{"tokens": steps * 4 * 12, "batch": 4, "optimizer": AdamW(learning_rate=1e-3), **stage})
    return [Job(architecture, recipe, Patterns(seed), Seeds.all(seed), NUMERICS, folder / str(seed)) for seed in seeds]


def gap(ours: Sequence[Trained], theirs: Sequence[Trained]) -> float:
    """Return how far curves and weights lie apart, at most; every point has the same columns."""
    found = 0.0
    for one, other in zip(ours, theirs, strict=True):
        of_activations = ("residual_rms/", "dead_units/")
        seen = [name for name in other.curve.column_names if not name.startswith(of_activations)]
        assert (one.status, one.curve.column_names) == (other.status, seen)
        for name in seen:
            columns = [trained.curve[name].to_numpy() for trained in (one, other)]
            assert (np.isnan(columns[0]) == np.isnan(columns[1])).all()
            found = max(found, np.nanmax(np.abs(columns[0] - columns[1])))
        found = max(found, *(float((ours - theirs).abs().max()) for ours, theirs in weights_of(one, other)))
    return found


def weights_of(one: Trained, other: Trained) -> list[tuple[torch.Tensor, torch.Tensor]]:
    others = other.model.state_dict()
    return [(weight, others[name]) for name, weight in one.model.state_dict().items()]


def in_turn(some: Sequence[Job]) -> list[Trained]:
    return [train(replace(job, folder=job.folder.with_name(f"{job.folder.name}-alone"))) for job in some]


def covering() -> list[Architecture]:
    """Return architectures that have every member of every axis between them, but for those that cannot be stacked."""
    found = []
    kinds = {axis: [one for one in members(axis) if one.__name__ not in UNSTACKED] for axis in AXES}
    for place in range(max(len(some) for some in kinds.values())):
        built = host().vary(layers=4) if place < 2 else host()
        for axis, some in kinds.items():
            choice: Component = example(some[place % len(some)])
            try:
                built = built.vary(**{axis: choice})
            except ValidationError:  # not beside the others: by itself
                found.append(host().vary(**HOSTS.get(axis, {}), **{axis: choice}))
        found.append(built)
    return found


@pytest.mark.parametrize("place", range(len(covering())))
def test_a_stack_equals_the_loop_whatever_the_architecture(place: int, tmp_path: Path) -> None:
    some = jobs(tmp_path, covering()[place], steps=2, seeds=(0, 1))
    assert gap(train_together(some), in_turn(some)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("path", list(EVERY))
def test_after_fifty_steps_a_stack_is_within_a_ten_thousandth_of_the_loop(path: str, tmp_path: Path) -> None:
    some = jobs(tmp_path, EVERY[path], steps=50, seeds=(0, 1))
    assert gap(train_together(some), in_turn(some)) < 1e-4


def test_every_member_of_every_axis_is_stacked_or_named() -> None:
    stacked = {type(getattr(one, axis)).__name__ for one in covering() for axis in AXES}
    assert stacked == {kind.__name__ for _, kind in KINDS} - UNSTACKED
    assert all(one.unstacked() is None for one in covering())


@pytest.mark.parametrize(
    "stage",
    [
        {"optimizer": Lion(learning_rate=1e-3, weight_decay=9.0)},
        {"optimizer": AdamW(learning_rate=1e-2, weight_decay=9.0)},  # gains do not decay, in a stack neither
        {"optimizer": Muon(learning_rate=1e-3, matrix_learning_rate=1e-3)},
        pytest.param({"optimizer": AdamW(learning_rate=1e-3, states="int8")}, marks=with_torchao),
        {"microbatch": 3, "probes": Probes(agreement_every=4, gradients=2)},
        {"batch_warmup": BatchWarmup(start=1, share=0.9), "checkpoints": 2},
        {"z_loss": 0.1, "label_smoothing": 0.2, "clip": 0.01},
    ],
    ids=["lion", "decay", "muon", "int8", "microbatch", "warmup", "terms"],
)
def test_a_stack_equals_the_loop_whatever_the_recipe(stage: dict[str, Any], tmp_path: Path) -> None:
    some = jobs(tmp_path, seeds=(0, 1), **stage)
    assert gap(train_together(some), in_turn(some)) < 1e-5
    names = [sorted(path.name for path in job.folder.iterdir()) for job in some]
    assert names == [sorted(path.name for path in (tmp_path / f"{seed}-alone").iterdir()) for seed in range(2)]


def test_every_seed_drops_what_it_drops_alone(tmp_path: Path) -> None:
    rates = {"embedding": 0.1, "attention": 0.2, "residual": 0.3, "feed_forward": 0.4}
    dropped = SMALL.vary(dropout=Dropout(**rates, schedule=Late(share=0.3)))
    some = jobs(tmp_path, dropped, seeds=(0, 1), microbatch=3)
    stacked = train_together(some)
    assert gap(stacked, in_turn(some)) < 1e-5
    asked = iter([False, False, False, True])
    with pytest.raises(Interrupted):
        train_together(jobs(tmp_path / "parts", dropped, seeds=(0, 1), microbatch=3), stop=lambda: next(asked))
    resumed = train_together(jobs(tmp_path / "parts", dropped, seeds=(0, 1), microbatch=3))
    assert all(
        torch.equal(*pair) for one, other in zip(stacked, resumed, strict=True) for pair in weights_of(one, other)
    )


def test_documents_of_every_seed_stay_hidden_from_each_other(tmp_path: Path) -> None:
    some = [replace(job, feed=Patterns(job.seeds.data, packed=True)) for job in jobs(tmp_path, steps=3)]
    assert gap(train_together(some), in_turn(some)) < 1e-5
    plain = jobs(tmp_path / "plain", steps=3)
    assert gap(train_together(some), train_together(plain)) > 1e-3


def test_a_seed_that_diverges_is_recorded_as_the_loop_would_and_touches_no_other(tmp_path: Path) -> None:
    some = jobs(tmp_path)
    some[1] = replace(some[1], feed=Patterns(1, poisoned=12))
    stacked, alone = train_together(some), in_turn(some)
    assert [one.status for one in stacked] == [Status.FINISHED, Status.DIVERGED, Status.FINISHED]
    assert stacked[1].reason == alone[1].reason
    assert stacked[1].curve["step"].to_pylist() == [1, 2, 3]
    assert gap(stacked[::2], alone[::2]) < 1e-5
    whole = train_together(jobs(tmp_path / "whole"))
    assert gap(stacked[::2], whole[::2]) < 1e-5


def test_gradients_are_clipped_per_seed() -> None:
    shapes, generator = [(3, 4, 5), (3, 7), (3,)], torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    for parameter in parameters:
        scale = torch.tensor([0.01, 1.0, 100.0]).view(3, *(1,) * (parameter.dim() - 1))
        parameter.grad = torch.randn(parameter.shape, generator=generator) * scale
    expected, norms = [], []
    for seed in range(3):
        single = [nn.Parameter(torch.zeros(shape[1:])) for shape in shapes]
        for one, parameter in zip(single, parameters, strict=True):
            assert parameter.grad is not None
            one.grad = parameter.grad[seed].clone()
        norms.append(nn.utils.clip_grad_norm_(single, 1.0))
        expected.append([one.grad for one in single])
    torch.testing.assert_close(Abreast().clip(parameters, 1.0), torch.stack(norms))
    for place, parameter in enumerate(parameters):
        torch.testing.assert_close(parameter.grad, torch.stack([one[place] for one in expected]))  # type: ignore[misc]


@pytest.mark.parametrize("optimizer", [AdamW(learning_rate=1e-3), Muon(learning_rate=1e-3)], ids=["adamw", "muon"])
def test_an_interrupted_stack_ends_with_the_weights_of_an_uninterrupted_one(
    optimizer: AdamW | Muon, tmp_path: Path
) -> None:
    whole = train_together(jobs(tmp_path / "whole", optimizer=optimizer))
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        train_together(jobs(tmp_path / "parts", optimizer=optimizer), stop=lambda: next(asked))
    assert gap(train_together(jobs(tmp_path / "parts", optimizer=optimizer)), whole) == 0


def test_a_kill_between_the_checkpoints_of_two_seeds_costs_one_checkpoint(tmp_path: Path) -> None:
    asked, said = iter([False, True] * 2), list[str]()
    for held in ("first", "second"):
        with pytest.raises(Interrupted):
            train_together(jobs(tmp_path / "parts"), stop=lambda: next(asked))
        shutil.copytree(tmp_path / "parts", tmp_path / held)
    shutil.rmtree(tmp_path / "second" / "2")  # as if it had been killed before the last seed was written again
    shutil.copytree(tmp_path / "first" / "2", tmp_path / "second" / "2")
    stacked = train_together(jobs(tmp_path / "second"), say=said.append)
    assert said == ["3 of 3 seeds at once"]
    assert [one.costs.together for one in stacked] == [3, 3, 3]
    assert gap(stacked, train_together(jobs(tmp_path / "whole"))) == 0


def test_seeds_that_are_added_later_are_trained_beside_those_that_have_ended(tmp_path: Path) -> None:
    first, said = train_together(jobs(tmp_path, seeds=(0, 1))), list[str]()
    both = train_together(jobs(tmp_path, seeds=(0, 1, 2)), say=said.append)
    assert said == ["1 of 3 seeds at once"]
    assert gap(both[:2], first) == 0
    assert [one.costs.together for one in both] == [2, 2, 1]


def test_weights_that_are_to_be_kept_on_the_way_are_trained_for_again(tmp_path: Path) -> None:
    first = train_together(jobs(tmp_path, seeds=(0, 1)))
    again = train_together(jobs(tmp_path, seeds=(0, 1), checkpoints=2))
    assert gap(again, first) == 0
    assert [len(kept(job.folder)) for job in jobs(tmp_path, seeds=(0, 1))] == [2, 2]


def test_as_many_seeds_are_stacked_as_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = jobs(tmp_path)[0]
    assert [seeds_at_once(job, 8, free=free) for free in (0, 10**12)] == [1, 8]
    room = next(free for free in range(10**5, 10**8, 10**5) if seeds_at_once(job, 8, free=free) == 2)
    monkeypatch.setattr(cohort, "_free", lambda device: room)
    said: list[str] = []
    stacked = train_together(jobs(tmp_path), say=said.append)
    assert said == ["2 of 3 seeds at once", "1 of 3 seeds at once"]
    assert gap(stacked, in_turn(jobs(tmp_path))) < 1e-5


def test_a_stack_that_memory_does_not_hold_is_cut_in_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = cohort.Stack.forward

    def forward(self: cohort.Stack, batch: Batch, *rest: Any) -> Any:
        if len(batch.tokens) > 1:
            raise torch.OutOfMemoryError("no room")
        return real(self, batch, *rest)

    monkeypatch.setattr(cohort.Stack, "forward", forward)
    said: list[str] = []
    stacked = train_together(jobs(tmp_path, steps=1), say=said.append)
    assert said == [f"{seeds} of 3 seeds at once" for seeds in (3, 1, 1, 1)]
    assert [one.costs.together for one in stacked] == [1, 1, 1]
    monkeypatch.setattr(cohort.Stack, "forward", lambda *given: forward(*given[:1], replace(given[1], tokens=[1, 2])))
    with pytest.raises(torch.OutOfMemoryError):
        train_together(jobs(tmp_path / "none", steps=1))


@pytest.mark.parametrize(
    ("architecture", "stage", "message"),
    [
        (SMALL.vary(embedding=Bytes(byte_width=8)), {}, "embedding bytes"),
        (SMALL.vary(layers=4, depth=LayerSkip()), {}, "depth layer_skip draws"),
        (SMALL.vary(thinking=PauseTokens(every=2, placement="random")), {}, "thinking pause_tokens draws"),
        (SMALL, {"rollback": Rollback()}, r"stages\.0\.rollback"),
    ],
    ids=["bytes", "layer_skip", "pause_tokens", "rollback"],
)
def test_what_cannot_be_stacked_is_refused_by_name(
    architecture: Architecture, stage: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        refuse_unstacked(architecture, [Pretraining(**stage)], "arm 'a'")


TUNED = """
from workbench.data.answers import Answers
from workbench.training.recipe import FineTuning
STAGE = FineTuning(answers=Answers(path={path!r}), tokens=1024, batch=4)
TUNED = BASELINE.vary(stages=(*BASELINE.stages, STAGE))
SWEEP = SWEEP.model_copy(update={{"arms": (Arm(name="tuned", axis="stages", configuration=TUNED),)}})
"""


def test_a_stacked_plan_trains_an_arm_at_once_and_never_answers_for_a_loop(sweep_file: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    rows = [{"prompt": f"{a} + {b}?", "answer": f"{a + b}"} for a in range(6) for b in range(6)]
    answers.write_text("\n".join(map(json.dumps, rows)))
    sweep_file.write_text(sweep_file.read_text() + TUNED.format(path=str(answers)))
    loop, stacked = (
        open_session(str(sweep_file), tmp_path / "home", execution=execution) for execution in (None, "stacked")
    )
    assert loop.plan.hash != stacked.plan.hash
    assert not {one.run_id for one in loop.plan.trials} & {one.run_id for one in stacked.plan.trials}
    steps: list[int] = []
    runner = Runner(stacked.plan, stacked.store, watch=lambda step, *rest: steps.append(step))
    records = {(trial.arm, trial.seed): runner.run(trial) for trial in stacked.plan.trials}
    assert steps == [*range(1, 17), *range(1, 9)]  # a pretraining that both arms share, and a fine-tuning, once each
    assert {(one.status, one.costs.together) for one in records.values()} == {(Status.FINISHED, 2)}
    assert all(one.numerics is not None and one.numerics.execution == "stacked" for one in records.values())
    trial = next(one for one in loop.plan.trials if (one.arm, one.seed) == ("tuned", 1))
    both = records["tuned", 1], Runner(loop.plan, loop.store).run(trial)
    means = [loop.store.scores(one).to_pandas().groupby("metric")["value"].mean() for one in both]
    assert (means[0] - means[1]).abs().max() < 1e-4


def test_a_stack_is_refused_for_a_sequential_plan(sweep_file: Path, tmp_path: Path) -> None:
    text = sweep_file.read_text().replace("seeds=2,", 'seeds=8, design="sequential",')
    sweep_file.write_text(
        text.replace('        Arm(name="again", axis="seeds", seed_offset=100, configuration=BASELINE),\n', "")
    )
    with pytest.raises(PlanError, match="one seed after the other"):
        open_session(str(sweep_file), tmp_path / "home", execution="stacked")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_stack_equals_the_loop_on_a_gpu(tmp_path: Path) -> None:
    numerics = resolve("cuda", "float32", "auto", 1, [SMALL])
    settle(numerics)
    some = [replace(job, numerics=numerics) for job in jobs(tmp_path, host(), steps=50)]
    assert gap(train_together(some), in_turn(some)) < 1e-4
