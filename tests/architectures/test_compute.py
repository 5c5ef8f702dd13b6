"""FLOPs, utilisation, memory and plausibility against published figures and what torch really keeps."""

from __future__ import annotations

import pytest
import torch

from architectures.accounting import parameters
from architectures.attention import MultiHead
from architectures.compute import (
    DEVICES,
    device_named,
    flops_by_formula,
    memory,
    mfu,
    plausibility,
    six_n,
    utilisation,
)
from architectures.depth import LayerSkip, MixtureOfDepths
from architectures.dropout import Dropout
from architectures.embeddings import Table
from architectures.feedforward import SwiGLU
from architectures.presets import preset, tiny
from architectures.specimens import random_batch, started
from workbench.training.optimizers import AdamW, Lion, Muon, make_optimizer

A100 = device_named("A100")


def test_utilisation_of_tinyllama_depends_on_the_formula_as_published() -> None:
    flops = flops_by_formula(preset("tinyllama-1.1b").architecture)
    assert A100 is not None
    assert flops["6N + attention"].training == pytest.approx(7.708e9, rel=1e-4)
    assert utilisation(24_000, flops["6N + attention"], A100) == pytest.approx(0.593, abs=5e-4)
    assert utilisation(24_000, flops["6N"], A100) == pytest.approx(0.508, abs=5e-4)
    assert utilisation(22_700, flops["6N + attention"], A100) == pytest.approx(0.56, abs=1e-3)
    assert flops["6N"].training < flops["exact"].training + 6 * 32_000 * 2048 < flops["6N + attention"].training


def test_the_compute_that_lokilm_states_is_impossible() -> None:
    stated = plausibility(tokens=500e9, count=1.4e9, devices=8, hours=8 * 24, device="A100")
    assert stated.verdict == "impossible"
    assert stated.tokens_per_second == pytest.approx(90_422, rel=1e-5)
    assert stated.flops_per_second == pytest.approx(760e12, rel=1e-3)
    assert stated.utilisation == pytest.approx(2.434, abs=1e-3)


def test_the_compute_that_tinyllama_states_is_possible() -> None:
    stated = plausibility(tokens=3e12, count=1.1e9, devices=16, hours=90 * 24, device="NVIDIA A100-SXM4-40GB")
    assert stated.verdict == "possible"
    assert stated.tokens_per_second == pytest.approx(24_100, rel=1e-3)
    assert stated.utilisation == pytest.approx(0.51, abs=0.01)
    assert stated.formula.startswith("6N")


def test_a_claim_between_well_tuned_and_peak_is_doubtful() -> None:
    assert A100 is not None
    tokens = 0.8 * A100.peak / six_n(1e9).training * 3600
    assert plausibility(tokens=tokens, count=1e9, devices=1, hours=1, device="A100").verdict == "doubtful"


def test_an_unknown_device_is_said_to_be_unknown() -> None:
    stated = plausibility(tokens=1e9, count=1e9, devices=1, hours=1, device="abacus")
    assert (stated.verdict, stated.utilisation) == ("unknown", None)
    with pytest.raises(ValueError, match="hours: expected a positive number, got 0"):
        plausibility(tokens=1e9, count=1e9, devices=1, hours=0, device="A100")


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A1000", None),
        ("", None),
    ],
)
def test_a_device_is_known_by_the_name_that_its_driver_tells(told: str, name: str | None) -> None:
    found = device_named(told)
    assert (found.name if found else None) == name


def test_every_device_is_found_by_its_own_name_and_has_a_source() -> None:
    for device in DEVICES:
        assert device_named(device.name) is device
        assert device.source


@pytest.mark.parametrize(
    ("tied", "share"), [(True, 0.310), (False, 0.473)]
)  # STLM section 5.2 prints 45.20 % and 62.25 %: both over the wrong denominator
def test_the_share_of_embeddings_in_gpt2_is_not_what_stlm_prints(tied: bool, share: float) -> None:
    counts = parameters(preset("gpt2-small").architecture.vary(embedding=Table(tied=tied)))
    found = (counts["embedding"] + counts["head"]) / counts["total"]
    assert found == pytest.approx(share, abs=1e-3)


def test_mfu_names_its_formula_and_is_of_all_devices_together() -> None:
    tinyllama = preset("tinyllama-1.1b").architecture
    # 24k tokens/s on one A100 by lit-gpt's estimate and by 6N, as recomputed in the literature
    assert mfu(24_000, tinyllama, "A100", formula="6N + attention") == pytest.approx(0.593, abs=0.002)
    assert mfu(24_000, tinyllama, "NVIDIA A100-SXM4-40GB", formula="6N") == pytest.approx(0.508, abs=0.002)
    exact = flops_by_formula(tinyllama)["exact"]
    assert mfu(96_000, tinyllama, "A100", devices=4) == pytest.approx(24_000 * exact.training / 312e12)
    assert mfu(24_000, tinyllama, "a processor") is None
    with pytest.raises(ValueError, match="expected one of exact, 6N, 6N \\+ attention, got '8N'"):
        mfu(1, tinyllama, "A100", formula="8N")


@pytest.mark.parametrize(
    "architecture",
    [
        tiny(),
        tiny().vary(attention=MultiHead(heads=4, key_value_heads=1), feed_forward=SwiGLU(width=256), layers=3),
        preset("gpt2-1m").architecture.vary(dropout=Dropout()),
        tiny().vary(layers=6, depth=MixtureOfDepths(capacity=0.125)),
        tiny().vary(layers=4, depth=LayerSkip(dropout=0.0)),
    ],
)
def test_activation_memory_is_near_what_torch_keeps(architecture) -> None:
    model, batch = started(architecture), random_batch(architecture, sequences=2)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.dtype == torch.float32:
            kept[storage.data_ptr()] = storage  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(batch)
        nats = model.nats(output, batch)
        model.penalties(output, batch, nats)
    measured = sum(storage.nbytes() for storage in kept.values())
    assert nats.shape == (2, architecture.context)
    assert memory(architecture, 2, precision="float32").activations == pytest.approx(measured, rel=0.1)


def test_memory_names_its_formula_and_refuses_an_unknown_precision() -> None:
    needed = memory(tiny(), 1)
    assert needed.states == 16 * parameters(tiny())["total"]
    assert "16 bytes per parameter" in needed.formula
    assert memory(tiny(), 4).activations == 4 * needed.activations
    with pytest.raises(ValueError, match="expected one of bfloat16, float32, got 'int8'"):
        memory(tiny(), 1, precision="int8")


@pytest.mark.parametrize("optimizer", [AdamW(), Lion(), Muon()], ids=["AdamW", "Lion", "Muon"])
def test_states_are_weights_gradients_and_what_the_optimizer_really_keeps(optimizer) -> None:
    architecture = tiny()
    model, name = started(architecture), type(optimizer).__name__
    built = make_optimizer(model, optimizer)
    batch = random_batch(architecture, sequences=1)
    model.nats(model(batch), batch).mean().backward()
    built.step()
    tensors = [value for state in built.state.values() for value in state.values() if torch.is_tensor(value)]
    kept = sum(tensor.nbytes for tensor in tensors if tensor.numel() > 1)  # the rest are counts of steps
    counted = memory(architecture, 1, optimizer=name, moments=optimizer.moments)
    assert counted.states == 8 * parameters(architecture)["total"] + kept
    assert f"what {name} keeps" in counted.formula
