"""`workbench evaluate`: a model of a store and one of a folder, asked the same, compared by the same statistics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.embeddings import Table
from architectures.feedforward import SwiGLU
from architectures.initialisation import initialise
from architectures.norms import RMSNorm
from architectures.positions import Rotary
from workbench.cli import app
from workbench.data.tokenizer import BytePairs
from workbench.errors import WorkbenchError
from workbench.seeds import standard_normal

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
PAIRS = [
    ("The ships sail home", "The ships sails home"),
    ("She sings", "She sing"),
    ("They were calm", "They was calm"),
]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models in the format of Hugging Face, `a` and `b`, with pairs and text to ask them about."""
    from architectures.exchange import export_model

    pytest.importorskip("transformers", reason="needs the extra 'eval'")
    root = tmp_path_factory.mktemp("published")
    lines = [
        {"sentence_good": f"{good} {number}.", "sentence_bad": f"{bad} {number}.", "UID": f"kind_{place}",
         "pairID": str(number)}
        for place, (good, bad) in enumerate(PAIRS) for number in range(4)
    ]  # fmt: skip
    (root / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "text.txt").write_text(
        "\n<|endoftext|>\n".join(f"{good} on day {n}. " * 9 for n, (good, _) in enumerate(PAIRS))
    )
    tokenizer = BytePairs(vocabulary=300).train([good for good, _ in PAIRS] * 3)
    architecture = Architecture(
        width=16, layers=1, context=32, vocabulary=300, position=Rotary(), attention=MultiHead(heads=2),
        feed_forward=SwiGLU(width=32), norm=RMSNorm(), embedding=Table(tied=True),
    )  # fmt: skip
    for seed, name in enumerate("ab"):
        model = architecture.build()
        noise: Callable[..., object] = lambda name, shape, seed=seed: 20 * standard_normal(seed, name, shape)  # noqa: E731
        initialise(model, architecture, noise)  # type: ignore[arg-type]
        export_model(model, architecture, root / name, end_of_text=tokenizer.end_of_text)
        tokenizer.publish(root / name, 32)
    return root


@pytest.fixture
def run(published: Path, tmp_path: Path) -> Callable[..., str]:
    def invoke(*words: object) -> str:
        done = CliRunner().invoke(app, [str(word) for word in words], env={"WORKBENCH_HOME": str(tmp_path / "home")})
        if isinstance(done.exception, WorkbenchError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return invoke


def test_two_models_asked_the_same_are_compared(run: Callable[..., str], published: Path, tmp_path: Path) -> None:
    tasks = f"blimp={published / 'pairs.jsonl'},bits_per_byte={published / 'text.txt'}"
    out = tmp_path / "out"
    first = run("evaluate", published / "a", "--tasks", tasks, "--out", out)
    assert "blimp" in first
    assert "bits_per_byte" in first
    assert "another model" in first
    second = run("evaluate", published / "b", "--tasks", tasks, "--out", out)
    assert f"workbench analyze {out / 'scores.parquet'} --baseline a --metric blimp/accuracy" in second
    told = run("analyze", out / "scores.parquet", "--baseline", "a", "--metric", "bits_per_byte", "--lower-is-better")
    assert "item by item" in told
    summary = json.loads((out / "summary.json").read_text())
    assert [one["variant"] for one in summary["models"]] == ["a", "b"]
    rows = {(row["task"], row["metric"]): row for row in summary["models"][0]["scores"]}
    assert rows["blimp", "accuracy"]["items"] == 12
    assert rows["blimp", "accuracy"]["clusters"] == 3


def test_asked_again_a_model_replaces_what_it_had_and_keeps_the_rest(
    run: Callable[..., str], published: Path, tmp_path: Path
) -> None:
    pairs, text = f"blimp={published / 'pairs.jsonl'}", f"bits_per_byte={published / 'text.txt'}"
    run("evaluate", published / "a", "--tasks", pairs, "--out", tmp_path)
    run("evaluate", published / "a", "--tasks", text, "--out", tmp_path)
    before = pq.read_table(tmp_path / "scores.parquet")
    assert set(before["task"].to_pylist()) == {"blimp", "bits_per_byte"}
    told = json.loads(run("evaluate", published / "a", "--tasks", pairs, "--out", tmp_path, "--format", "json"))
    after = pq.read_table(tmp_path / "scores.parquet")
    assert after.sort_by([("task", "ascending"), ("metric", "ascending"), ("item", "ascending")]).equals(
        before.sort_by([("task", "ascending"), ("metric", "ascending"), ("item", "ascending")])
    )
    assert {row["task"] for row in told["scores"]} == {"blimp"}
    with pytest.raises(WorkbenchError, match="two models of one name"):
        run("evaluate", published / "b", "--tasks", pairs, "--out", tmp_path, "--name", "a")


def test_items_of_a_text_that_is_named_are_flagged_and_analysed_apart(
    run: Callable[..., str], published: Path, tmp_path: Path
) -> None:
    pairs, out = f"blimp={published / 'pairs.jsonl'}", tmp_path / "out"
    seen = tmp_path / "seen.txt"
    seen.write_text("It is known that the ships sail home 2, as they did before.\n")
    first = run("evaluate", published / "a", "--tasks", pairs, "--out", out, "--against", seen)
    assert "contaminated" in first
    table = pq.read_table(out / "scores.parquet").to_pylist()
    rows = json.loads((published / "pairs.jsonl").read_text().splitlines()[2])
    assert rows["sentence_good"] == "The ships sail home 2."
    assert {row["item"] for row in table if row["flags"]} == {"kind_0/2"}
    second = run("evaluate", published / "b", "--tasks", pairs, "--out", out)
    assert "contaminated" not in second
    told = run("analyze", out / "scores.parquet", "--baseline", "a", "--metric", "blimp/accuracy")
    assert "without contaminated items" in told
    assert "1 of 12 items" in told
    summary = json.loads((out / "summary.json").read_text())
    assert [len(one["searched"]) for one in summary["models"]] == [1, 0]
    ids = {row["variant"]: row["score_id"] for row in pq.read_table(out / "scores.parquet").to_pylist()}
    run("evaluate", published / "a", "--tasks", pairs, "--out", out)
    again = pq.read_table(out / "scores.parquet").to_pylist()
    assert not any(row["flags"] for row in again)
    assert ids["a"] not in {row["score_id"] for row in again}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tasks", "blimpp=x"], "no such task"),
        (["--tasks", "bits_per_byte"], "no text to be held out"),
        (["--tasks", "blimp=absent.jsonl"], "absent.jsonl"),
        (["--tasks", "lm_eval:absent.yaml"], "cannot be read"),
        (["--tasks", "blimp={pairs}", "--few-shot", "3"], "no task shows examples"),
        (["--tasks", "blimp={pairs}", "--examples", "mmlu=x"], "what is not asked"),
        (["--tasks", "blimp={pairs},blimp={pairs}"], "cannot be asked so"),
        (["--tasks", "blimp={pairs}", "--against", "absent.txt"], "absent.txt"),
        (["--tasks", "swapped_words", "--against", "absent.txt"], "no task has items to search for"),
    ],
)
def test_a_mistake_is_told_in_words(words: list[str], told: str, run: Callable[..., str], published: Path) -> None:
    filled = [word.format(pairs=published / "pairs.jsonl") for word in words]
    with pytest.raises(WorkbenchError) as refused:
        run("evaluate", published / "a", *filled)
    assert told in str(refused.value)


@pytest.mark.slow
def test_a_run_of_a_sweep_is_asked_about_its_own_held_out_text_and_counted(
    run: Callable[..., str], sweep_file: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    run("train", f"{sweep_file}:ALiBi", "--home", home, "--tokens", "1000")
    record = next(home.glob("runs/*/record.json"))
    told = run("evaluate", record.parent.name, "--tasks", "bits_per_byte,swapped_words", "--items", 5, "--home", home)
    assert "swapped_words" in told
    counted = [json.loads(path.read_text())["by"] for path in home.glob("evaluations/*/[!.]*.json")]
    assert "workbench evaluate" in counted


QUESTIONS = """
task: ships
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: 0
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")  # of datasets
def test_a_task_of_a_file_for_the_harness_works_in_a_sweep(
    run: Callable[..., str], sweep_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra 'eval'")
    pytest.importorskip("lm_eval", reason="needs the extra 'eval'")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    data = tmp_path / "ships.jsonl"
    lines = [{"question": good[:9], "choices": [good[9:], bad[9:] + "s"]} for good, bad in PAIRS]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "ships.yaml").write_text(QUESTIONS.format(data=data))
    text = sweep_file.read_text().replace("SwappedWords(items=8)", 'LmEval(task="ships.yaml")')
    text = text.replace("import BitsPerByte", "import LmEval, BitsPerByte").replace('name="accuracy"', 'name="acc"')
    sweep_file.write_text(text)
    home = tmp_path / "home"
    run("run", sweep_file, "--home", home, "--workers", 1)
    tables = [pq.read_table(path).to_pandas() for path in home.glob("runs/*/scores.parquet")]
    assert len(tables) == 6
    asked = [table[table["task"].astype(str).str.startswith("ships (lm-eval")] for table in tables]
    assert all(set(table["metric"].astype(str)) == {"acc", "margin"} for table in asked)
    assert {table["item"].nunique() for table in asked} == {len(PAIRS)}
