"""show, compare and doctor: what they tell, and what they refuse."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from workbench import doctor
from workbench.cli import app, main

Typed = Callable[..., str]
ROUNDED = """
from workbench.training.recipe import Int8
ROUNDED = BASELINE.vary(stages=(*BASELINE.stages, Int8()))
SWEEP = SWEEP.model_copy(
    update={"arms": (*SWEEP.arms, Arm(name="int8", axis="stages.1", configuration=ROUNDED))}
)
"""


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Type a command; return its output, blanks squeezed."""
    monkeypatch.setattr("workbench.terminal.console.width", 300)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == code, (done.output, done.exception)
        return "\n".join(" ".join(line.split()) for line in done.output.splitlines())

    return run


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type a command that must fail as a user's mistake does."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["workbench", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        return capsys.readouterr().err

    return run


def test_show_lists_the_presets(typed: Typed) -> None:
    told = typed("show")
    assert "stlm-50m 49,857,536 1 STLM Table 1" in told
    assert "tinyllama-1.1b 1,100,048,384 TinyLlama's public code" in told


def test_show_tells_parts_flops_memory_and_what_is_assumed(typed: Typed) -> None:
    told = typed("show", "stlm-50m")
    assert "embedding 25,731,584 51.6%" in told
    assert "6N 99,715,072 299,145,216" in told
    assert "Memory: 760.8 MiB of states" in told
    assert "A100 312 400,384 42 min" in told
    assert "initialisation: the paper names none" in told
    assert "Assumed" not in typed("show", "tinyllama-120m")


def test_show_scales_to_a_budget_and_says_what_it_changed(typed: Typed, refused: Typed) -> None:
    told = typed("show", "stlm-50m", "--parameters", "4M", "--vocabulary", "4096")
    assert "stlm-50m 3,991,808 parameters" in told
    assert "width: 512 → 256, to meet the budget" in told
    assert "no model of these proportions" in refused("show", "stlm-50m", "--parameters", "1M")
    assert "belong to --parameters" in refused("show", "stlm-50m", "--vocabulary", "4096")
    assert "expected: a positive one, as 4M or 1.5B" in refused("show", "stlm-50m", "--parameters", "many")


def test_show_tells_that_a_claim_is_impossible(typed: Typed, refused: Typed) -> None:
    claim = ("--gpus", "8", "--gpu", "A100", "--hours", "192")
    assert "6N 90,422 740 237% impossible" in typed("show", "lokilm-1.4b", "--tokens", "500B", *claim)
    possible = ("--tokens", "3T", "--gpus", "16", "--gpu", "A100", "--hours", "2160")
    assert "6N 24,113 159 51% possible" in typed("show", "tinyllama-1.1b", *possible)
    unknown = ("--tokens", "3T", "--gpus", "16", "--gpu", "abacus", "--hours", "2160")
    assert "? unknown: no peak is known" in typed("show", "tinyllama-1.1b", *unknown)
    assert "a claim needs all of its figures" in refused("show", "lokilm-1.4b", *claim)


def test_compare_tells_fields_parameters_flops_and_pairing(typed: Typed) -> None:
    told = typed("compare", "stlm-50m", "stlm-50m-simple-ffn")
    assert "feed_forward.kind swiglu gelu" in told
    assert "total 49,857,536 49,857,536 +0" in told
    assert "FLOPs/token 311,700,480 311,700,480 +0.0%" in told
    assert "62.1% of the second's parameters" in told
    assert "Every field is equal" in typed("compare", "stlm-50m", "stlm-50m")


def test_the_examples_of_the_help_can_be_typed_as_they_stand(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = []
    for command in get_command(app).commands:  # type: ignore[attr-defined]
        told = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
        examples += re.findall(r"^ *workbench ((?:show|compare|export-model|generate) .*?) *$", told, re.MULTILINE)
    assert {example.split()[0] for example in examples} == {"show", "compare", "export-model", "generate"}

    def reached(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("workbench.session.open_session", reached)  # which prepares, and comes after every refusal
    for example in examples:
        typed(*shlex.split(example), code=130 if example.startswith(("export-model", "generate")) else 0)


def test_arms_of_a_sweep_are_compared_as_whole_configurations(typed: Typed, sweep_file: Path) -> None:
    told = typed("compare", f"{sweep_file}:baseline", f"{sweep_file}:ALiBi")
    assert "architecture.position.kind rotary alibi" in told
    assert "100.0% of the second's parameters" in told
    assert "position.kind rotary learned" in typed("compare", f"{sweep_file}:baseline", "gpt2-1m")


def test_what_is_neither_preset_nor_arm_is_refused(refused: Typed, sweep_file: Path) -> None:
    assert "stlm-50m, stlm-47m" in refused("show", "stlm-51m")
    assert "expected: baseline, ALiBi, again" in refused("show", f"{sweep_file}:Alibi")
    assert "no sweep 'nowhere'" in refused("compare", "nowhere:arm", "stlm-1m")


def test_a_trained_arm_is_exported_for_transformers(
    typed: Typed, refused: Typed, sweep_file: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file
    from transformers import LlamaForCausalLM

    sweep_file.write_text(
        sweep_file.read_text().replace("Gelu(width", "SwiGLU(width").replace("import Gelu", "import SwiGLU") + ROUNDED
    )
    arm, home = f"{sweep_file}:baseline", str(tmp_path / "home")
    untrained = refused("export-model", arm, "--out", str(tmp_path / "out"), "--home", home)
    assert "baseline, seed 0 is not trained yet" in untrained
    typed("run", str(sweep_file), "--cell", "0", "--home", home)
    told = typed("export-model", arm, "--out", str(tmp_path / "out"), "--home", home)
    assert told.endswith("tokenizer_config.json")
    model, problems = LlamaForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not problems["missing_keys"]
    assert model.config.hidden_size == 32
    typed("export-model", f"{sweep_file}:int8", "--out", str(tmp_path / "int8"), "--home", home)
    weights = [load_file(tmp_path / folder / "model.safetensors") for folder in ("out", "int8")]
    rounded = [one["model.layers.0.mlp.gate_proj.weight"] for one in weights]
    assert 0 < float((rounded[0] - rounded[1]).abs().max()) < 0.01 * float(rounded[0].abs().max())
    alibi = refused("export-model", f"{sweep_file}:ALiBi", "--out", str(tmp_path / "alibi"), "--home", home)
    assert "position is alibi, expected rotary" in alibi
    assert "expected: 0, 1" in refused("export-model", arm, "--seed", "9", "--out", str(tmp_path), "--home", home)


def test_the_doctor_finds_nothing_broken_here_and_leaves_nothing_behind(typed: Typed, tmp_path: Path) -> None:
    home = tmp_path / "not" / "yet"
    told = typed("doctor", "--home", str(home))
    assert "ok attention: sdpa works, forward and backward" in told
    assert "absent attention: flash" in told or "ok attention: flash" in told
    assert "Nothing is broken." in told
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_fails_where_something_is_broken(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    told = typed("doctor", "--home", str(tmp_path / "file"), code=1)
    assert "broken runtime folder" in told
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    found = {check.name: check for check in [doctor._tracking(tmp_path)]}
    assert found["MLflow"].state == "broken"
    assert "http://127.0.0.1:9 does not answer" in found["MLflow"].told


def test_an_option_that_is_not_installed_is_absent_and_says_how_to_add_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert [check.state for check in doctor._torch()] == ["absent"]
    check = doctor._extra("flash")
    assert (check.state, "ablation-workbench[flash]" in check.told) == ("absent", True)


def test_a_backend_that_does_not_compute_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from architectures import backends

    def fail(*arguments: object) -> None:
        raise RuntimeError("no kernel image")

    broken = backends.Backend(fail, lambda case: None)  # type: ignore[arg-type]
    monkeypatch.setitem(backends.BACKENDS, "sdpa", broken)
    found = {check.name: check for check in doctor._torch()}
    assert found["attention: sdpa"].state == "broken"
    assert "fails: no kernel image" in found["attention: sdpa"].told
