"""Tasks: what a model is asked, as declarations. Imports no torch, so that a plan can be made without it.

Promises that the items of a task follow from its declaration and the corpus alone: every run answers the same ones.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator

from workbench.data.answers import Answers
from workbench.identity import Spec, added, setting


class Metric(NamedTuple):
    """How to read the values of one metric."""

    unit: str
    higher_is_better: bool


def _later(default: Any) -> Any:
    """Declare a field that came later: at its default, scores keep the names they had without it."""
    return Field(default, json_schema_extra={"effect": "function", "neutral": list(default)})


class View(NamedTuple):
    """One way of asking a trained model; without anything said, the whole model at its training context.

    Attributes:
        multiple: How many times the training context goes through the model together.
        exit: After how many blocks the prediction is read; None is all of them.
        confidence: Each token leaves at the first exit whose largest probability exceeds this; None is at the last.
    """

    multiple: int = 1
    exit: int | None = None
    confidence: float | None = None

    @property
    def suffix(self) -> str:
        """What a metric's name ends with in this view: "@2x", "@exit=1", "@confidence=0.9", or nothing."""
        if self.exit is not None:
            return f"@exit={self.exit}"
        if self.confidence is not None:
            return f"@confidence={self.confidence:g}"
        return "" if self.multiple == 1 else f"@{self.multiple}x"

    def label(self, context: int) -> str:
        """Return what the scores call it: the context in tokens, the exit, or the confidence."""
        if self.exit is None and self.confidence is None:
            return f"context={context * self.multiple}"
        return self.suffix.removeprefix("@")


class BitsPerByte(Spec):
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
        )

    @property
    def produces(self) -> tuple[str, ...]:
        """The names of the metrics it leaves."""
        early = (f"layers{view.suffix}" for view in self.views if view.confidence is not None)
        return (*(f"bits_per_byte{view.suffix}" for view in self.views), *early)


class SwappedWords(Spec):
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

    @property
    def views(self) -> tuple[View, ...]:
        """The views in which it is asked: one, at the training context."""
        return (View(),)

    @property
    def produces(self) -> tuple[str, ...]:
        """The names of the metrics it leaves."""
        return tuple(self.metrics)


class HeldOutAnswers(Spec):
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

    @property
    def views(self) -> tuple[View, ...]:
        """The views in which it is asked: one, at the training context."""
        return (View(),)

    @property
    def produces(self) -> tuple[str, ...]:
        """The names of the metrics it leaves."""
        return tuple(self.metrics)


Task = Annotated[BitsPerByte | SwappedWords | HeldOutAnswers, Field(discriminator="kind")]


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
    """

    tasks: tuple[Task, ...] = setting((BitsPerByte(), SwappedWords()), min_length=1)
    batch: int = setting(2048, effect="efficiency", ge=1)
    samples: Samples | None = added(None)

    @field_validator("tasks")
    @classmethod
    def _ask_once(cls, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        kinds = [task.kind for task in tasks]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"each kind of task can be asked once: expected distinct kinds, got {', '.join(kinds)}")
        return tasks
