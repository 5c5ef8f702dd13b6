"""Generation with a cache equals reading the whole sequence at once."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from architectures.attention import Cache, Growing, MultiHead
from architectures.bytes import Bytes
from architectures.feedforward import SwiGLU
from architectures.norms import NoNorm
from architectures.positions import Alibi, Learned, NoPosition, Rotary, Sinusoidal
from architectures.specimens import host, moved, random_batch
from architectures.testing import check_cache
from architectures.transformer import Batch, Transformer

POSITIONS = [NoPosition(), Learned(), Sinusoidal(), Rotary(), Rotary(layout="interleaved"), Alibi()]
ATTENTIONS = [
    MultiHead(heads=4),
    MultiHead(heads=4, key_value_heads=1),
    MultiHead(heads=4, window=3),
    MultiHead(heads=4, key_value_heads=2, window=5, query_key_norm=True),
]


def part(batch: Batch, start: int, end: int) -> Batch:
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return Batch(**{name: value if value is None else value[..., start:end] for name, value in fields.items()})


def in_pieces(model: Transformer, batch: Batch, sizes: list[int], cache: Cache | None = None) -> torch.Tensor:
    cache, start, hidden = cache or model.cache(), 0, []
    with torch.no_grad():
        for size in sizes:
            hidden.append(model(part(batch, start, start + size), cache=cache).hidden)
            start += size
    assert cache.length == start
    return torch.cat(hidden, dim=1)


def whole(model: Transformer, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return model(batch).hidden


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
@pytest.mark.parametrize("position", POSITIONS, ids=repr)
@pytest.mark.parametrize("attention", ATTENTIONS, ids=repr)
def test_token_by_token_equals_the_whole_sequence(backend, position, attention):
    architecture = host().vary(position=position, attention=attention)
    model, batch = moved(architecture), random_batch(architecture)
    model.use_backend(backend)
    torch.testing.assert_close(in_pieces(model, batch, [1] * 12), whole(model, batch), atol=1e-5, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    position=st.sampled_from(POSITIONS),
    attention=st.sampled_from(ATTENTIONS),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4).filter(lambda sizes: sum(sizes) <= 12),
    packed=st.booleans(),
)
def test_any_pieces_equal_the_whole_sequence(position, attention, sizes, packed):
    architecture = host().vary(position=position, attention=attention)
    model, batch = moved(architecture), part(random_batch(architecture), 0, sum(sizes))
    if packed:
        positions = torch.arange(sum(sizes)) % 5 * torch.ones(2, 1, dtype=torch.int64)
        documents = torch.arange(sum(sizes)).expand(2, -1) // 5
        batch = dataclasses.replace(batch, positions=positions, documents=documents)
    torch.testing.assert_close(in_pieces(model, batch, sizes), whole(model, batch), atol=1e-5, rtol=1e-5)


def test_prompts_of_different_lengths_share_a_batch_by_positions_and_documents():
    """Padding on the left is a document of its own; both prompts then read on as if they were alone."""
    architecture = host().vary(position=Rotary())
    model, batch = moved(architecture), random_batch(architecture)
    padding = torch.tensor([[0], [3]])
    steps = torch.arange(12).expand(2, 12)
    positions, documents = (steps - padding).clamp(min=0), (steps >= padding).long()
    padded = dataclasses.replace(batch, positions=positions, documents=documents)
    together = in_pieces(model, padded, [6, 1, 1, 4])
    alone = whole(model, Batch(batch.tokens[1:, 3:], batch.targets[1:, 3:], batch.weights[1:, 3:]))
    torch.testing.assert_close(together[1:, 3:], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[:1], whole(model, batch)[:1], atol=1e-5, rtol=1e-5)


def test_a_model_that_cannot_cache_recomputes_and_says_so(monkeypatch):
    assert moved(host()).cache().recomputes is None
    monkeypatch.setattr(MultiHead, "caches", False)
    model, batch = moved(host()), random_batch(host())
    cache = model.cache()
    assert cache.recomputes == "attention multi_head has no cache"
    torch.testing.assert_close(in_pieces(model, batch, [3, 1, 1, 7], cache), whole(model, batch), atol=1e-5, rtol=1e-5)
    assert all(layer.keys.length == 0 for layer in cache.layers)


def test_a_cached_token_costs_only_itself():
    model, batch = moved(host()), random_batch(host())
    read: list[int] = []
    model.blocks[0].feed_forward.register_forward_pre_hook(lambda _, given: read.append(given[0].shape[1]))
    in_pieces(model, batch, [5, 1, 1])
    assert read == [5, 1, 1]


def test_gradients_through_a_cache_are_refused():
    model, batch = moved(host()), random_batch(host())
    with pytest.raises(ValueError, match=r"cache: expected a forward pass under torch\.no_grad"):
        model(batch, cache=model.cache())


def test_a_cache_beyond_the_learned_table_is_refused():
    architecture = host().vary(position=Learned())
    model, batch = moved(architecture), random_batch(architecture)
    cache = model.cache()
    with torch.no_grad():
        model(batch, cache=cache)
        with pytest.raises(ValueError, match="cache: expected at most 12 tokens in all, got 12 and 1 more"):
            model(part(batch, 0, 1), cache=cache)


def test_without_norms_what_a_cache_changes_is_rounding():
    """In float32 it is 3e-5 of the largest here, where softmax amplifies it; a random combination showed that."""
    bytewise = Bytes(byte_width=64, heads=2, encoder_layers=4, decoder_layers=4, pooling="last")
    attention, gated = MultiHead(heads=8, window=6), SwiGLU(width=4)
    plain = host().vary(position=Alibi(), attention=attention, feed_forward=gated, norm=NoNorm(), embedding=bytewise)
    model, batch = moved(plain).double(), random_batch(plain)
    batch = dataclasses.replace(batch, weights=batch.weights.double())
    cache = model.cache()
    with torch.no_grad():
        pieces = [model(part(batch, *ends), cache=cache).hidden for ends in ((0, 3), (3, 4), (4, 5), (5, 12))]
        expected = model(batch).hidden
    assert expected.abs().max() > 500
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, rtol=0, atol=1e-8)


def test_the_contract_catches_a_cache_that_forgets(monkeypatch):
    real = Growing.append
    monkeypatch.setattr(Growing, "append", lambda self, x: real(self, torch.zeros_like(x) if self.length else x))
    with pytest.raises(AssertionError, match="a cache changes hidden states"):
        check_cache(host())


@pytest.mark.parametrize("name", ["positions", "documents"])
def test_places_of_some_tokens_only_are_refused(name):
    model, batch = moved(host()), random_batch(host())
    given_ = dataclasses.replace(batch, **{name: torch.zeros_like(batch.tokens)})
    for first, second, message in ((batch, given_, "expected none"), (given_, batch, "expected some")):
        cache = model.cache()
        with torch.no_grad():
            model(part(first, 0, 4), cache=cache)
            with pytest.raises(ValueError, match=f"{name}: {message}, as for the tokens in the cache"):
                model(part(second, 4, 5), cache=cache)


@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=9))
@example(sizes=[1, 1, 1, 2, 1, 1])  # never full when it grows
@settings(max_examples=30, deadline=None)
def test_what_grows_keeps_what_was_appended_and_copies_little(sizes):
    growing, pieces, places = Growing(1), [], set()
    for index, size in enumerate(sizes):
        pieces.append(torch.full((2, size), float(index)))
        together = growing.append(pieces[-1])
        places.add(together.data_ptr())
        assert torch.equal(together, torch.cat(pieces, dim=1))
    assert len(places) <= 1 + torch.tensor(float(sum(sizes))).log2().ceil().item()
