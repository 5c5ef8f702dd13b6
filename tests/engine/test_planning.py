from __future__ import annotations

import json
from pathlib import Path

import pytest

from architectures.attention import MultiHead
from architectures.feedforward import Gelu, SwiGLU
from architectures.positions import Alibi, Learned, Rotary
from architectures.presets import tiny
from workbench.command import Command
from workbench.configuration import Configuration
from workbench.data.difficulty import Rarity
from workbench.data.ordering import Curriculum
from workbench.differing import difference
from workbench.errors import PlanError, SweepError
from workbench.loading import load_sweep
from workbench.planning import Plan, plan
from workbench.records import Numerics, Seeds
from workbench.reporting.describing import concise
from workbench.sweep import Arm, Compensation, Metric, Sweep, Variant
from workbench.training.recipe import Int8

BASELINE = Configuration(architecture=tiny())
NUMERICS = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1)
METRIC = Metric(name="bits_per_byte", smallest_effect=0.02)


def planned(*arms: Arm, baseline: Variant = BASELINE, seeds: int = 2, corpus: str = "corpus") -> Plan:
    sweep = Sweep(name="s", question="?", baseline=baseline, arms=arms, seeds=seeds, metric=METRIC)
    return plan(sweep, NUMERICS, lambda variant: corpus)


ALIBI = Arm(name="alibi", axis="position", configuration=BASELINE.vary(position=Alibi()))


def test_a_variant_is_the_baseline_plus_what_was_named() -> None:
    varied = BASELINE.vary(position=Alibi(), tokens=1024)
    assert varied.architecture.position == Alibi()
    assert varied.stages[0].tokens == 1024
    assert varied.vary(position=Rotary(), tokens=204_800) == BASELINE


def test_fields_that_must_change_together_can() -> None:
    varied = BASELINE.vary(architecture__vocabulary=512, tokenizer__vocabulary=512)
    assert varied.data.tokenizer.vocabulary == 512
    with pytest.raises(SweepError, match="vocabulary"):
        BASELINE.vary(architecture__vocabulary=512)


def test_an_ambiguous_or_unknown_field_is_explained() -> None:
    with pytest.raises(SweepError, match="ambiguous") as caught:
        BASELINE.vary(vocabulary=512)
    assert "architecture.vocabulary" in str(caught.value)
    with pytest.raises(SweepError, match="no field 'positon'") as caught:
        BASELINE.vary(positon=Alibi())
    assert "position" in str(caught.value)


def test_heads_that_do_not_divide_the_width_are_refused_with_the_path() -> None:
    with pytest.raises(SweepError, match="heads"):
        BASELINE.vary(attention=MultiHead(heads=7))


def test_the_difference_lists_resolved_fields_only_where_they_differ() -> None:
    assert difference(BASELINE, BASELINE) == ()
    paths = {entry["path"]: (entry["baseline"], entry["arm"]) for entry in difference(BASELINE, ALIBI.configuration)}
    assert paths["architecture.position.kind"] == ("rotary", "alibi")
    assert all(path.startswith("architecture.position.") for path in paths)


def test_settings_that_nobody_chose_are_marked_and_no_part_of_a_table() -> None:
    arm = BASELINE.vary(order=Curriculum(by=Rarity(), direction="hard_first"))
    found = difference(BASELINE, arm)
    assert {entry["path"] for entry in found if entry.get("default")} >= {"data.order.control", "data.order.pacing"}
    assert concise(found, ["data.order"]) == [
        {"path": "data.order.kind", "baseline": "shuffled", "arm": "curriculum, by rarity, direction hard_first"}
    ]


def test_a_stage_that_an_arm_lacks_is_a_difference_that_it_must_declare() -> None:
    longer = BASELINE.vary(stages=(*BASELINE.stages, Int8()))
    assert difference(longer, BASELINE) == ({"path": "stages.1.kind", "baseline": "int8", "arm": None},)
    with pytest.raises(PlanError, match="does not declare"):
        planned(Arm(name="a", axis="position", configuration=BASELINE.vary(position=Alibi())), baseline=longer)
    planned(Arm(name="a", axis="stages", configuration=BASELINE), baseline=longer)


def test_an_arm_that_differs_in_something_undeclared_is_refused() -> None:
    sneaky = Arm(name="sneaky", axis="position", configuration=BASELINE.vary(position=Alibi(), learning_rate=1e-2))
    with pytest.raises(PlanError, match="does not declare") as caught:
        planned(sneaky)
    assert "learning_rate: 0.003 → 0.01" in str(caught.value)
    assert "sneaky" in str(caught.value)


def test_a_declared_bundle_may_differ_in_all_its_fields() -> None:
    both = BASELINE.vary(position=Alibi(), learning_rate=1e-2)
    assert planned(Arm(name="both", axis=("position", "learning_rate"), configuration=both)).arm("both")


def test_an_arm_that_does_not_differ_where_it_says_is_refused() -> None:
    with pytest.raises(PlanError, match="does not differ"):
        planned(Arm(name="same", axis="position", configuration=BASELINE))
    with pytest.raises(PlanError, match="does not differ") as caught:
        planned(Arm(name="half", axis=("position", "learning_rate"), configuration=ALIBI.configuration))
    assert "learning_rate" in str(caught.value)


def test_a_compensation_must_hold_what_it_names() -> None:
    def gated(width: int) -> Arm:
        return Arm(
            name="gated",
            axis="feed_forward.kind",
            compensation=Compensation(path="feed_forward.width"),
            configuration=BASELINE.vary(feed_forward=SwiGLU(width=width)),
        )

    arm = planned(gated(256)).arm("gated")
    assert arm.size["parameters"] == planned(gated(256)).arm("baseline").size["parameters"]
    with pytest.raises(PlanError, match="does not hold parameters equal"):
        planned(gated(384))


def test_a_width_that_changes_with_the_kind_must_be_declared() -> None:
    """The published ablation that changed the feed-forward width together with the positions would not pass."""
    confounded = BASELINE.vary(position=Alibi(), feed_forward=Gelu(width=320))
    with pytest.raises(PlanError, match=r"feed_forward\.width: 384 → 320"):
        planned(Arm(name="confounded", axis="position", configuration=confounded))


def test_an_a_a_arm_needs_seeds_of_its_own() -> None:
    again = planned(Arm(name="again", axis="seeds", seed_offset=100, configuration=BASELINE))
    assert [trial.seeds.data for trial in again.trials if trial.arm == "again"] == [100, 101]
    assert again.arm("again").pairing == "none"
    for offset, message in ((0, "needs other seeds"), (1, "shares seeds")):
        with pytest.raises(PlanError, match=message):
            planned(Arm(name="again", axis="seeds", seed_offset=offset, configuration=BASELINE))
    with pytest.raises(PlanError, match="seeds: shifted"):
        planned(Arm(name="alibi", axis="position", seed_offset=100, configuration=ALIBI.configuration))


def test_cells_run_seed_by_seed() -> None:
    trials = planned(ALIBI, seeds=3).trials
    assert [(trial.seed, trial.arm) for trial in trials] == [
        (seed, arm) for seed in range(3) for arm in ("baseline", "alibi")
    ]
    assert len({trial.run_id for trial in trials}) == len(trials)


def test_the_hash_covers_what_was_decided_and_nothing_else() -> None:
    before = planned(ALIBI).hash
    assert planned(ALIBI).hash == before
    assert planned(ALIBI, seeds=3).hash != before
    assert planned(ALIBI, corpus="another").hash != before
    cheaper = BASELINE.vary(checkpoint_seconds=1.0)
    arm = Arm(name="alibi", axis="position", configuration=cheaper.vary(position=Alibi()))
    assert planned(arm, baseline=cheaper).hash == before


def test_a_new_evaluation_retrains_nothing() -> None:
    fewer = BASELINE.vary(documents=3)
    ours, theirs = BASELINE.model_id("corpus", Seeds.all(0)), fewer.model_id("corpus", Seeds.all(0))
    assert ours == theirs
    assert BASELINE.score_id(ours) != fewer.score_id(theirs)


def test_pairing_coverage_counts_the_parameters_that_start_equal() -> None:
    arms = planned(ALIBI, Arm(name="learned", axis="position", configuration=BASELINE.vary(position=Learned())))
    assert arms.arm("alibi").coverage == {"total": 1.0, "without_embeddings": 1.0}
    learned = arms.arm("learned").coverage
    assert learned is not None
    assert 0.9 < learned["total"] < 1.0


def test_the_document_is_plain_json() -> None:
    document = planned(ALIBI).document()
    assert json.loads(json.dumps(document)) == document
    assert document["baseline"] == document["arms"][0]["name"]


def test_yaml_and_python_declare_the_same_sweep(tmp_path: Path) -> None:
    python = tmp_path / "one.py"
    python.write_text(
        "from architectures.positions import Alibi\nfrom architectures.presets import tiny\n"
        "from workbench.configuration import Configuration\nfrom workbench.sweep import *\n"
        "B = Configuration(architecture=tiny())\n"
        "SWEEP = Sweep(question='?', baseline=B, seeds=2, metric=Metric(name='bits_per_byte', smallest_effect=0.02),\n"
        "    arms=(Arm(name='alibi', axis='position', configuration=B.vary(position=Alibi())),))\n"
    )
    declared = load_sweep(str(python))
    written = tmp_path / "one.json"
    written.write_text(
        json.dumps(
            {
                "question": "?",
                "seeds": 2,
                "metric": {"name": "bits_per_byte", "smallest_effect": 0.02},
                "baseline": declared.baseline.model_dump(mode="json"),
                "arms": [{"name": "alibi", "axis": "position", "vary": {"position": {"kind": "alibi"}}}],
            }
        )
    )
    assert load_sweep(str(written)) == declared


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 / 0", "line 2"),
        ("SWEEP = 3", "SWEEP = Sweep"),
        ("from architectures.positions import Rotary; Rotary(bsae=1.0)", "did you mean 'base'"),
        ("import does_not_exist", "does_not_exist"),
        ("def broken(:", "line 2"),
    ],
)
def test_a_sweep_file_that_cannot_be_loaded_is_explained(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(f"# a sweep\n{line}\n")
    with pytest.raises(SweepError) as caught:
        load_sweep(str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_command_is_split_before_values_are_filled_in() -> None:
    command = Command(command="train --name {name} --seed {seed} --out {out}", fields={"name": "a b; rm -rf c"})
    assert command.arguments(3, Path("/o")) == ["train", "--name", "a b; rm -rf c", "--seed", "3", "--out", "/o"]


def test_a_trainer_of_the_users_may_stand_against_ours_if_that_is_the_declared_difference() -> None:
    theirs = Command(command="train {seed} {out}")
    arm = planned(Arm(name="theirs", axis="trainer", configuration=theirs)).arm("theirs")
    assert arm.difference[0] == {"path": "trainer", "baseline": "Configuration", "arm": "Command"}
    assert arm.pairing == "declared"
    with pytest.raises(PlanError, match="does not declare"):
        planned(Arm(name="theirs", axis="command", configuration=theirs))


@pytest.mark.parametrize("command", ["train --out {out}", "train {seed} {out} {width}", "train {seed} {out} '"])
def test_a_command_with_wrong_placeholders_is_refused(command: str) -> None:
    with pytest.raises(ValueError, match="command"):
        Command(command=command)


def test_the_identity_of_a_command_follows_its_files_and_fields(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("print(1)")
    one = Command(
        command="python train.py {seed} {out} {width}", fields={"width": 1}, files=("train.py",), folder=str(tmp_path)
    )
    before = one.model_id("", Seeds.all(0))
    assert one.model_id("", Seeds.all(0)) == before
    assert one.vary(width=2).model_id("", Seeds.all(0)) != before
    script.write_text("print(2)")
    assert one.model_id("", Seeds.all(0)) != before
