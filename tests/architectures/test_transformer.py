"""The whole model against `transformers`, and its contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.dropout import Dropout
from architectures.embeddings import Table, rows_at_once
from architectures.feedforward import Gelu, SwiGLU
from architectures.norms import LayerNorm, RMSNorm
from architectures.positions import Alibi, Learned, Rotary
from architectures.presets import tiny
from architectures.specimens import host, moved, nats_of, random_batch, started
from architectures.transformer import Batch

LLAMA = Architecture(
    width=32,
    layers=2,
    context=24,
    vocabulary=61,
    position=Rotary(base=500.0),
    attention=MultiHead(heads=4, key_value_heads=2),
    feed_forward=SwiGLU(width=40),
    norm=RMSNorm(epsilon=1e-6),
    embedding=Table(tied=False),
)
LLAMA_NAMES = {
    "embedding": "model.embed_tokens",
    "final_norm": "model.norm",
    "head": "lm_head",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}


def llama_name(name: str) -> str:
    parts = name.removesuffix(".weight").split(".", 2)
    if parts[0] == "blocks":
        return f"model.layers.{parts[1]}.{LLAMA_NAMES[parts[2]]}.weight"
    return f"{LLAMA_NAMES[parts[0]]}.weight"


@pytest.mark.parametrize("tied", [False, True])
def test_logits_equal_those_of_llama_with_the_same_weights(tied):
    from transformers import LlamaConfig, LlamaForCausalLM

    architecture = LLAMA.vary(embedding=Table(tied=tied))
    model, batch = moved(architecture), random_batch(architecture)
    llama = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=24,
            vocab_size=61,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0},
            tie_word_embeddings=tied,
        )
    ).eval()
    weights = {llama_name(name): parameter.detach() for name, parameter in model.named_parameters()}
    missing, unexpected = llama.load_state_dict(weights, strict=False)
    assert unexpected == []
    assert missing == (["lm_head.weight"] if tied else [])
    with torch.no_grad():
        expected = llama(input_ids=batch.tokens).logits
        got = model.logits(model(batch).hidden)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_logits_equal_those_of_gpt2_with_the_same_weights():
    from transformers import GPT2Config, GPT2LMHeadModel

    architecture = LLAMA.vary(
        position=Learned(),
        attention=MultiHead(heads=4, bias=True),
        feed_forward=Gelu(width=64, bias=True, approximation="tanh"),
        norm=LayerNorm(),
        embedding=Table(),
    )
    model, batch = moved(architecture), random_batch(architecture)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_positions=24, n_embd=32, n_layer=2, n_head=4, n_inner=64)).eval()
    weights = {"transformer.wte.weight": model.embedding.weight, "transformer.wpe.weight": model.position.weight}
    weights |= {f"transformer.ln_f.{name}": value for name, value in model.final_norm.named_parameters()}
    for layer, block in enumerate(model.blocks):
        ours, prefix = dict(block.named_parameters()), f"transformer.h.{layer}."
        fused, fused_bias = (
            torch.cat([ours[f"attention.{name}.{kind}"] for name in ("query", "key", "value")])
            for kind in ("weight", "bias")
        )
        weights |= {
            f"{prefix}attn.c_attn.weight": fused.T,
            f"{prefix}attn.c_attn.bias": fused_bias,
            f"{prefix}attn.c_proj.weight": ours["attention.output.weight"].T,
            f"{prefix}attn.c_proj.bias": ours["attention.output.bias"],
            f"{prefix}mlp.c_fc.weight": ours["feed_forward.up.weight"].T,
            f"{prefix}mlp.c_fc.bias": ours["feed_forward.up.bias"],
            f"{prefix}mlp.c_proj.weight": ours["feed_forward.down.weight"].T,
            f"{prefix}mlp.c_proj.bias": ours["feed_forward.down.bias"],
        }
        for theirs, name in (("ln_1", "attention_norm"), ("ln_2", "feed_forward_norm")):
            weights |= {f"{prefix}{theirs}.{part}": ours[f"{name}.{part}"] for part in ("weight", "bias")}
    missing, unexpected = gpt2.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    with torch.no_grad():
        expected = gpt2(input_ids=batch.tokens).logits
        got = model.logits(model(batch).hidden)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_parameter_names_are_roles_and_never_change():
    """Golden: these names key the initial noise; renaming one gives every old model another start."""
    block = [
        *(f"attention.{name}.weight" for name in ("query", "key", "value", "output")),
        *(f"feed_forward.{name}.weight" for name in ("gate", "up", "down")),
        "attention_norm.weight",
        "feed_forward_norm.weight",
    ]
    expected = ["embedding.weight", *(f"blocks.{layer}.{name}" for layer in range(2) for name in block)]
    expected += ["final_norm.weight", "head.weight"]
    assert [name for name, _ in LLAMA.build().named_parameters()] == expected
    biased = {"attention": MultiHead(heads=4, bias=True), "feed_forward": Gelu(width=8, bias=True)}
    gpt2 = LLAMA.vary(position=Learned(), norm=LayerNorm(), embedding=Table(), **biased)
    new = {name for name, _ in gpt2.build().named_parameters()} - set(expected)
    biases = {"attention_norm.bias", "feed_forward_norm.bias", "feed_forward.up.bias", "feed_forward.down.bias"}
    biases |= {f"attention.{name}.bias" for name in ("query", "key", "value", "output")}
    assert new == {"position.weight", "final_norm.bias"} | {f"blocks.{i}.{name}" for i in range(2) for name in biases}


def test_a_built_model_is_not_a_number_until_it_is_initialised():
    assert all(parameter.isnan().all() for parameter in tiny().build().parameters())


def test_training_and_scoring_agree_without_dropout_and_differ_with_it():
    model, batch = moved(host()), random_batch(host())
    evaluated = nats_of(model, batch)
    assert torch.equal(nats_of(model.train(), batch), evaluated)
    for place in ("embedding", "attention", "residual"):
        dropping = moved(host().vary(dropout=Dropout(**{place: 0.5})))
        assert torch.equal(nats_of(dropping, batch), evaluated), f"{place} dropout is on in evaluation"
        assert not torch.allclose(nats_of(dropping.train(), batch), evaluated), f"{place} dropout does nothing"


@pytest.mark.parametrize("position", [Rotary(), Alibi(), Learned()])
def test_explicit_positions_equal_the_plain_range(position):
    architecture = host().vary(position=position)
    model, batch = moved(architecture), random_batch(architecture)
    explicit = Batch(batch.tokens, batch.targets, batch.weights, torch.arange(architecture.context))
    torch.testing.assert_close(nats_of(model, explicit), nats_of(model, batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("position", [Rotary(), Alibi()])
def test_a_model_reads_sequences_longer_than_its_training_context(position):
    architecture = host().vary(position=position)
    long = random_batch(architecture.vary(context=4 * architecture.context))
    short = Batch(long.tokens[:, :12], long.targets[:, :12], long.weights[:, :12])
    model = moved(architecture)
    torch.testing.assert_close(nats_of(model, long)[:, :12], nats_of(model, short), atol=1e-5, rtol=1e-5)


def test_nats_are_the_same_in_pieces_as_in_one(monkeypatch):
    model, batch = moved(LLAMA), random_batch(LLAMA)
    gradients = []
    for rows in (5, 2**30):
        monkeypatch.setattr("architectures.embeddings.rows_at_once", lambda vocabulary, rows=rows: rows)
        model.zero_grad()
        nats = model.nats(model(batch), batch)
        nats.sum().backward()
        gradients.append([nats.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    for pieces, whole in zip(*gradients, strict=True):
        torch.testing.assert_close(pieces, whole, atol=1e-4, rtol=1e-5)


def test_logits_are_made_in_pieces_that_fit_a_cache_or_else_in_long_ones():
    assert [rows_at_once(vocabulary) for vocabulary in (256, 4096, 4097, 50257)] == [2048, 128, 512, 512]


def test_nats_stay_float32_under_bfloat16_autocast_and_near_the_exact_ones():
    model, batch = started(tiny()), random_batch(tiny())
    exact = nats_of(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = nats_of(model, batch)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.05


def test_an_untrained_model_is_as_uncertain_as_guessing():
    nats = nats_of(started(tiny()), random_batch(tiny()))
    assert nats.mean().item() == pytest.approx(np.log(2048), abs=0.05)


def test_the_backend_is_chosen_when_building_or_later():
    model = tiny().build(backend="reference")
    assert model.backend == "reference"
    model.use_backend("sdpa")
    assert model.backend == "sdpa"
    with pytest.raises(ValueError, match="expected one of reference, sdpa, flex, flash, got 'fastest'"):
        model.use_backend("fastest")


def test_an_architecture_knows_which_backends_can_run_it():
    alibi = tiny().vary(position=Alibi())
    known = alibi.backends()
    assert (known["reference"], known["sdpa"]) == (None, None)
    assert known["flex"] == "FlexAttention has no backward pass on a CPU"
    assert known["flash"] == "flash-attn needs a CUDA device, got cpu"
    assert alibi.backends(training=False)["flex"] is None
    assert "bfloat16" in alibi.backends("cuda")["flash"]
    dropping = alibi.vary(dropout=Dropout(attention=0.1))
    assert "cannot drop" in dropping.backends("cuda", torch.bfloat16)["flex"]


def test_a_component_with_a_buffer_is_refused(monkeypatch):
    from architectures.positions import NoPosition, PositionModule

    def build(self, shape):
        module = PositionModule()
        module.register_buffer("table", torch.zeros(3))
        return module

    monkeypatch.setattr(NoPosition, "build", build)
    with pytest.raises(ValueError, match=r"position\.table: expected parameters only, got a buffer"):
        tiny().vary(position=NoPosition()).build()


def test_stacked_models_have_the_gradients_of_single_ones():
    """The hand-written backward passes have batching rules, so that several seeds can train as one model."""
    from torch.func import functional_call, grad, stack_module_state, vmap

    architecture = host().vary(position=Rotary(), norm=RMSNorm())
    batch, models = random_batch(architecture), [moved(architecture), started(architecture).eval()]
    for model in models:
        model.use_backend("reference")
    stacked, _ = stack_module_state(models)

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = models[0]

        def forward(self, batch: Batch) -> torch.Tensor:
            return self.model.nats(self.model(batch), batch).mean()

    def loss(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional_call(Loss(), {f"model.{name}": value for name, value in parameters.items()}, (batch,))

    together = vmap(grad(loss))(stacked)
    for index, model in enumerate(models):
        model.nats(model(batch), batch).mean().backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(together[name][index], parameter.grad, atol=1e-5, rtol=1e-4)
