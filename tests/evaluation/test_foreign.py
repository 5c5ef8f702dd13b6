"""Models of Hugging Face: an exported model, read back through transformers, answers as it did before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.embeddings import Table
from architectures.exchange import export_model
from architectures.feedforward import SwiGLU
from architectures.initialisation import initialise
from architectures.norms import RMSNorm
from architectures.positions import Rotary
from architectures.transformer import Transformer
from workbench.data.prepared import Prepared
from workbench.errors import StoreError
from workbench.evaluation.asking import Asked
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.foreign import load_foreign
from workbench.evaluation.tasks import BitsPerByte, Drawing, Evaluation, SwappedWords
from workbench.opening import open_asked
from workbench.seeds import standard_normal
from workbench.store import Store

CONTEXT = 24
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def ours() -> tuple[Architecture, Transformer]:
    architecture = Architecture(
        width=16, layers=2, context=CONTEXT, vocabulary=320, position=Rotary(), attention=MultiHead(heads=2),
        feed_forward=SwiGLU(width=32), norm=RMSNorm(), embedding=Table(tied=True),
    )  # fmt: skip
    model = architecture.build()
    initialise(model, architecture, lambda name, shape: 20 * standard_normal(0, f"initialisation/{name}", shape))
    return architecture, model.eval()


@pytest.fixture(scope="module")
def folder(
    ours: tuple[Architecture, Transformer], prepared: Prepared, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    pytest.importorskip("transformers", reason="needs the extra 'eval'")
    path = tmp_path_factory.mktemp("published")
    export_model(ours[1], ours[0], path, end_of_text=prepared.tokenizer.end_of_text)
    prepared.tokenizer.publish(path, CONTEXT)
    return path


def test_every_score_is_that_of_the_model_before_its_export(
    folder: Path, ours: tuple[Architecture, Transformer], prepared: Prepared, tmp_path: Path
) -> None:
    found = open_asked(str(folder), Store(tmp_path))
    assert (found.context, found.variant, found.tokenizer.vocabulary) == (CONTEXT, folder.name, 320)
    evaluation = Evaluation(tasks=(BitsPerByte(documents=4, bytes_per_document=300), SwappedWords(items=12)))
    tables = [
        evaluate(model, prepared, evaluation, score_id="s", context=CONTEXT).to_pandas()
        for model in (ours[1], found.model)
    ]
    assert tables[0].drop(columns="value").equals(tables[1].drop(columns="value"))
    np.testing.assert_allclose(tables[0]["value"], tables[1]["value"], rtol=1e-4, atol=1e-4)
    text = prepared.held_out[0].text
    assert found.tokenizer.encode(text).tolist() == prepared.tokenizer.encode(text).tolist()


def test_it_answers_and_writes_as_ours(
    folder: Path, ours: tuple[Architecture, Transformer], prepared: Prepared
) -> None:
    prompts = [prepared.tokenizer.encode(text) for text in ("the old ship", "the old ship sailed", "calm")]
    asked = [Asked(model, prepared.tokenizer, CONTEXT) for model in (ours[1], load_foreign(folder))]
    drawing = Drawing(tokens=30, temperature=0)  # beyond the context: it reads the last half again
    written = [[one.tolist() for one in each.write(prompts, drawing, "tests")] for each in asked]
    assert written[0] == written[1]
    answers = [each.follow(prompts, [1, 2, 1], greedy=True) for each in asked]
    for name in ("nats", "greedy"):
        for one, other in zip(answers[0][name], answers[1][name], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_weights_that_cannot_be_loaded_are_told_in_words(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra 'eval'")
    (tmp_path / "config.json").write_text('{"model_type": "nobody-knows"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be loaded"):
        load_foreign(tmp_path)
    assert torch.is_grad_enabled()
