"""One run on several devices is the run on one: in threads that stand for devices, and in real processes (slow)."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.bytes import Bytes
from architectures.dropout import Dropout, Early
from architectures.feedforward import Gelu
from architectures.layerskip import LayerSkip
from architectures.mixture import MixtureOfDepths
from architectures.positions import Alibi, Learned, Rotary
from architectures.sharing import Shared
from architectures.thinking import PauseTokens
from workbench.errors import PlanError, StatisticsError, WorkbenchError
from workbench.identity import digest
from workbench.records import Numerics, Record, Seeds, Status
from workbench.reporting import runs
from workbench.store import write_durably
from workbench.training import execution
from workbench.training.execution import executing
from workbench.training.feeding import Fed, StreamFeed
from workbench.training.loop import Interrupted, Job, Trained, build, train
from workbench.training.objective import Objective
from workbench.training.parallel import Alone, joined
from workbench.training.recipe import AdamW, BatchWarmup, Pretraining
from workbench.training.rollback import Rollback

NUMERICS = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1)
SMALL = Architecture(
    width=32,
    layers=2,
    context=16,
    vocabulary=64,
    position=Rotary(),
    attention=MultiHead(heads=2),
    feed_forward=Gelu(width=64),
)
STAGE = Pretraining(tokens=6 * 5 * 16, batch=5, microbatch=2, optimizer=AdamW(learning_rate=3e-3), z_loss=1e-3)


pytestmark = pytest.mark.usefixtures("deterministic")


def job(folder: Path, architecture: Architecture = SMALL, stage: Pretraining = STAGE) -> Job:
    sys.path.insert(0, str(Path(__file__).parent))
    from test_training import stream

    return Job(architecture, stage, StreamFeed(stream(), 16), Seeds.all(0), NUMERICS, folder)


def losses(trained: Trained) -> list[float]:
    found: list[float] = trained.curve["loss"].to_pylist()
    return found


@dataclass(frozen=True)
class Spiking:
    """A feed one of whose sequences has no finite loss until the run has gone back."""

    sequence: int
    inner: StreamFeed

    def sequences(self, first: int, count: int) -> Fed:
        fed = self.inner.sequences(first, count)
        if first <= self.sequence < first + count:
            fed.batch.weights[self.sequence - first] = float("nan")
        return fed

    def restarted(self, number: int) -> StreamFeed:
        return self.inner.restarted(number)


def spiking(folder: Path) -> Job:
    """A run of 6 steps of 5 sequences that goes back from the 4th to the 2nd, for what the last device reads."""
    stage = STAGE.model_copy(update={"rollback": Rollback(every=2, window=8, tries=1), "checkpoint_seconds": 1e-9})
    one = job(folder, stage=stage)
    return replace(one, feed=Spiking(3 * 5 + 4, StreamFeed(one.feed.stream, 16)))  # type: ignore[attr-defined]


class InThread(Alone):
    """A device that is a thread: what it shares goes through a list and a barrier."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, desk: list[object]) -> None:
        self.rank, self.size, self._barrier, self._desk = rank, size, barrier, desk

    def _all(self, value: object) -> list[object]:
        self._desk[self.rank] = value
        self._barrier.wait(30)
        found = list(self._desk)
        self._barrier.wait(30)
        return found

    def sum(self, value: Tensor) -> Tensor:
        return torch.stack([one for one in self._all(value) if isinstance(one, Tensor)]).sum()

    def sums(self, values: object) -> list[Tensor]:
        return [self.sum(value) for value in values]  # type: ignore[attr-defined]

    def most(self, *values: float) -> tuple[float, ...]:
        return tuple(max(each) for each in zip(*self._all(values), strict=True))  # type: ignore[call-overload]

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
        held = [parameter for parameter in parameters if parameter.grad is not None]
        everybody = self._all([parameter.grad.clone() for parameter in held if parameter.grad is not None])
        for place, parameter in enumerate(held):
            parameter.grad = torch.stack([gradients[place] for gradients in everybody]).sum(0)  # type: ignore[index]
        return torch.nn.utils.clip_grad_norm_(held, limit)


def in_threads(size: int, do: Callable[[Alone], Trained]) -> list[Trained]:
    barrier, desk = threading.Barrier(size), [object()] * size
    found: dict[int, Trained] = {}

    def run(rank: int) -> None:
        try:
            found[rank] = do(InThread(rank, size, barrier, desk))
        except BaseException:
            barrier.abort()
            raise

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [found[rank] for rank in range(size)]


@given(st.integers(1, 40), st.integers(1, 7), st.none() | st.integers(1, 9))
def test_devices_share_every_sequence_of_a_step_once_in_equally_many_passes(
    sequences: int, size: int, together: int | None
) -> None:
    def passes(rank: int) -> list[tuple[int, int, bool]]:
        alone = Alone()
        alone.rank, alone.size = rank, size
        return [(one.first, one.count, one.counts) for one in alone.passes(sequences, together)]

    every = [passes(rank) for rank in range(size)]
    assert len({len(one) for one in every}) == 1
    counted = [range(first, first + count) for one in every for first, count, counts in one if counts]
    assert sorted(number for numbers in counted for number in numbers) == list(range(sequences))
    assert all(first + count <= sequences and count > 0 for one in every for first, count, _ in one)
    if together is not None:
        assert max(count for one in every for _, count, _ in one) <= together
    assert all(not later or earlier for one in every for (*_, earlier), (*_, later) in itertools.pairwise(one))


@pytest.mark.parametrize("size", [2, 3, 6])  # of five sequences: uneven shares, idle passes, a device with none
def test_several_devices_step_as_one_process_does(tmp_path: Path, size: int) -> None:
    alone = train(job(tmp_path / "alone"))
    together = in_threads(size, lambda device: train(job(tmp_path / "many"), parallel=device))
    for one in together:
        assert losses(one) == pytest.approx(losses(alone), abs=1e-5)
        assert one.curve["z_loss"].to_pylist() == pytest.approx(alone.curve["z_loss"].to_pylist(), abs=1e-5)
        assert losses(one) == losses(together[0])
    ours, theirs = load_file(tmp_path / "alone/final.safetensors"), load_file(tmp_path / "many/final.safetensors")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)
    assert len(losses(alone)) == 6


def test_a_growing_batch_is_shared_from_its_first_sequence_on(tmp_path: Path) -> None:
    stage = STAGE.model_copy(update={"batch_warmup": BatchWarmup(start=1, share=0.5), "microbatch": None})
    alone = train(job(tmp_path / "alone", stage=stage))
    together = in_threads(2, lambda device: train(job(tmp_path / "many", stage=stage), parallel=device))
    assert losses(together[0]) == pytest.approx(losses(alone), abs=1e-5)


def test_a_spike_that_one_device_meets_takes_all_of_them_back(tmp_path: Path) -> None:
    alone = train(spiking(tmp_path / "alone"))
    assert [(one["step"], one["back_to"]) for one in alone.rollbacks] == [(4, 2)]
    for together in in_threads(2, lambda device: train(spiking(tmp_path / "many"), parallel=device)):
        assert losses(together) == pytest.approx(losses(alone), abs=1e-5)
        assert [(one["step"], one["back_to"]) for one in together.rollbacks] == [(4, 2)]
        assert together.costs.lost_tokens == alone.costs.lost_tokens == 2 * 5 * 16


def test_devices_stop_together_when_one_is_asked_to_and_go_on_as_one(tmp_path: Path) -> None:
    alone = train(job(tmp_path / "alone"))
    asked = {0: iter([False] * 9), 1: iter([False] * 2 + [True])}

    def interrupted(device: Alone) -> Trained:
        with pytest.raises(Interrupted):
            train(job(tmp_path / "many"), parallel=device, stop=lambda: next(asked[device.rank]))
        return alone

    in_threads(2, interrupted)
    assert [path.stem for path in tmp_path.glob("many/step-*.json")] == ["step-000000003"]
    resumed = train(job(tmp_path / "many"))
    assert losses(resumed) == pytest.approx(losses(alone), abs=1e-5)


def test_every_device_draws_from_a_stream_of_its_own_and_the_first_from_that_of_one_process() -> None:
    second = Alone()
    second.rank = 1
    assert Alone().stream("dropout/3") == "dropout/3"
    assert second.stream("dropout/3") == "dropout/3/rank/1"


def test_numerics_say_how_many_devices_and_a_run_on_others_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    two = executing(NUMERICS, [SMALL], devices=2)
    found = {digest("run", one) for one in (NUMERICS, two, executing(NUMERICS, [SMALL], devices=2, sharded=True))}
    assert len(found) == 3
    older = {name: NUMERICS.model_dump()[name] for name in ("execution", "attention", "precision", "device", "threads")}
    assert digest(NUMERICS) == digest(older)
    assert digest(executing(NUMERICS, [SMALL], recompute=True)) == digest(NUMERICS)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(WorkbenchError, match="another number of devices"), joined(two):
        pass
    with pytest.raises(PlanError, match="nothing to shard"):
        executing(NUMERICS, [SMALL], sharded=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": Dropout(residual=0.1, attention=0.1, feed_forward=0.2), "depth": MixtureOfDepths(capacity=0.5)},
        {"dropout": Dropout(residual=0.3, schedule=Early(share=0.5, form="linear")), "layers": 3, "depth": LayerSkip()},
        {"dropout": Dropout(residual=0.1), "thinking": PauseTokens(every=4, placement="random"), "sharing": Shared()},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_activations_that_are_computed_again_change_no_bit(tmp_path: Path, changes: dict[str, object]) -> None:
    one = job(tmp_path / "kept", SMALL.vary(**changes), Pretraining(tokens=3 * 4 * 16, batch=4))
    again = replace(one, folder=tmp_path / "again", numerics=NUMERICS.model_copy(update={"recompute": True}))
    kept, recomputed = train(one), train(again)
    ours, theirs = kept.model.state_dict(), recomputed.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert losses(kept) == losses(recomputed)


def test_recomputing_keeps_no_activations_of_a_block() -> None:
    kept: dict[bool, int] = {}
    for recompute in (False, True):
        model = SMALL.build()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.02)
        model.recompute = recompute
        total = 0

        def count(value: Tensor) -> Tensor:
            nonlocal total
            total += value.numel()
            return value

        fed = job(Path()).feed.sequences(0, 4)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
            model(fed.batch)
        kept[recompute] = total
    assert kept[True] < kept[False] / 3


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dropout": Dropout(residual=0.1, schedule=Early(share=0.5))}, "dropout.schedule early"),
        ({"layers": 3, "depth": LayerSkip()}, "layer_skip"),
        ({"embedding": Bytes(byte_width=8, heads=1, encoder_layers=1, decoder_layers=1)}, "embedding bytes"),
        ({"thinking": PauseTokens(every=4, placement="random")}, "pause_tokens"),
    ],
)
def test_what_cannot_be_compiled_is_refused_by_name(changes: dict[str, object], named: str) -> None:
    with pytest.raises(PlanError, match=named):
        executing(NUMERICS, [SMALL, SMALL.vary(**changes)], compiled=True)


COMPILED: list[dict[str, object]] = [
    {"dropout": Dropout(residual=0.1)},
    {"position": Alibi(), "depth": MixtureOfDepths(capacity=0.5)},
    {"position": Learned(), "thinking": PauseTokens(every=4), "sharing": Shared()},
]


@pytest.mark.slow
@pytest.mark.parametrize("changes", COMPILED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # the compiler's own
def test_a_step_is_compiled_as_one_graph(changes: dict[str, object]) -> None:
    one = job(Path(), SMALL.vary(**changes))
    objective = Objective(build(one.architecture, one.seeds, NUMERICS).train(), one.stage.terms())
    fed = one.feed.sequences(0, 4)
    found = torch._dynamo.explain(objective)(fed.batch, torch.zeros(()), fed.places, 0)
    assert (found.graph_count, found.graph_break_count) == (1, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_compiled_run_is_that_of_an_uncompiled_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "BACKEND", "aot_eager")
    one = job(tmp_path / "eager", stage=STAGE.model_copy(update={"microbatch": None}))
    compiled = replace(one, folder=tmp_path / "compiled", numerics=NUMERICS.model_copy(update={"compiled": True}))
    assert losses(train(compiled)) == pytest.approx(losses(train(one)), abs=1e-5)


DEVICES = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {here!r})
import test_parallel as cases
from workbench.training.loop import Interrupted, train
from workbench.training.numerics import settle
from workbench.training.parallel import Replicated, Sharded, joined

settle(cases.NUMERICS)
with joined(cases.NUMERICS.model_copy(update={{"devices": 2}})):
    for name, kind in (("replicated", Replicated), ("sharded", Sharded)):
        device = kind("cpu")
        whole = train(cases.job(Path(name)), parallel=device)
        assert all(not hasattr(value, "device_mesh") for value in whole.model.parameters())
        asked = iter([False] * 2 + [True])
        try:
            train(cases.job(Path(name + "-first")), parallel=device, stop=lambda: next(asked))
        except Interrupted:
            pass
        train(cases.job(Path(name + "-second")), parallel=device)
        for part, changes in cases.UNEVEN.items():
            train(cases.job(Path(name + "-" + part), cases.SMALL.vary(**changes)), parallel=device)
        train(cases.spiking(Path(name + "-spiking")), parallel=device)
        assert device.sum(cases.torch.ones(())).item() == 2
"""
UNEVEN: dict[str, dict[str, object]] = {
    "shared": {"sharing": Shared()},
    "mixture": {"depth": MixtureOfDepths(capacity=0.5)},
}


@pytest.mark.slow
def test_two_processes_started_by_torchrun_train_save_and_resume_as_one(tmp_path: Path) -> None:
    script = tmp_path / "devices.py"
    script.write_text(DEVICES.format(here=str(Path(__file__).parent)))
    alone, names = train(job(tmp_path / "alone")), ("replicated", "sharded")
    for name in names:  # saved on one, resumed on two
        asked = iter([False] * 2 + [True])
        with pytest.raises(Interrupted):
            train(job(tmp_path / f"{name}-second"), stop=lambda: next(asked))  # noqa: B023 - asked here and now
    parts = {part: train(job(tmp_path / part, SMALL.vary(**changes))) for part, changes in UNEVEN.items()}
    spiked = train(spiking(tmp_path / "spiking"))
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(started, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for name in names:  # saved on two, resumed on one
        assert list(tmp_path.glob(f"{name}-first/step-*3.json"))
        train(job(tmp_path / f"{name}-first"))
        for ending in ("", "-first", "-second"):
            compare(train(job(tmp_path / f"{name}{ending}")), alone)
        for part, other in parts.items():
            compare(train(job(tmp_path / f"{name}-{part}", SMALL.vary(**UNEVEN[part]))), other)
        again = train(spiking(tmp_path / f"{name}-spiking"))
        compare(again, spiked)
        assert [(one["step"], one["back_to"]) for one in again.rollbacks] == [(4, 2)]


def compare(one: Trained, other: Trained) -> None:
    assert losses(one) == pytest.approx(losses(other), abs=1e-5)
    ours, theirs = one.model.state_dict(), other.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)


def test_a_checkpoint_of_several_devices_is_written_by_the_first_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote: list[int] = []

    def written(path: Path, content: bytes) -> None:
        wrote.append(threading.get_ident())
        write_durably(path, content)

    monkeypatch.setattr("workbench.training.checkpoints.write_durably", written)
    monkeypatch.setattr("workbench.training.loop.CHECKPOINT_SHARE", float("inf"))
    stage = STAGE.model_copy(update={"checkpoint_seconds": 1e-9})
    in_threads(2, lambda device: train(job(tmp_path, stage=stage), parallel=device))
    assert len(wrote) >= 4  # a checkpoint and the final weights, two files each
    assert len(set(wrote)) == 1


def test_runs_may_differ_in_what_changes_no_bit_and_not_in_the_number_of_devices() -> None:
    def record(**changes: object) -> Record:
        numerics = NUMERICS.model_copy(update=changes)
        fields = {"run_id": "r", "plan": "p", "sweep": "s", "arm": "a", "seed": 0, "seeds": Seeds.all(0)}
        return Record(**fields, model_id="m", score_id="s", numerics=numerics, status=Status.FAILED, spec={})  # type: ignore[arg-type]

    runs._refuse_mixed_numerics([record(), record(recompute=True)])
    with pytest.raises(StatisticsError, match="different numerics"):
        runs._refuse_mixed_numerics([record(), record(devices=2)])
