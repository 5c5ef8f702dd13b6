"""Tasks: what a model is asked, as declarations. Imports no torch, so that a plan can be made without it.

Promises that the items of a task follow from its declaration and the corpus alone: every run answers the same ones.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator

from workbench.identity import Spec, setting


class Metric(NamedTuple):
    """How to read the values of one metric."""

    unit: str
    higher_is_better: bool


class BitsPerByte(Spec):
    """How many bits the model needs per byte of held-out text; one item per document, of weight its bytes.

    Comparable between tokenizers. Windows of one context advance by `stride` tokens, so that every token is predicted
    from at least `context - stride` earlier ones where there are as many. The default, three quarters of the context,
    costs a third more than one pass over the text; `stride=1` gives every token its full context, at many times the
    cost.
    """

    metrics: ClassVar[dict[str, Metric]] = {"bits_per_byte": Metric("bits per byte", higher_is_better=False)}

    kind: Literal["bits_per_byte"] = "bits_per_byte"
    documents: int = setting(32, ge=1)
    bytes_per_document: int = setting(6000, ge=1)
    stride: int | None = setting(None, ge=1)


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


Task = Annotated[BitsPerByte | SwappedWords, Field(discriminator="kind")]


class Evaluation(Spec):
    """Everything a finished model is asked. `batch` is the number of tokens in one forward pass: cost, never result."""

    tasks: tuple[Task, ...] = setting((BitsPerByte(), SwappedWords()), min_length=1)
    batch: int = setting(2048, effect="efficiency", ge=1)

    @field_validator("tasks")
    @classmethod
    def _ask_once(cls, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        kinds = [task.kind for task in tasks]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"each kind of task can be asked once: expected distinct kinds, got {', '.join(kinds)}")
        return tasks
