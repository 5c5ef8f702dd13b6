"""Pause tokens against a plain model that reads the long sequence, a naive layout, and their costs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from architectures.accounting import coverage, flops_per_token, parameters
from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.compute import memory
from architectures.positions import Alibi, Learned, Rotary
from architectures.specimens import host, moved, nats_of, random_batch
from architectures.testing import check_component
from architectures.thinking import NoThinking, PauseTokens
from architectures.transformer import Batch

PLACED = [PauseTokens(), PauseTokens(count=3, every=4), PauseTokens(count=2, every=5, content="repeat")]
PAUSE = host().vocabulary


def long_sequence(tokens: list[int], thinking: PauseTokens) -> tuple[list[int], list[int]]:
    """The sequence with its extra positions written out, and where each prediction is read."""
    written, read = [], []
    for place, token in enumerate(tokens, start=1):
        written.append(token)
        if place % thinking.every == 0:
            written += [PAUSE if thinking.content == "learned" else token] * thinking.count
        read.append(len(written) - 1)
    return written, read


def plain_twin(architecture: Architecture) -> torch.nn.Module:
    """A model without a thinking axis and the same weights; its last token is the pause token."""
    positions = architecture.thinking.extended(architecture.context)
    twin = moved(architecture.vary(thinking=NoThinking(), vocabulary=PAUSE + 1, context=positions))
    stored = dict(moved(architecture).state_dict())
    pause = stored.pop("thinking.pause.weight", torch.zeros(1, architecture.width))
    stored["embedding.weight"] = torch.cat((stored["embedding.weight"], pause))
    twin.load_state_dict(stored)
    return twin


@pytest.mark.parametrize("position", [Rotary(), Learned(), Alibi()], ids=lambda position: position.kind)
@pytest.mark.parametrize("thinking", PLACED, ids=repr)
def test_a_model_with_pauses_is_a_plain_model_that_reads_the_long_sequence(thinking, position):
    architecture = host().vary(thinking=thinking, position=position)
    model, twin, batch = moved(architecture), plain_twin(architecture), random_batch(architecture)
    written = [long_sequence(row, thinking) for row in batch.tokens.tolist()]
    tokens = torch.tensor([one for one, _ in written])
    with torch.no_grad():
        got = model(batch).hidden
        expected = twin(Batch(tokens, tokens, torch.ones(tokens.shape))).hidden[:, written[0][1]]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@settings(deadline=None)
@given(
    time=st.integers(1, 40),
    count=st.integers(1, 4),
    every=st.integers(2, 50),
    placement=st.sampled_from(["regular", "random"]),
)
def test_every_token_keeps_its_place_in_order_and_is_read_after_its_pauses(time, count, every, placement):
    thinking = PauseTokens(count=count, every=every, placement=placement)
    module = thinking.build(host().shape())
    layout = module.layout(time, torch.zeros(1))
    source, read, extra = layout.source.tolist(), layout.read.tolist(), layout.extra.tolist()
    assert thinking.extended(time) == len(source) == len(extra)
    assert [token for token, added in zip(source, extra, strict=True) if not added] == list(range(time))
    assert source == sorted(source)
    assert read == [len(source) - 1 - source[::-1].index(token) for token in range(time)]
    assert all(source.count(token) in (1, 1 + count) for token in range(time))
    if placement == "regular":
        assert read == long_sequence([0] * time, thinking)[1]


def test_random_places_are_drawn_in_training_only_from_the_generator_of_the_step():
    regular, random = (PauseTokens(every=3, placement=placement) for placement in ("regular", "random"))
    architecture = host().vary(thinking=random)
    model, batch = moved(architecture), random_batch(architecture)
    assert architecture.draws
    assert not host().vary(thinking=regular).draws
    before = torch.get_rng_state()
    torch.testing.assert_close(nats_of(model, batch), nats_of(moved(host().vary(thinking=regular)), batch))
    assert torch.equal(before, torch.get_rng_state())

    def trained(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return nats_of(model.train(), batch)

    assert torch.equal(trained(1), trained(1))
    assert not torch.allclose(trained(1), trained(2))


def test_random_places_fall_everywhere_equally_often():
    module = PauseTokens(count=2, every=4, placement="random").build(host().shape())
    torch.manual_seed(0)
    layouts = [module.layout(12, torch.zeros(1)) for _ in range(600)]
    chosen = sum(torch.bincount(layout.source, minlength=12) - 1 for layout in layouts) / 2
    assert chosen.sum() == 600 * 3
    torch.testing.assert_close(chosen / 600, torch.full((12,), 0.25), atol=0.08, rtol=0)


@pytest.mark.parametrize("content", ["learned", "repeat"])
def test_documents_stay_hidden_from_each_other(content):
    architecture = host().vary(thinking=PauseTokens(count=2, every=3, content=content))
    model, batch = moved(architecture), random_batch(architecture)
    documents = torch.arange(12).div(6, rounding_mode="floor").expand(2, 12)
    together = nats_of(model, Batch(batch.tokens, batch.targets, batch.weights, documents=documents))
    for part in (slice(0, 6), slice(6, 12)):
        alone = Batch(batch.tokens[:, part], batch.targets[:, part], batch.weights[:, part])
        torch.testing.assert_close(together[:, part], nats_of(model, alone), atol=1e-5, rtol=1e-5)


def test_a_learned_table_reaches_as_many_tokens_as_without_pauses_and_no_more():
    architecture = host().vary(thinking=PauseTokens(count=2, every=4), position=Learned())
    model = moved(architecture)
    assert architecture.reach() == 12
    assert model.get_parameter("position.weight").shape == (18, 16)
    assert nats_of(model, random_batch(architecture)).isfinite().all()
    with pytest.raises(ValueError, match="tokens: expected at most the 12 that have positions, got 13"):
        model(random_batch(architecture.vary(context=13)))


@pytest.mark.parametrize("content", ["learned", "repeat"])
@pytest.mark.parametrize("thinking", PLACED, ids=repr)
def test_flops_per_token_are_those_that_torch_counts_on_the_long_sequence(thinking, content):
    architecture = host().vary(thinking=thinking.vary(content=content))
    model, batch = moved(architecture), random_batch(architecture, sequences=1)
    model.use_backend("reference")
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.nats(model(batch), batch)
    counted = {str(operation).split(".")[-1]: flops for operation, flops in counter.get_flop_counts()["Global"].items()}
    attention, time, positions = counted.pop("bmm"), 12, thinking.extended(12)
    expected = sum(counted.values()) / time + attention / time * (positions + 1) / (2 * positions)
    assert flops_per_token(architecture).forward == pytest.approx(expected, rel=1e-12)


def test_the_filler_costs_the_same_and_has_no_parameter():
    learned, filler = (host().vary(thinking=PauseTokens(every=4, content=content)) for content in ("learned", "repeat"))
    assert flops_per_token(learned) == flops_per_token(filler)
    assert flops_per_token(filler).forward > flops_per_token(host()).forward
    assert memory(learned, 1).activations == memory(filler, 1).activations > memory(host(), 1).activations
    assert parameters(filler) == parameters(host())
    assert parameters(learned)["thinking"] == 16
    assert coverage(learned, filler).total == coverage(learned, host()).total == 1.0


@pytest.mark.parametrize(
    "thinking", [PauseTokens(count=2, every=12), PauseTokens(every=5, content="repeat", placement="random")], ids=repr
)
def test_choices_away_from_their_defaults_keep_the_contract(thinking):
    check_component(thinking)


def test_a_first_pass_without_gradients_does_not_spoil_later_ones():
    architecture = host().vary(thinking=PauseTokens(count=4, every=11))  # a layout that no other test has made
    model, batch = moved(architecture), random_batch(architecture)
    with torch.inference_mode():
        model(batch)
    model.nats(model(batch), batch).sum().backward()
    assert model.get_parameter("thinking.pause.weight").grad.any()


def test_generation_reads_the_sequence_anew_and_says_so():
    assert host().vary(thinking=PauseTokens()).recomputes() == "thinking pause_tokens has no cache"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"every": 13}, r"thinking\.every: expected at most the context 12, got 13"),
        ({"placement": "random"}, r"placement: expected regular where every is 1, .* got random"),
        ({"count": 0}, "count"),
        ({"every": 0}, "every"),
        ({"content": "silence"}, "content"),
    ],
)
def test_pauses_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        host().vary(thinking={"kind": "pause_tokens", **fields})


def test_a_window_that_ends_within_the_pauses_is_refused():
    """Found by the random combinations: a token would see the pauses before it, and no token."""
    pausing = host().vary(thinking=PauseTokens(count=2))
    with pytest.raises(ValidationError, match=r"attention\.window: expected at least 4, .*, got 3"):
        pausing.vary(attention=MultiHead(heads=4, window=3))
    pausing.vary(attention=MultiHead(heads=4, window=4))


def test_explicit_positions_are_refused():
    architecture = host().vary(thinking=PauseTokens())
    batch = random_batch(architecture)
    with pytest.raises(ValueError, match="positions: expected the plain range"):
        moved(architecture)(Batch(batch.tokens, batch.targets, batch.weights, torch.arange(12)))
