"""The byte-level model against naive loops over single chunks, its likelihood against brute force, traps by name."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from architectures.accounting import coverage, parameters
from architectures.bytes import END, PAD, SYMBOLS, Bytes, by_length
from architectures.component import Shape
from architectures.embeddings import Table
from architectures.initialisation import initialise
from architectures.presets import preset, tiny
from architectures.specimens import host, moved, nats_of, noise, started
from architectures.testing import check_causality, check_gradients, check_shapes
from architectures.transformer import Batch
from workbench.data.tokenizer import BytePairs

SMALL = Bytes(byte_width=16, heads=2)
SHAPE = Shape(width=8, heads=2, key_value_heads=2, head_width=4, layers=1, layer=0, context=4, vocabulary=9)
SPELLING = [b"", b"a", b"b", b" the", b" cat", b"\xe4\xb8", b"\x96", b"internationalization", b"internationalizatiom"]


def model_of(spec=SMALL, spelling=SPELLING):
    """The host with a byte-level embedding, every parameter away from its start, in evaluation mode."""
    architecture = host().vary(embedding=spec, vocabulary=len(spelling))
    model = architecture.build(spelling=spelling)
    initialise(model, architecture, noise)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.from_numpy(noise(f"moved/{name}", tuple(parameter.shape))), alpha=0.3)
    return model.eval()


def batch_of(*rows):
    tokens = torch.tensor(rows)
    return Batch(tokens[:, :-1], tokens[:, 1:], torch.ones(len(rows), tokens.shape[1] - 1))


def normed(x, gain):
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain


def placed(x):
    """Add a fifth of sin and cos of position * 10000^(-2i / width) at even and odd indices."""
    width = x.shape[1]
    angles = torch.arange(len(x))[:, None] * 10_000.0 ** (-torch.arange(0, width, 2) / width)
    return x + 0.2 * torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def naive_stack(stack, x, heads, *, causal):
    """The blocks on the symbols x of one chunk, (symbols, width), head by head."""
    x = placed(x)
    for block in stack.blocks:
        y = normed(x, block.attention_norm.weight)
        mixed = []
        projected = (getattr(block.attention, name).weight.chunk(heads) for name in ("query", "key", "value"))
        for query, key, value in zip(*projected, strict=True):
            scores = (y @ query.T) @ (y @ key.T).T / math.sqrt(len(query))
            if causal:
                scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), float("-inf"))
            mixed.append(scores.softmax(-1) @ (y @ value.T))
        x = x + torch.cat(mixed, dim=-1) @ block.attention.output.weight.T
        y = normed(x, block.feed_forward_norm.weight)
        x = x + functional.gelu(y @ block.feed_forward.up.weight.T) @ block.feed_forward.down.weight.T
    return normed(x, stack.final_norm.weight)


def naive_vector(encoder, piece, heads):
    x = encoder.symbols.weight[torch.tensor(list(piece) or [END])]
    x = naive_stack(encoder, x, heads, causal=False)
    if encoder.pooling == "mean":
        pooled = x.mean(0)
    elif encoder.pooling == "last":
        pooled = x[-1]
    else:
        pooled = (x @ encoder.score.weight[0]).softmax(0) @ x
    return encoder.output.weight @ pooled


def naive_nats(head, vector, piece, heads):
    """Minus the log-probability of a piece and END, symbol by symbol, from growing prefixes."""
    total, symbols = torch.zeros(()), [*piece, END]
    for count, symbol in enumerate(symbols):
        x = (head.input.weight @ vector).repeat(count + 1, 1)
        if head.symbols is not None:
            x[1:] += head.symbols.weight[torch.tensor(symbols[:count], dtype=torch.long)]
        logits = head.output.weight @ naive_stack(head, x, heads, causal=True)[-1]
        total = total - logits.log_softmax(0)[symbol]
    return total


@pytest.mark.parametrize(
    "spec",
    [SMALL, SMALL.vary(pooling="last", decoder="parallel"), SMALL.vary(pooling="attention", decoder_layers=1)],
    ids=["mean, autoregressive", "last, parallel", "attention, one layer"],
)
def test_vectors_and_nats_are_those_of_one_chunk_at_a_time(spec):
    model, batch = model_of(spec), batch_of([0, 3, 7, 5, 6], [8, 1, 0, 4, 2])
    with torch.no_grad():
        vectors, output = model.embedding(batch.tokens), model(batch)
        nats = model.nats(output, batch)
        for row, place in itertools.product(range(2), range(4)):
            expected = naive_vector(model.embedding, SPELLING[batch.tokens[row, place]], spec.heads)
            torch.testing.assert_close(vectors[row, place], expected, rtol=1e-4, atol=1e-4)
            target = SPELLING[batch.targets[row, place]]
            expected = naive_nats(model.head, output.hidden[row, place], target, spec.heads)
            torch.testing.assert_close(nats[row, place], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("decoder", ["autoregressive", "parallel"])
def test_probabilities_of_all_strings_of_bytes_sum_to_one(decoder):
    """Every string ends or goes on by one of 256 bytes: these share out all that its beginning has."""
    spec = Bytes(byte_width=8, heads=1, decoder=decoder)
    beginnings = [b"", b"a", b"ab", b"abc"]
    spelling = [piece + bytes([byte]) for piece in beginnings for byte in range(256)]
    model, vector = model_of(spec, beginnings + spelling), torch.linspace(-1, 1, 16)

    def probability(tokens, *, ended):
        nats = model.head.nats(vector.expand(1, len(tokens), -1), tokens[None], model.embedding)[0]
        if not ended:
            symbols, _ = model.embedding.chunks(tokens.device)
            rows = symbols[tokens].long().masked_fill(symbols[tokens] == END, PAD)
            nats = model.head.symbol_nats(vector.expand(len(tokens), -1), rows).sum(1)
        return nats.double().neg().exp()

    with torch.no_grad():
        for index, piece in enumerate(beginnings):
            longer = torch.arange(256) + len(beginnings) + 256 * index
            shared_out = probability(torch.tensor([index]), ended=True) + probability(longer, ended=False).sum()
            whole = probability(torch.tensor([index]), ended=False) if piece else torch.ones(1)
            torch.testing.assert_close(shared_out, whole.double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("spec", [SMALL, SMALL.vary(decoder="parallel", pooling="attention")], ids=repr)
def test_what_stands_elsewhere_in_a_batch_changes_nothing(spec):
    model, row = model_of(spec), [3, 1, 5, 2, 6]
    alone = nats_of(model, batch_of(row))
    for other in ([7, 8, 7, 8, 7], [0, 0, 0, 0, 0]):
        torch.testing.assert_close(nats_of(model, batch_of(row, other))[:1], alone, rtol=1e-5, atol=1e-5)


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_any_text_is_read_as_its_bytes_and_nothing_else(text):
    tokens = torch.from_numpy(TOKENIZER.encode(text))
    symbols, sizes = ENCODER.chunks(tokens.device)
    read = [symbols[token, : sizes[token]].tolist() for token in tokens]
    assert bytes(itertools.chain.from_iterable(read)) == text.encode()
    assert all(symbols[token, sizes[token]] == END for token in tokens)
    assert all((symbols[token, sizes[token] + 1 :] == PAD).all() for token in tokens)


TOKENIZER = BytePairs(vocabulary=320).train(["the cat sat on the mat, the cat sat still", "zażółć gęślą jaźń"] * 5)
ENCODER = SMALL.build(SHAPE)
ENCODER.spell(TOKENIZER.spelling)


@given(st.lists(st.integers(1, 70), min_size=1, max_size=40))
def test_groups_hold_every_row_once_and_are_at_most_a_quarter_padding(lengths):
    found = list(by_length(torch.tensor(lengths)))
    assert sorted(torch.cat([rows for rows, _ in found]).tolist()) == list(range(len(lengths)))
    for rows, longest in found:
        held = [lengths[row] for row in rows]
        assert max(held) <= longest <= 4 * min(held) / 3


@pytest.mark.parametrize(
    "spec", [SMALL.vary(decoder="parallel", pooling="last"), SMALL.vary(pooling="attention")], ids=repr
)
def test_choices_away_from_the_defaults_keep_the_contract(spec):
    architecture = host().vary(embedding=spec)
    check_shapes(architecture)
    check_causality(architecture)
    check_gradients(architecture)


def test_only_the_autoregressive_decoder_reads_the_bytes_it_has_spelt():
    vector = torch.linspace(-1, 1, 16)[None]
    one, other = torch.tensor([[97, 98, 99, END]]), torch.tensor([[97, 200, 99, END]])
    for decoder, same in (("autoregressive", [True, False, False, False]), ("parallel", [True, False, True, True])):
        head = model_of(SMALL.vary(decoder=decoder)).head
        difference = (head.symbol_nats(vector, one) - head.symbol_nats(vector, other)).abs()[0]
        assert (difference < 1e-6).tolist() == same


def test_reconstruction_adds_the_mean_nats_of_spelling_each_token_from_its_own_vector():
    model, batch = model_of(SMALL.vary(reconstruction=0.25)), batch_of([0, 3, 7, 5], [1, 1, 4, 2])
    assert model.penalties(model(batch), batch, nats_of(model, batch)) == {}  # evaluated, not trained
    output = model.train()(batch)
    found = model.penalties(output, batch, model.nats(output, batch))
    naive = [
        naive_nats(model.head, naive_vector(model.embedding, SPELLING[token], 2), SPELLING[token], 2)
        for token in batch.tokens.flatten()
    ]
    torch.testing.assert_close(found, {"reconstruction": 0.25 * torch.stack(naive).mean()}, rtol=1e-4, atol=1e-4)
    plain = model_of().train()
    torch.testing.assert_close(plain.nats(plain(batch), batch), model.nats(output, batch))
    assert plain(batch).penalties == {}


class TestDefectsOfThePublishedCode:
    def test_padding_is_not_trained_on_and_the_end_is(self):
        """Its loss ignored end of text, 257, where the padding was 256."""
        head = model_of().head
        symbols = torch.tensor([[97, END, PAD, PAD], [97, 98, 99, END]])
        nats = head.symbol_nats(torch.ones(2, 16), symbols)
        assert (nats[0] > 0).tolist() == [True, True, False, False]
        nats[0].sum().backward()
        touched = head.symbols.weight.grad.abs().sum(1).nonzero()[:, 0]
        assert touched.tolist() == [97]

    def test_no_token_is_cut_and_end_of_text_is_one_symbol(self):
        """It kept 12 bytes: `internationalization` came back short, and end of text as twelve characters."""
        model = model_of()
        one, other = model.embedding(torch.tensor([[7, 8]]))[0]
        assert not torch.allclose(one, other)  # which differ in byte 20
        torch.testing.assert_close(one, naive_vector(model.embedding, b"internationalization", 2), rtol=1e-4, atol=1e-4)
        symbols, sizes = model.embedding.chunks(torch.device("cpu"))
        assert symbols.shape == (9, 21)
        assert (sizes[0], symbols[0, 0]) == (0, END)

    def test_a_part_of_a_character_is_its_bytes(self):
        """Bytes went through text: 344 tokens of GPT-2 became U+FFFD, and Chinese question marks."""
        pieces = [b"", "世".encode()[:2], "世".encode()[2:], "界".encode()[:2], "界".encode()[2:], "\ufffd".encode()]
        model = model_of(SMALL, pieces)
        vectors = model.embedding(torch.arange(6)[None])[0]
        assert torch.pdist(vectors).min() > 1e-3
        for token, piece in enumerate(pieces):
            torch.testing.assert_close(vectors[token], naive_vector(model.embedding, piece, 2), rtol=1e-4, atol=1e-4)

    def test_the_decoder_adds_the_state_and_positions_once(self):
        """It added positions to a sum that held the state already: 2 x + positions."""
        head, taken = model_of(SMALL.vary(decoder="parallel")).head, []
        head.blocks[0].register_forward_pre_hook(lambda module, inputs: taken.append(inputs[0]))
        head.symbol_nats(torch.ones(1, 16), torch.tensor([[97, 98, END]]))
        state = head.input(torch.ones(16))
        torch.testing.assert_close(taken[0][0, 0], state + torch.tensor([0.0, 0.2]).repeat(8))

    def test_a_likelihood_counts_no_padding(self):
        model = model_of()
        short, padded = batch_of([3, 1, 2]), batch_of([3, 1, 2], [3, 7, 8])
        torch.testing.assert_close(nats_of(model, padded)[0], nats_of(model, short)[0], rtol=1e-5, atol=1e-5)


def test_flops_equal_those_that_torch_counts():
    """Of four tokens of three bytes, scores computed for all keys."""
    spec = SMALL.vary(pooling="attention", bytes_per_token=3.0)
    model, tokens = model_of(spec, [bytes([token] * 3) for token in range(4)]), torch.arange(4)[None]

    def counted(run):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        found = {str(name): flops / 4 for name, flops in counter.get_flop_counts()["Global"].items()}
        scores = found.pop("aten.bmm")
        return sum(found.values()), scores

    encoder, both_ways = counted(lambda: model.embedding(tokens))
    decoder, all_keys = counted(lambda: model.head.nats(torch.ones(1, 4, 16), tokens, model.embedding))
    expected = encoder + both_ways + decoder + all_keys * (4 + 1) / (2 * 4)
    assert spec.flops(host().shape()) == pytest.approx(expected, rel=1e-12)


def test_the_core_is_that_of_the_token_model_weight_for_weight():
    over_bytes = tiny().vary(embedding=Bytes())
    assert coverage(tiny(), over_bytes).without_embeddings == 1
    known = dict(started(tiny()).named_parameters())
    for name, parameter in started(over_bytes.vary(layers=2)).named_parameters():
        if not name.startswith(("embedding.", "head.")):
            assert torch.equal(parameter, known[name]), name


def test_what_a_byte_level_model_saves_is_a_share_of_embedding_and_head():
    """STLM says 90 to 95 % fewer parameters; its own code saves 85 % of a tied and 92.5 % of an untied model's."""
    one = preset("stlm-byte").architecture
    counts, tied = parameters(one), parameters(one.vary(embedding=Table()))
    outside = counts["total"] - counts["embedding"] - counts["head"]
    assert outside == 50_150_400 + 768  # the core of its code, and the last norm
    saved = 1 - (counts["embedding"] + counts["head"]) / tied["embedding"]
    assert (round(saved, 3), round(1 - counts["total"] / tied["total"], 2)) == (0.942, 0.41)


def test_a_model_over_bytes_has_no_logits_and_needs_a_spelling():
    model = model_of()
    with pytest.raises(ValueError, match=r"logits: expected a model over tokens .*, got ByteHead, .*; use nats"):
        model.logits(torch.zeros(1, 16))
    architecture = host().vary(embedding=SMALL)
    for spelling, got in ((None, "none"), ([b"a"], "1")):
        with pytest.raises(ValueError, match=f"spelling: expected the bytes of 29 tokens, got {got}"):
            architecture.build(spelling=spelling)
    with pytest.raises(ValueError, match=r"got none; call build\(spelling=...\)"):
        SMALL.build(SHAPE)(torch.zeros(1, 1, dtype=torch.long))


@pytest.mark.parametrize(("width", "heads"), [(20, 8), (15, 3), (2, 1)])
def test_a_width_that_heads_and_waves_do_not_divide_is_refused(width, heads):
    with pytest.raises(ValidationError, match=rf"byte_width: expected an even multiple of heads {heads} .*got {width}"):
        Bytes(byte_width=width, heads=heads)


def test_what_it_costs_follows_the_declared_bytes_per_token_and_identity_does_not():
    shape = host().shape()
    assert Bytes(bytes_per_token=8).flops(shape) > Bytes(bytes_per_token=4).flops(shape)
    assert Bytes(bytes_per_token=8).kept(shape)[1] == 9 * SYMBOLS
    assert moved(host().vary(embedding=SMALL.vary(bytes_per_token=9))).embedding.pooling == "mean"
