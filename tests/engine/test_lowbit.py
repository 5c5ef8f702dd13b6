"""Eight bits: what is refused where, and with torchao the optimizer, the checkpoints and the matrix products."""

from __future__ import annotations

import copy
import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from architectures.presets import tiny
from architectures.sharing import Shared
from architectures.specimens import random_batch, started
from sweeps import optimizers
from workbench.errors import MissingExtra, PlanError
from workbench.identity import digest
from workbench.records import Numerics
from workbench.session import session_of
from workbench.sweep import NumericsRequest
from workbench.training.checkpoints import Progress, load_checkpoint, save_checkpoint
from workbench.training.lowbit import FewBits, in_few_bits, misfit, refuse_unsupported
from workbench.training.optimizers import AdamW, Lion, make_optimizer
from workbench.training.recipe import Pretraining

PLAIN = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1)
EIGHT = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1, matmul="int8")
SMALL = tiny().vary(layers=1)
with_torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="torchao is not installed (extra lowbit)"
)


def trained(architecture=SMALL, optimizer=None):
    return SimpleNamespace(architecture=architecture, training=[Pretraining(optimizer=optimizer or AdamW())])


def one_step(model, optimizer, batch) -> float:
    optimizer.zero_grad()
    loss = model.nats(model(batch), batch).mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def weights(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_switches_that_are_off_leave_every_identity_as_it_was() -> None:
    without = {"execution": "loop", "attention": "sdpa", "precision": "float32", "device": "cpu", "threads": 1}
    assert digest(PLAIN) == digest(without) != digest(EIGHT)
    assert digest(AdamW(states="float32")) == digest(AdamW()) != digest(AdamW(states="int8"))


def test_fp8_is_refused_on_a_cpu_and_names_what_it_needs() -> None:
    with pytest.raises(PlanError, match=r"(?s)matmul fp8.*compute capability 8.9 or more.*got:\s+a CPU"):
        refuse_unsupported([trained()], PLAIN.model_copy(update={"matmul": "fp8"}))


def test_a_sweep_that_asks_for_what_the_machine_lacks_is_not_planned(tmp_path) -> None:
    wanted = optimizers.SWEEP.model_copy(update={"numerics": NumericsRequest(device="cpu", matmul="fp8")})
    with pytest.raises(PlanError, match="no such arithmetic"):
        session_of(wanted, tmp_path)


@pytest.mark.parametrize(
    ("architecture", "named"),
    [
        (SMALL.vary(layers=2, sharing=Shared()), "Linear, which is not a plain"),
        (SMALL.vary(width=136), "no multiples of 16"),
    ],
    ids=["shared layers", "odd sides"],
)
def test_an_arm_whose_matrices_would_be_left_out_is_refused_by_name(architecture, named: str) -> None:
    with pytest.raises(PlanError, match=named):
        refuse_unsupported([trained(), trained(architecture)], EIGHT)


@pytest.mark.parametrize("change", [{"execution": "stacked"}, {"devices": 2, "sharded": True}])
def test_stacked_and_sharded_models_are_refused(change) -> None:
    with pytest.raises(PlanError, match="whole models, one at a time"):
        refuse_unsupported([trained(optimizer=AdamW(states="int8"))], PLAIN.model_copy(update=change))


def test_without_torchao_the_extra_is_named_and_nothing_else_needs_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    refuse_unsupported([trained(), trained(optimizer=Lion())], PLAIN)
    for configuration, numerics in ((trained(optimizer=AdamW(states="int8")), PLAIN), (trained(), EIGHT)):
        with pytest.raises(MissingExtra, match=r"ablation-workbench\[lowbit\]"):
            refuse_unsupported([configuration], numerics)
    with pytest.raises(MissingExtra):
        make_optimizer(started(SMALL), AdamW(states="int8"))


def test_a_plain_model_has_no_misfit_and_is_left_as_it_is() -> None:
    model = started(SMALL)
    assert misfit(SMALL) is None
    assert in_few_bits(model, "same") is model
    assert not any(isinstance(module, FewBits) for module in model.modules())


@with_torchao
def test_eight_bit_states_are_those_of_torchaos_optimizer_bit_for_bit() -> None:
    from torchao.optim import AdamW8bit

    batch, model = random_batch(SMALL, 2), started(SMALL)
    other = copy.deepcopy(model)
    ours = make_optimizer(model, AdamW(states="int8", weight_decay=0.1))
    matrices = [parameter for parameter in other.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in other.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    theirs = AdamW8bit(groups, lr=3e-3, betas=(0.9, 0.95), eps=1e-8)
    for _ in range(3):
        one_step(model, ours, batch)
        with torch.compiler.set_stance("force_eager"):
            one_step(other, theirs, batch)
    assert torch.equal(weights(model), weights(other))
    states = [value for state in ours.state.values() for value in state.values()]
    assert {type(value) for value in states} == {torch.Tensor}
    kept = sum(value.nbytes for value in states if value.numel() > 1)  # the rest are counts of steps
    assert kept < 0.3 * 8 * weights(model).numel()
    counted = [
        AdamW(states="int8").moments(name, value.shape) * value.numel() for name, value in model.named_parameters()
    ]
    assert kept == sum(counted)


@with_torchao
def test_eight_bit_states_survive_a_checkpoint_bit_for_bit(tmp_path) -> None:
    batch, model = random_batch(SMALL, 2), started(SMALL)
    optimizer = make_optimizer(model, AdamW(states="int8"))
    for _ in range(2):
        one_step(model, optimizer, batch)
    save_checkpoint(tmp_path, model, optimizer, Progress(step=2))
    again = started(SMALL.vary(layers=1))
    resumed = make_optimizer(again, AdamW(states="int8"))
    assert load_checkpoint(tmp_path, again, resumed).step == 2
    for _ in range(2):
        assert one_step(model, optimizer, batch) == one_step(again, resumed, batch)
    assert torch.equal(weights(model), weights(again))


@with_torchao
def test_eight_bit_states_do_not_hide_a_gradient_that_is_not_finite() -> None:
    model = started(SMALL)
    optimizer = make_optimizer(model, AdamW(states="int8"))
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    optimizer.step()
    assert weights(model).isnan().all()


def rounded(x: torch.Tensor) -> torch.Tensor:
    scale = x.abs().amax(dim=1, keepdim=True) / 127
    return (x / scale).round() * scale


@with_torchao
def test_int8_products_are_those_of_rows_rounded_to_127_steps_in_training_only() -> None:
    model = started(SMALL).train()
    names, before = list(model.state_dict()), weights(model)
    plain = model.blocks[0].feed_forward.up
    x = torch.randn(4, 8, plain.in_features, generator=torch.Generator().manual_seed(0))
    in_few_bits(model, "int8")
    layer = model.blocks[0].feed_forward.up
    assert list(model.state_dict()) == names
    assert torch.equal(weights(model), before)
    assert layer.weight is plain.weight
    naive = rounded(x.flatten(0, 1)) @ rounded(plain.weight.detach()).T
    torch.testing.assert_close(layer(x).flatten(0, 1), naive, rtol=1e-4, atol=1e-5)
    model.eval()
    assert torch.equal(layer(x), functional.linear(x, plain.weight))


@with_torchao
@pytest.mark.parametrize("matmul", ["int8", "fp8"])
def test_training_in_eight_bits_follows_training_in_float32(matmul: str) -> None:
    batch = random_batch(SMALL, 2)
    losses = []
    for switch in ("same", matmul):
        model = in_few_bits(started(SMALL).train(), switch, emulate=True)
        optimizer = make_optimizer(model, AdamW())
        losses.append([one_step(model, optimizer, batch) for _ in range(3)])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], abs=0.05)
