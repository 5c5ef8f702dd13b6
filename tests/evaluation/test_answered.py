"""Held-out answers: what is asked, and what it costs to answer."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from architectures.presets import tiny
from architectures.transformer import Batch, Transformer
from workbench.configuration import Configuration
from workbench.data.answers import Answers, read_answers
from workbench.data.prepared import Prepared
from workbench.errors import DataError, PlanError
from workbench.evaluation.answered import draw
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.tasks import Evaluation, HeldOutAnswers
from workbench.sweep import Metric
from workbench.training.recipe import FineTuning, Pretraining

CONTEXT = 30


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    rows = [{"prompt": f"{a}, {b}", "answer": f"żagle {a * b}"} for a in range(10) for b in range(10)]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return Answers(path=str(tmp_path / "answers.jsonl"), held_out=0.2)


def test_an_answer_costs_its_own_nats_given_its_prompt(
    answers: Answers, prepared: Prepared, model: Transformer
) -> None:
    asked = Evaluation(tasks=(HeldOutAnswers(answers=answers),))
    scores = evaluate(model, prepared, asked, score_id="s", context=CONTEXT).to_pandas()
    assert set(scores["metric"]) == {"answer_bits_per_byte"}
    lines = (Path(answers.path)).read_text().splitlines()
    assert 10 < len(scores) < 30
    for row in scores.to_dict("records")[:5]:
        pair = json.loads(lines[int(row["item"]) - 1])
        end, encode = prepared.tokenizer.end_of_text, prepared.tokenizer.encode
        prompt = np.concatenate([[end], encode(f"User: {pair['prompt']}\n"), encode("Assistant:")])
        answer = np.append(encode(" " + pair["answer"]), end)
        sequence = torch.from_numpy(np.concatenate([prompt, answer]))[None]
        batch = Batch(sequence[:, :-1], sequence[:, 1:], torch.ones(1, sequence.shape[1] - 1))
        model.eval()
        nats = model.nats(model(batch), batch)[0, -len(answer) :].sum().item()
        size = len((" " + pair["answer"]).encode())
        assert row["weight"] == size
        assert row["value"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def test_only_held_out_examples_that_fit_are_asked_and_fewer_are_a_part_of_them(
    answers: Answers, prepared: Prepared
) -> None:
    held = {str(line) for line in read_answers(answers, prepared.tokenizer).held_out.lines}
    every = [item.name for item in draw(HeldOutAnswers(answers=answers), prepared, 64)]
    assert set(every) == held
    assert [item.name for item in draw(HeldOutAnswers(answers=answers, items=4), prepared, 64)] == every[:4]
    longest = max(len(item.tokens) for item in draw(HeldOutAnswers(answers=answers), prepared, 64))
    short = draw(HeldOutAnswers(answers=answers), prepared, longest - 2)
    assert 0 < len(short) < len(every)
    with pytest.raises(DataError, match="no held-out example can be asked about"):
        draw(HeldOutAnswers(answers=answers.model_copy(update={"held_out": 0.0})), prepared, 64)


def test_an_arm_that_is_fine_tuned_on_what_it_is_asked_about_is_refused(answers: Answers) -> None:
    def configured(held_out: float) -> Configuration:
        task = HeldOutAnswers(answers=answers.model_copy(update={"held_out": held_out}))
        return Configuration(
            architecture=tiny(),
            stages=(Pretraining(), FineTuning(answers=answers)),
            evaluation=Evaluation(tasks=(task,)),
        )

    configured(0.2).refuse_unanswerable("arm 'a'")
    configured(0.1).refuse_unanswerable("arm 'a'")
    with pytest.raises(PlanError, match=r"(?s)arm 'a', evaluation\.tasks\.answers\.answers\.held_out.*at most 0\.2"):
        configured(0.5).refuse_unanswerable("arm 'a'")


def test_the_metric_is_known_to_a_sweep(answers: Answers) -> None:
    assert Metric(name="answer_bits_per_byte", smallest_effect=0.1).higher_is_better is False
    evaluation = Evaluation(tasks=(HeldOutAnswers(answers=answers),))
    assert Configuration(architecture=tiny(), evaluation=evaluation).produces() == ("answers/answer_bits_per_byte",)
