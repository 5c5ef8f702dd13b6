from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from workbench.cli import app, main
from workbench.session import merge
from workbench.store import Store

OPTIONS = {  # frozen: scripts and papers depend on these words
    "analyze": [
        "--alpha",
        "--anytime",
        "--baseline",
        "--guard",
        "--higher-is-better",
        "--history",
        "--history-df",
        "--history-sd",
        "--lower-is-better",
        "--map",
        "--methods",
        "--metric",
        "--new-items",
        "--out",
        "--smallest-effect",
        "--target",
        "--tracking-uri",
        "--unpaired",
    ],
    "calibrate": [
        "--alpha",
        "--arms",
        "--baseline",
        "--home",
        "--map",
        "--method",
        "--metric",
        "--noise",
        "--out",
        "--pool",
        "--seeds",
        "--simulations",
    ],
    "compare": [],
    "dashboard": ["--browser", "--home", "--no-browser", "--port"],
    "data": ["--corpus", "--home"],
    "doctor": ["--home"],
    "evaluate": [
        "--against",
        "--batch",
        "--corpus",
        "--device",
        "--examples",
        "--few-shot",
        "--format",
        "--home",
        "--include-path",
        "--items",
        "--name",
        "--out",
        "--protocol",
        "--tasks",
    ],
    "export": ["--home", "--out"],
    "export-model": ["--corpus", "--home", "--out", "--seed"],
    "generate": [
        "--corpus",
        "--device",
        "--exit",
        "--home",
        "--prompt",
        "--samples",
        "--seed",
        "--temperature",
        "--tokens",
        "--top",
    ],
    "plan": ["--budget", "--corpus", "--devices", "--execution", "--home", "--sharded"],
    "prepare": ["--corpus", "--home"],
    "rank": ["--cell", "--corpus", "--devices", "--home", "--parent", "--plan", "--sharded"],
    "run": ["--cell", "--corpus", "--devices", "--execution", "--home", "--sharded", "--workers"],
    "show": ["--context", "--gpu", "--gpus", "--hours", "--parameters", "--tokens", "--vocabulary"],
    "sweeps": [],
    "sync": ["--home"],
    "tokenizer prune": ["--base", "--corpus", "--file", "--home", "--out", "--smoothing", "--vocabulary"],
    "tokenizer show": ["--file", "--home"],
    "tokenizer study": ["--batch", "--corpus", "--device", "--home", "--model", "--out", "--threads", "--vocabularies"],
    "tokenizer train": ["--corpus", "--home", "--out", "--vocabulary"],
    "train": [
        "--batch",
        "--context",
        "--corpus",
        "--device",
        "--devices",
        "--held-out",
        "--home",
        "--learning-rate",
        "--microbatch",
        "--precision",
        "--prompt",
        "--seed",
        "--sharded",
        "--threads",
        "--tokens",
        "--vocabulary",
    ],
    "variance": [
        "--checkpoint",
        "--cost",
        "--factor",
        "--fixed",
        "--last",
        "--map",
        "--metric",
        "--out",
        "--scale",
        "--signal",
        "--variant",
    ],
    "work": ["--corpus", "--devices", "--execution", "--home", "--parent", "--plan", "--sharded"],
    "write": [
        "--benchmark",
        "--device",
        "--home",
        "--out",
        "--prompt-words",
        "--prompts",
        "--seed",
        "--temperature",
        "--texts",
        "--tokens",
        "--top",
        "--tries",
    ],
}


def workbench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workbench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=240)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Type a command that must fail as a user's mistake does: one message, exit code 2, no traceback."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["workbench", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr().err
        assert ended.value.code == 2, told
        assert told.startswith("error: ")
        return told

    return run


def edited(sweep_file: Path, *changes: tuple[str, str]) -> str:
    text = sweep_file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    sweep_file.write_text(text)
    return str(sweep_file)


def test_the_commands_and_their_options_stay_what_they_are() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    groups = {name: commands.pop(name).commands for name in ["tokenizer"]}
    typed = commands | {f"{group} {name}": held[name] for group, held in groups.items() for name in held}
    found = {
        name: sorted(
            option
            for parameter in command.params
            for option in (*parameter.opts, *parameter.secondary_opts)
            if option.startswith("--")
        )
        for name, command in typed.items()
    }
    assert found == OPTIONS


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['workbench', '--help']\nfrom workbench.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print({'torch', 'mlflow', 'optuna', 'pandas', 'numpy', 'streamlit'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"


def test_reading_and_judging_load_no_torch() -> None:
    modules = ("statistics", "sources", "reporting.report", "results", "sweep")
    code = (
        "import importlib, sys\n"
        f"for module in {modules}:\n"
        "    importlib.import_module(f'workbench.{module}')\n"
        "    print(module, *sorted({'torch', 'optuna', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == list(modules), done.stdout + done.stderr


def test_an_unknown_sweep_is_refused_with_the_known_ones(refused: Callable[..., str]) -> None:
    assert "quickstart" in refused("run", "quikstart")
    assert "no such sweep file" in refused("run", "nowhere/sweep.py")


def test_an_arm_with_an_undeclared_difference_is_refused(sweep_file: Path, refused: Callable[..., str]) -> None:
    path = edited(sweep_file, ("vary(position=Alibi())", "vary(position=Alibi(), clip=0.5)"))
    assert "stages.0.clip: 1.0 → 0.5" in refused("run", path)


def test_a_misspelt_field_is_refused_with_a_suggestion(sweep_file: Path, refused: Callable[..., str]) -> None:
    told = refused("plan", edited(sweep_file, ("position=Rotary()", "position=Rotary(bsae=1.0)")))
    assert "'base'" in told
    assert "line " in told


def test_heads_that_do_not_divide_the_width_are_refused(sweep_file: Path, refused: Callable[..., str]) -> None:
    told = refused("plan", edited(sweep_file, ("heads=2", "heads=3")))
    assert "heads" in told
    assert "32" in told


def test_a_sweep_file_that_raises_is_refused_with_its_line(sweep_file: Path, refused: Callable[..., str]) -> None:
    told = refused("run", edited(sweep_file, ("SWEEP = Sweep", "raise RuntimeError('oops')\nSWEEP = Sweep")))
    assert "RuntimeError: oops" in told
    assert "line " in told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"A fine beginning.\n\n\xff\xfe not text", "UTF-8"),
        (b"Too short.\n<|endoftext|>\nFar too short.\n", "shorter than one context"),
    ],
)
def test_a_corpus_that_cannot_be_used_is_refused(
    sweep_file: Path, content: bytes, message: str, refused: Callable[..., str]
) -> None:
    path = sweep_file.parent / "mine.txt"
    path.write_bytes(content)
    told = refused("run", str(sweep_file), "--corpus", str(path))
    assert message in told


def test_a_missing_corpus_is_refused(sweep_file: Path, refused: Callable[..., str]) -> None:
    assert "nowhere.txt" in refused("prepare", str(sweep_file), "--corpus", "nowhere.txt")


def test_a_runtime_folder_that_cannot_be_written_is_refused(sweep_file: Path, refused: Callable[..., str]) -> None:
    (sweep_file.parent / "file").write_text("")
    told = refused("run", str(sweep_file), "--home", str(sweep_file.parent / "file" / "home"))
    assert "WORKBENCH_HOME" in told


def test_a_cell_outside_the_plan_is_refused(sweep_file: Path, refused: Callable[..., str]) -> None:
    assert "0 to 5" in refused("run", str(sweep_file), "--cell", "6")


def test_a_run_of_a_sweep_ends_with_its_table_and_one_cell_alone_needs_neither_optuna_nor_mlflow(
    sweep_file: Path,
) -> None:
    done = workbench("run", str(sweep_file), "--workers", "2", PYTHONHASHSEED="1")
    assert done.returncode == 0, done.stderr
    assert "ALiBi" in done.stdout
    assert "workbench dashboard" in done.stdout
    home = sweep_file.parent / ".workbench"
    report = home / "reports" / "small"
    assert {path.suffix for path in report.iterdir()} >= {".md", ".html", ".tex", ".csv", ".svg"}
    plan = json.loads(next(home.glob("plans/*/plan.json")).read_text())
    statuses = [record.status for record in Store(home).records(trial["run_id"] for trial in plan["trials"])]
    assert statuses == ["finished"] * 6

    again = CliRunner().invoke(app, ["run", str(sweep_file)])
    assert again.exit_code == 0, again.exception
    assert "6 of 6 runs are done already" in again.output
    exported = CliRunner().invoke(app, ["export", "small", "--out", "paper"])
    assert exported.exit_code == 0, exported.exception
    assert (sweep_file.parent / "paper" / "table.tex").exists()
    assert (sweep_file.parent / "paper" / "plan.json").exists()

    # alone, in another process and folder, on a bare box: no queue, no tracker, no dashboard
    commands = [["run", str(sweep_file), "--cell", "3"], ["train", f"{sweep_file}:ALiBi", "--seed", "7"]]
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('optuna', 'mlflow', 'streamlit', 'plotly', 'transformers', 'lm_eval'))\n"
        "from workbench.cli import main\n"
        f"for typed in {commands!r}:\n"
        "    sys.argv = ['workbench', *typed, '--home', 'other']\n"
        "    try: main()\n"
        "    except SystemExit as ended: assert not ended.code, ended.code"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "3"}
    single = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert single.returncode == 0, single.stderr
    assert "finished" in single.stdout
    run_id = plan["trials"][3]["run_id"]
    ours, theirs = Store(home).record(run_id), Store(sweep_file.parent / "other").record(run_id)
    assert ours is not None
    assert theirs is not None
    assert ours.scores_sha256 == theirs.scores_sha256
    assert not (sweep_file.parent / "other" / "mlflow.db").exists()
    handed_over = Store("handed over")
    assert merge(handed_over, [sweep_file.parent / "other"]) == 2  # what `sync` does before it delivers
    assert [document["design"] for document in handed_over.plans()] == ["fixed", "single"]


@pytest.mark.parametrize(
    ("absent", "extra", "arguments"),
    [
        ("torch", "train", ["run", "quickstart"]),
        ("torch", "train", ["train", "stlm-1m"]),
        ("torch", "train", ["generate", "abcdef"]),
        ("optuna", "track", ["run", "quickstart"]),
        ("mlflow", "track", ["sync"]),
        ("streamlit", "dashboard", ["dashboard"]),
    ],
)
def test_a_command_whose_extra_is_missing_says_which(absent: str, extra: str, arguments: list[str]) -> None:
    code = (
        "import importlib.util, sys\n"
        f"sys.modules[{absent!r}] = None\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *rest: None if name == {absent!r} else find(name, *rest)\n"
        f"sys.argv = ['workbench', *{arguments!r}]\n"
        "from workbench.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"ablation-workbench[{extra}]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_tracking_server_that_is_away_costs_nothing_but_a_note(sweep_file: Path) -> None:
    done = workbench("run", str(sweep_file), "--workers", "1", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert "could not be written" in done.stderr
    assert "workbench sync" in done.stderr
    assert "ALiBi" in done.stdout
    synced = workbench("sync")
    assert "6 runs delivered" in synced.stdout


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_where_it_was(sweep_file: Path) -> None:
    edited(sweep_file, ("tokens=2048", "tokens=40_000"))
    command = [sys.executable, "-m", "workbench", "run", str(sweep_file), "--workers", "2"]
    # A shell that runs the suite in the background has its children ignore Ctrl-C; a person's terminal does not.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    runs = sweep_file.parent / ".workbench" / "runs"
    for _ in range(600):
        if list(runs.glob("*/record.json")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    told, complained = process.communicate(timeout=240)
    assert process.returncode == 130, complained
    assert "To go on: workbench run" in told
    done = len(list(runs.glob("*/record.json")))
    assert 0 < done < 6
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/record.json")}
    assert workbench("run", str(sweep_file)).returncode == 0
    assert len(list(runs.glob("*/record.json"))) == 6
    assert {path: path.stat().st_mtime_ns for path in before} == before
