"""Windows of several documents: which are hidden from each other is as if each stood alone."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from architectures.attention import MultiHead
from architectures.bytes import Bytes
from architectures.component import Component
from architectures.depth import LayerSkip, MixtureOfDepths
from architectures.positions import Alibi, Learned, NoPosition, Rotary, Sinusoidal
from architectures.presets import tiny
from architectures.specimens import host, moved
from architectures.thinking import PauseTokens
from architectures.transformer import Batch, Transformer
from workbench.configuration import Configuration
from workbench.data.order import Stream
from workbench.data.prepared import TokenFile
from workbench.errors import PlanError
from workbench.evaluation.scoring import measure_sequences
from workbench.records import Numerics, Seeds
from workbench.seeds import generator
from workbench.training.feeding import StreamFeed, WholeFeed
from workbench.training.loop import Job, train
from workbench.training.recipe import Pretraining
from workbench.training.windows import best_fit

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=8)
END_OF_TEXT = 0


def token_file(lengths: list[int], vocabulary: int = 29) -> TokenFile:
    """Documents of tokens that are none an end_of_text, each followed by one."""
    drawn = [
        generator(0, f"document/{number}").integers(1, vocabulary, size - 1) for number, size in enumerate(lengths)
    ]
    tokens = np.concatenate([np.append(document, END_OF_TEXT) for document in drawn]).astype(np.uint16)
    hashes = generator(0, "hashes").integers(0, 256, size=(len(lengths), 32)).astype(np.uint8)
    return TokenFile(tokens, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), hashes)


def stream(lengths: list[int], seed: int = 0) -> Stream:
    return Stream(token_file(lengths), seed)


def parts(window: list[int]) -> list[int]:
    """Return where the documents of a window begin, token by token: at its start, and at every end_of_text."""
    return [0, *(place for place, token in enumerate(window) if token == END_OF_TEXT and place)]


@settings(max_examples=50)
@given(LENGTHS, st.integers(0, 2**32), st.integers(0, 30), st.integers(1, 4), st.integers(1, 9))
def test_documents_and_positions_agree_with_a_naive_walk_over_the_window(
    lengths: list[int], seed: int, first: int, count: int, context: int
) -> None:
    read = stream(lengths, seed)
    fed = StreamFeed(read, context, "documents").sequences(first, count)
    plain = StreamFeed(read, context).sequences(first, count)
    assert plain.batch.documents is None
    assert plain.batch.positions is None
    for name in ("tokens", "targets", "weights"):
        assert torch.equal(getattr(fed.batch, name), getattr(plain.batch, name)), name
    assert fed.batch.documents is not None
    assert fed.batch.positions is not None
    for row in range(count):
        window, begins = fed.batch.tokens[row].tolist(), parts(fed.batch.tokens[row].tolist())
        expected = [place - max(begin for begin in begins if begin <= place) for place in range(len(window))]
        assert fed.batch.positions[row].tolist() == expected
        numbers = fed.batch.documents[row].tolist()
        assert [place for place in range(1, len(window)) if numbers[place] != numbers[place - 1]] == begins[1:]
        assert numbers == sorted(numbers)


@settings(max_examples=50)
@given(LENGTHS, st.integers(0, 2**32), st.integers(0, 40), st.integers(1, 5), st.integers(1, 9))
def test_places_find_every_token_in_the_token_file(
    lengths: list[int], seed: int, first: int, count: int, context: int
) -> None:
    read = stream(lengths, seed)
    fed = StreamFeed(read, context).sequences(first, count)
    assert fed.places is not None
    assert torch.equal(torch.from_numpy(read.tokens(fed.places.numpy())), fed.batch.tokens)
    whole = read.places(0, 3 * read.length).reshape(3, -1)  # epochs
    assert all(sorted(epoch) == list(range(read.length)) for epoch in whole.tolist())
    at = np.arange(first * context, (first + count) * context)
    assert np.array_equal(read.places(0, at[-1] + 1)[at], fed.places.numpy().ravel())


@settings(max_examples=50)
@given(LENGTHS, st.integers(0, 2**32), st.integers(0, 2), st.integers(2, 50), st.sampled_from(["stream", "documents"]))
def test_any_step_is_recomputed_by_another_process_in_any_order_and_in_parts(
    lengths: list[int], seed: int, rollback: int, first: int, packing: str
) -> None:
    def feed() -> StreamFeed:
        return StreamFeed(stream(lengths, seed), 4, packing).restarted(rollback)  # type: ignore[arg-type]

    whole, other = feed().sequences(first - 2, 5), feed()
    other.sequences(first + 90, 3)  # what was read before leaves nothing behind
    for begin, count in ((3, 2), (0, 3)):
        part, again = whole.part(begin, count), other.sequences(first - 2 + begin, count)
        for name in ("tokens", "targets", "weights", "positions", "documents"):
            one, two = getattr(part.batch, name), getattr(again.batch, name)
            assert (one is None and two is None) or torch.equal(one, two), name
        assert part.places is not None
        assert again.places is not None
        assert torch.equal(part.places, again.places)


def test_reading_a_step_takes_the_memory_of_the_step_however_large_the_corpus_is(tmp_path: Path) -> None:
    count, size = 1000, 1_000_000
    with open(tmp_path / "tokens.bin", "wb") as handle:
        handle.truncate(2 * count * size)  # two gigabytes, of which the file system holds nothing
    tokens = np.memmap(tmp_path / "tokens.bin", np.uint16, mode="r", shape=(count * size,))
    hashes = generator(0, "hashes").integers(0, 256, size=(count, 32)).astype(np.uint8)
    tracemalloc.start()
    feed = StreamFeed(Stream(TokenFile(tokens, np.arange(count + 1) * size, hashes), 0), 128, "documents")
    feed.sequences(70_000, 8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def alone(model: Transformer, batch: Batch) -> torch.Tensor:
    """Return what a model says about every document of a batch when each goes through it by itself."""
    nats = torch.zeros(batch.tokens.shape)
    for row, window in enumerate(batch.tokens.tolist()):
        for begin, end in pairwise([*parts(window), len(window)]):
            tokens, targets = (part[row : row + 1, begin:end] for part in (batch.tokens, batch.targets))
            one = Batch(tokens, targets, torch.ones(tokens.shape))
            nats[row, begin:end] = model.nats(model(one), one)[0].detach()
    return nats


@pytest.mark.parametrize("position", [NoPosition(), Learned(), Sinusoidal(), Rotary(), Alibi()], ids=lambda p: p.kind)
def test_a_packed_document_costs_what_it_costs_alone(position: Component) -> None:
    model = moved(host().vary(position=position))
    fed = StreamFeed(stream([5, 9, 2, 1, 30, 4, 4, 7]), 12, "documents").sequences(0, 6)
    nats = model.nats(model(fed.batch), fed.batch).detach()
    assert torch.allclose(nats, alone(model, fed.batch), atol=1e-6, rtol=1e-6)
    plain = Batch(fed.batch.tokens, fed.batch.targets, fed.batch.weights)
    assert not torch.allclose(nats, model.nats(model(plain), plain).detach(), atol=1e-2)


@pytest.mark.parametrize(
    "change",
    [
        {"embedding": Bytes(byte_width=8, heads=2)},
        {"attention": MultiHead(heads=4, window=4)},
        {"depth": LayerSkip(), "layers": 4},
    ],
    ids=["bytes", "window", "layerskip"],
)
def test_a_packed_document_costs_what_it_costs_alone_in_other_models(change: dict[str, Any]) -> None:
    model = moved(host().vary(**change))
    fed = StreamFeed(stream([5, 9, 2, 1, 30, 4, 4, 7]), 12, "documents").sequences(0, 6)
    assert torch.allclose(
        model.nats(model(fed.batch), fed.batch).detach(), alone(model, fed.batch), atol=1e-5, rtol=1e-5
    )


def test_a_packed_document_costs_in_training_what_it_costs_in_evaluation() -> None:
    model, read = moved(host()), stream([5, 4, 6, 3])
    fed = StreamFeed(read, 12, "documents").sequences(0, 1)
    nats = model.nats(model(fed.batch), fed.batch)[0].detach().numpy()
    begin, end = parts(fed.batch.tokens[0].tolist())[1:3]
    document = fed.batch.tokens[0, begin + 1 : end + 1].numpy()  # with the end_of_text that ends it
    asked = np.append(END_OF_TEXT, document)
    (measured,) = measure_sequences(model, [asked], batch=64, device="cpu")["nats"]
    assert np.allclose(nats[begin:end], measured, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"thinking": PauseTokens()}, "pause_tokens"), ({"depth": MixtureOfDepths()}, "mixture_of_depths")],
)
def test_a_model_that_mixes_documents_in_another_way_is_refused_by_name(
    change: dict[str, Component], named: str
) -> None:
    architecture = tiny().vary(**change)
    Configuration(architecture=architecture).refuse_unanswerable("arm 'a'")
    packed = Configuration(architecture=architecture, stages=(Pretraining(packing="documents"),))
    with pytest.raises(PlanError, match=named) as refusal:
        packed.refuse_unanswerable("arm 'a'")
    assert "arm 'a', stages.0.packing" in str(refusal.value)


# --- whole documents


SIZES = st.lists(st.integers(1, 9), max_size=40).map(lambda sizes: sorted(sizes, reverse=True))


@settings(max_examples=100)
@given(SIZES)
def test_best_fit_agrees_with_trying_every_window(sizes: list[int]) -> None:
    rooms: list[int] = []
    for size in sizes:
        fitting = [room for room in rooms if room >= size]
        if fitting:
            rooms[rooms.index(min(fitting))] -= size
        else:
            rooms.append(9 - size)
    found = best_fit(np.array(sizes, np.int64), 9)
    filled = np.bincount(found, weights=sizes) if sizes else np.empty(0)
    assert sorted(filled.tolist()) == sorted(9.0 - room for room in rooms)


@settings(max_examples=50)
@given(LENGTHS, st.integers(0, 2**32), st.integers(3, 12), st.integers(0, 1))
def test_every_document_that_fits_a_window_is_in_one_and_none_repeats_before_all_are_read(
    lengths: list[int], seed: int, context: int, rollback: int
) -> None:
    read = stream(lengths, seed)
    feed = WholeFeed(token_file(lengths), seed, context).restarted(rollback)
    count = windows_of_an_epoch(feed, read.length)
    for epoch in range(2):
        fed = feed.sequences(epoch * count, count)
        assert fed.places is not None
        assert fed.batch.documents is not None
        real = fed.batch.weights > 0
        targets = (fed.places + 1) % read.length
        assert sorted(targets[real].tolist()) == list(range(read.length))
        assert torch.equal(torch.from_numpy(read.tokens(targets.numpy()))[real], fed.batch.targets[real])
        assert torch.equal(torch.from_numpy(read.tokens(fed.places.numpy())), fed.batch.tokens)
        for number, size in enumerate(lengths):
            begin = sum(lengths[:number])
            inside = real & (targets >= begin) & (targets < begin + size)
            assert int(inside.any(dim=1).sum()) == -(-size // context)


def windows_of_an_epoch(feed: WholeFeed, tokens: int) -> int:
    count = read = 0
    while read < tokens:
        read += int(feed.sequences(count, 1).batch.weights.sum())
        count += 1
    assert read == tokens
    return count


def test_a_whole_document_costs_in_its_window_what_it_costs_alone() -> None:
    model = moved(host())
    fed = WholeFeed(token_file([5, 9, 2, 1, 30, 4, 4, 7]), 0, 12).sequences(0, 6)
    nats = model.nats(model(fed.batch), fed.batch).detach()
    assert fed.batch.documents is not None
    for row, numbers in enumerate(fed.batch.documents.tolist()):
        for number in set(numbers):
            here = [place for place, one in enumerate(numbers) if one == number]
            part = (slice(row, row + 1), slice(here[0], here[-1] + 1))
            one = Batch(fed.batch.tokens[part], fed.batch.targets[part], fed.batch.weights[part])
            assert torch.allclose(nats[part], model.nats(model(one), one).detach(), atol=1e-6)


def test_seeds_epochs_and_rollbacks_pack_differently() -> None:
    train = token_file([3] * 40)
    feeds = [WholeFeed(train, 0, 12), WholeFeed(train, 1, 12), WholeFeed(train, 0, 12, rollback=1)]
    packed = [feed.sequences(0, 10).batch.tokens for feed in feeds] + [feeds[0].sequences(10, 10).batch.tokens]
    assert len({one.numpy().tobytes() for one in packed}) == 4
    assert torch.equal(packed[0], WholeFeed(train, 0, 12).sequences(0, 10).batch.tokens)


def test_arms_in_other_windows_share_the_text_and_no_offsets() -> None:
    def configured(packing: str) -> Configuration:
        return Configuration(architecture=tiny(), stages=(Pretraining.model_validate({"packing": packing}),))

    pairing = {
        packing: configured(packing).paired_with(configured("stream"), same_seeds=True)["pairing"]
        for packing in ("stream", "documents", "whole")
    }
    assert pairing == {"stream": "tokens", "documents": "tokens", "whole": "text"}


def test_packing_leaves_the_identity_of_runs_without_it_and_is_part_of_that_of_others() -> None:
    def model_id(**changes: str) -> str:
        stage = Pretraining.model_validate(changes)
        return Configuration(architecture=tiny(), stages=(stage,)).model_id("corpus", Seeds.all(0))

    assert model_id() == model_id(packing="stream") != model_id(packing="documents")


def test_training_differs_by_packing_and_reads_the_same_text(tmp_path: Path) -> None:
    architecture = host().vary(context=24)
    numerics = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1)
    curves = []
    for packing in ("stream", "documents"):
        stage = Pretraining.model_validate({"tokens": 24 * 4 * 6, "batch": 4, "microbatch": 3, "packing": packing})
        feed = StreamFeed(stream([5, 9, 2, 1, 30, 4, 4, 7]), 24, stage.packing)
        curves.append(train(Job(architecture, stage, feed, Seeds.all(0), numerics, tmp_path / packing)).curve)
    assert curves[0]["tokens"].to_pylist() == curves[1]["tokens"].to_pylist()
    assert curves[0]["loss"].to_pylist()[1:] != curves[1]["loss"].to_pylist()[1:]
    assert np.isfinite(curves[1]["loss"].to_numpy()).all()
