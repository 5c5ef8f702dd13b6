"""Tasks: what a model is asked, as declarations. Imports no torch, so that a plan can be made without it.

Promises that the items of a task follow from its declaration and the corpus alone: every run answers the same ones.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from workbench.data.answers import Answers
from workbench.evaluation.benchmark_tasks import BenchmarkItems, LmEval, Occupations
from workbench.evaluation.questions import Metric, Question, View
from workbench.identity import Spec, added, setting

__all__ = [
    "BenchmarkItems",
    "BitsPerByte",
    "Drawing",
    "Evaluation",
    "HeldOutAnswers",
    "LmEval",
    "Metric",
    "Occupations",
    "Question",
    "Samples",
    "SwappedWords",
    "Task",
    "View",
]


def _later(default: Any) -> Any:
    """Declare a field that came later: at its default, scores keep the names they had without it."""
    return Field(default, json_schema_extra={"effect": "function", "neutral": list(default)})


class BitsPerByte(Question):
    """How many bits the model needs per byte of held-out text; one item per document, of weight its bytes.

    Comparable between tokenizers. Windows of one context advance by `stride` tokens, so that every token is predicted
    from at least `context - stride` earlier ones where there are as many. The default, three quarters of the context,
    costs a third more than one pass over the text; `stride=1` gives every token its full context, at many times the
    cost.

    The same bytes can be asked about again in further views, each a metric of its own:

    Attributes:
        documents: How many held-out documents, at most.
        bytes_per_document: How much of each, from its beginning.
        stride: Tokens by which windows advance, in every view; None is three quarters of the view's context.
        contexts: Multiples of the training context: `(2, 4)` adds `bits_per_byte@2x` and `bits_per_byte@4x`. Refused in
            a plan whose positions end earlier, and for passages that are too short to fill such a context.
        exits: Blocks after which the prediction is read: `(1, 2)` adds `bits_per_byte@exit=1` and `...@exit=2`.
        confidences: Largest probability beyond which a token leaves the model: `(0.9,)` adds
            `bits_per_byte@confidence=0.9` and `layers@confidence=0.9`, the blocks its tokens passed through on average
            (a document's mean over tokens, weighted by its bytes like everything here). `architectures.exits.Confident`
            says what that measures and what not.
        sources: Of a mixture: `("web", "code")` adds `bits_per_byte@source=web` and `bits_per_byte@source=code`, each
            about up to `documents` held-out documents of its source; what is asked without it stays as it was.
    """

    metrics: ClassVar[dict[str, Metric]] = {
        "bits_per_byte": Metric("bits per byte", higher_is_better=False),
        "layers": Metric("blocks per token", higher_is_better=False),
    }

    kind: Literal["bits_per_byte"] = "bits_per_byte"
    documents: int = setting(32, ge=1)
    bytes_per_document: int = setting(6000, ge=1)
    stride: int | None = setting(None, ge=1)
    contexts: tuple[Annotated[int, Field(ge=2)], ...] = _later(())
    exits: tuple[Annotated[int, Field(ge=1)], ...] = _later(())
    confidences: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = _later(())
    sources: tuple[str, ...] = _later(())

    @field_validator("sources")
    @classmethod
    def _every_source_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"expected distinct names, got {', '.join(names)}")
        return tuple(sorted(names))

    @field_validator("contexts", "exits", "confidences")
    @classmethod
    def _ascending_and_distinct(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if len({f"{value:g}" for value in values}) < len(values):
            raise ValueError(f"expected distinct numbers, got {', '.join(f'{value:g}' for value in values)}")
        return tuple(sorted(values))

    @property
    def views(self) -> tuple[View, ...]:
        """The views in which it is asked, that of the training context first."""
        return (
            View(),
            *(View(multiple=multiple) for multiple in self.contexts),
            *(View(exit=exit) for exit in self.exits),
            *(View(confidence=confidence) for confidence in self.confidences),
            *(View(source=source) for source in self.sources),
        )

    @property
    def produces(self) -> tuple[str, ...]:
        """The names of the metrics it leaves."""
        early = (f"layers{view.suffix}" for view in self.views if view.confidence is not None)
        return (*(f"bits_per_byte{view.suffix}" for view in self.views), *early)


class SwappedWords(Question):
    """Held-out sentences against themselves with two neighbouring words swapped: which does the model find likelier?

    Scored by path probability, the log-probability of the whole sentence after end_of_text. Two metrics per item:
    `accuracy` (1, 0, and 0.5 for a tie) and `margin` (log-probability of the sentence less that of its distractor).
    """

    metrics: ClassVar[dict[str, Metric]] = {
        "accuracy": Metric("share of items", higher_is_better=True),
        "margin": Metric("nats", higher_is_better=True),
    }

    kind: Literal["swapped_words"] = "swapped_words"
    items: int = setting(256, ge=1)

    def chance(self, metric: str) -> float | None:
        """Return what guessing scores: one of two sentences is right."""
        return 0.5 if metric == "accuracy" else None


class HeldOutAnswers(Question):
    """How many bits the model needs per byte of a held-out answer, given its prompt; one item per example.

    Of weight its bytes. The end_of_text after an answer is part of it: to know where it ends is part of answering.
    Asked of a model that was fine-tuned on the same file, with the same `held_out`, it is about examples it never saw.

    Attributes:
        answers: The file, and how an example becomes text.
        items: How many held-out examples, at most.
    """

    metrics: ClassVar[dict[str, Metric]] = {
        "answer_bits_per_byte": Metric("bits per byte", higher_is_better=False),
    }

    kind: Literal["answers"] = "answers"
    answers: Answers
    items: int = setting(256, ge=1)


Task = Annotated[
    BitsPerByte | SwappedWords | HeldOutAnswers | BenchmarkItems | Occupations | LmEval, Field(discriminator="kind")
]


class Drawing(Spec):
    """How a model writes text.

    Attributes:
        tokens: How many, at most; an end_of_text ends a text earlier.
        temperature: By which logits are divided before a token is drawn; 0 takes the likeliest.
        top: Draw among the so many likeliest only; None draws among all.
    """

    tokens: int = setting(100, ge=1)
    temperature: float = setting(0.8, ge=0, allow_inf_nan=False)
    top: int | None = setting(50, ge=1)


class Samples(Drawing):
    """Texts that every finished model writes, kept with its record for people to read; nothing is scored by them.

    All runs draw from the same random numbers, so that where two models agree their texts do.

    Attributes:
        prompts: What the texts begin with, each as the beginning of a document.
    """

    prompts: tuple[str, ...] = setting(min_length=1)
    tokens: int = setting(64, ge=1)


class Evaluation(Spec):
    """Everything a finished model is asked.

    Attributes:
        tasks: What is scored.
        batch: Tokens in one forward pass: cost, never result.
        samples: What it writes besides; None is nothing.
        checkpoint: Which weights are scored: those at the end of training, or the best that the last stage kept by its
            rule (`keep_best`), which no held-out text decides.
        trajectory: How many of the last weights that the last stage kept on the way (`checkpoints`) are scored too, in
            the first view of every task: `bits_per_byte@tokens=102400` and so on, for the noise between checkpoints.
    """

    tasks: tuple[Task, ...] = setting((BitsPerByte(), SwappedWords()), min_length=1)
    batch: int = setting(2048, effect="efficiency", ge=1)
    samples: Samples | None = added(None)
    checkpoint: Literal["final", "best"] = added("final")
    trajectory: int = added(0, ge=0)

    @field_validator("tasks")
    @classmethod
    def _ask_once(cls, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        labels = [task.label for task in tasks]
        if len(set(labels)) < len(labels):
            raise ValueError(f"each task can be asked once: expected distinct ones, got {', '.join(labels)}")
        return tasks
