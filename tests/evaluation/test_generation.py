"""Text a model writes: the cache changes nothing, transformers writes the same, and every prompt stands alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.bytes import Bytes
from architectures.embeddings import Table
from architectures.exchange import export_model
from architectures.feedforward import SwiGLU
from architectures.norms import RMSNorm
from architectures.positions import Alibi, Learned, Rotary
from architectures.presets import preset
from architectures.specimens import moved
from architectures.transformer import Batch, Transformer
from workbench.data.prepared import Prepared
from workbench.errors import WorkbenchError
from workbench.evaluation.generation import choose, extend, generate
from workbench.evaluation.tasks import Drawing
from workbench.seeds import generator

CONTEXT = 16  # of the fixture
GREEDY = Drawing(tokens=12, temperature=0)
PROMPTS = ["The old ship", "", "Sailors sang of home while", "The calm sea"]


def greedily(model: Transformer, sequence: list[int], tokens: int, context: int) -> list[int]:
    """Read everything again for every token, and the last half of a context that is full."""
    read, written = sequence[-context:], []
    for _ in range(tokens):
        if len(read) > context:
            read = read[-(context // 2) :]
        row = torch.tensor([read])
        with torch.no_grad():
            logits = model.logits(model(Batch(row, row, torch.ones(row.shape))).hidden[0, -1])
        written.append(int(logits.argmax()))
        read = [*read, written[-1]]
    return written


@pytest.mark.parametrize("position", [Rotary(), Alibi(), Learned()], ids=repr)
@pytest.mark.parametrize("length", [1, 5, 12, 15])
def test_a_cache_writes_what_reading_everything_again_writes(position, length: int) -> None:
    architecture = preset("tinyllama-1m").architecture.vary(
        width=16, layers=2, context=12, vocabulary=40, position=position, attention=MultiHead(heads=2)
    )
    model = moved(architecture).eval()
    sequence = generator(length, "tests/prompt").integers(0, 40, length)
    (written,) = extend(
        model, [sequence], context=12, drawing=Drawing(tokens=30, temperature=0), streams=[generator(0, "")]
    )
    assert written.tolist() == greedily(model, sequence.tolist(), 30, 12)


def test_a_greedy_text_is_the_one_transformers_writes(tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    architecture = Architecture(
        width=32,
        layers=2,
        context=48,
        vocabulary=61,
        position=Rotary(),
        attention=MultiHead(heads=4, key_value_heads=2),
        feed_forward=SwiGLU(width=40),
        norm=RMSNorm(),
        embedding=Table(tied=False),
    )
    model = moved(architecture).eval()
    export_model(model, architecture, tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path)
    sequence = np.array([3, 14, 15, 9, 2])
    (written,) = extend(
        model, [sequence], context=48, drawing=Drawing(tokens=40, temperature=0), streams=[generator(0, "")]
    )
    given_to = torch.from_numpy(sequence)[None]
    told = theirs.generate(given_to, attention_mask=torch.ones_like(given_to), do_sample=False, max_new_tokens=40)
    assert written.tolist() == told[0, len(sequence) :].tolist()
    assert len(set(written.tolist())) > 5  # no fixed point, which any two models might share


@pytest.mark.parametrize("drawing", [GREEDY, Drawing(tokens=12), Drawing(tokens=20, top=None, temperature=2.0)])
def test_a_text_does_not_depend_on_what_is_written_beside_it(
    model: Transformer, prepared: Prepared, drawing: Drawing
) -> None:
    together = generate(model, prepared.tokenizer, PROMPTS, context=CONTEXT, drawing=drawing)
    alone = [generate(model, prepared.tokenizer, [prompt], context=CONTEXT, drawing=drawing)[0] for prompt in PROMPTS]
    reversed_ = generate(model, prepared.tokenizer, PROMPTS[::-1], context=CONTEXT, drawing=drawing)
    assert together == alone == reversed_[::-1]


def test_one_seed_writes_one_text_and_copies_of_a_prompt_differ(model: Transformer, prepared: Prepared) -> None:
    def text(seed: int, copies: int) -> list[str]:
        drawing = Drawing(tokens=8)
        return generate(model, prepared.tokenizer, ["Story"] * copies, context=CONTEXT, drawing=drawing, seed=seed)

    first = text(0, 3)
    assert first == text(0, 3)
    assert first[:1] == text(0, 1)
    assert len({*first, *text(1, 1)}) == 4


def test_a_text_ends_at_end_of_text_and_is_told_as_it_comes(prepared: Prepared, monkeypatch) -> None:
    architecture = preset("tinyllama-1m").architecture.vary(width=16, layers=1, vocabulary=320, context=16)
    model, told = moved(architecture), []
    ids = iter([[7, 9], [8, prepared.tokenizer.end_of_text], [prepared.tokenizer.end_of_text, 5], [6, 6]])
    monkeypatch.setattr(model, "logits", lambda hidden: torch.eye(320)[next(ids)])
    texts = generate(
        model,
        prepared.tokenizer,
        ["The", "The"],
        context=16,
        drawing=GREEDY,
        heard=lambda row, token: told.append((row, token)),
    )
    assert texts == [prepared.tokenizer.decode([7, 8]), prepared.tokenizer.decode([9])]
    assert told == [(0, 7), (1, 9), (0, 8)]
    assert next(ids) == [6, 6]  # when all have ended nothing more is computed


@given(
    seed=st.integers(0, 99),
    top=st.one_of(st.none(), st.integers(1, 8)),
    temperature=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
)
def test_a_token_is_one_of_the_likeliest(seed: int, top: int | None, temperature: float) -> None:
    stream = generator(seed, "tests/logits")
    logits = stream.normal(0, 3, 8)
    chosen = choose(logits, Drawing(temperature=temperature, top=top), stream)
    allowed = 1 if temperature == 0 else top or 8
    assert chosen in np.argsort(-logits)[:allowed]


def test_tokens_are_drawn_with_their_probabilities() -> None:
    stream, logits = generator(0, "tests/frequencies"), np.log([0.5, 0.2, 0.2, 0.1])
    drawn = [choose(logits, Drawing(temperature=0.5, top=3), stream) for _ in range(4000)]
    expected = np.array([0.25, 0.04, 0.04, 0.0]) / 0.33  # squared: a temperature of one half
    found = np.bincount(drawn, minlength=4) / 4000
    assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / 4000)
    assert found[3] == 0


def test_dropout_is_off_while_writing_and_the_model_comes_back_as_it_was(
    model: Transformer, prepared: Prepared
) -> None:
    expected = generate(model.eval(), prepared.tokenizer, ["Story"], context=CONTEXT, drawing=GREEDY)
    assert generate(model.train(), prepared.tokenizer, ["Story"], context=CONTEXT, drawing=GREEDY) == expected
    assert model.training


def test_an_exit_writes_what_the_first_blocks_alone_would(prepared: Prepared) -> None:
    architecture = preset("tinyllama-1m").architecture.vary(width=16, vocabulary=320, context=16)
    deep = moved(architecture).eval()
    shallow = architecture.vary(layers=1).build()
    shallow.load_state_dict({k: v for k, v in deep.state_dict().items() if not k.startswith("blocks.1.")})
    texts = [
        generate(one, prepared.tokenizer, ["The"], context=16, drawing=GREEDY, exit=exit)
        for one, exit in ((deep, 1), (shallow, None), (deep, None))
    ]
    assert texts[0] == texts[1] != texts[2]


def test_a_model_over_bytes_is_refused(prepared: Prepared) -> None:
    embedding = Bytes(byte_width=8, heads=1, encoder_layers=1, decoder_layers=1)
    architecture = preset("tinyllama-1m").architecture.vary(width=16, vocabulary=320, context=16, embedding=embedding)
    model = architecture.build(spelling=prepared.tokenizer.spelling)
    with pytest.raises(WorkbenchError, match="the model cannot write text"):
        generate(model, prepared.tokenizer, ["The"], context=16)
