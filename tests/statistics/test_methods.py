from __future__ import annotations

import numpy as np
import pytest

from workbench.errors import StatisticsError
from workbench.statistics.methods import METHODS, compare
from workbench.statistics.multiplicity import holm
from workbench.statistics.student import paired_t

PER_ARM = {"paired t, uncorrected", "paired t + Benjamini-Hochberg", "paired t + Benjamini-Yekutieli"}
WITH_FLOOR = [name for name, method in METHODS.items() if method.attainable_p is not None]
# Family-wise error over identical arms that is known to be above its promise, five seeds.
TOO_LIBERAL = {"paired t, uncorrected", "percentile bootstrap", "basic bootstrap", "BCa bootstrap"}


def noise(*shape, key=0):
    return np.random.Generator(np.random.Philox(key)).standard_normal(shape)


def effects(arms, seeds):
    return noise(1 + arms, seeds) + 3.0 * np.arange(1 + arms)[:, None]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("seeds", [5, 9])
def test_every_method_answers_in_the_same_shape(name, seeds):
    scores = noise(2, 3, 4, seeds)
    answer = compare(scores, method=name)
    for values in answer:
        assert values.shape == (2, 3, 3)
        assert values.dtype == np.float64
        assert not np.isnan(values).any()
    assert (answer.low <= answer.estimate).all()
    assert (answer.estimate <= answer.high).all()
    assert ((answer.p >= 0) & (answer.p <= answer.p_adjusted + 1e-12) & (answer.p_adjusted <= 1)).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_data_set_is_judged_alike_alone_and_among_others(name):
    scores = noise(5, 4, 6)
    together, alone = compare(scores, method=name), compare(scores[2], method=name)
    for many, one in zip(together, alone, strict=True):
        assert many[2] == pytest.approx(one, rel=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_the_arms_does_not_change_their_answers(name):
    scores = effects(4, 6)
    turned = scores[[0, 3, 1, 4, 2]]
    for values, others in zip(compare(scores, method=name), compare(turned, method=name), strict=True):
        if "label" in name or "residual" in name:  # their fixed draws meet the arms in another order
            assert others == pytest.approx(values[[2, 0, 3, 1]], abs=0.15)
        else:
            assert others == pytest.approx(values[[2, 0, 3, 1]], rel=1e-9)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "Welch + Holm"])
def test_what_a_seed_does_to_all_runs_alike_changes_nothing_but_for_welch(name):
    scores = noise(4, 6)
    shifted = compare(scores + 100 * noise(6, key=1), method=name)
    assert shifted.p == pytest.approx(compare(scores, method=name).p, rel=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_a_second_call_gives_the_same_bytes(name):
    scores = noise(4, 9)
    assert [values.tobytes() for values in compare(scores, method=name)] == [
        values.tobytes() for values in compare(scores, method=name)
    ]


@pytest.mark.parametrize("name", WITH_FLOOR)
@pytest.mark.parametrize(("arms", "seeds"), [(1, 5), (3, 6), (2, 10)])
def test_no_p_falls_below_the_attainable_one(name, arms, seeds):
    floor = METHODS[name].attainable_p(seeds, arms)
    answer = compare(np.arange(1 + arms)[:, None] * 50 + 0.01 * noise(1 + arms, seeds), method=name)
    assert answer.p_adjusted.min() >= floor * (1 - 1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_identical_arms_are_called_different_as_rarely_as_promised_or_as_often_as_admitted(name):
    answer = compare(noise(250, 4, 5, key=11), method=name)
    error = (answer.p_adjusted <= 0.05).any(axis=1).mean()
    if name in TOO_LIBERAL:
        assert error > 0.09
    else:
        assert error <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 250)


def test_pooling_lets_one_noisy_arm_break_the_promise_and_pairing_does_not():
    scores = noise(1500, 7, 5)
    scores[:, 1] *= 5
    pooled, paired = (compare(scores, method=name) for name in ("pooled block t + Holm", "paired t + Holm"))
    assert (pooled.p_adjusted <= 0.05).any(axis=1).mean() > 0.11
    assert (paired.p_adjusted <= 0.05).any(axis=1).mean() < 0.065


def test_paired_t_with_holm_is_made_of_its_parts():
    scores = effects(3, 5)
    test, answer = paired_t(scores[1:] - scores[0]), compare(scores, method="paired t + Holm", alpha=0.1)
    assert answer.p_adjusted == pytest.approx(holm(test.p))
    assert answer.low == pytest.approx(test.interval(1 - 0.1 / 3)[0])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_admits_its_failure_in_one_sentence_with_a_figure(name):
    fails = METHODS[name].fails
    assert METHODS[name].name == name
    assert any(character.isdigit() for character in fails)
    assert fails.endswith(".")
    assert len(fails) < 200


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (noise(5), "nothing to compare"),
        (noise(1, 5), "nothing to compare"),
        (np.array([[1.0, 2.0, np.nan], [1.0, 3.0, 2.0]]), "not finite"),
        (np.array([[1.0, 2.0, 4.0], [1.0, np.inf, 2.0]]), "not finite"),
        (noise(3, 1), "too few seeds"),
        (np.array([[1.0, 2.0, 4.0], [1.5, 2.5, 4.5]]), "the same amount under every seed"),
        (np.array([[0.1, 0.2, 0.3], [0.1 + 1e-17, 0.2, 0.3]]), "the same amount under every seed"),
    ],
)
@pytest.mark.parametrize("name", METHODS)
def test_scores_that_no_method_can_judge_are_refused(name, scores, message):
    if np.shape(scores)[-1] < METHODS[name].smallest_seeds and np.isfinite(scores).all() and np.ndim(scores) == 2:
        message = "too few seeds|nothing to compare"
    with pytest.raises(StatisticsError, match=message):
        compare(scores, method=name)


def test_the_cell_that_is_not_finite_is_named():
    with pytest.raises(StatisticsError, match="arm 2, seed column 3"):
        compare(np.where(np.arange(15).reshape(3, 5) == 13, np.nan, noise(3, 5)), method="paired t + Holm")


def test_unknown_methods_and_levels_are_refused():
    with pytest.raises(StatisticsError, match="block Dunnett"):
        compare(noise(2, 5), method="vibes")
    with pytest.raises(StatisticsError, match="alpha"):
        compare(noise(2, 5), method="paired t + Holm", alpha=0.0)
