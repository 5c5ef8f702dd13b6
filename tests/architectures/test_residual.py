"""How sublayers join the residual stream, against the equations written out; and what is dropped where."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from architectures import feedforward, transformer
from architectures.attention import Pass
from architectures.component import Component
from architectures.dropout import Dropout
from architectures.norms import LayerNorm, NoNorm, RMSNorm
from architectures.residual import Parallel, PostNorm, PreNorm, Sandwich
from architectures.specimens import host, moved, random_batch

PRE, POST, SANDWICH, PARALLEL = PreNorm(), PostNorm(), Sandwich(), Parallel()


def pre(block, x, attention):
    for norm, f in ((block.attention_norm, attention), (block.feed_forward_norm, block.feed_forward)):
        x = x + f(norm(x))
    return x


def post(block, x, attention):
    for norm, f in ((block.attention_norm, attention), (block.feed_forward_norm, block.feed_forward)):
        x = norm(x + f(x))
    return x


def sandwich(block, x, attention):
    after = (block.attention_output_norm, block.feed_forward_output_norm)
    for norm, f, last in zip(
        (block.attention_norm, block.feed_forward_norm), (attention, block.feed_forward), after, strict=True
    ):
        x = x + last(f(norm(x)))
    return x


def parallel(block, x, attention):
    y = block.attention_norm(x)
    return attention(y) + block.feed_forward(y) + x


@pytest.mark.parametrize("norm", [RMSNorm(), LayerNorm()])
@pytest.mark.parametrize(
    ("residual", "block_by_hand"), [(PRE, pre), (POST, post), (SANDWICH, sandwich), (PARALLEL, parallel)]
)
def test_a_model_is_its_blocks_by_hand_and_a_norm_behind_them_unless_post_norm(residual, block_by_hand, norm):
    architecture = host().vary(residual=residual, norm=norm, layers=3)
    model, batch = moved(architecture), random_batch(architecture)
    x = model.embedding(batch.tokens)
    for block in model.blocks:
        x = block_by_hand(block, x, lambda y, block=block: block.attention(y, Pass(model.position, None, 0.0, "sdpa")))
    if residual is not POST:
        x = model.final_norm(x)
    torch.testing.assert_close(model(batch).hidden, x)


def test_a_sandwich_keeps_the_residual_stream_small_where_a_sublayer_explodes():
    """What the second norm is for (arXiv:2105.13290): a branch adds vectors of its gain's size, whatever f returns."""
    norms, x = dict(moved(host().vary(residual=SANDWICH)).blocks[0].named_children()), torch.ones(1, 2, 16)
    calm, wild = (SANDWICH.connect(x, norms, grow, grow) for grow in (lambda y: y, lambda y: y * 1e4))
    torch.testing.assert_close(calm, wild, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("residual", "names"),
    [
        (PRE, ["attention_norm", "feed_forward_norm"]),
        (POST, ["attention_norm", "feed_forward_norm"]),
        (SANDWICH, ["attention_norm", "attention_output_norm", "feed_forward_norm", "feed_forward_output_norm"]),
        (PARALLEL, ["attention_norm"]),
    ],
)
def test_the_norms_of_a_block_are_named_by_role(residual, names):
    block = host().vary(residual=residual).outline().blocks[0]
    assert [name for name, _ in block.named_children() if name.endswith("_norm")] == names


def test_without_norms_only_wirings_that_remain_different_can_be_written():
    bare = host().vary(norm=NoNorm())
    batch = random_batch(bare)
    a, b = (moved(bare.vary(residual=residual))(batch).hidden for residual in (PRE, PARALLEL))
    assert not torch.allclose(a, b)
    for residual in (POST, SANDWICH):
        with pytest.raises(ValueError, match=f"got {residual.kind}, which without norms is the same model"):
            bare.vary(residual=residual)


@pytest.fixture
def dropped(monkeypatch) -> list[tuple[tuple[int, ...], float]]:
    """Shapes and rates of everything that is dropped, in order."""
    seen: list[tuple[tuple[int, ...], float]] = []

    def drop(x: torch.Tensor, rate: float) -> torch.Tensor:
        seen.append((tuple(x.shape), rate))
        return x

    for module in (transformer, feedforward):
        monkeypatch.setattr(module, "drop", drop)
    return seen


@pytest.mark.parametrize(
    ("dropout", "expected"),
    [
        (Dropout(), []),
        (Dropout(embedding=0.1), [("stream", 0.1)]),
        (Dropout(residual=0.2), [("stream", 0.2)] * 4),
        (Dropout(residual=0.2, feed_forward_output=0.0), [("stream", 0.2)] * 2),
        (Dropout(feed_forward_output=0.3), [("stream", 0.3)] * 2),
        (Dropout(residual=0.2, feed_forward_output=0.3), [("stream", 0.2), ("stream", 0.3)] * 2),
        (Dropout(feed_forward=0.4), [("hidden", 0.4)] * 2),
    ],
)
def test_each_flag_drops_what_it_names_in_training_and_nothing_in_evaluation(dropout, expected, dropped):
    architecture = host().vary(dropout=dropout)
    model, batch = moved(architecture), random_batch(architecture)
    model(batch)
    assert dropped == []
    model.train()
    model(batch)
    shapes = {(2, 12, 16): "stream", (2, 12, 24): "hidden"}
    assert [(shapes[shape], rate) for shape, rate in dropped] == expected


def test_the_rate_of_residual_written_out_again_is_the_same_dropout():
    assert Dropout(residual=0.1, feed_forward_output=0.1) == Dropout(residual=0.1)
    assert Dropout(residual=0.1, feed_forward_output=0.0) != Dropout(residual=0.1)


def test_hidden_dropout_is_refused_where_the_feed_forward_cannot_do_it(monkeypatch):
    class Stubborn(Component):
        kind: Literal["gelu"] = "gelu"

        def build(self, shape):
            return nn.Identity()

    architecture = host()
    object.__setattr__(architecture, "feed_forward", Stubborn())
    object.__setattr__(architecture, "dropout", Dropout(feed_forward=0.1))
    expected = r"dropout\.feed_forward: expected 0, as Stubborn cannot drop its hidden activations, got 0\.1"
    with pytest.raises(ValueError, match=expected):
        architecture._check_axes()
