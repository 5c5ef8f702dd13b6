from __future__ import annotations

import json
import random

import invented_sweep
import numpy as np
import pytest
from scipy import stats

from workbench.errors import StatisticsError
from workbench.records import Status, empty_scores, scores_table
from workbench.reporting import decide_plan, wording
from workbench.statistics import compare_blocks


def decide(document=None, held=None, scores=invented_sweep.scores):
    document = document or invented_sweep.plan()
    return decide_plan(document, invented_sweep.records(document) if held is None else held, scores)


def weighted_mean(name, seed):
    table = invented_sweep.scores(invented_sweep.record(name, seed)).slice(0, 4)
    return np.average(table["value"].to_numpy(), weights=table["weight"].to_numpy())


def test_the_primary_metric_comes_first_and_the_others_are_exploratory():
    primary, secondary = decide()
    assert (primary.metric, primary.exploratory, primary.complete) == ("bits_per_byte", False, True)
    assert (secondary.metric, secondary.exploratory, secondary.direction) == ("accuracy", True, "higher is better")
    assert all(contrast.exploratory for contrast in secondary.contrasts)
    assert [contrast.arm for contrast in primary.contrasts] == list(invented_sweep.EFFECTS)[1:]


def test_verdicts_follow_the_invented_effects():
    verdicts = {contrast.arm: contrast.verdict for contrast in decide()[0].contrasts}
    assert verdicts["learned"] == verdicts["half tokens"] == "worse"
    assert verdicts["alibi"] == "better"
    assert verdicts["rotary again"] == "equivalent"


def test_arms_are_judged_together_on_their_weighted_means_and_the_arm_with_other_seeds_apart():
    contrasts = decide()[0].contrasts
    names = ["rotary", *(contrast.arm for contrast in contrasts)]
    means = np.array([[weighted_mean(name, seed) for seed in range(5)] for name in names])
    together, apart = compare_blocks(means[:-1]), stats.ttest_ind(means[-1], means[0], equal_var=False)
    assert [contrast.p for contrast in contrasts[:-1]] == pytest.approx(together.p)
    assert contrasts[-1].p == pytest.approx(apart.pvalue)
    assert contrasts[0].coverage == {"total": 1.0, "without_embeddings": 1.0}


def test_the_order_of_the_records_does_not_change_a_byte():
    document = invented_sweep.plan()
    held = invented_sweep.records(document)
    shuffled = random.Random(3).sample(held, len(held))
    assert [d.to_json() for d in decide(document, shuffled)] == [d.to_json() for d in decide(document, held)]


def test_a_decision_is_plain_json():
    told = json.loads(decide()[0].to_json())
    assert told["contrasts"][0]["arm"] == "alibi"
    assert told["arms"]["swiglu"]["differs"] == (
        "feed_forward: gelu → swiglu; feed_forward.width: 384 → 256 (compensated by width)"
    )
    assert told["arms"]["learned"]["parameters_difference"] == 16_384
    assert told["facts"]["Plan"] == invented_sweep.plan()["hash"]


@pytest.mark.parametrize("count", [0, 1, 8, 19])
def test_an_incomplete_plan_has_estimates_and_no_verdict(count):
    document = invented_sweep.plan()
    primary = decide(document, invented_sweep.records(document)[:count])[0]
    assert (primary.complete, primary.cells_done, primary.cells_planned) == (False, count, 35)
    assert all(contrast.verdict is contrast.p is contrast.low is None for contrast in primary.contrasts)
    assert any("Interim" in sentence for sentence in primary.method)


def test_lost_runs_are_footnotes_with_their_reason():
    document = invented_sweep.plan()
    held = invented_sweep.records(document, {("alibi", 2): Status.DIVERGED, ("learned", 1): Status.FAILED})
    primary = decide(document, held)[0]
    assert primary.complete
    assert "alibi, seed 2 diverged: the loss is not a number at step 61" in primary.footnotes
    assert "learned: failed on its machine in seed 1; judged on 4 of 5 seeds" in primary.footnotes
    verdicts = {contrast.arm: contrast.verdict for contrast in primary.contrasts}
    assert (verdicts["alibi"], verdicts["learned"]) == ("undecided", "worse")


def test_runs_of_other_plans_are_ignored():
    document = invented_sweep.plan()
    held = [*invented_sweep.records(document), invented_sweep.record("stranger", 0)]
    assert decide(document, held) == decide(document)


def test_mixed_numerics_are_refused():
    document = invented_sweep.plan()
    held = invented_sweep.records(document)
    other = invented_sweep.NUMERICS.model_copy(update={"threads": 2})
    held[3] = held[3].model_copy(update={"numerics": other})
    with pytest.raises(StatisticsError, match="different numerics"):
        decide(document, held)


def test_items_weighed_differently_are_refused_in_the_primary_metric():
    def heavier(record):
        table = invented_sweep.scores(record)
        if record.arm != "alibi":
            return table
        columns = {name: table[name].to_pylist() for name in table.column_names}
        return scores_table(record.score_id, {**columns, "weight": [2 * weight for weight in columns["weight"]]})

    with pytest.raises(StatisticsError, match="weigh the same item differently"):
        decide(scores=heavier)


def test_a_metric_no_run_reports_is_refused_when_primary_and_noted_when_secondary():
    document = invented_sweep.plan()
    with pytest.raises(StatisticsError, match=r"no run reports the metric[\s\S]*accuracy, bits_per_byte"):
        decide({**document, "metric": "perplexity"})
    secondary = [{"metric": "margin", "higher_is_better": True, "unit": "nats", "smallest_effect": None}]
    (primary,) = decide({**document, "secondary": secondary})
    assert "secondary metric margin is not decided: no run reports the metric" in primary.footnotes


def test_a_finished_run_without_the_metric_is_a_gap_and_not_a_zero():
    def silent(record):
        return empty_scores() if (record.arm, record.seed) == ("alibi", 4) else invented_sweep.scores(record)

    contrast = decide(scores=silent)[0].contrasts[0]
    assert (contrast.pairs, contrast.missing) == (4, 1)
    assert contrast.notes[0] == "has no score in seed 4; judged on 4 of 5 seeds"


def test_a_metric_of_several_tasks_must_name_its_task():
    def two_tasks(record):
        columns = {
            "task": ["arc", "blimp"], "view": ["v", "v"], "metric": ["accuracy", "accuracy"], "item": ["a", "a"],
            "value": [0.5 + 0.01 * record.seed**2 + len(record.arm) / 50, 0.9], "weight": [1.0, 1.0],
        }  # fmt: skip
        return scores_table(record.score_id, columns)

    document = {**invented_sweep.plan(), "metric": "accuracy", "secondary": []}
    with pytest.raises(StatisticsError, match=r"several tasks[\s\S]*arc/accuracy, blimp/accuracy"):
        decide(document, scores=two_tasks)
    assert decide({**document, "metric": "arc/accuracy"}, scores=two_tasks)[0].contrasts[0].pairs == 5


def test_an_arm_better_at_the_price_of_a_guarded_metric_may_not_claim_both():
    document = {**invented_sweep.plan(), "guards": ["accuracy"]}
    document["secondary"] = [{"metric": "accuracy", "higher_is_better": True, "unit": "", "smallest_effect": 0.5}]
    spared = decide(document)[0]
    (alibi, *_) = spared.contrasts
    assert alibi.guard.holds
    assert "without being worse on accuracy by 0.5 or more" in wording.sentence(alibi, spared)
    document["secondary"][0]["smallest_effect"] = 1e-6
    (paid, *_) = decide(document)[0].contrasts
    assert (paid.verdict, paid.guard.holds) == ("better", False)
    assert decide(document, invented_sweep.records(document)[:8])[0].contrasts[0].guard is None


def test_a_macro_average_counts_every_task_the_same():
    def two_tasks(record):
        value = 0.5 + 0.01 * record.seed**2 + len(record.arm) / 50
        columns = {
            "task": ["arc", "arc", "blimp"], "view": ["v"] * 3, "metric": ["accuracy"] * 3, "item": ["a", "b", "c"],
            "value": [value, value, 0.4 + 0.02 * (record.seed * len(record.arm) % 3)], "weight": [1.0] * 3,
        }  # fmt: skip
        return scores_table(record.score_id, columns)

    document = {**invented_sweep.plan(), "higher_is_better": True, "secondary": []}
    arc, blimp, macro = (
        decide({**document, "metric": name}, scores=two_tasks)[0].contrasts[0].estimate
        for name in ("arc/accuracy", "blimp/accuracy", "*/accuracy")
    )
    assert macro == pytest.approx((arc + blimp) / 2)
    with pytest.raises(StatisticsError, match="no run reports the metric"):
        decide({**document, "metric": "*/perplexity"}, scores=two_tasks)
