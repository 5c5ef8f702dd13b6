"""What the benchmarks compare is the same arithmetic, and what they say of a machine is read, not guessed."""

from __future__ import annotations

import pytest
import torch

from architectures.accounting import parameters
from architectures.attention import MultiHead
from architectures.dropout import Dropout
from architectures.feedforward import SwiGLU
from architectures.specimens import started
from tests.benchmarks import gpu, step_speed
from tests.benchmarks.step_speed import ARCHITECTURE, Bare, has_bfloat16, random_batch

SMALL = ARCHITECTURE.vary(
    width=16, layers=2, context=8, vocabulary=32, attention=MultiHead(heads=2), feed_forward=SwiGLU(width=24)
)


def with_weights_of(ours: dict[str, torch.Tensor], bare: Bare) -> Bare:
    fused = {"table.weight": ours["embedding.weight"], "norm.weight": ours["final_norm.weight"]}
    for layer in range(len(bare.blocks)):
        block = f"blocks.{layer}."
        held = {name.removeprefix(block): value for name, value in ours.items() if name.startswith(block)}
        projections = [held[f"attention.{name}.weight"] for name in ("query", "key", "value")]
        fused |= {
            block + "attention_norm.weight": held["attention_norm.weight"],
            block + "feed_forward_norm.weight": held["feed_forward_norm.weight"],
            block + "projections.weight": torch.cat(projections),
            block + "output.weight": held["attention.output.weight"],
            block + "gate_and_up.weight": torch.cat([held[f"feed_forward.{name}.weight"] for name in ("gate", "up")]),
            block + "down.weight": held["feed_forward.down.weight"],
        }
    bare.load_state_dict(fused, strict=False)  # what is not there are sines and cosines
    return bare


def test_bare_pytorch_has_our_parameters_loss_and_gradient() -> None:
    ours, batch = started(SMALL), random_batch(SMALL, 2)
    bare = with_weights_of(ours.state_dict(), Bare(SMALL))
    assert sum(parameter.numel() for parameter in bare.parameters()) == parameters(SMALL)["total"]
    expected, got = ours.nats(ours(batch), batch).mean(), bare(batch.tokens, batch.targets)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    expected.backward()
    got.backward()
    torch.testing.assert_close(bare.table.weight.grad, ours.embedding.weight.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "there"),
    [("flags : fma avx512f avx512_vnni", False), ("flags : avx512_bf16 fma", True), ("flags : amx_bf16", True)],
)
def test_instructions_for_bfloat16_are_read_from_the_processors_flags(tmp_path, flags: str, there: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\n{flags}\n")
    assert has_bfloat16(cpuinfo) is there
    assert not has_bfloat16(tmp_path / "none")


def test_the_step_benchmark_tells_ratios_bars_and_the_share_of_the_peak(capsys, monkeypatch) -> None:
    monkeypatch.setattr(step_speed, "CASES", ((SMALL, 2),))
    step_speed.main(["--rounds", "2", "--threads", "1"])
    told = capsys.readouterr().out
    for side in ("ours", "transformers' Llama", "bare PyTorch"):
        assert f"| E16 L2 T8 B2 V32 | 1 | {side} |" in told
    assert "% of the measured peak of" in told


def test_the_gpu_benchmark_ends_with_a_message_where_there_is_none() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(SystemExit, match="torch sees none on this machine"):
        gpu.main([])


def test_a_choice_of_the_gpu_benchmark_that_fails_is_told_and_ends_nothing(capsys, monkeypatch) -> None:
    def measure(architecture, numerics, sequences: int, steps: int) -> gpu.Measured:
        if numerics.compiled:
            raise RuntimeError("no compiler | here\nand more")
        return gpu.Measured(1000.0, 0.5, 12 * 10**9, 10 * 10**9)

    monkeypatch.setattr(gpu, "measure", measure)
    gpu.show_choices(SMALL.vary(dropout=Dropout(residual=0.1)), "cpu", 2, 1)
    told = capsys.readouterr().out
    assert "| sdpa, bfloat16 | 1,000 | 50.0% | 12.00 | 10.00 | 1.20 |" in told
    assert "| sdpa, bfloat16, compiled, with dropout | RuntimeError: no compiler / here |" in told
    assert "best MFU 50.0% (bar: 45%, met)" in told
    assert "1.20 (bar: 1.2, met)" in told


def test_the_gpu_benchmark_measures_steps_and_stacks_on_any_device(monkeypatch) -> None:
    monkeypatch.setattr(gpu, "WARMUP", 1)
    _, architecture, numerics = next(iter(gpu.choices(SMALL, "cpu")))
    found = gpu.measure(architecture, numerics, 2, 1)
    assert found.tokens_per_second > 0
    assert (found.mfu, found.peak) == (None, 0)
    assert gpu.stacked_gain(architecture, numerics, 2, 1, seeds=2) > 0
