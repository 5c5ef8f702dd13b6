"""Which weights of a model are scored is declared, its trajectory feeds the noise analysis, and looks are counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from workbench.configuration import Configuration
from workbench.data.prepared import prepare
from workbench.errors import PlanError, StoreError
from workbench.evaluation.evaluate import evaluate
from workbench.identity import SCHEMA, digest
from workbench.opening import open_model
from workbench.records import Record, Seeds
from workbench.reporting.trajectory import follow_checkpoints
from workbench.running import Runner
from workbench.session import Session, merge, open_session
from workbench.training.checkpoints import kept, load_kept
from workbench.training.keeping import KeepBest, load_best
from workbench.training.loop import build

STEP = 4 * 32  # tokens
ROUGH = "optimizer=AdamW(learning_rate=0.3), schedule=Constant(), keep_best=KeepBest(points=1, after=0.2)"
Opened = Callable[..., Session]
Scored = dict[tuple[str, str], float]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for tokens, which are the same in every test."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def opened(sweep_text: str, tmp_path: Path, cache: Path) -> Opened:
    """Plan the small sweep with other fields in its stage and its evaluation."""

    def plan(stage: str = "", evaluation: str = "", home: str = "home", after: str = "") -> Session:
        if not (tmp_path / home).exists():
            (tmp_path / home).mkdir()
            (tmp_path / home / "cache").symlink_to(cache)
        text = sweep_text.replace("batch=4),)", f"batch=4, {stage}), {after})")
        text = text.replace("SwappedWords(items=8)))", f"SwappedWords(items=8)), {evaluation})")
        path = tmp_path / f"{digest(text)}.py"
        path.write_text("from workbench.training.recipe import *\n" + text)
        return open_session(str(path), tmp_path / home)

    return plan


def run(session: Session, cells: int = 1) -> list[Record]:
    runner = Runner(session.plan, session.store)
    return [runner.run(trial) for trial in session.plan.trials[:cells]]


def baseline(session: Session) -> Configuration:
    configuration = session.plan.arms[0].configuration
    assert isinstance(configuration, Configuration)
    return configuration


def folder(session: Session) -> Path:
    """Return where the model of the first cell lies."""
    return session.store.model_folder(session.plan.trials[0].model_key)


def scored(session: Session, load: Callable[[Path, torch.nn.Module], object]) -> Scored:
    """Score the first cell's model with weights that are loaded by hand."""
    configuration, numerics = baseline(session), session.plan.numerics
    assert numerics is not None
    model = build(configuration.architecture, session.plan.trials[0].seeds, numerics)
    load(folder(session), model)
    for stage in configuration.after:
        stage.apply(model)
    prepared = prepare(configuration.data, session.store.cache)
    context = configuration.architecture.context
    table = evaluate(model, prepared, configuration.evaluation, score_id="x", context=context)
    return {(row["metric"], row["item"]): row["value"] for row in table.to_pylist()}


def scores(session: Session, record: Record, view: str = "") -> Scored:
    """Return what the record holds of one view, the view taken off the names."""
    rows = session.store.scores(record).to_pylist()
    named = [(row["metric"].partition("@"), row) for row in rows]
    return {(name, row["item"]): row["value"] for (name, _, held), row in named if held == view}


# --- the rule


def test_the_scores_of_the_final_weights_keep_their_name(opened: Opened) -> None:
    configuration = baseline(opened())
    assert configuration.score_id("m") == digest(SCHEMA, "m", "final", {"tasks": configuration.evaluation.tasks})


def test_the_best_weights_are_scored_where_the_sweep_says_so(opened: Opened) -> None:
    final, best = opened(ROUGH), opened(ROUGH, 'checkpoint="best"')
    (one,), (other,) = run(final), run(best)
    assert one.model_id == other.model_id
    assert json.loads((folder(final) / "final.json").read_text())["best"]["step"] < 16
    expected = scored(best, load_best)
    assert scores(best, other) == expected
    assert scores(final, one) != expected
    model = open_model(other.run_id, best.store).model
    held = build(baseline(best).architecture, other.seeds, other.numerics)  # type: ignore[arg-type]
    load_best(folder(best), held)
    assert all(torch.equal(value, held.state_dict()[name]) for name, value in model.state_dict().items())


def test_the_rule_of_the_best_weights_is_part_of_the_scores_identity_and_not_of_the_models(opened: Opened) -> None:
    configuration, ids = baseline(opened()), []
    for rule in (KeepBest(), KeepBest(points=3), KeepBest(after=0.1)):
        asked = configuration.vary(stages__0__keep_best=rule, evaluation__checkpoint="best")
        assert asked.lineage("f", Seeds.all(0)) == configuration.lineage("f", Seeds.all(0))
        ids.append(asked.score_id("m"))
    kept_only = configuration.vary(stages__0__keep_best=KeepBest())
    assert kept_only.score_id("m") == configuration.score_id("m")
    assert len({*ids, configuration.score_id("m")}) == 4


def test_weights_that_nothing_keeps_cannot_be_scored(opened: Opened) -> None:
    with pytest.raises(PlanError, match="no rule says which they are"):
        opened(evaluation='checkpoint="best"')
    with pytest.raises(PlanError, match="more checkpoints are to be scored than are kept"):
        opened("checkpoints=2", "trajectory=3")
    with pytest.raises(PlanError, match="at most 15"):  # of sixteen steps, the last of which is the end
        opened("checkpoints=40", "trajectory=16")


# --- the trajectory


@pytest.mark.parametrize("after", ["", "Pruning(share=0.5)"])
def test_every_checkpoint_of_the_trajectory_is_scored_as_the_end_is(opened: Opened, after: str) -> None:
    session = opened("checkpoints=3", "trajectory=2", after=after)
    (record,) = run(session)
    tokens = [8 * STEP, 12 * STEP]
    assert baseline(session).trajectory == tuple(tokens)
    assert {*baseline(session).produces()} >= {f"bits_per_byte/bits_per_byte@tokens={tokens[1]}"}
    held = {one.tokens: one for one in kept(folder(session))}
    for at in tokens:
        expected = scored(session, lambda _, model, at=at: load_kept(held[at], model))  # type: ignore[misc]
        assert scores(session, record, f"tokens={at}") == expected
    alone = opened("checkpoints=3", after=after)
    (end,) = run(alone)
    assert scores(session, record) == scores(alone, end)
    assert {row["view"] for row in session.store.scores(record).to_pylist()} == {
        "context=32", *(f"tokens={at}" for at in tokens),
    }  # fmt: skip


def test_which_checkpoints_are_scored_is_part_of_identity(opened: Opened) -> None:
    asked = [("checkpoints=3", "trajectory=2"), ("checkpoints=5", "trajectory=2"), ("checkpoints=3", "trajectory=1")]
    ids = {baseline(opened(*one)).score_id("m") for one in [*asked, ("checkpoints=3", ""), ("", "")]}
    assert len(ids) == 4


def test_a_checkpoint_that_is_gone_is_missed(opened: Opened) -> None:
    session = opened("checkpoints=3", "trajectory=2")
    run(opened("checkpoints=3"))
    for path in folder(session).glob("kept-*2.*"):
        path.unlink()
    (record,) = run(session)  # trained again for what it did not keep
    assert scores(session, record, f"tokens={12 * STEP}")
    for path in folder(session).glob("kept-*2.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(StoreError, match="damaged"):
        run(opened("checkpoints=3", "trajectory=1"))


def test_the_trajectory_of_real_runs_is_read_from_their_records(opened: Opened) -> None:
    session = opened("checkpoints=4", "trajectory=3")
    records, document = run(session, 2), session.plan.document()
    document["arms"] = document["arms"][:2]
    document["trials"] = document["trials"][:2]
    found = follow_checkpoints(document, records, session.store.scores)
    assert found is not None
    assert found.tokens == dict.fromkeys(("baseline", "ALiBi"), baseline(session).trajectory)
    end = session.store.scores(records[1]).to_pandas()
    end = end[end["metric"] == "bits_per_byte"]
    assert found.arms["ALiBi"][0, 3] == pytest.approx(float((end["value"] * end["weight"]).sum() / end["weight"].sum()))
    assert len(set(found.arms["ALiBi"][0])) == 4


# --- counting


def test_a_model_that_is_evaluated_again_another_way_is_counted_and_the_same_way_is_not(opened: Opened) -> None:
    first, second = opened(), opened(evaluation="trajectory=1", stage="checkpoints=1")
    assert run(first)[0].evaluations == 1
    assert run(first)[0].evaluations == 1
    shutil.rmtree(first.store.run_folder(first.plan.trials[0].run_id))
    assert run(first)[0].evaluations == 1
    (again,) = run(second)
    assert again.evaluations == 2
    told = first.store.evaluations(first.plan.trials[0].model_key)
    assert {one["score_id"] for one in told} == {first.plan.trials[0].score_id, again.score_id}
    assert told[0]["tasks"] == ["bits_per_byte", "swapped_words"]
    pruned = opened(after="Pruning(share=0.5)")
    assert run(pruned)[0].evaluations == 1  # it is another model
    shutil.rmtree(folder(first))
    assert len(first.store.evaluations(first.plan.trials[0].model_key)) == 2


def test_what_was_counted_elsewhere_is_merged(opened: Opened, tmp_path: Path) -> None:
    here, there = opened(), opened(home="there")
    run(there)
    merge(here.store, [tmp_path / "there"])
    key = here.plan.trials[0].model_key
    assert here.store.evaluations(key) == there.store.evaluations(key)
    assert len(here.store.evaluations(key)) == 1
