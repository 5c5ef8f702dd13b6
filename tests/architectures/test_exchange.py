"""Export is what `transformers` loads, with the same logits; import is its inverse; the rest is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.dropout import Dropout
from architectures.embeddings import Table
from architectures.exchange import configuration, export_model, import_model, read_configuration
from architectures.feedforward import GEGLU, Gelu, LeakyReLU, ReGLU, ReLU, Sigmoid, SiLU, SquaredReLU, SwiGLU, Tanh
from architectures.norms import LayerNorm, RMSNorm
from architectures.positions import Alibi, Learned, Rotary
from architectures.presets import preset, presets
from architectures.residual import Parallel, PostNorm
from architectures.sharing import Shared
from architectures.specimens import moved, random_batch

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
GPT2 = LLAMA.vary(
    position=Learned(),
    attention=MultiHead(heads=4, bias=True),
    feed_forward=Gelu(width=72, bias=True, approximation="tanh"),
    norm=LayerNorm(epsilon=1e-4),
    embedding=Table(),
)
EXPRESSIBLE = {
    "llama": LLAMA,
    "llama, tied": LLAMA.vary(embedding=Table()),
    "llama, interleaved": LLAMA.vary(position=Rotary(layout="interleaved")),
    "llama, condensed, all heads": LLAMA.vary(position=Rotary(condense=4.0), attention=MultiHead(heads=4)),
    "llama, GEGLU": LLAMA.vary(feed_forward=GEGLU(width=40)),
    "llama, ReGLU with biases": LLAMA.vary(feed_forward=ReGLU(width=40, bias=True)),
    "llama, attention biases": LLAMA.vary(attention=MultiHead(heads=4, key_value_heads=2, bias=True)),
    "llama, attention biases, interleaved": LLAMA.vary(
        attention=MultiHead(heads=4, bias=True), position=Rotary(layout="interleaved")
    ),
    "gpt2": GPT2,
    "gpt2, untied, exact GELU": GPT2.vary(embedding=Table(tied=False), feed_forward=Gelu(width=72, bias=True)),
    "gpt2, ReLU": GPT2.vary(feed_forward=ReLU(width=72, bias=True)),
    "gpt2, SiLU": GPT2.vary(feed_forward=SiLU(width=72, bias=True)),
    "gpt2, leaky ReLU": GPT2.vary(feed_forward=LeakyReLU(width=72, bias=True)),
    "gpt2, tanh": GPT2.vary(feed_forward=Tanh(width=72, bias=True)),
    "gpt2, sigmoid": GPT2.vary(feed_forward=Sigmoid(width=72, bias=True)),
    "gpt2, squared ReLU": GPT2.vary(feed_forward=SquaredReLU(width=72, bias=True)),
}


@pytest.mark.parametrize("architecture", EXPRESSIBLE.values(), ids=EXPRESSIBLE)
def test_transformers_loads_an_exported_model_and_computes_the_same_logits(architecture, tmp_path) -> None:
    from transformers import GPT2LMHeadModel, LlamaForCausalLM

    model, batch = moved(architecture), random_batch(architecture)
    config, _ = export_model(model, architecture, tmp_path / "arm")
    kind = {"llama": LlamaForCausalLM, "gpt2": GPT2LMHeadModel}[json.loads(config.read_text())["model_type"]]
    theirs, told = kind.from_pretrained(tmp_path / "arm", output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    with torch.no_grad():
        got = theirs.eval()(input_ids=batch.tokens).logits
        expected = model.logits(model(batch).hidden)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", EXPRESSIBLE.values(), ids=EXPRESSIBLE)
def test_what_is_exported_comes_back(architecture, tmp_path) -> None:
    model, batch = moved(architecture), random_batch(architecture)
    export_model(model, architecture, tmp_path)
    back, again = import_model(tmp_path)
    if isinstance(architecture.position, Rotary):  # rows are reordered; what is computed is the same
        architecture = architecture.vary(position=architecture.position.vary(layout="halves"))
    assert back == architecture
    with torch.no_grad():
        torch.testing.assert_close(
            again.logits(again(batch).hidden), model.logits(model(batch).hidden), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_model_saved_by_transformers_is_read(family: str, tied: bool, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 61, "tie_word_embeddings": tied}
    if family == "llama":
        config = LlamaConfig(
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            attention_bias=tied,
            **sizes,
        )
        theirs = LlamaForCausalLM(config)
    else:
        theirs = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=24, **sizes))
    with torch.no_grad():  # they start at zero, where a lost one would not be noticed
        for name, parameter in theirs.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(torch.linspace(-1, 1, len(parameter)).sin())
    theirs.eval().save_pretrained(tmp_path)
    architecture, model = import_model(tmp_path)
    batch = random_batch(architecture.vary(context=16))
    with torch.no_grad():
        expected = theirs(input_ids=batch.tokens).logits
        torch.testing.assert_close(model.eval().logits(model(batch).hidden), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "prevents"),
    [
        (LLAMA.vary(position=Alibi()), r"Llama: position is alibi, expected rotary\. GPT-2: position is alibi"),
        (LLAMA.vary(norm=LayerNorm()), "Llama: norm is layer_norm, expected rms_norm"),
        (LLAMA.vary(feed_forward=Gelu(width=40)), "Llama: feed_forward is gelu, expected swiglu"),
        (LLAMA.vary(residual=PostNorm()), "Llama: residual is post_norm, expected pre_norm"),
        (LLAMA.vary(sharing=Shared()), "Llama: sharing is shared, expected none"),
        (LLAMA.vary(residual=Parallel()), "Llama: residual is parallel, expected pre_norm"),
        (LLAMA.vary(attention=MultiHead(heads=4, window=8)), "Llama: attention.window is 8, expected None"),
        (LLAMA.vary(attention=MultiHead(heads=4, query_key_norm=True)), "attention.query_key_norm is True"),
        (GPT2.vary(feed_forward=Gelu(width=72)), "GPT-2: feed_forward.bias is False, expected True"),
        (GPT2.vary(attention=MultiHead(heads=4, key_value_heads=2)), "GPT-2: attention.key_value_heads is 2"),
        (GPT2.vary(attention=MultiHead(heads=4)), r"GPT-2: attention\.bias is False, expected True"),
        (
            GPT2.vary(feed_forward=LeakyReLU(width=72, bias=True, slope=0.2)),
            "GPT-2: feed_forward.slope is 0.2, expected",
        ),
        (GPT2.vary(norm=LayerNorm(bias=False)), r"GPT-2: norm\.bias is False, expected True"),
    ],
)
def test_what_neither_can_express_is_refused_with_the_field_that_prevents_it(architecture, prevents, tmp_path) -> None:
    with pytest.raises(ValueError, match=prevents):
        export_model(moved(architecture), architecture, tmp_path / "arm")
    assert not (tmp_path / "arm").exists()


def test_presets_that_can_be_published_are_those_with_rotary_or_gpt2() -> None:
    published = set()
    for name in presets():
        try:
            configuration(preset(name).architecture)
        except ValueError:
            continue
        published.add(name)
    plain = {"position": "rotary", "feed_forward": "swiglu", "sharing": "none", "embedding": "table"}
    rotary = {
        name
        for name, one in presets().items()
        if all(getattr(one.architecture, axis).kind == kind for axis, kind in plain.items())
    }
    assert {"stlm-50m", "tinyllama-1.1b", "stlm-sharing-untied"} < rotary
    assert published == rotary | {name for name in presets() if name.startswith("gpt2")}


def test_dropout_and_initialisation_do_not_prevent_an_export() -> None:
    assert configuration(GPT2.vary(dropout=Dropout(residual=0.1)))["resid_pdrop"] == 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "model_type: expected one of llama, gpt2, got 'mamba'"),
        ({"hidden_act": "tanh"}, "hidden_act: expected one of silu, gelu, relu, got 'tanh'"),
        ({"head_dim": 64}, "head_dim: expected one of None, 8, got 64"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type: expected default or linear, got 'yarn'"),
    ],
)
def test_a_configuration_that_asks_for_what_we_do_not_have_is_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        read_configuration(configuration(LLAMA) | changes)


def test_a_configuration_without_its_sizes_is_refused() -> None:
    written = configuration(GPT2)
    del written["n_layer"]
    with pytest.raises(ValueError, match="expected the field 'n_layer' of gpt2"):
        read_configuration(written)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    _, path = export_model(moved(GPT2), GPT2, tmp_path)
    weights = load_file(path)
    name = "transformer.h.1.attn.c_attn.bias"
    without_biases = {key: value for key, value in weights.items() if key != name}
    for changed, message in (
        (without_biases, r"blocks\.1\.attention\.key\.bias: expected a weight for every parameter, got none for 3"),
        (weights | {"transformer.extra.weight": torch.ones(1)}, "expected only weights that config.json implies"),
        (weights | {"transformer.ln_f.bias": torch.ones(3)}, r"final_norm.bias: expected a weight of shape \(32,\)"),
        ({key: value for key, value in weights.items() if "wpe" not in key}, "position.weight: expected a weight for"),
    ):
        save_file(changed, path)
        with pytest.raises(ValueError, match=message):
            import_model(tmp_path)
