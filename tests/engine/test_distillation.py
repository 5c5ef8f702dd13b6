"""What a distilled batch minimises, against numpy over the whole vocabulary; and a student trained beside a teacher."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from architectures.bytes import Bytes
from architectures.dropout import Dropout
from architectures.transformer import Batch
from tests.engine.test_training import NUMERICS, SMALL, job, same
from workbench.configuration import Configuration
from workbench.data.corpora import Files
from workbench.data.prepared import Data, Prepared, prepare
from workbench.data.tokenizer import BytePairs
from workbench.errors import DataError, PlanError, StoreError
from workbench.estimating import _teaching_flops
from workbench.identity import canonical, digest
from workbench.records import Seeds, Status
from workbench.reporting.describing import concise
from workbench.running import Runner
from workbench.session import open_session
from workbench.store import Store
from workbench.sweep import SweepError
from workbench.training.distillation import (
    Distillation,
    Distilled,
    ForwardKL,
    Mean,
    Minimum,
    ReverseKL,
    Target,
    cross_entropy,
    distilled,
    forward_kl,
    reverse_kl,
    winners,
)
from workbench.training.loop import Interrupted, Job, train
from workbench.training.objective import Predicted
from workbench.training.opinions import Opinions, Statement, _windows, strongest
from workbench.training.recipe import AdamW, Pretraining
from workbench.training.teachers import Grown, TrainedModel, load

VOCABULARY = 64
PLAIN = SMALL.vary(dropout=Dropout())


def drawn(*shape: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def said(logits: torch.Tensor, top: int) -> Statement:
    return Statement.of(*strongest(logits, top), prior(logits.shape[-1]))


def prior(vocabulary: int) -> torch.Tensor:
    return drawn(vocabulary, seed=77, scale=1.0).log_softmax(-1)


def dense(one: Statement) -> np.ndarray:
    """The distribution over the whole vocabulary, in float64."""
    others = math.exp(one.rest.item()) if one.rest is not None else 0.0
    probable = others * np.exp(one.prior.double().numpy())
    probable[one.ids.numpy()] = np.exp(one.logs.double().numpy())
    return probable


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


# --- what is said


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(0, 2**31), st.sampled_from([0.5, 1.0, 2.0, 5.0]))
def test_what_is_kept_is_a_distribution_whose_head_is_the_teachers(top: int, seed: int, temperature: float) -> None:
    logits = drawn(12, seed=seed)
    one = said(logits, top)
    exact, kept = softmax(logits.double().numpy()), dense(one)
    head = np.argsort(-exact)[:top]
    assert kept.sum() == pytest.approx(1, abs=1e-5)
    assert kept[head] == pytest.approx(exact[head], rel=1e-4)
    rest = [token for token in range(12) if token not in head]
    shares = np.exp(prior(12).double().numpy())[rest]
    assert kept[rest] == pytest.approx(exact[rest].sum() * shares / shares.sum() if rest else [], rel=1e-3)
    softened = kept ** (1 / temperature) / (kept ** (1 / temperature)).sum()
    assert dense(one.softened(temperature)) == pytest.approx(softened, rel=1e-4)
    assert one.entropy().item() == pytest.approx(-(kept * np.log(kept)).sum(), rel=1e-4)


@pytest.mark.parametrize("top", [1, 5, 12])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_cross_entropy_and_both_divergences_are_those_of_their_formulas(top: int, temperature: float) -> None:
    theirs, ours = drawn(12, seed=1), drawn(12, seed=2)
    one = said(theirs, top).softened(temperature)
    p, q = dense(one), softmax(ours.double().numpy() / temperature)
    assert cross_entropy(ours / temperature, one).item() == pytest.approx(-(p * np.log(q)).sum(), rel=1e-5)
    assert forward_kl(ours / temperature, one).item() == pytest.approx((p * np.log(p / q)).sum(), rel=1e-4)
    assert reverse_kl(ours / temperature, one).item() == pytest.approx((q * np.log(q / p)).sum(), rel=1e-4)


# --- what is minimised


class Fixed:
    """Opinions that are what they are, wherever."""

    def __init__(self, logits: torch.Tensor, top: int = VOCABULARY) -> None:
        self.said = said(logits, top)

    def at(self, places: torch.Tensor) -> Statement:
        return self.said


def predicted(seed: int = 3) -> Predicted:
    logits = drawn(2, 5, VOCABULARY, seed=seed).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (2, 5), generator=torch.Generator().manual_seed(seed))
    weights = torch.tensor([[1.0, 2, 0, 1, 1], [0.5, 1, 1, 1, 0]])
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(2, 5)
    output: Any = None
    places = torch.zeros(2, 5, dtype=torch.int64)
    progress = torch.tensor(0.25, dtype=torch.float64)
    return Predicted(output, Batch(targets, targets, weights), nats, logits, places, 0, progress)


TEACHERS = [drawn(2, 5, VOCABULARY, seed=number) for number in (5, 6)]


def total(one: Predicted, objective: Target) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What is minimised in all, and what the curve shows beside it."""
    declared = Distillation(teachers=(TEACHER,) * 2, objective=objective, top=VOCABULARY)
    opinions: Any = [Fixed(logits) for logits in TEACHERS]
    cost, seen = Distilled(declared, opinions).told(one)
    return one.mean(one.nats) + cost, seen


def candidates(one: Predicted) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropies of truth and teachers, (3, 2, 5), naively; and the weights."""
    assert one.logits is not None
    found = np.empty((3, 2, 5))
    for row, time in np.ndindex(2, 5):
        q = np.log(softmax(one.logits[row, time].detach().double().numpy()))
        found[0, row, time] = -q[one.batch.targets[row, time]]
        for number, teacher in enumerate(TEACHERS, 1):
            found[number, row, time] = -(softmax(teacher[row, time].double().numpy()) * q).sum()
    return found, one.batch.weights.double().numpy()


TEACHER = Grown(architecture=PLAIN.vary(width=64), tokens=1024, batch=4)


def test_the_least_is_taken_of_every_target_sequence_or_batch() -> None:
    one = predicted()
    costs, weights = candidates(one)
    mean = lambda values: (values * weights).sum() / weights.sum()  # noqa: E731
    by_token, _ = total(one, Minimum())
    by_sequence, _ = total(one, Minimum(granularity="sequence"))
    by_batch, _ = total(one, Minimum(granularity="batch"))
    assert by_token.item() == pytest.approx(mean(costs.min(0)), rel=1e-5)
    least = [min((cost[row] * weights[row]).sum() for cost in costs) for row in range(2)]
    assert by_sequence.item() == pytest.approx(sum(least) / weights.sum(), rel=1e-5)
    assert by_batch.item() == pytest.approx(min(mean(cost) for cost in costs), rel=1e-5)
    assert by_token < by_sequence < by_batch


def test_the_curve_shows_who_wins_and_what_entropy_a_teacher_has() -> None:
    one = predicted()
    costs, weights = candidates(one)
    _, seen = total(one, Minimum())
    for number, name in enumerate(("truth", "teacher_0", "teacher_1")):
        share = (weights * (costs.argmin(0) == number)).sum() / weights.sum()
        assert seen[f"{name}_wins"].item() == pytest.approx(share, rel=1e-5)
    entropy = [-(p * np.log(p)).sum() for p in (softmax(z.double().numpy()) for z in TEACHERS[0].flatten(0, 1))]
    expected = (np.reshape(entropy, (2, 5)) * weights).sum() / weights.sum()
    assert seen["teacher_0_kept"].item() == pytest.approx(1, abs=1e-5)
    assert seen["teacher_0_entropy"].item() == pytest.approx(expected, rel=1e-4)


def test_the_mean_weighs_truth_and_teachers() -> None:
    one = predicted()
    costs, weights = candidates(one)
    expected = ((0.3 * costs[0] + 0.7 * costs[1:].mean(0)) * weights).sum() / weights.sum()
    assert total(one, Mean(truth=0.3))[0].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", [ForwardKL, ReverseKL])
def test_a_divergence_is_weighed_with_the_truth_and_scaled_by_the_temperature_squared(kind: type) -> None:
    one = predicted()
    costs, weights = candidates(one)
    assert one.logits is not None
    apart = np.zeros((2, 5))
    for row, time in np.ndindex(2, 5):
        q = softmax(one.logits[row, time].detach().double().numpy() / 3)
        for teacher in TEACHERS:
            p = softmax(teacher[row, time].double().numpy() / 3)
            apart[row, time] += ((p * np.log(p / q)) if kind is ForwardKL else (q * np.log(q / p))).sum() / 2
    expected = ((0.6 * costs[0] + 0.4 * 9 * apart) * weights).sum() / weights.sum()
    assert total(one, kind(weight=0.4, temperature=3.0))[0].item() == pytest.approx(expected, rel=1e-4)


def test_the_weight_of_a_divergence_follows_the_progress_of_training() -> None:
    one = predicted()  # a quarter done
    moving, _ = total(one, ForwardKL(weight=0.8, end=1.0, temperature=2.0))
    standing, _ = total(one, ForwardKL(weight=0.85, temperature=2.0))
    assert moving.item() == pytest.approx(standing.item(), rel=1e-6)
    assert moving.dtype == torch.float32
    with pytest.raises(ValidationError, match="expected more than 0"):
        ForwardKL(weight=0.0)


def test_a_student_that_says_what_its_teacher_says_has_no_gradient() -> None:
    one = predicted()
    assert one.logits is not None
    declared = Distillation(teachers=(TEACHER,), objective=ForwardKL(weight=1.0, temperature=2.0))
    opinions: Any = [Fixed(one.logits.detach())]
    (one.mean(one.nats) + Distilled(declared, opinions).cost(one)).backward()
    assert one.logits.grad is not None
    assert one.logits.grad.abs().max() < 1e-6


def test_a_lower_precision_of_the_model_leaves_the_sums_over_a_vocabulary_as_they_are() -> None:
    one = predicted()
    declared = Distillation(teachers=(TEACHER,), objective=ReverseKL(temperature=2.0), top=4)
    opinions: Any = [Fixed(TEACHERS[0], top=4)]
    exact = Distilled(declared, opinions).cost(one)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(Distilled(declared, opinions).cost(one), exact)


def test_equal_candidates_go_to_the_truth() -> None:
    assert not winners(torch.ones(3, 2, 4), torch.ones(2, 4), "token").any()


# --- a student and its teacher


@pytest.fixture(scope="module")
def prepared(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    data = Data(corpus=Files(path=str(corpus)), tokenizer=BytePairs(vocabulary=300), held_out=0.2)
    return prepare(data, tmp_path_factory.mktemp("cache"))


STUDENT = PLAIN.vary(vocabulary=300)
GROWN = Grown(architecture=STUDENT.vary(width=48, attention=STUDENT.attention.vary(heads=3)), tokens=1024, batch=4)
STAGE = Pretraining(tokens=12 * 4 * 16, batch=4)


def asked(prepared: Prepared, folder: Path, top: int = 8, teacher: Any = None) -> Opinions:
    speaker = teacher or counting()
    return Opinions(
        folder / "said",
        prepared.train,
        vocabulary=300,
        top=top,
        end_of_text=prepared.tokenizer.end_of_text,
        speaker=lambda: speaker,
        numerics=NUMERICS,
    )


def counting(context: int = 16) -> Any:
    """A teacher whose logits depend on the last two tokens and on how many it sees, and which counts its calls."""
    table = drawn(300, 300, seed=9)

    class Counting:
        def __init__(self) -> None:
            self.context, self.calls, self.seen = context, 0, 0

        def logits(self, tokens: torch.Tensor, skipped: int = 0) -> torch.Tensor:
            self.calls += 1
            self.seen += tokens.numel()
            before = torch.cat([torch.zeros_like(tokens[:, :1]), tokens[:, :-1]], 1)
            return (table[tokens] + 0.5 * table[before])[:, skipped:]

    return Counting()


def test_what_is_kept_of_a_teacher_is_what_it_says_in_the_document(prepared: Prepared, tmp_path: Path) -> None:
    one = asked(prepared, tmp_path, top=300)
    start, stop = (int(offset) for offset in prepared.train.offsets[3:5])
    places = torch.arange(start, stop)
    whole = torch.tensor([0, *prepared.train.tokens[start : stop - 1].tolist()])[None]
    exact = counting().logits(whole)[0].log_softmax(-1).roll(-1, 0)  # of the token after each; the last begins another
    kept = one.at(places[None])
    torch.testing.assert_close(kept.logs[0], exact.gather(-1, kept.ids[0]), rtol=2e-3, atol=2e-3)
    assert kept.ids[0, -1, 0] == counting().logits(torch.tensor([[0]])).argmax()
    student = drawn(1, stop - start, 300, seed=4)
    uncached = -(exact.exp() * student[0].log_softmax(-1)).sum(-1)
    torch.testing.assert_close(cross_entropy(student, kept)[0], uncached, rtol=1e-3, atol=1e-3)


@settings(max_examples=50)
@given(st.integers(1, 90), st.integers(1, 24), st.integers(1, 100))
def test_windows_cover_a_text_once_and_in_order(length: int, context: int, at_once: int) -> None:
    text = torch.arange(length)
    kept = [windows[:, passed:].flatten() for windows, passed in _windows(text, context, at_once)]
    assert torch.equal(torch.cat(kept), text)
    for windows, passed in _windows(text, context, at_once):
        assert windows.shape[1] <= context
        assert not passed or passed + 1 >= min(context, length) / 2


def test_what_was_not_kept_is_shared_by_the_root_of_frequencies(prepared: Prepared, tmp_path: Path) -> None:
    one = asked(prepared, tmp_path).at(torch.from_numpy(prepared.train.offsets[3:4, None]))
    roots = np.sqrt(np.bincount(np.asarray(prepared.train.tokens), minlength=300) + 1)
    assert one.rest is not None
    roots[one.ids[0, 0].numpy()] = 0
    left = 1 - one.kept().item()
    expected = left * roots / roots.sum()
    token = int(np.argmax(roots))
    assert math.exp(one.rest.item() + one.prior[token].item()) == pytest.approx(expected[token], rel=1e-4)


def test_every_document_is_asked_about_once_for_all_students(prepared: Prepared, tmp_path: Path) -> None:
    teacher, pace, lengths = counting(), STAGE.pace(16), np.diff(prepared.train.offsets)
    feeds = [STAGE.feed(prepared, Seeds.all(seed), 16) for seed in (0, 1)]
    one = asked(prepared, tmp_path, teacher=teacher)
    Distilled(Distillation(teachers=(GROWN,), top=8), (one,)).gather([(feed, pace) for feed in feeds])
    calls, known = teacher.calls, np.setdiff1d(np.arange(len(lengths)), one.unknown(np.arange(len(lengths))))
    assert calls
    assert len(known) < len(lengths)  # what no run reads is not asked about
    assert teacher.seen <= 2 * lengths[known].sum()  # windows overlap by half
    again = asked(prepared, tmp_path, teacher=teacher)
    for feed in feeds:
        Distilled(Distillation(teachers=(GROWN,), top=8), (again,)).gather([(feed, pace)])
        for step in range(pace.steps):
            places = feed.sequences(4 * step, 4).places
            assert places is not None
            again.at(places)
    assert teacher.calls == calls


def test_what_is_said_of_a_document_does_not_depend_on_the_others_asked_about(
    prepared: Prepared, tmp_path: Path
) -> None:
    alone, together = (asked(prepared, tmp_path / name) for name in "ab")
    together.gather(np.arange(4))
    places = torch.arange(*prepared.train.offsets[2:4])[None]
    one, other = alone.at(places), together.at(places)
    assert torch.equal(one.ids, other.ids)
    assert torch.equal(one.logs, other.logs)


def test_a_disk_that_has_no_room_is_not_filled(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = asked(prepared, tmp_path)
    free = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr("workbench.training.opinions.shutil.disk_usage", lambda path: free)
    with pytest.raises(StoreError, match="does not fit on the disk"):
        one.gather(np.arange(8))
    assert not list((tmp_path / "said").glob("part-*"))


def distilled_job(prepared: Prepared, folder: Path, cache: Path, **changes: Any) -> Job:
    one = asked(prepared, cache)
    declared = Distillation(**({"teachers": (GROWN,), "top": 8} | changes))
    stage = STAGE.model_copy(update={"distillation": declared})
    base = job(folder, STUDENT)
    return replace(base, stage=stage, feed=stage.feed(prepared, Seeds.all(0), 16), terms=(Distilled(declared, (one,)),))


def test_only_every_fourth_batch_is_distilled(prepared: Prepared, tmp_path: Path) -> None:
    plain = train(replace(distilled_job(prepared, tmp_path / "a", tmp_path), terms=()))
    some = train(distilled_job(prepared, tmp_path / "b", tmp_path, every=4))
    losses, others = (one.curve["loss"].to_pylist() for one in (plain, some))
    assert losses[:3] == others[:3]
    assert losses[3] == pytest.approx(others[3], rel=1e-6)  # of the same weights, but of logits that a term reads too
    assert abs(losses[4] - others[4]) > 1e-4  # the fourth step is the first that moves otherwise
    shown = [number + 1 for number, cost in enumerate(some.curve["distillation"].to_pylist()) if cost is not None]
    assert shown == [4, 8, 12]
    wins = some.curve["truth_wins"].to_pylist()[3] + some.curve["teacher_0_wins"].to_pylist()[3]
    assert wins == pytest.approx(1)


def test_an_interrupted_distillation_ends_as_an_uninterrupted_one(prepared: Prepared, tmp_path: Path) -> None:
    whole, stops = train(distilled_job(prepared, tmp_path / "a", tmp_path, every=2)), iter([False] * 4 + [True])
    with pytest.raises(Interrupted):
        train(distilled_job(prepared, tmp_path / "b", tmp_path / "other", every=2), stop=lambda: next(stops))
    again = train(distilled_job(prepared, tmp_path / "b", tmp_path / "third", every=2))
    assert same(whole, again)
    assert whole.curve.equals(again.curve)


def test_a_student_that_learns_from_its_teacher_alone_comes_to_say_what_it_says(
    prepared: Prepared, tmp_path: Path
) -> None:
    one = distilled_job(prepared, tmp_path / "a", tmp_path, objective=ForwardKL(weight=1.0))
    stage = one.stage.model_copy(update={"tokens": 40 * 4 * 16, "optimizer": AdamW(learning_rate=1e-2)})
    curve = train(replace(one, stage=stage)).curve
    divergence = np.add(curve["loss"].to_pylist(), curve["distillation"].to_pylist())
    assert divergence[-5:].mean() < 0.8 * divergence[:5].mean()


SWEEP = """
from architectures.positions import Rotary
from small import BASELINE
from workbench.sweep import Arm, Metric, Sweep
from workbench.training.distillation import Distillation, ForwardKL
from workbench.training.teachers import Grown, TrainedModel, load

TEACHER = {teacher}
SWEEP = Sweep(
    question="Does a teacher help?",
    baseline=BASELINE,
    arms=(
        Arm(name="taught", axis="distillation",
            configuration=BASELINE.vary(distillation=Distillation(teachers=(TEACHER,), top=8))),
        Arm(name="softly", axis="distillation",
            configuration=BASELINE.vary(distillation=Distillation(teachers=(TEACHER,), objective=ForwardKL(), top=8))),
    ),
    seeds=2,
    metric=Metric(name="bits_per_byte", smallest_effect=0.02),
)
"""
WIDE = "Grown(architecture=BASELINE.architecture.vary(width=48), tokens=1024, batch=4)"


def test_a_teacher_is_trained_once_and_teaches_every_arm_and_seed(
    sweep_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "taught.py"
    path.write_text(SWEEP.format(teacher=WIDE))
    plan, store, said = open_session(str(path), tmp_path / "home").plan, Store(tmp_path / "home"), []
    Runner(plan, store, say=said.append).prepare(teachers=True)
    assert "training a teacher" in said
    monkeypatch.setattr("workbench.training.distillation.load", None)  # nobody is asked again
    records = [Runner(plan, store).run(plan.trials[cell]) for cell in (0, 1, 2, 4)]
    assert all(record.status is Status.FINISHED for record in records)
    keys = {trial.model_key for trial in plan.trials}  # what else is there is the teacher
    (teacher,) = (folder for folder in (store.home / "models").iterdir() if folder.name not in keys)
    assert len(list((store.cache / "teachers").glob("*/part-*/ids.npy"))) >= 1
    assert len(list((store.cache / "teachers").glob("[!.]*"))) == 1  # for both arms and both seeds
    taught = store.curve(records[1])
    assert taught is not None
    assert {"distillation", "teacher_0_entropy", "truth_wins"} <= set(taught.column_names)
    assert "distillation" not in store.curve(records[0]).column_names  # type: ignore[union-attr]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    _the_same_teacher_from_its_folder(path, teacher, tmp_path, taught)


def _the_same_teacher_from_its_folder(path: Path, teacher: Path, tmp_path: Path, taught: Any) -> None:
    """It teaches the same, is found wherever it lies, and is another teacher than the one that is grown."""
    path.write_text(SWEEP.format(teacher=f"TrainedModel(path={str(teacher)!r})"))
    plan, store = open_session(str(path), tmp_path / "home").plan, Store(tmp_path / "home")
    record = Runner(plan, store).run(plan.trials[1])
    assert store.curve(record)["loss"].to_pylist() == taught["loss"].to_pylist()  # type: ignore[index]
    moved = tmp_path / "moved"
    teacher.rename(moved)
    path.write_text(SWEEP.format(teacher=f"TrainedModel(path={str(moved)!r})"))
    assert open_session(str(path), tmp_path / "third").plan.hash == plan.hash
    path.write_text(SWEEP.format(teacher=f"TrainedModel(path={str(teacher)!r})"))
    with pytest.raises(DataError, match="no such trained model"):
        open_session(str(path), tmp_path / "third")


def test_a_plan_shows_a_teacher_in_one_line_and_charges_the_first_arm_that_learns_from_it(tmp_path: Path) -> None:
    plan = open_session("distillation", tmp_path).plan
    paid = set[str]()
    charged = [_teaching_flops(plan, arm, paid) > 0 for arm in plan.arms]
    assert charged == [False, True, False, False, False, False]
    for arm in plan.arms[1:]:
        shown = concise(arm.difference)
        (teacher,) = (line for line in shown if "teachers" in line["path"])
        assert str(teacher["arm"]).startswith("grown, ")
        assert len(shown) <= 8


# --- identity and refusals


def configuration(**changes: Any) -> Configuration:
    return Configuration(architecture=STUDENT, stages=(STAGE,), data=Data(tokenizer=BytePairs(vocabulary=300))).vary(
        **changes
    )


def test_no_teacher_is_no_part_of_identity_and_a_teachers_fields_are() -> None:
    assert "distillation" not in canonical(Pretraining())
    ids = {digest(Pretraining(distillation=Distillation(teachers=(one,)))) for one in (GROWN, TEACHER)}
    assert len(ids) == 2


def test_a_grown_teacher_is_the_model_that_an_arm_of_the_same_fields_is() -> None:
    taught = configuration(distillation=Distillation(teachers=(GROWN,)))
    stage = Pretraining(tokens=GROWN.tokens, batch=GROWN.batch)
    arm = configuration(architecture=GROWN.architecture, **{"stages__0": stage})
    assert taught.grown(GROWN).model_id("corpus", Seeds.all(0)) == arm.model_id("corpus", Seeds.all(0))


def test_a_plan_shows_what_its_teachers_cost() -> None:
    (shown,) = configuration(distillation=Distillation(teachers=(GROWN,))).size()["teachers"]
    assert shown["parameters"] == configuration(architecture=GROWN.architecture).size()["parameters"]
    assert shown["training_flops"] == 3 * shown["flops_per_token"] * GROWN.tokens
    assert "teachers" not in configuration().size()


def test_a_teacher_of_another_vocabulary_and_more_tokens_than_there_are_cannot_be_written() -> None:
    with pytest.raises(SweepError, match=r"teachers\.0\.architecture\.vocabulary: expected the student's 300, got 64"):
        configuration(distillation=Distillation(teachers=(TEACHER,)))
    with pytest.raises(SweepError, match=r"top: expected at most the vocabulary's 300, got 301"):
        configuration(distillation=Distillation(teachers=(GROWN,), top=301))
    with pytest.raises(SweepError, match=r"every: expected at most the 12 steps there are, got 13"):
        configuration(distillation=Distillation(teachers=(GROWN,), every=13))


def test_whole_batches_compete_only_where_they_pass_together() -> None:
    with pytest.raises(ValidationError, match="whole batches compete"):
        Pretraining(microbatch=2, distillation=Distillation(teachers=(GROWN,), objective=Minimum(granularity="batch")))


def test_whole_batches_do_not_compete_on_several_devices(prepared: Prepared, tmp_path: Path) -> None:
    declared = Distillation(teachers=(GROWN,), objective=Minimum(granularity="batch"))
    several = NUMERICS.model_copy(update={"devices": 2})
    with pytest.raises(PlanError, match="cannot compete on several devices"):
        distilled(declared, prepared, tmp_path, several, lambda teacher: tmp_path)


def test_a_student_or_a_teacher_without_logits_is_refused() -> None:
    embedding = Bytes(byte_width=8, heads=1, encoder_layers=1, decoder_layers=1)
    taught = Distillation(teachers=(GROWN,))
    student = configuration(embedding=embedding).vary(distillation=taught)
    with pytest.raises(PlanError, match="needs logits"):
        student.refuse_unanswerable("arm 'bytes'")
    teacher = GROWN.model_copy(update={"architecture": GROWN.architecture.vary(embedding=embedding)})
    with pytest.raises(DataError, match="a teacher has no logits"):
        configuration(distillation=Distillation(teachers=(teacher,))).refuse_unanswerable("arm 'taught'")


def test_a_model_that_was_trained_on_other_data_does_not_teach(prepared: Prepared, tmp_path: Path) -> None:
    train(replace(job(tmp_path / "model", STUDENT, steps=2), feed=STAGE.feed(prepared, Seeds.all(0), 16), data="other"))
    with pytest.raises(DataError, match="another tokenizer"):
        load(TrainedModel(path=str(tmp_path / "model")), prepared, NUMERICS)
