"""Models to and from the format of Hugging Face `transformers`: config.json and model.safetensors, Llama or GPT-2.

Promises that logits stay what they are. What can be expressed is decided by a round trip: an architecture is exported
only if reading its config.json back gives the same architecture, so that a field added later is refused, not lost.
Rotary pairs laid out as 2i and 2i + 1 are exported by reordering the rows of queries and keys, which changes nothing
that is computed. Initialisation and dropout have no part in a trained model and come back as defaults.

Refuses an architecture that neither family can express, naming the fields that prevent it, and on reading a
config.json that asks for what we do not have, or weights that do not fit. Needs the safetensors library.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.component import Component
from architectures.embeddings import Table
from architectures.feedforward import GEGLU, Gelu, LeakyReLU, ReGLU, ReLU, Sigmoid, SiLU, SquaredReLU, SwiGLU, Tanh
from architectures.norms import LayerNorm, RMSNorm
from architectures.positions import Learned, Rotary
from architectures.transformer import Transformer

GATED: dict[str, type[SwiGLU | GEGLU | ReGLU]] = {"silu": SwiGLU, "gelu": GEGLU, "relu": ReGLU}
TWO_LAYER: dict[str, type[ReLU | LeakyReLU | SiLU | SquaredReLU | Tanh | Sigmoid]] = {
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "silu": SiLU,
    "relu2": SquaredReLU,
    "tanh": Tanh,
    "sigmoid": Sigmoid,
}
GELU: dict[str, str] = {"gelu": "none", "gelu_new": "tanh"}
LLAMA = {
    "embedding.weight": "model.embed_tokens.weight",
    "final_norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
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
GPT2 = {
    "embedding.weight": "transformer.wte.weight",
    "position.weight": "transformer.wpe.weight",
    "final_norm.weight": "transformer.ln_f.weight",
    "final_norm.bias": "transformer.ln_f.bias",
    "head.weight": "lm_head.weight",
    "attention.output": "attn.c_proj",
    "attention_norm": "ln_1",
    "feed_forward_norm": "ln_2",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
}
FUSED = ("query", "key", "value")  # GPT-2 keeps them in one matrix, attn.c_attn


def configuration(architecture: Architecture) -> dict[str, Any]:
    """Return the config.json of an architecture.

    Raises:
        ValueError: if neither Llama nor GPT-2 can express it, with the fields that prevent each.
    """
    reasons = []
    for family, write in (("Llama", _llama_configuration), ("GPT-2", _gpt2_configuration)):
        written = write(architecture)
        prevented = list(_differences(architecture, read_configuration(written)))
        if not prevented:
            return written
        reasons.append(f"{family}: {'; '.join(prevented)}")
    raise ValueError(f"architecture: expected one that Llama or GPT-2 can express, got {'. '.join(reasons)}")


def read_configuration(written: Mapping[str, Any]) -> Architecture:
    """Return the architecture that a config.json describes.

    Raises:
        ValueError: for a family or a setting that we do not have.
    """
    readers = {"llama": _read_llama, "gpt2": _read_gpt2}
    family = written.get("model_type")
    if family not in readers:
        raise ValueError(f"config.json, model_type: expected one of {', '.join(readers)}, got {family!r}")
    try:
        return readers[family](written)
    except KeyError as missing:
        raise ValueError(f"config.json: expected the field {missing} of {family}, got none") from None


def export_model(
    model: Transformer, architecture: Architecture, folder: Path, *, end_of_text: int | None = None
) -> tuple[Path, Path]:
    """Write config.json and model.safetensors, which `transformers` loads with `from_pretrained`.

    Args:
        model: The trained model.
        architecture: What built it.
        folder: Made if it is not there.
        end_of_text: The token that stands before and after every document; generation begins and ends with it.

    Raises:
        ValueError: if neither Llama nor GPT-2 can express the architecture; nothing is written then.
    """
    from safetensors.torch import save_file

    written = configuration(architecture) | {"bos_token_id": end_of_text, "eos_token_id": end_of_text}
    ours = {name: value.detach().float().cpu() for name, value in model.named_parameters()}
    theirs = _to_llama(ours, architecture) if written["model_type"] == "llama" else _to_gpt2(ours, architecture)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "config.json", folder / "model.safetensors"
    paths[0].write_text(json.dumps(written, indent=2) + "\n")
    save_file({name: value.contiguous() for name, value in theirs.items()}, paths[1], metadata={"format": "pt"})
    return paths


def import_model(folder: Path) -> tuple[Architecture, Transformer]:
    """Read config.json and all *.safetensors of a folder into a model in float32 on the CPU.

    Raises:
        ValueError: for what we do not have, and for weights that are missing, left over or of another shape.
        OSError: if a file cannot be read.
    """
    from safetensors.torch import load_file

    written = json.loads((folder / "config.json").read_text())
    architecture = read_configuration(written)
    theirs: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        theirs |= load_file(path)
    ours = _from_llama(theirs) if written["model_type"] == "llama" else _from_gpt2(theirs, architecture)
    if getattr(architecture.embedding, "tied", False):
        ours.pop("head.weight", None)  # some files hold the table twice
    model = architecture.build()
    _fill(model, ours)
    return architecture, model


def _fill(model: Transformer, weights: Mapping[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    if missing := sorted(parameters.keys() - weights.keys()):
        raise ValueError(f"{missing[0]}: expected a weight for every parameter, got none for {len(missing)} of them")
    if extra := sorted(weights.keys() - parameters.keys()):
        raise ValueError(f"{extra[0]}: expected only weights that config.json implies, got {len(extra)} others")
    for name, parameter in parameters.items():
        if weights[name].shape != parameter.shape:
            expected, got = tuple(parameter.shape), tuple(weights[name].shape)
            raise ValueError(f"{name}: expected a weight of shape {expected}, got {got}")
        with torch.no_grad():
            parameter.copy_(weights[name])


def _differences(wanted: Architecture, expressed: Architecture) -> Iterator[str]:
    """Word what the family's nearest architecture has otherwise; what has no effect on a trained model is left out."""
    if isinstance(wanted.position, Rotary) and isinstance(expressed.position, Rotary):
        wanted = wanted.vary(position=wanted.position.vary(layout=expressed.position.layout))
    for axis in type(wanted).model_fields:
        held, other = getattr(wanted, axis), getattr(expressed, axis)
        if axis in ("initialisation", "dropout") or held == other:
            continue
        if not isinstance(held, Component) or type(held) is not type(other):
            yield f"{axis} is {_named(held)}, expected {_named(other)}"
            continue
        for field in type(held).model_fields:
            if getattr(held, field) != getattr(other, field):
                yield f"{axis}.{field} is {_named(getattr(held, field))}, expected {_named(getattr(other, field))}"


def _named(value: object) -> str:
    return str(getattr(value, "kind", value))


def _llama_configuration(architecture: Architecture) -> dict[str, Any]:
    position, feed_forward = architecture.position, architecture.feed_forward
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": getattr(position, "base", 10_000.0)}
    if (condense := getattr(position, "condense", 1.0)) != 1.0:
        rope |= {"rope_type": "linear", "factor": condense}
    activation = next((name for name, kind in GATED.items() if isinstance(feed_forward, kind)), "silu")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": architecture.width,
        "intermediate_size": getattr(feed_forward, "width", architecture.width),
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.attention.heads,
        "num_key_value_heads": architecture.attention.key_value_heads or architecture.attention.heads,
        "max_position_embeddings": architecture.context,
        "vocab_size": architecture.vocabulary,
        "rms_norm_eps": getattr(architecture.norm, "epsilon", 1e-5),
        "rope_parameters": rope,
        "hidden_act": activation,
        "mlp_bias": getattr(feed_forward, "bias", False),
        "attention_bias": getattr(architecture.attention, "bias", False),
        "tie_word_embeddings": getattr(architecture.embedding, "tied", True),
        **_COMMON,
    }


def _gpt2_configuration(architecture: Architecture) -> dict[str, Any]:
    feed_forward = architecture.feed_forward
    activation = next((name for name, kind in TWO_LAYER.items() if isinstance(feed_forward, kind)), "gelu_new")
    if isinstance(feed_forward, Gelu):
        activation = next(name for name, known in GELU.items() if known == feed_forward.approximation)
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": architecture.width,
        "n_inner": getattr(feed_forward, "width", architecture.width),
        "n_layer": architecture.layers,
        "n_head": architecture.attention.heads,
        "n_positions": architecture.context,
        "vocab_size": architecture.vocabulary,
        "layer_norm_epsilon": getattr(architecture.norm, "epsilon", 1e-5),
        "activation_function": activation,
        "embd_pdrop": architecture.dropout.embedding,
        "attn_pdrop": architecture.dropout.attention,
        "resid_pdrop": architecture.dropout.residual,
        "tie_word_embeddings": getattr(architecture.embedding, "tied", True),
        **_COMMON,
    }


# the ids that transformers assumes may lie outside our vocabulary
_COMMON = {"dtype": "float32", "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def _read_llama(written: Mapping[str, Any]) -> Architecture:
    heads = written["num_attention_heads"]
    rope = written.get("rope_parameters") or written.get("rope_scaling") or {}
    scaling = rope.get("rope_type", rope.get("type", "default"))
    _known(written, "hidden_act", GATED, "silu")
    _known(written, "head_dim", (None, written["hidden_size"] // heads), None)
    if scaling not in ("default", "linear"):
        raise ValueError(f"config.json, rope_parameters.rope_type: expected default or linear, got {scaling!r}")
    base = rope.get("rope_theta", written.get("rope_theta", 10_000.0))
    gate = GATED[written.get("hidden_act", "silu")]
    return Architecture(
        width=written["hidden_size"],
        layers=written["num_hidden_layers"],
        context=written.get("max_position_embeddings", 2048),
        vocabulary=written["vocab_size"],
        position=Rotary(base=base, condense=rope.get("factor", 1.0) if scaling == "linear" else 1.0),
        attention=MultiHead(
            heads=heads,
            key_value_heads=written.get("num_key_value_heads"),
            bias=written.get("attention_bias", False),
        ),
        feed_forward=gate(width=written["intermediate_size"], bias=written.get("mlp_bias", False)),
        norm=RMSNorm(epsilon=written.get("rms_norm_eps", 1e-6)),
        embedding=Table(tied=written.get("tie_word_embeddings", False)),
    )


def _read_gpt2(written: Mapping[str, Any]) -> Architecture:
    _known(written, "activation_function", (*GELU, *TWO_LAYER), "gelu_new")
    _known(written, "scale_attn_weights", (True,), True)
    _known(written, "scale_attn_by_inverse_layer_idx", (False,), False)
    _known(written, "add_cross_attention", (False,), False)
    activation = written.get("activation_function", "gelu_new")
    inner = written.get("n_inner") or 4 * written["n_embd"]
    return Architecture(
        width=written["n_embd"],
        layers=written["n_layer"],
        context=written.get("n_positions", 1024),
        vocabulary=written["vocab_size"],
        position=Learned(),
        attention=MultiHead(heads=written["n_head"], bias=True),
        feed_forward=(
            Gelu.model_validate({"width": inner, "bias": True, "approximation": GELU[activation]})
            if activation in GELU
            else TWO_LAYER[activation](width=inner, bias=True)
        ),
        norm=LayerNorm(epsilon=written.get("layer_norm_epsilon", 1e-5)),
        embedding=Table(tied=written.get("tie_word_embeddings", True)),
    )


def _known(written: Mapping[str, Any], name: str, values: Any, default: object) -> None:
    got = written.get(name, default)
    if got not in values:
        raise ValueError(f"config.json, {name}: expected one of {', '.join(map(str, values))}, got {got!r}")


def _to_llama(ours: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    interleaved = getattr(architecture.position, "layout", "halves") == "interleaved"
    head_width = architecture.width // architecture.attention.heads
    theirs = {}
    for name, value in ours.items():
        if interleaved and name.rpartition(".")[0].endswith(("attention.query", "attention.key")):
            pairs = value.view(-1, head_width // 2, 2, *value.shape[1:])
            value = pairs.transpose(1, 2).reshape(value.shape)
        theirs[_renamed(name, "blocks.", "model.layers.", LLAMA)] = value
    return theirs


def _from_llama(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = {value: name for name, value in LLAMA.items()}
    kept = {name: value for name, value in theirs.items() if not name.endswith("rotary_emb.inv_freq")}
    return {_renamed(name, "model.layers.", "blocks.", names): value for name, value in kept.items()}


def _to_gpt2(ours: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    theirs = {}
    for name, value in ours.items():
        if not name.rpartition(".")[0].endswith(tuple(f"attention.{part}" for part in FUSED)):
            # GPT-2 multiplies from the other side
            turned = value.T if value.dim() == 2 and name.startswith("blocks.") else value
            theirs[_renamed(name, "blocks.", "transformer.h.", GPT2)] = turned
    for layer in range(architecture.layers):
        for kind in ("weight", "bias"):
            fused = torch.cat([ours[f"blocks.{layer}.attention.{part}.{kind}"] for part in FUSED])
            theirs[f"transformer.h.{layer}.attn.c_attn.{kind}"] = fused.T if kind == "weight" else fused
    return theirs


def _from_gpt2(theirs: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    names, ours = {value: name for name, value in GPT2.items()}, {}
    for told, value in theirs.items():
        name = told if told.startswith(("transformer.", "lm_head.")) else f"transformer.{told}"
        if name.endswith((".attn.bias", ".attn.masked_bias")):  # the causal mask, in old files
            continue
        turned = value.T if value.dim() == 2 and name.startswith("transformer.h.") else value
        stem, _, kind = name.rpartition(".")
        if stem.endswith("attn.c_attn"):
            block = f"blocks.{name.split('.')[2]}.attention"
            for part, piece in zip(FUSED, torch.split(turned, architecture.width), strict=True):
                ours[f"{block}.{part}.{kind}"] = piece
        else:
            ours[_renamed(name, "transformer.h.", "blocks.", names)] = turned
    return ours


def _renamed(name: str, ours: str, theirs: str, names: Mapping[str, str]) -> str:
    """Translate a parameter's name; one that is unknown keeps its name, and is refused where weights are filled in."""
    if name in names:
        return names[name]
    if not name.startswith(ours):
        return name
    layer, _, role = name.removeprefix(ours).partition(".")
    stem, _, kind = role.rpartition(".")
    return f"{theirs}{layer}.{names.get(stem, stem)}.{kind}"
