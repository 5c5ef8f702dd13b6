"""Teachers in the format of Hugging Face: asked as `transformers` would, known by content, refused if they differ."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from sentence_pieces import write_folder

from architectures.exchange import export_model
from architectures.feedforward import SwiGLU
from architectures.transformer import Batch
from tests.engine.test_training import NUMERICS, SMALL, job
from workbench.data.corpora import Files
from workbench.data.prepared import Data, Prepared, prepare
from workbench.data.tokenizer import BytePairs
from workbench.data.vocabularies import HuggingFaceTokenizer
from workbench.errors import DataError
from workbench.identity import digest
from workbench.records import Seeds
from workbench.training.loop import build, train
from workbench.training.opinions import Opinions
from workbench.training.teachers import HuggingFace, TrainedModel, load, refuse_unusable, size_of

VOCABULARY = 300


@pytest.fixture(scope="module")
def prepared(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    data = Data(corpus=Files(path=str(corpus)), tokenizer=BytePairs(vocabulary=VOCABULARY), held_out=0.2)
    return prepare(data, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def folder(prepared: Prepared, tmp_path: Path) -> Path:
    """A small Llama as `transformers` saves it, with a few outputs more than there are tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY + 4,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=24,
        initializer_range=0.5,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    prepared.tokenizer.save(tmp_path / "llama" / "tokenizer.json")
    return tmp_path / "llama"


def test_a_hugging_face_teacher_says_what_transformers_says(prepared: Prepared, folder: Path, tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    teacher = HuggingFace(path=str(folder))
    refuse_unusable(teacher)
    speaker = load(teacher, prepared, NUMERICS)
    assert speaker.context == 24  # its configuration's, which is less than ours
    opinions = Opinions(
        tmp_path / "said",
        prepared.train,
        vocabulary=VOCABULARY,
        top=VOCABULARY,
        end_of_text=0,
        speaker=lambda: speaker,
        numerics=NUMERICS,
    )
    theirs = LlamaForCausalLM.from_pretrained(folder).eval()
    start = int(prepared.train.offsets[1])
    text = torch.tensor([0, *prepared.train.tokens[start : start + 23].tolist()])
    with torch.no_grad():
        exact = theirs(input_ids=text[None]).logits[0, 1:, :VOCABULARY].log_softmax(-1)
    said = opinions.at(torch.arange(start, start + 23)[None])
    torch.testing.assert_close(said.logs[0], exact.gather(-1, said.ids[0]), rtol=2e-3, atol=2e-3)
    assert size_of(teacher)["parameters"] == sum(one.numel() for one in theirs.parameters())


def test_a_model_of_ours_teaches_as_it_is_exported(prepared: Prepared, tmp_path: Path) -> None:
    architecture = SMALL.vary(context=24, vocabulary=VOCABULARY, feed_forward=SwiGLU(width=48))
    model = build(architecture, Seeds.all(0), NUMERICS).eval()
    export_model(model, architecture, tmp_path)
    prepared.tokenizer.save(tmp_path / "tokenizer.json")
    theirs = load(HuggingFace(path=str(tmp_path)), prepared, NUMERICS)
    tokens = torch.randint(0, VOCABULARY, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.logits(model(Batch(tokens, tokens, torch.ones(2, 16))).hidden)
        torch.testing.assert_close(theirs.logits(tokens, 3), expected[:, 3:], atol=1e-5, rtol=1e-5)


def test_what_identifies_a_teacher_is_its_content_and_not_its_path(folder: Path, tmp_path: Path) -> None:
    before = digest(HuggingFace(path=str(folder)))
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert digest(HuggingFace(path=str(moved))) == before
    assert digest(HuggingFace(path=str(moved), context=16)) != before
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(1, 1))  # the clock of files may not have ticked
    assert digest(HuggingFace(path=str(moved))) != before


def test_a_teacher_with_another_tokenizer_is_refused_at_the_first_token_that_differs(
    prepared: Prepared, folder: Path
) -> None:
    path = folder / "tokenizer.json"
    told = json.loads(path.read_text())
    names = {number: piece for piece, number in told["model"]["vocab"].items()}
    told["model"]["vocab"] |= {names[280]: 281, names[281]: 280}
    path.write_text(json.dumps(told))
    with pytest.raises(DataError) as refused:
        load(HuggingFace(path=str(folder)), prepared, NUMERICS)
    assert refused.value.details["expected"] == f"{names[280]!r} as token 280"
    assert refused.value.details["got"] == f"{names[281]!r}"
    assert "2 of 300 tokens differ" in str(refused.value)


@pytest.mark.parametrize("missing", ["tokenizer.json", "config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_part_is_refused_by_name(folder: Path, missing: str) -> None:
    (folder / missing).rename(folder / f"{missing}.pickled.bin")
    with pytest.raises(DataError, match="holds no teacher") as refused:
        digest(HuggingFace(path=str(folder)))
    assert missing.replace("model.", "*.") in str(refused.value.details["got"])


def test_code_from_a_models_folder_is_not_run(prepared: Prepared, folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config | own))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(DataError, match="transformers cannot load"):
        load(HuggingFace(path=str(folder)), prepared, NUMERICS)
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_a_trained_model_and_one_that_does_not_say_what_it_is_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such trained model"):
        refuse_unusable(TrainedModel(path=str(tmp_path / "nowhere")))
    train(job(tmp_path / "model", SMALL, steps=1))  # without its data
    with pytest.raises(DataError, match="does not say what it is") as refused:
        refuse_unusable(TrainedModel(path=str(tmp_path / "model")))
    assert refused.value.details["got"] == "no data"


def test_a_teacher_whose_texts_begin_with_a_token_reads_documents_after_it(corpus: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    place = write_folder(tmp_path / "llama")
    sizes = {"vocab_size": 360, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, initializer_range=0.5)).save_pretrained(place)
    student = Data(corpus=Files(path=str(corpus)), tokenizer=HuggingFaceTokenizer(path=str(place)), held_out=0.2)
    data = prepare(student, tmp_path / "cache")
    assert data.tokenizer.end_of_text == 2
    said = load(HuggingFace(path=str(place)), data, NUMERICS)
    theirs = LlamaForCausalLM.from_pretrained(place).eval()
    with torch.no_grad():
        for first, read in ((2, 1), (300, 300)):  # <s> is read for </s>, and a window within a document as it is
            expected = theirs(input_ids=torch.tensor([[read, 310, 2, 320]])).logits
            torch.testing.assert_close(said.logits(torch.tensor([[first, 310, 2, 320]]), 0), expected)
