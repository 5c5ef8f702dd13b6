"""`train` and `generate`: one run outside a sweep, found, resumed and continued by what it is called."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from workbench import meter, single, typewriter
from workbench.cli import app, main
from workbench.errors import PlanError, StatisticsError, SweepError, WorkbenchError
from workbench.loading import load_sweep
from workbench.opening import open_model
from workbench.results import Results
from workbench.session import decide, session_of
from workbench.store import Store
from workbench.sweep import NumericsRequest

Typed = Callable[..., str]
SMALL = ("--vocabulary", "300", "--context", "32", "--batch", "4", "--held-out", "0.2", "--threads", "1")
TRAIN = ("train", "tinyllama-1m", *SMALL, "--tokens", "1K")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A runtime folder in which one model was trained by the command."""
    folder = tmp_path_factory.mktemp("trained")
    done = CliRunner().invoke(
        app, [*TRAIN, "--corpus", str(corpus), "--home", str(folder), "--prompt", "[b]The", "--prompt", ""]
    )
    assert done.exit_code == 0, (done.output, done.exception)
    (folder / "told.txt").write_text(done.output)
    return folder


@pytest.fixture
def run_id(home: Path) -> str:
    (record,) = home.glob("runs/*/record.json")
    return record.parent.name


@pytest.fixture
def typed() -> Typed:
    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, [str(one) for one in arguments])
        assert done.exit_code == code, (done.output, done.exception)
        return done.output

    return run


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["workbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        return capsys.readouterr().err

    return run


def test_a_run_says_what_it_trains_and_what_came_of_it(home: Path, run_id: str) -> None:
    told = " ".join((home / "told.txt").read_text().split())
    assert "context: 128 → 32 vocabulary: 2048 → 300" in told
    assert "1,024 tokens in 8 steps: 0.0" in told
    assert "step 8/8, loss" in told
    store = Store(home)
    record = store.record(run_id)
    assert record is not None
    curve = store.curve(record)
    assert curve is not None
    assert f"loss at the last step {curve['loss'][-1].as_py():.4f} nats" in told
    assert f"bits per byte {meter.means(store.scores(record))['bits_per_byte']:.4f} on held-out text" in told
    assert f"workbench generate {run_id[:12]}" in told
    first = store.samples(record)[0]
    assert first["prompt"] == "[b]The"
    assert " ".join(typewriter.printable("[b]The" + first["text"]).split()) in told


def test_a_finished_run_is_found_and_not_trained_again(home: Path, corpus: Path, run_id: str, typed: Typed) -> None:
    weights = next(home.glob("models/*/final.safetensors"))
    before = weights.stat().st_mtime_ns
    again = (*TRAIN, "--corpus", corpus, "--home", home, "--prompt", "[b]The", "--prompt", "")
    told = typed(*again)
    assert "8/8" not in told
    assert run_id in told
    assert weights.stat().st_mtime_ns == before
    assert [path.parent.name for path in home.glob("runs/*/record.json")] == [run_id]


def test_a_single_run_is_a_plan_that_compares_nothing(home: Path) -> None:
    (document,) = Store(home).plans()
    assert (document["design"], document["sweep"], document["baseline"]) == ("single", "train", "tinyllama-1m")
    assert (document["detectable"], len(document["trials"])) == (None, 1)
    results = Results(Store(home), tracked=False)
    assert len(results.records(document)) == 1
    with pytest.raises(PlanError, match="there is no plan yet"):
        results.plan(None)  # what is published unless something else is asked for
    with pytest.raises(StatisticsError, match="a single run is compared with nothing"):
        decide(results, results.plan("train"))


def test_the_run_of_a_sweep_is_found_by_train_and_the_reverse(
    sweep_file: Path, tmp_path: Path, typed: Typed, corpus: Path
) -> None:
    home = tmp_path / "home"
    typed("run", sweep_file, "--cell", "0", "--home", home)
    assert "all steps done" not in typed("train", f"{sweep_file}:baseline", "--home", home, "--threads", "1")
    (sample,) = typed("generate", f"{sweep_file}:baseline", "--home", home, "--tokens", "5").splitlines()[:1]
    assert typed("generate", f"{sweep_file}:baseline:0", "--home", home, "--tokens", "5").startswith(sample)
    typed("train", f"{sweep_file}:ALiBi", "--home", home, "--threads", "1", "--tokens", "512", "--seed", "7")
    assert len(list(home.glob("runs/*/record.json"))) == 2


def test_a_stopped_run_says_how_to_go_on_and_goes_on_to_the_same_weights(
    sweep_file: Path, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, tell = [], meter.Meter.tell

    def stop(self: meter.Meter, step: int, *rest: object) -> None:
        told.append(step)
        if len(told) in (3, 9):
            os.kill(os.getpid(), signal.SIGTERM if len(told) == 3 else signal.SIGINT)

    command, again = ("train", f"{sweep_file}:baseline", "--threads", "1", "--home", tmp_path / "stopped"), []
    monkeypatch.setattr(meter.Meter, "tell", stop)
    monkeypatch.setattr(sys, "argv", ["workbench", *map(str, command)])
    for _ in range(2):
        again.append(typed(*command, code=130))
        assert list(tmp_path.glob("stopped/models/*/step-*.safetensors"))
        assert not list(tmp_path.glob("stopped/runs/*/record.json"))
    assert all(f"To go on: workbench train {sweep_file}:baseline" in output for output in again)
    assert told == sorted(set(told))
    assert len(told) < 16
    monkeypatch.setattr(meter.Meter, "tell", tell)
    assert "finished" in typed(*command)
    typed(*command[:-1], tmp_path / "whole")
    weights = [load_file(next(tmp_path.glob(f"{home}/models/*/final.safetensors"))) for home in ("stopped", "whole")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_run_is_named_by_its_id_or_its_folder(home: Path, run_id: str, typed: Typed, tmp_path: Path) -> None:
    asked = ("--prompt", "The", "--tokens", "6", "--seed", "3")
    text = typed("generate", run_id[:6], "--home", home, *asked)
    folder = next(home.glob("models/*"))
    assert text == typed("generate", run_id, "--home", home, *asked)
    assert text == typed("generate", folder, "--home", tmp_path / "elsewhere", *asked)
    assert text == typed("generate", folder / "final.safetensors", *asked)
    assert text.startswith("The")
    several = typed("generate", run_id, "--home", home, *asked, "--samples", "2").split("<|endoftext|>\n")
    assert several[0] == text != several[1]


def test_what_cannot_be_opened_is_refused(home: Path, run_id: str, refused: Typed, tmp_path: Path) -> None:
    assert "there is no such run" in refused("generate", "0000", "--home", home)
    assert "there is no such run" in refused("generate", run_id[:2], "--home", home)
    twin = tmp_path / "twins"
    for last in "01":
        folder = twin / "runs" / f"abcdef{last}"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text("{}")
    assert "abcdef0, abcdef1" in refused("generate", "abcdef", "--home", twin)
    assert "1 to 2" in refused("generate", run_id, "--home", home, "--exit", "3")
    assert "auto, cpu or cuda" in refused("generate", run_id, "--home", home, "--device", "tpu")
    folder = next(home.glob("models/*"))
    lonely = tmp_path / "a" / "b"
    lonely.mkdir(parents=True)
    for name in ("final.json", "final.safetensors"):
        (lonely / name).write_bytes((folder / name).read_bytes())
    assert "the tokenizer of the model is not here" in refused("generate", lonely)
    described = json.loads((folder / "final.json").read_text())
    (lonely / "final.json").write_text(json.dumps({**described, "status": "diverged", "reason": "loss nan"}))
    assert "did not train to its end" in refused("generate", lonely)


def test_what_cannot_be_trained_is_refused_before_anything_is_done(
    corpus: Path, tmp_path: Path, refused: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = ("--corpus", corpus, "--home", tmp_path / "never")
    assert "there is no model 'tinyllama'" in refused("train", "tinyllama", *home)
    assert "a positive one, as 4M" in refused("train", "tinyllama-1m", *home, "--tokens", "many")
    assert "greater than 0" in refused("train", "tinyllama-1m", *home, "--learning-rate", "-1")
    assert "auto, float32, bfloat16" in refused("train", "tinyllama-1m", *home, "--precision", "fp8")
    assert "at most batch 4" in refused("train", "tinyllama-1m", *home, "--batch", "4", "--microbatch", "5")
    assert "cannot write samples" in refused("train", "byte-1m", *home, "--prompt", "The", "--threads", "1")
    assert not (tmp_path / "never").exists()
    monkeypatch.setattr(single, "_memory", lambda device: 10_000_000)
    assert "does not fit into this machine" in refused("train", "tinyllama-1m", *home)


def test_what_a_run_is_made_of_is_written_for_its_devices_and_plans_the_same_run(
    sweep_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, wishes = tmp_path / "home", single.Wishes(tokens=512, prompts=("The",))
    baseline = load_sweep(str(sweep_file)).baseline
    assert isinstance(baseline, single.Configuration)
    configuration, _ = single.configured(baseline, wishes)
    request = NumericsRequest(threads=1, devices=2, sharded=True)
    told = session_of(single.single_sweep("x", configuration, 7, request), home, "small.py:baseline")
    monkeypatch.chdir(sweep_file.parent)
    path = single.declare(told)
    monkeypatch.chdir("/")
    found = single.open_declared(str(path), home)
    assert (found.plan.hash, found.plan.trials) == (told.plan.hash, told.plan.trials)
    assert found.plan.numerics == told.plan.numerics
    for broken in ("{}", "[", path.read_text().replace('"tokens": 512', '"tokens": -1')):
        path.write_text(broken)
        with pytest.raises(SweepError, match=r"a single run cannot be read|cannot be built"):
            single.open_declared(str(path), home)


def test_the_memory_of_a_machine_is_shared_by_its_processes(
    sweep_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = load_sweep(str(sweep_file)).baseline
    assert isinstance(configuration, single.Configuration)

    def warned(**asked: object) -> str | None:
        request = NumericsRequest(threads=1, **asked)  # type: ignore[arg-type]
        return single.refuse_too_large(session_of(single.single_sweep("x", configuration, 0, request), tmp_path))

    needed = configuration.pretraining.memory(configuration.architecture, "float32")
    monkeypatch.setattr(single, "_memory", lambda device: needed.states + needed.activations)
    assert warned() is warned(devices=2, sharded=True) is None
    monkeypatch.setattr(single, "_memory", lambda device: needed.states)
    assert "a step may need" in str(warned())
    with pytest.raises(WorkbenchError, match="or keep a share on every device: --sharded"):
        warned(devices=2)


@pytest.mark.slow
@pytest.mark.parametrize("option", [(), ("--sharded",)])
def test_a_single_run_on_two_devices_scores_as_on_one(
    sweep_file: Path, tmp_path: Path, typed: Typed, option: tuple[str, ...]
) -> None:
    command = ("train", f"{sweep_file}:baseline", "--threads", "1", "--home", tmp_path)
    told = typed(*command, "--devices", "2", *option)
    assert "1 thread on each of 2 devices" in told
    assert "step 16/16, loss" in told
    typed(*command)
    store = Store(tmp_path)
    records = [store.record(path.parent.name) for path in tmp_path.glob("runs/*/record.json")]
    bits = [meter.means(store.scores(record))["bits_per_byte"] for record in records if record is not None]
    assert bits[0] == pytest.approx(bits[1], abs=1e-4)
    assert sorted(record.numerics.devices for record in records if record and record.numerics) == [1, 2]
    assert "step 16/16" not in typed(*command, "--devices", "2", *option)


@pytest.mark.slow
def test_a_single_run_on_two_devices_is_stopped_and_goes_on(
    sweep_file: Path, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, command = meter.Meter.tell, ("train", f"{sweep_file}:baseline", "--threads", "1", "--home", tmp_path / "home")
    several = (*command, "--devices", "2", "--tokens", "100K")

    def stop(self: meter.Meter, step: int, *rest: object) -> None:
        if step > 20:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(meter.Meter, "tell", stop)
    monkeypatch.setattr(sys, "argv", ["workbench", *map(str, several)])
    assert "To go on: workbench train" in typed(*several, code=130)
    assert list(tmp_path.glob("home/models/*/step-*.safetensors"))
    monkeypatch.setattr(meter.Meter, "tell", tell)
    assert "finished" in typed(*several)


def test_a_sweep_file_cannot_declare_a_single_run(sweep_file: Path) -> None:
    sweep_file.write_text(
        sweep_file.read_text()
        + 'SWEEP = Sweep(question="?", baseline=BASELINE, seeds=(0,), metric=SWEEP.metric, design="single")\n'
    )
    with pytest.raises(SweepError, match="a sweep compares arms"):
        load_sweep(str(sweep_file))
    sweep_file.write_text(sweep_file.read_text().replace(', design="single")', ")"))
    with pytest.raises(SweepError, match="expected one or more to compare"):
        load_sweep(str(sweep_file))


def test_an_exported_run_is_whole_for_transformers(home: Path, run_id: str, typed: Typed, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    told = typed("export-model", run_id[:8], "--home", home, "--out", tmp_path / "out").split()
    assert sorted(Path(one).name for one in told) == sorted(path.name for path in (tmp_path / "out").iterdir())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    opened = open_model(run_id, Store(home))
    text = "We, the people: a żagiel costs 1,000 dollars.\n<|endoftext|> is text  here."
    ours = opened.tokenizer.encode(text)
    assert tokenizer(text)["input_ids"] == ours.tolist()
    assert tokenizer.decode(ours) == text
    assert tokenizer.eos_token_id == model.config.eos_token_id == opened.tokenizer.end_of_text
    assert model.generation_config.eos_token_id == opened.tokenizer.end_of_text
    from architectures.transformer import Batch

    tokens = torch.tensor([[opened.tokenizer.end_of_text, *ours[:30].tolist()]])
    batch = Batch(tokens[:, :-1], tokens[:, 1:], torch.ones(1, 30))
    with torch.no_grad():
        nats = opened.model.nats(opened.model(batch), batch)
        theirs = model(input_ids=batch.tokens).logits.log_softmax(-1).gather(-1, batch.targets[..., None])[..., 0]
    torch.testing.assert_close(-theirs, nats, atol=1e-5, rtol=1e-5)


def test_the_time_left_follows_from_the_steps_of_this_start(capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([100.0, 110.0, 130.0, 140.0])
    follower = meter.Meter(clock=lambda: next(now))
    for step in (40, 60, 100):  # taken up at step 40 of 100
        follower.tell(step, 100, 2.5, 1000.0)
    follower.tell(1, 10, 2.5, 1000.0)  # the next stage
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("estimating the time left")
    assert lines[1] == "step 60/100, loss 2.500, 1,000 tokens/s, about 20 s left"
    assert lines[2].endswith("all steps done")
    assert lines[3].startswith("step 1/10")


def test_a_text_on_a_terminal_comes_by_tokens_and_cannot_steer_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spelling = [b"", b"\xc5", b"\xbc a", b"\x1b[2J\r", b"\xe2\x82"]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    shown = typewriter.Typewriter("\x1bThe ", spelling, 1)
    seen = [capsys.readouterr().out]
    for token in (1, 2, 3, 4):
        shown.hear(0, token)
        seen.append(capsys.readouterr().out)
    shown.end(["ignored"])
    assert [*seen, capsys.readouterr().out] == ["\ufffdThe ", "", "ż a", "\ufffd[2J\ufffd", "", "\ufffd\n"]


@pytest.mark.parametrize(("prompt", "shown"), [("", "home, home"), ("the", "the home, home")])
def test_the_space_that_a_tokenizer_puts_before_texts_is_not_shown(
    prompt: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    writing = typewriter.Typewriter(prompt, [b" home", b","], 1, prefix=" ")
    for token in (0, 1, 0):
        writing.hear(0, token)
    assert capsys.readouterr().out == shown
