"""Examples with answers: what a line may be, what it becomes, and what is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sentence_pieces import write_folder

from workbench.data.answers import Answers, Examples, Template, read_answers
from workbench.data.tokenizer import BytePairs, Tokenizer
from workbench.data.vocabularies import HuggingFaceTokenizer
from workbench.errors import DataError
from workbench.identity import canonical, digest

PAIR = {"prompt": "What is 2 + 2?", "answer": "4"}


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return BytePairs(vocabulary=300).train(["User: What is 2 + 2?\nAssistant: It is 4, of course."] * 3)


def written(folder: Path, *rows: object, name: str = "answers.jsonl", **options: Any) -> Answers:
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return Answers(path=str(path), **{"held_out": 0.0, **options})


def texts(examples: Examples, tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """Return every example as text, and what of it is scored; "|" is an end_of_text."""
    found = []
    for start, stop in zip(examples.offsets[:-1], examples.offsets[1:], strict=True):
        spelt = [
            "|" if token == tokenizer.end_of_text else tokenizer.decode([token])
            for token in examples.tokens[start:stop]
        ]
        scored = examples.scored[start:stop]
        found.append(("".join(spelt), "".join(piece for piece, counts in zip(spelt, scored, strict=True) if counts)))
    return found


@pytest.mark.parametrize(
    ("row", "text", "scored"),
    [
        (PAIR, "User: What is 2 + 2?\nAssistant: 4|", " 4|"),
        ({"instruction": "Add.", "output": "4"}, "User: Add.\nAssistant: 4|", " 4|"),
        ({"instruction": "Add.", "input": "2, 2", "output": "4"}, "User: Add.\n\n2, 2\nAssistant: 4|", " 4|"),
        ({"instruction": "Add.", "input": "", "output": "4"}, "User: Add.\nAssistant: 4|", " 4|"),
        (
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "2 + 2?"},
                    {"role": "assistant", "content": "4"},
                    {"role": "user", "content": "Sure?"},
                    {"role": "assistant", "content": "Yes."},
                ]
            },
            "Be brief.\n\nUser: 2 + 2?\nAssistant: 4|User: Sure?\nAssistant: Yes.|",
            " 4| Yes.|",
        ),
    ],
    ids=["pair", "instruction", "input", "empty input", "chat"],
)
def test_every_kind_of_line_becomes_text_in_which_the_answers_count(
    tmp_path: Path, tokenizer: Tokenizer, row: dict[str, Any], text: str, scored: str
) -> None:
    examples = read_answers(written(tmp_path, row), tokenizer).training
    assert texts(examples, tokenizer) == [(text, scored)]
    assert examples.sizes.tolist() == [len(scored.replace("|", ""))]


def test_a_template_says_how_an_example_is_written(tmp_path: Path, tokenizer: Tokenizer) -> None:
    template = Template(user="<q>{}</q>", assistant="{}.\n")
    examples = read_answers(written(tmp_path, PAIR, template=template), tokenizer).training
    assert texts(examples, tokenizer) == [("<q>What is 2 + 2?</q>4.\n|", "4.\n|")]
    with pytest.raises(ValidationError, match="once, where the content goes"):
        Template(user="User: ")


@pytest.mark.parametrize(
    ("line", "problem", "got"),
    [
        ('{"prompt": "a", ', "not valid JSON", "column"),
        ("[1]", "not an example", "list"),
        ({"prompt": "a"}, "a field of an example is missing", "got:      prompt"),
        ({"prompt": "a", "output": "b"}, "a field of an example is missing", "prompt, output"),
        ({"prompt": "a", "answer": 4}, "the field 'answer' is not a string", "int"),
        ({"prompt": "a", "answer": " \n"}, "an answer is empty", "' .n'"),
        ('{"prompt": "a", "answer": "\\ud800"}', "not valid Unicode", "character 0"),
        ({"messages": "a"}, "a chat is not a list", "str"),
        ({"messages": [{"role": "user"}]}, "messages.0 is not a message", "role"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role is not known", "'tool'"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no answer", "user"),
    ],
)
def test_a_line_that_is_no_example_is_refused_with_file_and_line(
    tmp_path: Path, tokenizer: Tokenizer, line: object, problem: str, got: str
) -> None:
    answers = written(tmp_path, PAIR, "", line)
    with pytest.raises(DataError, match=f"(?s){problem}.*{got}") as refusal:
        read_answers(answers, tokenizer)
    assert f"{answers.path}:3" in str(refusal.value)


def test_a_missing_or_empty_file_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        digest(Answers(path=str(tmp_path / "none.jsonl")))
    with pytest.raises(DataError, match="a file of examples is empty"):
        read_answers(written(tmp_path, ""), tokenizer)


def test_the_content_of_the_file_is_identity_and_its_path_is_not(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    one, moved = written(tmp_path, PAIR), written(tmp_path / "elsewhere", PAIR, name="other.jsonl")
    assert digest(one) == digest(moved)
    assert "path" not in canonical(one)
    before = digest(one)
    written(tmp_path, PAIR, {"prompt": "3 + 3?", "answer": "6"})
    assert digest(one) != before
    assert digest(moved) == before != digest(moved.model_copy(update={"held_out": 0.5}))


def test_equal_examples_count_once_and_a_changed_file_is_read_again(tmp_path: Path, tokenizer: Tokenizer) -> None:
    same = {"messages": [{"role": "user", "content": PAIR["prompt"]}, {"role": "assistant", "content": "4"}]}
    other = {"prompt": "a", "answer": "b"}
    answers = written(tmp_path, PAIR, other, same, PAIR)
    split = read_answers(answers, tokenizer)
    assert (split.repeated, split.training.lines.tolist()) == (2, [1, 2])
    written(tmp_path, other)
    assert read_answers(answers, tokenizer).training.lines.tolist() == [1]


ROWS = [{"prompt": f"{a} + {b}?", "answer": str(a + b)} for a in range(10) for b in range(20)]


@settings(max_examples=20)
@given(st.randoms(use_true_random=False), st.integers(1, 200))
def test_an_example_stays_on_its_side_and_in_its_place_whatever_is_around_it_and_under_every_template(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, random: Any, kept: int
) -> None:
    folder, rows = tmp_path_factory.mktemp("split"), random.sample(ROWS, kept)
    every = read_answers(written(folder, *ROWS, name="all.jsonl", held_out=0.2), tokenizer)
    some = read_answers(written(folder, *rows, held_out=0.2, template=Template(user="Q: {} ")), tokenizer)
    assert 20 <= len(every.held_out.lengths) <= 60
    sides = [({row.tobytes() for row in side.hashes}) for side in (every.training, every.held_out)]
    assert {row.tobytes() for row in some.training.hashes} <= sides[0]
    assert {row.tobytes() for row in some.held_out.hashes} <= sides[1]
    assert len(some.training.lengths) + len(some.held_out.lengths) == kept


def test_tokens_are_those_of_the_pieces_so_that_none_spans_the_edge_of_an_answer(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    examples = read_answers(written(tmp_path, PAIR), tokenizer).training
    pieces = [tokenizer.encode(text) for text in ("User: What is 2 + 2?\n", "Assistant:", " 4")]
    assert np.array_equal(examples.tokens, [*np.concatenate(pieces), tokenizer.end_of_text])


def test_only_the_beginning_of_an_example_has_the_space_that_a_tokenizer_puts_before_texts(tmp_path: Path) -> None:
    spaced = HuggingFaceTokenizer(path=str(write_folder(tmp_path / "theirs"))).train(())
    examples = read_answers(written(tmp_path, PAIR), spaced).training
    assert spaced.decode(examples.tokens) == "User: What is 2 + 2?\nAssistant: 4"
    assert spaced.decode(examples.tokens[examples.scored], continued=True) == " 4"
    assert examples.sizes.tolist() == [2]
