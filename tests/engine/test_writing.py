"""Teachers that write: texts free of benchmark items, the same every time, and a manifest that tells what happened."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from architectures.architecture import Architecture
from architectures.initialisation import initialise
from architectures.presets import tiny
from workbench.cli import main
from workbench.cli.texts import _writer
from workbench.data.benchmarks import Benchmark
from workbench.data.corpora import Files, read_documents
from workbench.data.documents import Document
from workbench.data.tokenizer import BytePairs, Tokenizer
from workbench.errors import DataError
from workbench.evaluation.generation import generate
from workbench.evaluation.tasks import Drawing
from workbench.seeds import standard_normal
from workbench.writing import (
    Manifest,
    Wanted,
    Writer,
    beginnings,
    manifest_of,
    write_texts,
)

WORDS = ["tide", "gull", "mast", "oar"]  # what the invented teacher knows; the fifth token ends a text


class Teacher(torch.nn.Module):
    """Writes words of WORDS, each as likely as any other, as if it had no memory."""

    head = SimpleNamespace(has_logits=True)

    def cache(self) -> SimpleNamespace:
        return SimpleNamespace(length=0)

    def forward(self, batch: Any, cache: Any, exit: int | None = None) -> SimpleNamespace:
        return SimpleNamespace(hidden=torch.zeros(*batch.tokens.shape, len(WORDS)))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


class Spelling:
    """The tokenizer of the invented teacher."""

    end_of_text = len(WORDS)

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        return [np.array([WORDS.index(word) for word in text.split()], np.int64) for text in texts]

    def begun(self, tokens: np.ndarray) -> np.ndarray:
        return np.append(self.end_of_text, tokens)

    def decode(self, tokens: np.ndarray, *, continued: bool) -> str:
        return "".join(f" {WORDS[token]}" for token in tokens)


def teacher() -> Writer:
    tokenizer: Any = Spelling()
    return Writer("an invented teacher", "0" * 64, Teacher(), tokenizer, 64)


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    row = {"id": "song", "question": "tide gull", "choices": {"text": ["mast oar", "oar mast"], "label": ["A", "B"]}}
    path = tmp_path / "songs.jsonl"
    path.write_text(json.dumps({**row, "answerKey": "A"}) + "\n")
    return Benchmark(name="arc_easy", path=str(path))


def wanted(*benchmarks: Benchmark, **changes: Any) -> Wanted:
    drawing = Drawing(tokens=12, temperature=1.0, top=None)
    return Wanted.model_validate({"texts": 150, "drawing": drawing, "benchmarks": benchmarks, **changes})


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def silent(line: str) -> None:
    """Say nothing."""


def test_texts_that_hold_an_item_are_written_again_from_the_next_stream(benchmark: Benchmark, tmp_path: Path) -> None:
    plain = write_texts(teacher(), [""], wanted(), tmp_path / "plain.jsonl", silent)
    checked = write_texts(teacher(), [""], wanted(benchmark), tmp_path / "checked.jsonl", silent)
    before, after = rows(tmp_path / "plain.jsonl"), rows(tmp_path / "checked.jsonl")
    spoilt = [
        number
        for number, row in enumerate(before)
        if any(song in row["text"] for song in ("tide gull mast oar", "tide gull oar mast"))
    ]
    assert spoilt
    assert [number for number, row in enumerate(after) if row["tries"] > 1] == spoilt
    assert [row for number, row in enumerate(after) if number not in spoilt] == [
        row for number, row in enumerate(before) if number not in spoilt
    ]
    assert not any("tide gull mast oar" in row["text"] or "tide gull oar mast" in row["text"] for row in after)
    assert (plain.again, plain.overlapping, checked.texts, checked.left_out) == (0, 0, 150, 0)
    assert checked.again == checked.overlapping == sum(row["tries"] - 1 for row in after)
    assert checked.shared["arc_easy"][0].item == "song"


def test_a_text_that_overlaps_at_every_try_is_left_out_and_counted(benchmark: Benchmark, tmp_path: Path) -> None:
    once = write_texts(teacher(), [""], wanted(benchmark, tries=1), tmp_path / "once.jsonl", silent)
    assert once.left_out == once.overlapping == 150 - once.texts > 0
    assert len(rows(tmp_path / "once.jsonl")) == once.texts


def test_a_prompt_that_overlaps_by_itself_is_not_written_from(benchmark: Benchmark, tmp_path: Path) -> None:
    prompts = ["tide gull mast oar", "oar oar"]
    manifest = write_texts(teacher(), prompts, wanted(benchmark, texts=8), tmp_path / "some.jsonl", silent)
    assert manifest.prompts_left_out == 1
    assert {row["prompt"] for row in rows(tmp_path / "some.jsonl")} == {"oar oar"}
    with pytest.raises(DataError, match="every prompt overlaps"):
        write_texts(teacher(), prompts[:1], wanted(benchmark), tmp_path / "none.jsonl", silent)
    assert not (tmp_path / "none.jsonl").exists()


def test_the_same_request_gives_the_same_file_and_another_seed_another(tmp_path: Path) -> None:
    names = [tmp_path / f"{number}.jsonl" for number in range(3)]
    told = [write_texts(teacher(), [""], wanted(seed=int(path == names[2])), path, silent) for path in names]
    assert told[0] == told[1]
    assert names[0].read_bytes() == names[1].read_bytes() != names[2].read_bytes()
    assert hashlib.sha256(names[0].read_bytes()).hexdigest() == told[0].sha256
    assert Manifest.model_validate_json(manifest_of(names[0]).read_bytes()) == told[0]


def test_a_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("precious")
    with pytest.raises(DataError, match="there is such a file already"):
        write_texts(teacher(), [""], wanted(), tmp_path / "mine.jsonl", silent)
    assert (tmp_path / "mine.jsonl").read_text() == "precious"


def test_what_was_written_is_a_corpus(tmp_path: Path) -> None:
    write_texts(teacher(), ["mast"], wanted(texts=5), tmp_path / "texts.jsonl", silent)
    documents = list(read_documents(Files(path=str(tmp_path / "texts.jsonl"))))
    assert [document.text for document in documents] == [row["text"] for row in rows(tmp_path / "texts.jsonl")]
    assert all(document.text.startswith("mast ") for document in documents)


def test_prompts_are_the_first_words_of_documents_in_an_order_of_their_own() -> None:
    documents = [Document(str(number), f"  The ship\n{number} sails on.") for number in range(20)]
    found = beginnings(documents, 3, seed=0)
    assert sorted(found) == sorted(f"The ship\n{number}" for number in range(20))
    assert found == beginnings(documents[::-1], 3, seed=0) != beginnings(documents, 3, seed=1)
    assert beginnings([Document("a", "short"), Document("b", " "), Document("c", "short")], 3, 0) == ["short"]


# --- real models


def model(tokenizer: Tokenizer) -> tuple[Architecture, Any]:
    architecture = tiny().vary(vocabulary=tokenizer.vocabulary, context=32, layers=1)
    built = architecture.build()
    initialise(built, architecture, lambda name, shape: 5 * standard_normal(0, f"initialisation/{name}", shape))
    return architecture, built.eval()


def test_a_model_of_ours_writes_what_it_would_generate(tmp_path: Path) -> None:
    tokenizer = BytePairs(vocabulary=300).train(["the tide and the gull"] * 3)
    architecture, built = model(tokenizer)
    writer = Writer("ours", "", built, tokenizer, architecture.context)
    greedy = Drawing(tokens=6, temperature=0)
    write_texts(writer, ["the tide"], wanted(texts=1, drawing=greedy), tmp_path / "a.jsonl", silent)
    (expected,) = generate(built, tokenizer, ["the tide"], context=architecture.context, drawing=greedy)
    assert rows(tmp_path / "a.jsonl")[0]["text"] == "the tide" + expected


@pytest.mark.slow
def test_a_hugging_face_model_writes_what_transformers_generates(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = BytePairs(vocabulary=300).train(["the tide and the gull"] * 3)
    config = transformers.GPT2Config(
        vocab_size=310, n_positions=24, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(tmp_path / "gpt2")
    tokenizer.publish(tmp_path / "gpt2", 24)
    writer = _writer(str(tmp_path / "gpt2"), tmp_path, "cpu")
    assert writer.context == 24
    write_texts(
        writer, ["the tide"], wanted(texts=1, drawing=Drawing(tokens=8, temperature=0)), tmp_path / "a.jsonl", silent
    )
    begun = torch.tensor([[0, *tokenizer.encode("the tide")]])
    with torch.no_grad():
        for _ in range(8):
            begun = torch.cat([begun, theirs(begun).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert rows(tmp_path / "a.jsonl")[0]["text"] == tokenizer.decode(begun[0, 1:].numpy())


def test_a_benchmark_that_is_not_named_right_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["workbench", "write", "quickstart:SwiGLU", "--out", str(tmp_path / "a.jsonl"), "--benchmark", "arc=x"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "a benchmark is a name and a file" in capsys.readouterr().err
