"""Stages after training: they start from the baseline's own weights, cost no tokens, and change what is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from architectures.presets import tiny
from workbench.configuration import Configuration
from workbench.errors import SweepError
from workbench.estimating import seconds_per_cell
from workbench.evaluation import evaluate as evaluating
from workbench.planning import Plan, Trial, plan
from workbench.records import Numerics, Record, Seeds
from workbench.running import Runner, Stopped
from workbench.session import open_session
from workbench.store import Store
from workbench.sweep import Arm, Metric, Sweep
from workbench.training.recipe import Int8, Pretraining, Pruning

ARMS = """
from workbench.training.recipe import Int8, Pruning
def after(name, *ways):
    axis = tuple(f"stages.{place}" for place in range(1, 1 + len(ways)))
    return Arm(name=name, axis=axis, configuration=BASELINE.vary(stages=(*BASELINE.stages, *ways)))
SWEEP = SWEEP.model_copy(update={"arms": (
    after("pruned", Pruning(share=0.5)), after("int8", Int8()), after("both", Pruning(share=0.5), Int8()),
)})
"""
BASELINE = Configuration(architecture=tiny())


@pytest.fixture
def opened(sweep_file: Path, tmp_path: Path) -> tuple[Plan, Store]:
    sweep_file.write_text(sweep_file.read_text() + ARMS)
    session = open_session(str(sweep_file), tmp_path / "home")
    return session.plan, session.store


def cell(plan: Plan, arm: str) -> Trial:
    return next(trial for trial in plan.trials if trial.arm == arm)


def run(plan: Plan, store: Store, arm: str, **options: Any) -> tuple[Record, list[int]]:
    """Run the first cell of an arm; return its record and the steps that were trained for it."""
    steps: list[int] = []
    runner = Runner(plan, store, watch=lambda step, *rest: steps.append(step), **options)
    return runner.run(cell(plan, arm)), steps


def bits(store: Store, record: Record) -> float:
    scores = store.scores(record).to_pandas()
    rows = scores[scores["metric"] == "bits_per_byte"]
    return float((rows["value"] * rows["weight"]).sum() / rows["weight"].sum())


def test_the_parent_of_a_compressed_model_is_the_baselines_model(opened: tuple[Plan, Store]) -> None:
    held, _ = opened
    baseline, pruned, both = (cell(held, arm) for arm in ("baseline", "pruned", "both"))
    assert baseline.lineage == (baseline.model_id,)
    assert pruned.lineage == (baseline.model_id, pruned.model_id)
    assert both.lineage[:2] == pruned.lineage
    assert len({trial.run_id for trial in held.trials}) == len(held.trials)
    assert {trial.model_key for trial in held.trials if trial.seed == 0} == {baseline.model_key}
    arm = held.arm("both")
    assert arm.size == held.arms[0].size
    assert arm.pairing == "tokens"
    assert [entry["path"] for entry in arm.difference if entry["path"].endswith("kind")] == [
        "stages.1.kind", "stages.2.kind"
    ]  # fmt: skip


def test_a_plain_pretraining_keeps_the_identity_it_had_before_stages_could_follow() -> None:
    from workbench.identity import SCHEMA, digest

    seeds = Seeds.all(0)
    parts = (BASELINE.architecture, BASELINE.stages[0], BASELINE.data.identity("corpus"), seeds)
    assert BASELINE.model_id("corpus", seeds) == digest(SCHEMA, None, *parts)


@pytest.mark.parametrize("order", [("baseline", "pruned", "int8", "both"), ("both", "int8", "pruned", "baseline")])
def test_what_several_arms_start_from_is_trained_once_whoever_comes_first(
    opened: tuple[Plan, Store], order: tuple[str, ...]
) -> None:
    held, store = opened
    trained = {arm: run(held, store, arm) for arm in order}
    assert [bool(steps) for _, steps in trained.values()] == [True, False, False, False]
    records = {arm: record for arm, (record, _) in trained.items()}
    assert {record.status for record in records.values()} == {"finished"}
    assert [entry["model_id"] for entry in records["both"].lineage] == list(cell(held, "both").lineage)
    assert len({record.scores_sha256 for record in records.values()}) == 4
    assert bits(store, records["pruned"]) > bits(store, records["baseline"])
    assert bits(store, records["int8"]) == pytest.approx(bits(store, records["baseline"]), abs=0.01)
    assert len(list((store.home / "models").iterdir())) == 1


def test_what_is_scored_is_the_baselines_trained_model_pruned_by_hand(
    opened: tuple[Plan, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, store = opened
    run(held, store, "baseline")
    trained = load_file(store.model_folder(cell(held, "baseline").model_key) / "final.safetensors")
    inner = {name: value for name, value in trained.items() if name.startswith("blocks") and value.ndim == 2}
    threshold = torch.cat([value.flatten() for value in inner.values()]).abs().median()
    seen: dict[str, torch.Tensor] = {}
    real = evaluating.evaluate

    def spy(model: torch.nn.Module, *rest: Any, **named: Any) -> Any:
        seen.update({name: value.clone() for name, value in model.state_dict().items()})
        return real(model, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluating, "evaluate", spy)
    run(held, store, "pruned")
    assert seen.keys() == trained.keys()
    for name, value in trained.items():
        expected = torch.where(value.abs() <= threshold, 0.0, value) if name in inner else value
        assert torch.equal(seen[name], expected), name


def test_a_stopped_cell_with_stages_goes_on_to_the_scores_of_one_that_was_not(opened: tuple[Plan, Store]) -> None:
    held, store = opened
    whole, _ = run(held, store, "both")
    other = Store(store.home.parent / "other")
    asked = iter([False] * 6 + [True])
    with pytest.raises(Stopped):
        run(held, other, "both", stop=lambda: next(asked))
    assert run(held, other, "both")[0].scores_sha256 == whole.scores_sha256


def test_while_another_worker_trains_the_shared_model_a_cell_waits_and_can_be_stopped(
    opened: tuple[Plan, Store],
) -> None:
    held, store = opened
    asked = iter([False, False, True])
    with store.lock(f"model-{cell(held, 'pruned').model_key}") as mine:
        assert mine
        with pytest.raises(Stopped):
            run(held, store, "pruned", stop=lambda: next(asked))
    assert not list(store.home.glob("models/*/*"))
    assert run(held, store, "pruned")[1]


def test_an_arm_that_trains_nothing_of_its_own_is_expected_to_cost_its_evaluation_only(
    opened: tuple[Plan, Store],
) -> None:
    expected = seconds_per_cell(*opened)
    assert expected["baseline"] > expected["pruned"] == expected["both"] > 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Pruning(share=0.5), Pruning(share=0.6)),
        (Pruning(share=0.5), Pruning(share=0.5, scope="matrix")),
        (Pruning(share=0.5), Pruning(share=0.5, embeddings=True)),
        (Int8(), Int8(embeddings=True)),
    ],
)
def test_every_field_of_a_stage_changes_the_model_and_its_identity(one: Any, other: Any) -> None:
    from architectures.specimens import host, moved

    states = []
    for stage in (one, other):
        model = moved(host())
        stage.apply(model)
        states.append(model.state_dict())
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])
    ours, theirs = (BASELINE.vary(stages=(Pretraining(), stage)) for stage in (one, other))
    assert ours.model_id("", Seeds.all(0)) != theirs.model_id("", Seeds.all(0))
    assert Configuration.model_validate_json(ours.model_dump_json()) == ours


def test_the_order_of_stages_is_part_of_identity() -> None:
    pruned, rounded = Pruning(share=0.5), Int8()
    one, other = (BASELINE.vary(stages=(Pretraining(), *ways)) for ways in ((pruned, rounded), (rounded, pruned)))
    assert one.model_id("", Seeds.all(0)) != other.model_id("", Seeds.all(0))


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ((Int8(),), "stages.0: expected pretraining, got int8"),
        ((Pretraining(), Pretraining()), "stages.1: expected one that follows pretraining, got pretraining"),
        (({"kind": "pruning", "share": 1.0},), "stages.0.pruning.share"),
        (({"kind": "distillation"},), "pretraining"),
        ((), "stages"),
    ],
)
def test_impossible_stages_are_refused(stages: Any, told: str) -> None:
    with pytest.raises(SweepError, match=told):
        BASELINE.vary(stages=stages)


def test_a_first_stage_without_a_kind_is_pretraining() -> None:
    assert BASELINE.vary(stages=({"tokens": 512},)).stages == (Pretraining(tokens=512),)


def test_an_arm_must_declare_the_stage_it_adds() -> None:
    arm = Arm(name="arm", axis="position", configuration=BASELINE.vary(stages=(Pretraining(), Int8())))
    sweep = Sweep(
        question="?", baseline=BASELINE, arms=(arm,), seeds=2, metric=Metric(name="bits_per_byte", smallest_effect=1)
    )
    numerics = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1)
    with pytest.raises(Exception, match="does not differ where it says"):
        plan(sweep, numerics, lambda variant: "corpus")
