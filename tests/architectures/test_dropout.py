from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from architectures.architecture import Architecture
from architectures.attention import Pass
from architectures.dropout import Constant, Dropout, Early, Late, Schedule, Triangular
from architectures.layerskip import LayerSkip
from architectures.specimens import host, moved, nats_of, random_batch, started
from architectures.testing import check_architecture
from architectures.transformer import Output

STEPS = 60
EVERYWHERE = Dropout(embedding=0.1, attention=0.2, residual=0.3, feed_forward=0.4, feed_forward_output=0.5)
SCHEDULES = (
    Early(share=0.5),
    Early(share=1, form="linear"),
    Late(share=0.5),
    Late(share=1, form="linear"),
    Triangular(),
)

shares = st.floats(0.01, 0.99)
schedules = st.one_of(
    st.just(Constant()),
    st.builds(Early, share=shares, form=st.sampled_from(["cut", "linear"])),
    st.builds(Late, share=shares, form=st.sampled_from(["step", "linear"])),
    st.builds(Triangular, cycles=st.integers(1, 9)),
)


def factors(schedule: Schedule, steps: int = STEPS) -> list[float]:
    """What training passes in at every step, and what comes of it."""
    dropout = Dropout(residual=0.1, schedule=schedule)
    return [dropout.factor(torch.tensor(step / steps)) for step in range(steps)]


def triangle(step: int, steps: int, cycles: int) -> float:
    """Rise for half a cycle, fall for the other half, counted in steps."""
    cycle = steps // cycles
    position = step % cycle
    return position / (cycle / 2) if position < cycle / 2 else 2 - position / (cycle / 2)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(), [1.0] * STEPS),
        (Early(share=1 / 6), [1.0] * 10 + [0.0] * 50),
        (Early(share=1 / 6, form="linear"), [1 - step / 10 for step in range(10)] + [0.0] * 50),
        (Early(share=1, form="linear"), [1 - step / STEPS for step in range(STEPS)]),
        (Late(share=1, form="linear"), [step / STEPS for step in range(STEPS)]),
        (Late(share=1 / 6), [0.0] * 10 + [1.0] * 50),
        (Triangular(cycles=3), [triangle(step, STEPS, 3) for step in range(STEPS)]),
    ],
    ids=repr,
)
def test_the_schedules_of_stlms_preregistration_follow_their_formulas_at_every_step(schedule, expected):
    assert factors(schedule) == pytest.approx(expected, abs=1e-6)


@given(schedules, st.floats(0, 1))
def test_a_factor_lies_between_nothing_and_the_full_rate(schedule, progress):
    assert 0 <= schedule.factor(progress) <= 1


@given(shares, st.booleans(), st.floats(0, 1))
def test_late_dropout_is_what_early_dropout_leaves_out(share, linear, progress):
    early = Early(share=share, form="linear" if linear else "cut")
    late = Late(share=share, form="linear" if linear else "step")
    assert early.factor(progress) + late.factor(progress) == pytest.approx(1)


@given(st.integers(2, 30_000), st.data())
def test_dropout_ends_and_begins_at_exactly_the_step_that_is_named(steps, data):
    last = data.draw(st.integers(1, steps - 1))
    for step in (0, last - 1, last, steps - 1):
        progress = torch.tensor(step / steps)
        for early in (Early(share=last / steps), Early(share=last / steps, form="linear")):
            assert (Dropout(residual=0.1, schedule=early).factor(progress) > 0) == (step < last)
        assert Dropout(residual=0.1, schedule=Late(share=last / steps)).factor(progress) == (step >= last)


@pytest.mark.parametrize("cycles", [1, 2, 3, 5, 6])
def test_a_triangle_touches_zero_and_the_full_rate_in_every_cycle(cycles):
    found, cycle = factors(Triangular(cycles=cycles)), STEPS // cycles
    assert found[::cycle] == [0.0] * cycles
    assert found[cycle // 2 :: cycle] == [1.0] * cycles


@pytest.mark.parametrize(
    ("schedule", "mean"),
    [
        (Early(share=0.3), 0.3),
        (Early(share=0.3, form="linear"), 0.15),
        (Late(share=0.3), 0.7),
        (Late(share=0.3, form="linear"), 0.85),
        (Triangular(cycles=4), 0.5),
    ],
    ids=repr,
)
def test_the_mean_rate_over_training_is_the_one_that_is_promised(schedule, mean):
    assert math.fsum(schedule.factor((step + 0.5) / 5000) for step in range(5000)) / 5000 == pytest.approx(mean)


def test_a_schedule_that_is_another_under_a_second_name_is_refused():
    with pytest.raises(ValueError, match="share: expected below 1 where form is cut, as this is constant otherwise"):
        Early(share=1)
    with pytest.raises(ValueError, match="share: expected below 1 where form is step, as nothing is dropped otherwise"):
        Late(share=1)
    assert Dropout(schedule=Triangular()) == Dropout()
    assert Dropout(feed_forward_output=0.1, schedule=Triangular()).schedule == Triangular()


def test_a_schedule_without_the_progress_of_training_is_refused():
    model, batch = moved(dropping(Triangular())).train(), random_batch(host())
    expected = "progress: expected the share of training done, which dropout.schedule triangular follows, got None"
    with pytest.raises(ValueError, match=expected):
        model(batch)


def dropping(schedule: Schedule, dropout: Dropout = EVERYWHERE) -> Architecture:
    return host().vary(dropout=dropout.vary(schedule=schedule))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_evaluation_knows_of_no_schedule(schedule):
    plain, scheduled, batch = moved(host()), moved(dropping(schedule)), random_batch(host())
    scheduled.train()(batch, torch.tensor(0.5))
    assert torch.equal(nats_of(plain, batch), nats_of(scheduled.eval(), batch))


@pytest.mark.parametrize(
    ("schedule", "progress"), [(Early(share=0.5), 0.5), (Late(share=0.5), 0.49), (Triangular(), 0)]
)
def test_where_the_factor_is_zero_nothing_is_drawn_and_nothing_is_dropped(schedule, progress):
    plain, scheduled, batch = moved(host()), moved(dropping(schedule)).train(), random_batch(host())
    before = torch.get_rng_state()
    hidden = scheduled(batch, torch.tensor(progress)).hidden
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(hidden, plain(batch).hidden)


@pytest.fixture
def realised(monkeypatch) -> list[tuple[float, int, int]]:
    """(rate, values that were dropped, values that could be) of everything that is dropped, in order."""
    seen: list[tuple[float, int, int]] = []
    real = functional.dropout

    def drop(x: torch.Tensor, rate: float) -> torch.Tensor:
        dropped = real(x, rate)
        seen.append((rate, int(((dropped == 0) & (x != 0)).sum()), int((x != 0).sum())))
        return dropped

    monkeypatch.setattr(functional, "dropout", drop)
    return seen


@pytest.mark.parametrize("progress", [0.25, 0.5, 1.0])
def test_every_place_drops_its_rate_times_the_factor_and_so_the_zeros_say(realised, progress):
    torch.manual_seed(0)
    architecture = dropping(Late(share=1, form="linear"))
    model, batch = moved(architecture).train(), random_batch(architecture, sequences=64)
    model.use_backend("reference")
    model(batch, torch.tensor(progress))
    layer = [0.2, 0.3, 0.4, 0.5]  # attention probabilities, what attention adds, hidden, what feed-forward adds
    assert [rate for rate, _, _ in realised] == [rate * progress for rate in (0.1, *layer, *layer)]
    for rate, dropped, possible in realised:
        deviation = math.sqrt(rate * (1 - rate) / possible)
        assert dropped / possible == pytest.approx(rate, abs=5 * deviation)


def test_constant_dropout_trains_to_the_bits_of_a_loop_written_by_hand():
    architecture = dropping(Constant())
    ours, by_hand, batch = started(architecture).train(), started(architecture).train(), random_batch(architecture)

    def forward(model):
        x = functional.dropout(model.embedding(batch.tokens), 0.1)
        for block in model.blocks:
            block.feed_forward.dropout = 0.4
            mixed = block.attention(block.attention_norm(x), Pass(model.position, None, 0.2, "sdpa"))
            x = x + functional.dropout(mixed, 0.3)
            x = x + functional.dropout(block.feed_forward(block.feed_forward_norm(x)), 0.5)
        return Output(model.final_norm(x))

    def train(model, output):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(4):
            torch.manual_seed(step)
            optimizer.zero_grad()
            model.nats(output(model, step), batch).mean().backward()
            optimizer.step()

    with torch.random.fork_rng():
        train(ours, lambda model, step: model(batch, torch.tensor(step / 4)))
        train(by_hand, lambda model, _: forward(model))
    for one, other in zip(ours.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_schedule_meets_other_components_that_draw_and_the_contract_holds():
    check_architecture(dropping(Triangular(), Dropout(residual=0.1)).vary(layers=3, depth=LayerSkip()))


@pytest.mark.parametrize("place", ["embedding", "attention", "residual", "feed_forward", "feed_forward_output"])
def test_random_numbers_are_declared_wherever_a_rate_is_above_zero(place):
    assert not host().draws
    for schedule in (Constant(), *SCHEDULES):
        assert host().vary(dropout=Dropout(**{place: 0.1}, schedule=schedule)).draws
