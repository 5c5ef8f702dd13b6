"""Fine-tuning on answers: windows of examples, what counts, and a pretraining that several arms start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from architectures.presets import tiny
from architectures.specimens import host, moved
from architectures.thinking import PauseTokens
from architectures.transformer import Batch
from workbench.configuration import Configuration
from workbench.data.answers import Answers, Examples
from workbench.errors import DataError, PlanError
from workbench.planning import Plan, Trial
from workbench.records import Record
from workbench.running import Runner, Stopped
from workbench.seeds import generator
from workbench.session import open_session
from workbench.store import Store
from workbench.training.answering import AnswersFeed
from workbench.training.recipe import FineTuning, Int8, Pretraining

END_OF_TEXT = 0
LENGTHS = st.lists(st.integers(2, 14), max_size=8).map(lambda sizes: [*sizes, 3])  # one of them always fits


def examples(lengths: list[int], vocabulary: int = 29) -> Examples:
    """The last half of every example is its answer, and its last token an end_of_text."""
    drawn = [generator(0, f"example/{number}").integers(1, vocabulary, size) for number, size in enumerate(lengths)]
    for example in drawn:
        example[-1] = END_OF_TEXT
    return Examples(
        tokens=np.concatenate(drawn).astype(np.int64),
        scored=np.concatenate([np.arange(size) >= size // 2 for size in lengths]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        hashes=generator(0, "hashes").integers(0, 256, size=(len(lengths), 32)).astype(np.uint8),
        lines=np.arange(1, len(lengths) + 1),
        sizes=np.array(lengths),
        end_of_text=END_OF_TEXT,
    )


def one(held: Examples, line: int) -> tuple[list[int], list[bool]]:
    span = slice(held.offsets[line - 1], held.offsets[line])
    return held.tokens[span].tolist(), held.scored[span].tolist()


@settings(max_examples=60)
@given(LENGTHS, st.integers(0, 2**32), st.integers(0, 20), st.integers(7, 24), st.booleans(), st.booleans())
def test_a_window_holds_whole_examples_one_after_the_other_and_padding(
    lengths: list[int], seed: int, first: int, context: int, packed: bool, everything: bool
) -> None:
    held = examples(lengths)
    feed = AnswersFeed(held, seed, context, loss="everything" if everything else "answer", packed=packed)
    fed = feed.sequences(first, 3)
    for row in range(3):
        start, lines = 0, feed.position(first + row)[1]
        assert len(lines) == 1 or packed
        for number, line in enumerate(lines):
            tokens, scored = one(held, line)
            tokens, scored = tokens[:context], scored[:context]
            here = slice(start, start + len(tokens))
            assert fed.batch.tokens[row, here].tolist() == [END_OF_TEXT, *tokens[:-1]]
            assert fed.batch.targets[row, here].tolist() == tokens
            assert fed.batch.weights[row, here].tolist() == [float(everything or counts) for counts in scored]
            if fed.batch.documents is not None and fed.batch.positions is not None:
                assert fed.batch.documents[row, here].tolist() == [number] * len(tokens)
                assert fed.batch.positions[row, here].tolist() == list(range(len(tokens)))
            start += len(tokens)
        assert fed.batch.weights[row, start:].sum() == 0
        assert fed.batch.weights[row].sum() > 0
        if fed.batch.documents is not None:
            assert not (fed.batch.documents[row, start:] == len(lines) - 1).any()
    assert (fed.batch.documents is not None) == packed
    assert fed.places is None


@settings(max_examples=60)
@given(LENGTHS, st.integers(0, 2**32), st.integers(7, 24), st.integers(0, 2), st.booleans())
def test_no_example_repeats_before_all_have_been_read(
    lengths: list[int], seed: int, context: int, rollback: int, packed: bool
) -> None:
    feed = AnswersFeed(examples(lengths), seed, context, packed=packed).restarted(rollback)
    read: dict[int, list[int]] = {}
    for window in range(4 * len(lengths)):
        epoch, lines = feed.position(window)
        read.setdefault(epoch, []).extend(lines)
    complete = [sorted(lines) for epoch, lines in read.items() if epoch < max(read)]
    usable = [number + 1 for number, size in enumerate(lengths) if size // 2 < context]
    assert complete
    assert all(lines == usable for lines in complete)
    assert (feed.left_out, feed.cut) == (
        len(lengths) - len(usable),
        sum(size > context for size in lengths if size // 2 < context),
    )


@settings(max_examples=30)
@given(LENGTHS, st.integers(0, 2**32), st.integers(0, 30), st.integers(0, 1))
def test_any_window_is_recomputed_by_another_process_in_any_order(
    lengths: list[int], seed: int, first: int, rollback: int
) -> None:
    whole = AnswersFeed(examples(lengths), seed, 12).restarted(rollback).sequences(first, 4)
    other = AnswersFeed(examples(lengths), seed, 12, rollback=rollback)
    other.sequences(first + 50, 1)
    for begin, count in ((2, 2), (0, 3)):
        part, again = whole.part(begin, count).batch, other.sequences(first + begin, count).batch
        for name in ("tokens", "targets", "weights", "positions", "documents"):
            assert torch.equal(getattr(part, name), getattr(again, name)), name


def test_seeds_epochs_and_rollbacks_give_different_orders() -> None:
    feed = AnswersFeed(examples([8] * 60), 0, 8)
    orders = [feed.position(window)[1] for window in range(60)], [feed.position(60 + window)[1] for window in range(60)]
    others = [
        [other.position(window)[1] for window in range(60)]
        for other in (AnswersFeed(examples([8] * 60), 1, 8), feed.restarted(1))
    ]
    assert len({tuple(order) for order in (*orders, *others)}) == 4


def test_an_example_costs_in_a_window_what_it_costs_alone() -> None:
    model, held = moved(host()), examples([3, 5, 4, 6, 2, 7])
    feed = AnswersFeed(held, 0, 12)
    fed = feed.sequences(0, 2)
    nats = model.nats(model(fed.batch), fed.batch).detach()
    for row in range(2):
        start = 0
        for line in feed.position(row)[1]:
            targets = torch.tensor([one(held, line)[0]])
            tokens = torch.cat([torch.tensor([[END_OF_TEXT]]), targets[:, :-1]], dim=1)
            asked = Batch(tokens, targets, torch.ones(tokens.shape))
            expected = model.nats(model(asked), asked)[0].detach()
            assert torch.allclose(nats[row, start : start + len(expected)], expected, atol=1e-6)
            start += len(expected)
    assert len(feed.position(0)[1]) > 1


def test_examples_without_an_answer_within_the_context_are_refused_if_there_are_no_others() -> None:
    assert AnswersFeed(examples([40, 4]), 0, 8).left_out == 1
    with pytest.raises(DataError, match="begins within the context of 8 tokens"):
        AnswersFeed(examples([40, 30]), 0, 8)


# --- as a stage


ARMS = """
from workbench.data.answers import Answers
from workbench.training.recipe import FineTuning
def tuned(**options):
    stage = FineTuning(answers=Answers(path={path!r}), tokens=1024, batch=4, **options)
    return BASELINE.vary(stages=(*BASELINE.stages, stage))
def arm(name, axis, configuration):
    return Arm(name=name, axis=axis, configuration=configuration)
SWEEP = SWEEP.model_copy(update={{"baseline": tuned(), "arms": (
    arm("everything", "stages.1.loss", tuned(loss="everything")),
    arm("one a window", "stages.1.packing", tuned(packing="none")),
    arm("pretrained", "stages", BASELINE),
)}})
"""


@pytest.fixture
def opened(sweep_file: Path, tmp_path: Path) -> tuple[Plan, Store]:
    path = tmp_path / "answers.jsonl"
    rows = [{"prompt": f"{a} + {b}?", "answer": f"{a + b}"} for a in range(6) for b in range(6)]
    path.write_text("\n".join(map(json.dumps, rows)))
    sweep_file.write_text(sweep_file.read_text() + ARMS.format(path=str(path)))
    session = open_session(str(sweep_file), tmp_path / "home")
    return session.plan, session.store


def cell(plan: Plan, arm: str) -> Trial:
    return next(trial for trial in plan.trials if trial.arm == arm)


def run(plan: Plan, store: Store, arm: str, **options: Any) -> tuple[Record, list[tuple[int, int]], list[str]]:
    """Run the first cell of an arm; return its record, (step, steps) of what was trained, and what was said."""
    steps: list[tuple[int, int]] = []
    said: list[str] = []
    runner = Runner(plan, store, watch=lambda step, of, *rest: steps.append((step, of)), say=said.append, **options)
    return runner.run(cell(plan, arm)), steps, said


def test_a_pretraining_that_fine_tuned_arms_share_is_trained_once(opened: tuple[Plan, Store]) -> None:
    held, store = opened
    baseline, everything, alone = (cell(held, arm) for arm in ("baseline", "everything", "pretrained"))
    assert baseline.lineage[0] == everything.lineage[0] == alone.model_id
    assert len({baseline.model_id, everything.model_id, alone.model_id}) == 3
    first, steps, said = run(held, store, "baseline")
    assert [of for step, of in steps if step == of] == [16, 8]
    assert any("epochs on 3" in line for line in said)
    pretrained = store.model_folder(baseline.model_keys[0]) / "final.safetensors"
    before = pretrained.stat().st_mtime_ns
    second, steps, _ = run(held, store, "everything")
    assert [of for step, of in steps if step == of] == [8]
    third, steps, _ = run(held, store, "pretrained")
    assert steps == []
    assert pretrained.stat().st_mtime_ns == before
    assert {record.status for record in (first, second, third)} == {"finished"}
    assert len({record.scores_sha256 for record in (first, second, third)}) == 3
    assert len(list((store.home / "models").iterdir())) == 3
    weights = [load_file(store.model_folder(key) / "final.safetensors") for key in baseline.model_keys]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_what_reads_the_same_examples_is_paired_by_tokens(opened: tuple[Plan, Store]) -> None:
    plan, _ = opened
    pairing = {arm.name: arm.pairing for arm in plan.arms}
    assert pairing == {
        "baseline": "tokens", "everything": "tokens", "one a window": "documents", "pretrained": "documents"
    }  # fmt: skip


def test_a_fine_tuning_that_is_stopped_ends_with_the_scores_of_one_that_was_not(opened: tuple[Plan, Store]) -> None:
    held, store = opened
    whole, _, _ = run(held, store, "one a window")
    other = Store(store.home.parent / "other")
    asked = iter([False] * 20 + [True])  # in the fifth step of the second stage
    with pytest.raises(Stopped):
        run(held, other, "one a window", stop=lambda: next(asked))
    assert run(held, other, "one a window")[0].scores_sha256 == whole.scores_sha256


def test_a_fine_tuning_follows_a_pretraining_and_comes_before_what_changes_weights_by_a_rule(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "answer": "b"}')
    tuning = FineTuning(answers=Answers(path=str(tmp_path / "a.jsonl")))
    architecture = tiny()
    Configuration(architecture=architecture, stages=(Pretraining(), tuning, tuning, Int8()))
    for stages in ((tuning,), (Pretraining(), Int8(), tuning)):
        with pytest.raises(ValueError, match=r"stages\.\d: expected"):
            Configuration(architecture=architecture, stages=stages)


def test_a_model_that_cannot_keep_examples_apart_is_told_to_read_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "answer": "b"}')
    answers, architecture = Answers(path=str(tmp_path / "a.jsonl")), tiny().vary(thinking=PauseTokens())

    def configured(packing: str) -> Configuration:
        stage = FineTuning.model_validate({"answers": answers, "packing": packing})
        return Configuration(architecture=architecture, stages=(Pretraining(), stage))

    configured("none").refuse_unanswerable("arm 'a'")
    with pytest.raises(PlanError, match=r"(?s)stages\.1\.packing.*pause_tokens.*\"none\""):
        configured("examples").refuse_unanswerable("arm 'a'")


def test_a_malformed_example_ends_a_run_before_anything_is_trained(opened: tuple[Plan, Store]) -> None:
    plan, store = opened
    path = Path(plan.sweep.baseline.stages[1].answers.path)  # type: ignore[attr-defined]
    path.write_text(path.read_text() + "\n{}")
    with pytest.raises(DataError, match=r"answers\.jsonl:37"):
        Runner(plan, store).run(cell(plan, "baseline"))
    assert not (store.home / "models").exists() or not list((store.home / "models").iterdir())
