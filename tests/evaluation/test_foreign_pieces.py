"""A Llama whose tokenizer falls back on bytes: asked as the harness asks it, every byte of a document counted once."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_pieces import write_folder

from workbench.data.prepared import Prepared
from workbench.evaluation import bits, generation
from workbench.evaluation.asking import Asked
from workbench.evaluation.tasks import BitsPerByte, View
from workbench.opening import Askable, open_asked
from workbench.store import Store

pytest.importorskip("lm_eval", reason="needs the extra 'eval'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
CONTEXT = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    path = tmp_path_factory.mktemp("llama") / "tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=368, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=CONTEXT, initializer_range=0.6, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[:259] = model.lm_head.weight[360:] = 0  # what it writes are whole characters
    model.save_pretrained(path)
    return write_folder(path)


@pytest.fixture(scope="module")
def opened(folder: Path) -> Askable:
    return open_asked(str(folder), Store(folder.parent))


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, number, ("task", number, 1)) for number, one in enumerate(arguments)]


def test_continuations_cost_what_they_cost_the_harness(opened: Askable, theirs: Any) -> None:
    from workbench.evaluation.adapter import Adapter

    # none begins as another continues: the harness would take one's logits for the other's
    pairs = [("", " a calm ship"), ("", "a calm ship"), ("the old ", "sea"), ("the old", " sea"), ("ż\n", "łódź")]
    pairs += [("over the calm sea sailors sang of home while " * 5, word) for word in ("ships", " ships")]
    requests = instances("loglikelihood", pairs[1:])  # before " a" the library's Metaspace puts no space
    adapter = Adapter(Asked(opened.model, opened.tokenizer, opened.context))
    ours, oracle = adapter.loglikelihood(requests), theirs.loglikelihood(requests, disable_tqdm=True)
    assert opened.tokenizer.begin_of_text == 1
    np.testing.assert_allclose([one for one, _ in ours], [one for one, _ in oracle], atol=1e-4)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in oracle]
    spaced, plain = adapter.loglikelihood(instances("loglikelihood", pairs[:2]))
    assert spaced[0] < plain[0]  # two spaces: other text


def test_what_is_written_is_what_the_harness_gets_and_the_space_before_it(opened: Askable, theirs: Any) -> None:
    from workbench.evaluation.adapter import Adapter

    settings = {"until": ["\n\n"], "max_gen_toks": 6, "do_sample": False}
    prompts = ["the old ship", "the", "while sailors sang of", "home\n", "a calm sea"]
    requests = instances("generate_until", [(prompt, settings) for prompt in prompts])
    adapter = Adapter(Asked(opened.model, opened.tokenizer, opened.context))
    ours, oracle = adapter.generate_until(requests), theirs.generate_until(requests, disable_tqdm=True)
    assert [text.removeprefix(" ") for text in ours] == oracle


def test_bits_are_those_of_the_text_after_the_token_that_begins_it(opened: Askable, prepared: Prepared) -> None:
    data = replace(prepared, tokenizer=opened.tokenizer)
    task = BitsPerByte(documents=3, bytes_per_document=90)
    (passage, *_) = passages = bits.draw(task, data, opened.context)
    text = next(one.text for one in prepared.held_out if one.name == passage.name).encode()[:90].decode(errors="ignore")
    ids = torch.from_numpy(passage.tokens)
    assert ids[0] == 1
    assert opened.tokenizer.decode(passage.tokens[1:]) == text
    costs = []
    for window in passage.windows:
        seen = ids[None, window.start : window.stop + 1]
        with torch.no_grad():
            logs = opened.model.inner(input_ids=seen[:, :-1]).logits.log_softmax(-1)  # type: ignore[union-attr]
        costs += (-logs[0].gather(-1, seen[0, 1:, None])[window.scored - window.start :, 0]).tolist()
    assert len(costs) == len(ids) - 1
    asked = Asked(opened.model, opened.tokenizer, opened.context)
    score = bits.ask(task, passages, View(), asked)[0]
    assert score.weight == len(text.encode())
    assert score.value == pytest.approx(sum(costs) / math.log(2) / len(text.encode()), rel=1e-4)


def test_a_text_from_its_beginning_has_no_space_before_it(opened: Askable, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = opened.model
    given: list[np.ndarray] = []

    def write(model: Any, begun: list[np.ndarray], **_: Any) -> list[np.ndarray]:
        given.extend(begun)
        return [opened.tokenizer.encode(" home", continued=True) for _ in begun]

    monkeypatch.setattr(generation, "extend", write)
    written = generation.generate(model, opened.tokenizer, ["", "the old", " "], context=CONTEXT)
    assert written == ["home", " home", " home"]
    assert [one.tolist()[0] for one in given] == [1, 1, 1]
    assert given[0].tolist() == [1]
