"""Tasks that others made: benchmarks in files, a probe of stereotypes, and those of lm-evaluation-harness.

Declarations only, which import neither torch nor the harness; `tasks` has the rest and is where to import them from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from workbench.data.benchmarks import Benchmark
from workbench.data.rows import content_hash
from workbench.evaluation.definitions import definition_hash, harness_version, is_file
from workbench.evaluation.own import OwnMetric
from workbench.evaluation.questions import Metric, Question
from workbench.identity import setting

CHOSEN = ("accuracy", "margin", "truth_probability", "truth_log_probability")
NORMALISED = ("accuracy", "accuracy_per_character", "accuracy_per_byte", "accuracy_per_token", *CHOSEN[1:])
LEFT = {  # what the items of a benchmark leave, where it is not NORMALISED
    "winogrande": CHOSEN,  # the same continuation of every choice
    "mmlu": CHOSEN,  # choices are letters
    "truthfulqa_mc2": CHOSEN,
    "gsm8k": ("exact_match", "exact_match_flexible"),
    "lambada": ("accuracy", "answer_nats"),
    "winobias": ("stereotype", "preference"),
}
CHOICES = {"blimp": 2, "winogrande": 2, "piqa": 2, "winobias": 2, "hellaswag": 4, "openbookqa": 4, "mmlu": 4}


class BenchmarkItems(Question):
    """The items of a benchmark, from files in its public schema.

    Choices are compared by their log-probability, and ties count by share: `accuracy` (what lm-evaluation-harness calls
    acc), `accuracy_per_character` (its acc_norm), `accuracy_per_byte` (its acc_bytes) and `accuracy_per_token`; beside
    them `margin`, by how many nats the truth is likelier than the best other choice, `truth_log_probability`, in nats,
    and `truth_probability`, as if one of the choices had to follow (for TruthfulQA's mc2, the harness's acc).

    GSM8K is written greedily: `exact_match` (its strict-match) and `exact_match_flexible`. LAMBADA leaves `accuracy`,
    whether the last word would have been written, and `answer_nats`, the exponential of whose mean is its perplexity.
    WinoBias leaves `stereotype`, whether the stereotyped sentence is the likelier (0.5 on average is neutral), and
    `preference`, by how many nats (0 is neutral).

    Attributes:
        benchmark: Which, where, and how many of its items.
        protocol: "lm-eval" asks as lm-evaluation-harness 0.4.13 does and scores the answer alone; "stlm" takes the
            log-probability of the whole text, as "Super Tiny Language Models" does (arXiv:2405.14159, section 4.1.2).
        shots: How many examples stand before every question.
        tokens: How many tokens are written, at most, where an answer is to be written.
        own: Metrics of your own.
        version: Of the words in which it is asked; a later one is another task.
    """

    metrics: ClassVar[dict[str, Metric]] = {
        "accuracy": Metric("share of items", higher_is_better=True),
        "accuracy_per_character": Metric("share of items", higher_is_better=True),
        "accuracy_per_byte": Metric("share of items", higher_is_better=True),
        "accuracy_per_token": Metric("share of items", higher_is_better=True),
        "margin": Metric("nats", higher_is_better=True),
        "truth_probability": Metric("probability", higher_is_better=True),
        "truth_log_probability": Metric("nats", higher_is_better=True),
        "exact_match": Metric("share of items", higher_is_better=True),
        "exact_match_flexible": Metric("share of items", higher_is_better=True),
        "answer_nats": Metric("nats per answer", higher_is_better=False),
        "stereotype": Metric("share of items", higher_is_better=False),
        "preference": Metric("nats", higher_is_better=False),
    }

    kind: Literal["benchmark"] = "benchmark"
    benchmark: Benchmark
    protocol: Literal["lm-eval", "stlm"] = setting("lm-eval")
    shots: int = setting(0, ge=0)
    tokens: int = setting(256, ge=1)
    own: tuple[OwnMetric, ...] = setting(())
    version: Literal[1] = setting(1)

    @model_validator(mode="after")
    def _can_be_asked_so(self) -> Self:
        name = self.benchmark.name
        if self.protocol == "stlm" and name in ("gsm8k", "lambada", "winobias", "truthfulqa_mc2"):
            raise ValueError(f"protocol: expected lm-eval for {name}, got stlm")
        if self.shots and (self.protocol == "stlm" or name in ("blimp", "winobias") or name.startswith("truthfulqa")):
            raise ValueError(f"shots: expected 0 for {name} by the protocol {self.protocol}, got {self.shots}")
        if bool(self.shots) != (self.benchmark.examples is not None):
            given = self.benchmark.examples or "none"
            raise ValueError(f"benchmark.examples: expected files for {self.shots} shots, got {given}")
        return self

    @model_validator(mode="after")
    def _metrics_have_names_of_their_own(self) -> Self:
        named = [own.metric for own in self.own]
        if taken := sorted({name for name in named if name in self.metrics or named.count(name) > 1}):
            raise ValueError(f"own: expected names that no other metric has, got {', '.join(taken)}")
        return self

    @property
    def writes(self) -> bool:
        """Whether the model writes answers, and is not only asked how likely some are."""
        return self.benchmark.name == "gsm8k"

    @property
    def needs_logits(self) -> bool:
        """Whether it asks for the probability of every token, and not only for that of given text."""
        return self.writes or self.benchmark.name == "lambada"

    @property
    def label(self) -> str:
        """The benchmark, how many examples are shown, and the protocol where it is not that of lm-eval."""
        shots = f", {self.shots}-shot" if self.shots else ""
        tokens = f", {self.tokens} tokens" if self.writes and self.tokens != 256 else ""
        protocol = f" ({self.protocol})" if self.protocol != "lm-eval" else ""
        return f"{self.benchmark.title}{shots}{tokens}{protocol}"

    @property
    def produces(self) -> tuple[str, ...]:
        """The names of the metrics it leaves."""
        left = CHOSEN if self.protocol == "stlm" else LEFT.get(self.benchmark.name, NORMALISED)
        return (*left, *(own.metric for own in self.own))

    def chance(self, metric: str) -> float | None:
        """Return what guessing scores, where every item has as many choices, of which one is right."""
        if metric not in ("stereotype", *(name for name in NORMALISED if name.startswith("accuracy"))):
            return None
        choices = CHOICES.get(self.benchmark.name)
        return None if choices is None else 1 / choices


class Occupations(Question):
    """Whom the model takes for the secretary: LokiLM's probe of stereotypes, over pairs of occupations.

    A pair is asked about four times: with either occupation named first, and with either pronoun for the person in
    question. Leaves `stereotype`, whether the answer is the occupation typical of that pronoun's gender (0.5 on average
    is neutral), `preference`, by how many nats (0 is neutral), and `order_flip`, whether naming the occupations the
    other way round changes the answer (0 where it never does; a model that decides by order alone has 1).

    Attributes:
        path: A file of rows {"occupation", "majority_gender": "female" or "male"}; None takes twelve of our own.
        pairs: How many pairs of a female and a male occupation, at most; None is all.
    """

    metrics: ClassVar[dict[str, Metric]] = {
        "stereotype": Metric("share of items", higher_is_better=False),
        "preference": Metric("nats", higher_is_better=False),
        "order_flip": Metric("share of items", higher_is_better=False),
    }

    kind: Literal["occupations"] = "occupations"
    path: str | None = setting(None, effect="efficiency", min_length=1)
    pairs: int | None = setting(None, ge=1)

    def source_hash(self) -> str | None:
        """Return the hash of what the file holds, which stands for it in identity; None where there is no file."""
        return None if self.path is None else content_hash(self.path)


class LmEval(Question):
    """A task of lm-evaluation-harness: any that it knows by name, group and tag included, or one in a file of yours.

    The harness draws the documents, words the questions and judges; every number that it gives of a document is kept
    under its name (`acc`, `acc_norm`, `exact_match`, ...), and where one of several choices is true `margin` beside
    them: by how many nats it is likelier than the best other. Needs the extra `eval`. Tasks by name fetch their data
    from the Hugging Face hub; those of a file may name local data.

    Attributes:
        task: A name that the harness knows, or the path of a task's .yaml, which then becomes `definition`.
        definition: The .yaml. Its content is identity, with the functions and local data that it names; the path is
            not.
        include_path: A folder of further definitions, which come before the harness's own.
        shots: Examples before every question; None is as many as the task itself says.
        items: How many documents, at most, in turn from its subtasks; None is all.
        scored: The metrics that a sweep may ask for; that they come is checked when the task is asked.
    """

    metrics: ClassVar[dict[str, Metric]] = {
        "acc": Metric("share of items", higher_is_better=True),
        "acc_norm": Metric("share of items", higher_is_better=True),
        "acc_bytes": Metric("share of items", higher_is_better=True),
        "exact_match": Metric("share of items", higher_is_better=True),
        "log_likelihood": Metric("nats", higher_is_better=True),
    }

    kind: Literal["lm_eval"] = "lm_eval"
    task: str = setting(min_length=1)
    definition: str | None = setting(None, effect="efficiency", min_length=1)
    include_path: str | None = setting(None, effect="efficiency", min_length=1)
    shots: int | None = setting(None, ge=0)
    items: int | None = setting(None, ge=1)
    scored: tuple[str, ...] = setting(("acc",), min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _name_the_file(cls, values: Any) -> Any:
        if isinstance(values, dict) and is_file(str(values.get("task"))) and values.get("definition") is None:
            return {**values, "task": Path(values["task"]).stem, "definition": values["task"]}
        return values

    @property
    def label(self) -> str:
        """The task, how many examples are shown where that was said, and the version of the harness."""
        shots = "" if self.shots is None else f", {self.shots}-shot"
        return f"{self.task}{shots} (lm-eval {harness_version()})"

    @property
    def produces(self) -> tuple[str, ...]:
        """The names of the metrics it leaves, as far as they are declared."""
        return self.scored

    def source_hash(self) -> str:
        """Return the hash of the harness's version, local definitions and local data, which stands for them.

        Raises:
            DataError: for a definition that cannot be read.
            MissingExtra: if the harness is not installed.
        """
        return definition_hash(self.definition, self.include_path)
