"""One item of a benchmark, in the form that evaluation and decontamination share."""

from __future__ import annotations

from typing import NamedTuple


class Item(NamedTuple):
    """One item of a benchmark, before any prompt is made of it.

    Attributes:
        name: Under which its scores are kept; stable, distinct within the benchmark.
        cluster: Items that share it are not independent: the paradigm of a minimal pair, the subject of a question.
        question: What is asked; "_" is the gap of a cloze; empty where the choices are whole sentences.
        choices: What can be answered; empty where an answer is to be written.
        truths: Which choices are true, by number; one, except where several are.
        answer: What is to be written, where there are no choices.
        prompt: The question in the words of lm-evaluation-harness, where these are not `question`.
        verbatim: Question and choices as the file has them, where `question` and `choices` were cleaned.
    """

    name: str
    cluster: str
    question: str
    choices: tuple[str, ...]
    truths: tuple[int, ...]
    answer: str = ""
    prompt: str = ""
    verbatim: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """What must not stand in training text: the question with every answer to it, each as one text."""
        answers = self.choices or (self.answer,)
        if "_" in self.question.split() or self.question.count("_") == 1:
            return tuple(self.question.replace("_", answer, 1) for answer in answers)
        return tuple(f"{self.question} {answer}".strip() for answer in answers)
