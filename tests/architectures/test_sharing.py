"""Sharing against models without it, adapters against naive loops, and counts against the preregistered arms."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from architectures.accounting import coverage, effective_parameters, flops_per_token, parameters
from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.compute import flops_by_formula
from architectures.embeddings import Table
from architectures.feedforward import Gelu, SwiGLU
from architectures.initialisation import SmallInit
from architectures.norms import LayerNorm
from architectures.positions import NoPosition
from architectures.sharing import PREFIXES, Adapted, Adapter, NoSharing, Shared, sharing_layers
from architectures.specimens import host, moved, nats_of, random_batch, started
from architectures.testing import check_component
from architectures.transformer import Batch, Transformer

PLAIN = host().vary(layers=5, norm=LayerNorm(), feed_forward=SwiGLU(width=20, bias=True))
SHARED = [Shared(part=part, private_ends=ends) for part, ends in zip(PREFIXES, (1, 0, 1, 0, 1), strict=True)]
ADAPTED = [Adapted(**one.model_dump(exclude={"kind"}), rank=3, alpha=6.0) for one in SHARED]
ENDS = {0: (0, 1, 2, 3, 4), 1: (1, 2, 3)}


def unshared_weights(model: Transformer, private_ends: int) -> dict[str, Tensor]:
    """The weights of a model without sharing that computes the same: each layer gets W + alpha / rank * B A."""
    stored = dict(model.named_parameters())
    weights = {}
    for name in PLAIN.outline().state_dict():
        if name in stored:
            weight = stored[name]
        else:
            _, layer, role = name.split(".", 2)
            assert int(layer) in ENDS[private_ends][1:]
            weight = stored[f"blocks.{ENDS[private_ends][0]}.{role}"]
        adapter = f"{name.removesuffix('.weight')}.adapter"
        if f"{adapter}.lora_a.weight" in stored:
            weight = weight + 6.0 / 3 * stored[f"{adapter}.lora_b.weight"] @ stored[f"{adapter}.lora_a.weight"]
        weights[name] = weight.detach()
    return weights


@pytest.mark.parametrize("sharing", [*SHARED, *ADAPTED], ids=repr)
def test_a_model_that_shares_equals_one_with_the_weights_copied(sharing):
    architecture = PLAIN.vary(sharing=sharing)
    model, batch = moved(architecture), random_batch(architecture)
    copied = moved(PLAIN)
    copied.load_state_dict(unshared_weights(model, sharing.private_ends))
    torch.testing.assert_close(nats_of(model, batch), nats_of(copied, batch), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("sharing", SHARED, ids=repr)
def test_the_gradient_of_a_shared_matrix_is_the_sum_over_its_layers(sharing):
    model, batch = moved(PLAIN.vary(sharing=sharing)).double(), random_batch(PLAIN)
    copied = moved(PLAIN).double()
    copied.load_state_dict(unshared_weights(model, sharing.private_ends))
    for one in (model, copied):
        one.head.nats(one(batch).hidden, batch.targets, one.embedding).sum().backward()
    expected: dict[str, Tensor] = {}
    stored = dict(model.named_parameters())
    for name, parameter in copied.named_parameters():
        parts = name.split(".", 2)
        owner = name if name in stored else f"blocks.{ENDS[sharing.private_ends][0]}.{parts[2]}"
        expected[owner] = expected.get(owner, 0) + parameter.grad
    for name, parameter in stored.items():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-4, rtol=1e-4)


def test_an_adapter_is_the_formula_of_the_paper():
    adapter = Adapter(5, 4, rank=2, alpha=3.0)
    with torch.no_grad():
        for index, parameter in enumerate(adapter.parameters()):
            parameter.copy_(torch.linspace(-1, 2 + index, parameter.numel()).view_as(parameter))
    x = torch.linspace(-1, 1, 15).view(3, 5)
    a, b = adapter.lora_a.weight.tolist(), adapter.lora_b.weight.tolist()
    for row, got in zip(x.tolist(), adapter(x).tolist(), strict=True):
        inner = [sum(a[r][i] * row[i] for i in range(5)) for r in range(2)]
        assert got == pytest.approx([3.0 / 2 * sum(b[o][r] * inner[r] for r in range(2)) for o in range(4)], rel=1e-5)


@pytest.mark.parametrize(("shared", "adapted"), list(zip(SHARED, ADAPTED, strict=True)))
def test_adapters_start_as_if_there_were_none(shared, adapted):
    plain, with_adapters = (started(PLAIN.vary(sharing=one)).eval() for one in (shared, adapted))
    batch = random_batch(PLAIN)
    assert torch.equal(nats_of(plain, batch), nats_of(with_adapters, batch))
    started_at = dict(with_adapters.named_parameters())
    added = started_at.keys() - dict(plain.named_parameters()).keys()
    assert added
    assert all(started_at[name].any() == name.endswith("lora_a.weight") for name in added)


def test_the_first_matrix_of_an_adapter_starts_at_the_scale_of_the_scheme():
    architecture = PLAIN.vary(width=64, sharing=Adapted(rank=16, alpha=16), initialisation=SmallInit())
    weight = started(architecture).get_parameter("blocks.4.feed_forward.up.adapter.lora_a.weight")
    assert weight.std().item() == pytest.approx((2 / (5 * 64)) ** 0.5, rel=0.1)


@pytest.mark.parametrize("private_ends", [0, 1])
def test_a_shared_matrix_has_the_name_of_its_first_layer_and_vectors_stay_private(private_ends):
    stored = {name for name, _ in PLAIN.vary(sharing=Shared(private_ends=private_ends)).outline().named_parameters()}
    everything = {name for name, _ in PLAIN.outline().named_parameters()}
    roles = ("feed_forward.gate.weight", "feed_forward.up.weight", "feed_forward.down.weight")
    assert everything - stored == {f"blocks.{layer}.{role}" for layer in ENDS[private_ends][1:] for role in roles}
    assert stored < everything


@pytest.mark.parametrize(
    ("part", "roles"),
    [
        ("feed_forward", ["gate", "up", "down"]),
        ("attention_output", ["output"]),
        ("feed_forward+attention_output", ["output", "gate", "up", "down"]),
        ("attention", ["query", "key", "value", "output"]),
        ("block", ["query", "key", "value", "output", "gate", "up", "down"]),
    ],
)
def test_each_part_shares_the_matrices_it_names(part, roles):
    stored = [name for name, _ in PLAIN.vary(sharing=Shared(part=part)).outline().named_parameters()]
    last = [
        name for name, _ in PLAIN.outline().named_parameters() if name.startswith("blocks.4.") and name not in stored
    ]
    assert [name.split(".")[3] for name in last] == roles


def test_adapters_are_names_of_every_layer_that_shares():
    architecture = PLAIN.vary(sharing=Adapted(part="attention_output", private_ends=1, rank=2, alpha=2))
    added = [name for name, _ in architecture.outline().named_parameters() if "adapter" in name]
    assert added == [
        f"blocks.{layer}.attention.output.adapter.lora_{matrix}.weight" for layer in (1, 2, 3) for matrix in "ab"
    ]


def test_one_step_of_training_moves_a_shared_matrix_once_and_for_all_its_layers():
    model, batch = moved(PLAIN.vary(sharing=Shared())), random_batch(PLAIN)
    before = model.get_parameter("blocks.0.feed_forward.up.weight").detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.nats(model(batch), batch).mean().backward()
    gradient = model.get_parameter("blocks.0.feed_forward.up.weight").grad
    optimizer.step()
    for block in model.blocks:
        torch.testing.assert_close(block.feed_forward.up.weight, before - 0.1 * gradient)


@pytest.mark.parametrize("sharing", [Shared(part="block"), ADAPTED[4]], ids=repr)
def test_a_model_that_shares_can_be_saved_copied_cast_and_moved(sharing):
    from safetensors.torch import load, save

    architecture = PLAIN.vary(sharing=sharing)
    model, batch = moved(architecture), random_batch(architecture)
    state = model.state_dict()
    assert list(state) == [name for name, _ in model.named_parameters()]
    assert len({value.data_ptr() for value in state.values()}) == len(state)
    loaded = architecture.build().eval()
    loaded.load_state_dict(load(save(state)))
    copied = copy.deepcopy(model)
    with torch.no_grad():
        model.get_parameter(f"blocks.{sharing.private_ends}.attention.query.weight").zero_()
    assert torch.equal(nats_of(loaded, batch), nats_of(copied, batch))
    assert not torch.allclose(nats_of(model, batch), nats_of(copied, batch))
    assert {parameter.dtype for parameter in copied.bfloat16().parameters()} == {torch.bfloat16}
    assert copied.blocks[3].attention.query.weight.dtype == torch.bfloat16


def test_generation_with_a_cache_equals_the_full_pass():
    """Layers that share matrices still have keys and values of their own."""
    architecture = PLAIN.vary(sharing=ADAPTED[4])
    model, batch = moved(architecture), random_batch(architecture)
    cache = model.cache()
    with torch.no_grad():
        steps = [
            model(
                Batch(*(part[:, time : time + 1] for part in (batch.tokens, batch.targets, batch.weights))), cache=cache
            )
            for time in range(architecture.context)
        ]
        hidden = model(batch).hidden
    torch.testing.assert_close(torch.cat([step.hidden for step in steps], dim=1), hidden, atol=1e-5, rtol=1e-5)


def test_stacked_models_that_share_have_the_gradients_of_single_ones():
    from torch.func import functional_call, grad, stack_module_state, vmap

    architecture = host().vary(sharing=Adapted(part="block", rank=2, alpha=4))
    batch, models = random_batch(architecture), [moved(architecture), started(architecture).eval()]
    for model in models:
        model.use_backend("reference")
    stacked, _ = stack_module_state(models)

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = models[0]

        def forward(self, batch):
            return self.model.nats(self.model(batch), batch).mean()

    def loss(weights):
        return functional_call(Loss(), {f"model.{name}": value for name, value in weights.items()}, (batch,))

    together = vmap(grad(loss))(stacked)
    for index, model in enumerate(models):
        model.nats(model(batch), batch).mean().backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(together[name][index], parameter.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sharing", [Shared(part="block", private_ends=1), Adapted(part="block", rank=2, alpha=1.0)])
def test_choices_away_from_their_defaults_keep_the_contract(sharing):
    check_component(sharing)


def test_everything_that_is_stored_starts_as_without_sharing():
    shared = PLAIN.vary(sharing=Shared(part="block"))
    assert coverage(PLAIN, shared).total == 1.0
    adapted = PLAIN.vary(sharing=Adapted(part="block", rank=2, alpha=2))
    assert coverage(shared, adapted).total < 1.0
    assert coverage(adapted, shared).total == 1.0


@settings(max_examples=25, deadline=None)
@given(
    layers=st.integers(2, 9),
    part=st.sampled_from(list(PREFIXES)),
    rank=st.none() | st.integers(1, 5),
    data=st.data(),
)
def test_stored_and_effective_parameters_add_up(layers, part, rank, data):
    """Effective: those of the model without sharing, and the adapters; stored: less what is borrowed."""
    ends = data.draw(st.integers(0, (layers - 2) // 2))
    plain = host().vary(layers=layers)
    sharing = Shared(part=part, private_ends=ends)
    if rank is not None:
        sharing = Adapted(part=part, private_ends=ends, rank=rank, alpha=1.0)
    architecture = plain.vary(sharing=sharing)
    in_and_out = {"query": (16, 16), "key": (16, 16), "value": (16, 16), "output": (16, 16)}
    in_and_out |= {"up": (16, 24), "down": (24, 16)}
    roles = {
        "feed_forward": ["up", "down"],
        "attention_output": ["output"],
        "feed_forward+attention_output": ["up", "down", "output"],
        "attention": ["query", "key", "value", "output"],
        "block": list(in_and_out),
    }[part]
    users = layers - 2 * ends
    adapters = users * sum((rank or 0) * sum(in_and_out[role]) for role in roles)
    borrowed = (users - 1) * sum(in_and_out[role][0] * in_and_out[role][1] for role in roles)
    everything = parameters(plain)["total"]
    assert effective_parameters(plain) == everything
    assert effective_parameters(architecture) == everything + adapters
    assert parameters(architecture)["total"] == everything + adapters - borrowed


@pytest.mark.parametrize("sharing", [Shared(part="block"), Adapted(part="block", private_ends=1, rank=3, alpha=3)])
def test_flops_count_every_use_of_a_shared_matrix_and_every_adapter(sharing):
    architecture = host().vary(layers=4, sharing=sharing)
    model, batch = started(architecture), random_batch(architecture, sequences=1)
    model.use_backend("reference")
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.nats(model(batch), batch)
    counted = {str(operation).split(".")[-1]: flops for operation, flops in counter.get_flop_counts()["Global"].items()}
    attention, time = counted.pop("bmm"), architecture.context
    expected = sum(counted.values()) / time + attention / time * (time + 1) / (2 * time)
    assert flops_per_token(architecture).forward == pytest.approx(expected, rel=1e-12)
    if sharing.kind == "shared":
        assert flops_by_formula(architecture) == flops_by_formula(architecture.vary(sharing=NoSharing()))


@pytest.mark.parametrize(
    ("layers", "private_ends", "expected"),
    [(8, 0, range(8)), (8, 1, range(1, 7)), (8, 2, range(2, 6)), (2, 0, range(2))],
)
def test_the_interior_leaves_as_many_layers_private_at_either_end(layers, private_ends, expected):
    assert list(sharing_layers(layers, private_ends)) == list(expected)


def prereg(layers: int, width: int, inner: int, sharing: Shared | Adapted | NoSharing) -> Architecture:
    """An arm of STLM's preregistration; no position has parameters there, and rotary needs an even head width."""
    return Architecture(
        width=width,
        layers=layers,
        context=512,
        vocabulary=50_257,
        position=NoPosition(),
        attention=MultiHead(heads=16, key_value_heads=4),
        feed_forward=SwiGLU(width=inner),
        sharing=sharing,
    )


# Name, layers, width, inner width, sharing, the count of our definition, the count of STLM's code.
LORA = {"rank": 64, "alpha": 64.0}
PREREGISTERED = [
    ("Baseline", 8, 528, 1361, NoSharing(), 49_366_944, 49_197_984),
    ("All-Wide", 8, 672, 1733, Shared(), 46_309_536, 49_803_264),
    ("1-interior Wide", 8, 608, 1568, Shared(private_ends=1), 46_539_968, 49_400_000),
    ("2-interior Wide", 8, 560, 1444, Shared(private_ends=2), 46_555_040, 48_801_760),
    ("All-Long", 14, 608, 1568, Shared(), 46_372_160, 49_232_192),
    ("All-Deep LoRA", 12, 592, 1527, Adapted(**LORA), 47_874_992, 49_938_154),
    ("All-Wide LoRA", 8, 640, 1650, Adapted(**LORA), 47_052_800, 49_810_044),
    ("1-interior Wide LoRA", 8, 592, 1527, Adapted(private_ends=1, **LORA), 47_348_432, 49_483_286),
    ("2-interior Deep LoRA", 12, 512, 1440, Adapted(private_ends=2, **LORA), 47_666_176, 49_528_320),
]


@pytest.mark.parametrize("arm", PREREGISTERED, ids=lambda arm: arm[0])
def test_preregistered_arms_differ_from_stlms_code_by_what_is_documented(arm):
    """Three differences, each where the code departs from its own text or from the method.

    It rounds an odd head width down (528 / 16 = 33 becomes 32); it shares among layers 2 + k ... D - k, one fewer than
    its text; its adapters have two biases (LoRA has none) and there is one fewer of them.
    """
    _, layers, width, inner, sharing, ours, published = arm
    count = parameters(prereg(layers, width, inner, sharing))["total"]
    assert count == ours
    odd_heads = layers * width * (2 * 16 + 2 * 4) if width // 16 % 2 else 0
    one_layer_fewer = 3 * width * inner if sharing.kind != "none" else 0
    adapters = 0
    if sharing.kind == "adapted":
        one_layer_fewer -= 3 * 64 * (width + inner)
        adapters = (layers - 1 - 2 * sharing.private_ends) * (2 * (64 + inner) + 64 + width)
    assert count - odd_heads + one_layer_fewer + adapters == published


def test_the_untied_arm_adds_one_table_to_the_baseline():
    untied = prereg(8, 528, 1361, NoSharing()).vary(embedding=Table(tied=False))
    assert parameters(untied)["total"] - 49_366_944 == 75_733_680 - 49_197_984


def test_sharing_the_attention_projection_saves_a_square_per_layer():
    """The preregistered arm, Long 10/512/1320, has no published count."""
    plain = prereg(10, 512, 1320, NoSharing())
    shared = plain.vary(sharing=Shared(part="attention_output"))
    assert parameters(plain)["total"] - parameters(shared)["total"] == 9 * 512 * 512
    assert parameters(shared)["total"] == 50_211_840


@pytest.mark.parametrize("sharing", [Shared(private_ends=2), Adapted(private_ends=2, rank=1, alpha=1)])
def test_fewer_than_two_sharing_layers_are_refused(sharing):
    message = r"sharing\.private_ends: expected at most 1, so that two of 5 layers share, got 2"
    with pytest.raises(ValidationError, match=message):
        PLAIN.vary(sharing=sharing)
    with pytest.raises(ValidationError, match="sharing: expected at least two layers to share between, got layers 1"):
        PLAIN.vary(layers=1, sharing=sharing.vary(private_ends=0))


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}, {"private_ends": -1}, {"part": "head"}])
def test_values_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Adapted(**({"rank": 2, "alpha": 2.0} | wrong))


class Odd(nn.Module):
    """A feed-forward with a matrix that no linear layer owns."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(shape))


def test_what_cannot_be_shared_is_refused(monkeypatch):
    shared = host().vary(sharing=Shared())
    monkeypatch.setattr(Gelu, "build", lambda self, shape: Odd((3, 2)))
    with pytest.raises(
        ValueError, match=r"sharing\.part: .* torch\.nn\.Linear, got feed_forward\.table, \(3, 2\), of Odd"
    ):
        shared.outline()
    monkeypatch.setattr(Gelu, "build", lambda self, shape: Odd((3,)))
    with pytest.raises(ValueError, match=r"sharing\.part: expected a part with a matrix, got feed_forward"):
        shared.outline()
    monkeypatch.setattr(Gelu, "build", lambda self, shape: nn.Sequential(nn.Linear(2, 2 + shape.layer)))
    with pytest.raises(ValueError, match=r"expected feed_forward\.0 of shape \(2, 2\) in every layer .* got \(3, 2\)"):
        shared.outline()


def test_no_sharing_is_what_the_field_means_when_it_is_absent():
    """Architectures recorded before the field existed keep their identity; the neutral value is plain JSON."""
    extra = Architecture.model_fields["sharing"].json_schema_extra
    assert extra == {"neutral": NoSharing().model_dump()}
    recorded = json.loads(PLAIN.model_dump_json())
    del recorded["sharing"]
    assert Architecture.model_validate(recorded) == PLAIN
