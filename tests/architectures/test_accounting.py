"""Parameters, FLOPs and pairing coverage against published and independently counted figures."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from architectures.accounting import PARTS, coverage, flops_per_token, parameters, part_of
from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.embeddings import Table
from architectures.feedforward import Gelu, SwiGLU
from architectures.norms import LayerNorm
from architectures.positions import Alibi, Learned, Rotary
from architectures.presets import tiny
from architectures.specimens import random_batch, started
from architectures.transformer import Batch

STLM = Architecture(
    width=512,
    layers=8,
    context=512,
    vocabulary=50_257,
    position=Rotary(layout="interleaved"),
    attention=MultiHead(heads=16, key_value_heads=4),
    feed_forward=SwiGLU(width=1536),
)
TINYLLAMA = Architecture(
    width=2048,
    layers=22,
    context=2048,
    vocabulary=32_000,
    position=Rotary(),
    attention=MultiHead(heads=32, key_value_heads=4),
    feed_forward=SwiGLU(width=5632),
    embedding=Table(tied=False),
)


@pytest.mark.parametrize(
    ("architecture", "total"),
    [
        (STLM, 49_857_536),
        (STLM.vary(feed_forward=SwiGLU(width=1320)), 47_203_328),
        (STLM.vary(feed_forward=SwiGLU(width=1320), position=Learned()), 47_465_472),
        (STLM.vary(feed_forward=Gelu(width=2304)), 49_857_536),
        (STLM.vary(embedding=Table(tied=False)), 75_589_120),
        (TINYLLAMA, 1_100_048_384),
        (
            TINYLLAMA.vary(
                width=768, layers=12, attention=MultiHead(heads=12, key_value_heads=1), feed_forward=SwiGLU(width=2048)
            ),
            121_129_728,
        ),
    ],
)
def test_published_models_have_their_published_parameter_counts(architecture, total):
    counts = parameters(architecture)
    assert counts["total"] == total
    assert sum(counts[part] for part in PARTS) == total


def test_parts_are_what_they_say():
    counts = parameters(tiny().vary(layers=3, position=Learned(), norm=LayerNorm(), embedding=Table(tied=False)))
    assert counts == {
        "embedding": 2048 * 128,
        "attention": 3 * 4 * 128**2,
        "feed_forward": 3 * 2 * 128 * 384,
        "norms": 7 * 2 * 128,
        "position": 128 * 128,
        "head": 2048 * 128,
        "depth": 0,
        "thinking": 0,
        "total": 2 * 2048 * 128 + 3 * (4 * 128**2 + 2 * 128 * 384) + 7 * 2 * 128 + 128**2,
    }


def test_a_parameter_of_no_part_is_refused():
    with pytest.raises(ValueError, match="expected a parameter of embedding, attention"):
        part_of("router.weight")


@pytest.mark.parametrize(
    "architecture",
    [
        tiny(),
        tiny().vary(attention=MultiHead(heads=4, key_value_heads=1), feed_forward=SwiGLU(width=77, bias=True)),
        tiny().vary(embedding=Table(tied=False), layers=1),
    ],
)
def test_flops_equal_those_that_torch_counts(architecture):
    model, batch = started(architecture), random_batch(architecture, sequences=1)
    model.use_backend("reference")  # whose matrix products torch can see, computed for all keys
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.nats(model(batch), batch)
    counted = {str(operation).split(".")[-1]: flops for operation, flops in counter.get_flop_counts()["Global"].items()}
    attention = counted.pop("bmm")
    time = architecture.context
    expected = sum(counted.values()) / time + attention / time * (time + 1) / (2 * time)
    flops = flops_per_token(architecture)
    assert flops.forward == pytest.approx(expected, rel=1e-12)
    assert flops.training == 3 * flops.forward
    assert "head" in flops.formula


def test_flops_are_counted_without_a_position_given():
    batch = random_batch(tiny())
    assert isinstance(batch, Batch)
    assert flops_per_token(tiny()).forward == flops_per_token(tiny().vary(position=Alibi())).forward


def test_coverage_is_whole_for_a_change_without_parameters():
    assert coverage(tiny(), tiny().vary(position=Alibi())).total == 1.0
    assert coverage(tiny(), tiny().vary(position=Alibi())).without_embeddings == 1.0


def test_coverage_is_the_share_of_the_second_models_parameters_that_the_first_has():
    narrow = tiny().vary(layers=3)
    wide = narrow.vary(feed_forward=Gelu(width=768))
    total = parameters(wide)["total"]
    shared = total - 3 * 2 * 128 * 768
    assert coverage(narrow, wide).total == pytest.approx(shared / total)
    assert coverage(narrow, wide).without_embeddings == pytest.approx((shared - 2048 * 128) / (total - 2048 * 128))
