"""`Configuration`: everything that determines a model of ours and its scores, resolved.

Architecture, the stages of training, data and evaluation, each a frozen specification that says what it is by itself. A
pretraining shared by two arms has the same identity in both and is trained once; a new evaluation retrains nothing.
"""

from __future__ import annotations

from typing import Any, Self, cast

from pydantic import Field, model_validator

from architectures.accounting import coverage, flops_per_token, parameters
from architectures.architecture import Architecture
from workbench.data.answers import Answers
from workbench.data.corpora import parts_of
from workbench.data.ordering import Weighted, shared
from workbench.data.prepared import Data
from workbench.errors import PlanError
from workbench.evaluation.tasks import Evaluation, HeldOutAnswers, Task, View
from workbench.identity import SCHEMA, digest
from workbench.records import Seeds
from workbench.sweep import Variant
from workbench.training.feeding import refuse_packing
from workbench.training.objective import refuse_without_logits
from workbench.training.recipe import FineTuning, PostHoc, Pretraining, Stage, Training
from workbench.training.teachers import Grown, Teacher, refuse_unusable, size_of


class Configuration(Variant):
    """One trainable variant: what the model is, how it is trained, on what, and how it is scored."""

    architecture: Architecture
    stages: tuple[Stage, ...] = Field(default=(Pretraining(),), min_length=1)
    data: Data = Data()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _stages_follow_each_other(self) -> Self:
        trained = True
        for place, stage in enumerate(self.stages):
            if isinstance(stage, Pretraining) != (place == 0):
                expected = "one that follows pretraining" if place else "pretraining"
                raise ValueError(f"stages.{place}: expected {expected}, got {stage.kind}")
            if isinstance(stage, Training) and not trained:
                raise ValueError(f"stages.{place}: expected no training after pruning or int8, got {stage.kind}")
            trained = isinstance(stage, Training)
        return self

    @property
    def pretraining(self) -> Pretraining:
        """The stage that trains from noise."""
        return cast(Pretraining, self.stages[0])

    @property
    def training(self) -> tuple[Training, ...]:
        """The stages that train, the pretraining first."""
        return tuple(stage for stage in self.stages if isinstance(stage, Training))

    @property
    def after(self) -> tuple[PostHoc, ...]:
        """What is done to the trained model before it is scored."""
        return cast(tuple[PostHoc, ...], self.stages[len(self.training) :])

    @model_validator(mode="after")
    def _model_and_tokenizer_agree(self) -> Self:
        if self.architecture.vocabulary != self.data.tokenizer.vocabulary:
            raise ValueError(
                f"architecture.vocabulary: expected the tokenizer's {self.data.tokenizer.vocabulary} "
                f"(data.tokenizer.vocabulary), got {self.architecture.vocabulary}"
            )
        return self

    @model_validator(mode="after")
    def _teachers_have_the_same_tokens(self) -> Self:
        distillation, vocabulary = self.pretraining.distillation, self.architecture.vocabulary
        if distillation is None:
            return self
        where = "stages.0.distillation"
        if distillation.top > vocabulary:
            raise ValueError(f"{where}.top: expected at most the vocabulary's {vocabulary}, got {distillation.top}")
        if distillation.every > (steps := self.pretraining.pace(self.architecture.context).steps):
            raise ValueError(f"{where}.every: expected at most the {steps} steps there are, got {distillation.every}")
        for number, teacher in enumerate(distillation.teachers):
            if isinstance(teacher, Grown) and teacher.architecture.vocabulary != vocabulary:
                path = f"{where}.teachers.{number}.architecture.vocabulary"
                raise ValueError(f"{path}: expected the student's {vocabulary}, got {teacher.architecture.vocabulary}")
        return self

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """From whom it learns beside the text."""
        return self.pretraining.distillation.teachers if self.pretraining.distillation else ()

    def grown(self, teacher: Grown) -> Configuration:
        """Return how a teacher is trained: on the same data, and as any arm with the same fields would be."""
        stage = Pretraining(
            tokens=teacher.tokens,
            batch=teacher.batch,
            optimizer=teacher.optimizer,
            schedule=teacher.schedule,
            clip=teacher.clip,
        )
        return Configuration(
            architecture=teacher.architecture, stages=(stage,), data=self.data, evaluation=self.evaluation
        )

    @property
    def answers(self) -> tuple[Answers, ...]:
        """The examples that it is fine-tuned on."""
        return tuple(stage.answers for stage in self.training if isinstance(stage, FineTuning))

    def model_id(self, fingerprint: str, seeds: Seeds) -> str:
        """Identify the model that is scored: the last of its lineage."""
        return self.lineage(fingerprint, seeds)[-1]

    def lineage(self, fingerprint: str, seeds: Seeds) -> tuple[str, ...]:
        """Identify the model after every stage: a chain over the stages, each hashed with what it starts from."""
        chain: list[str] = []
        for stage in self.stages:
            parent = chain[-1] if chain else None
            cleaned = self.data.decontamination is not None and self.data.decontamination.action != "flag"
            searched = ["examples searched"] if cleaned and isinstance(stage, FineTuning) else []
            identity = self.data.identity(fingerprint)
            chain.append(digest(SCHEMA, parent, self.architecture, stage, identity, seeds, *searched))
        return tuple(chain)

    def trained_lineage(self, lineage: tuple[str, ...]) -> tuple[str, ...]:
        """Return the part of a lineage that is trained, and not only changed by a rule afterwards."""
        return lineage[: len(self.training)]

    def score_id(self, model_id: str) -> str:
        """Identify the scores of `model_id` under this evaluation, at the checkpoint that it asks about."""
        best = self.training[-1].keep_best if self.evaluation.checkpoint == "best" else None
        on_the_way = [list(self.trajectory)] if self.trajectory else []
        return digest(SCHEMA, model_id, {"best": best} if best else "final", self.evaluation, *on_the_way)

    @property
    def trajectory(self) -> tuple[int, ...]:
        """After how many tokens of its last stage of training the model is scored too, in ascending order."""
        asked = self.evaluation.trajectory
        return self.training[-1].kept_tokens(self.architecture.context)[-asked:] if asked else ()

    def size(self) -> dict[str, Any]:
        """Return parameters, training FLOPs per token (with the formula in words), training tokens and steps."""
        flops = flops_per_token(self.architecture)
        return {
            "parameters": parameters(self.architecture)["total"],
            "flops_per_token": flops.training,
            "flops_formula": flops.formula,
            "tokens": sum(stage.pace(self.architecture.context).tokens for stage in self.training),
            "steps": sum(stage.pace(self.architecture.context).steps for stage in self.training),
            **({"teachers": [size_of(teacher) for teacher in self.teachers]} if self.teachers else {}),
        }

    def produces(self) -> tuple[str, ...]:
        """Name the metrics of its scores, each as "task/metric"."""
        own = [(task.label, name) for task in self.evaluation.tasks for name in task.produces]
        views = ["", *(f"@tokens={tokens}" for tokens in self.trajectory)]
        return tuple(f"{task}/{name}{view}" for task, name in own for view in views if not (view and "@" in name))

    def chance(self, metric: str) -> float | None:
        """Return what guessing scores on a metric, where all tasks that leave it agree."""
        named, _, name = metric.partition("@")[0].rpartition("/")
        left = [task for task in self.evaluation.tasks if name in task.produces and named in ("", "*", task.label)]
        held = {task.chance(name) for task in left}
        return held.pop() if len(held) == 1 else None

    def refuse_unanswerable(self, where: str) -> None:
        """Refuse what its positions do not reach, exits it does not have, and what needs logits it does not have.

        Raises:
            PlanError: saying which, and what to do.
        """
        if self.teachers:
            refuse_without_logits(["distillation"], self.architecture, f"{where}, stages.0")
        for teacher in self.teachers:
            refuse_unusable(teacher)
        if isinstance(self.data.order, Weighted):
            self.data.order.refuse_other_sources(parts_of(self.data.corpus), f"{where}, data.order")
        self.pretraining.refuse_order(self.data.order, f"{where}, stages.0")
        for place, stage in enumerate(self.training):
            refuse_without_logits([term.name for term in stage.terms()], self.architecture, f"{where}, stages.{place}")
            if stage.packs:
                refuse_packing(self.architecture, f"{where}, stages.{place}")
        if self.evaluation.samples is not None and self.architecture.embedding.reads_bytes:
            raise PlanError(
                "an arm cannot write samples of text",
                where=f"{where}, evaluation.samples",
                expected="an embedding with logits over the vocabulary",
                got=f"embedding {self.architecture.embedding.kind}, whose targets are bytes",
                fix="leave samples out, or compare arms with logits",
            )
        self._refuse_checkpoints_not_kept(where)
        for task in self.evaluation.tasks:
            if task.needs_logits and self.architecture.embedding.reads_bytes:
                raise PlanError(
                    "an arm cannot answer a task that needs the likeliest token",
                    where=f"{where}, evaluation.tasks.{task.label}",
                    expected="an embedding with logits over the vocabulary",
                    got=f"embedding {self.architecture.embedding.kind}, whose targets are bytes",
                    fix="leave the task out, or compare arms with logits",
                )
            self._refuse_answers_trained_on(task, f"{where}, evaluation.tasks.{task.label}.answers.held_out")
            for view in task.views:
                self._refuse_beyond_reach(view, f"{where}, evaluation.tasks.{task.label}.contexts")
                self._refuse_missing_exit(view, f"{where}, evaluation.tasks.{task.label}")
                self._refuse_missing_source(view, f"{where}, evaluation.tasks.{task.label}.sources")

    def _refuse_checkpoints_not_kept(self, where: str) -> None:
        place, stage, evaluation = len(self.training) - 1, self.training[-1], self.evaluation
        if evaluation.checkpoint == "best" and stage.keep_best is None:
            raise PlanError(
                "the best weights are to be scored, and no rule says which they are",
                where=f"{where}, evaluation.checkpoint",
                expected=f"stages.{place}.keep_best=KeepBest()",
                got="none",
                fix='declare the rule in the last stage that trains, or leave checkpoint at "final"',
            )
        there = len(stage.kept_tokens(self.architecture.context))
        if evaluation.trajectory > there:
            raise PlanError(
                "more checkpoints are to be scored than are kept",
                where=f"{where}, evaluation.trajectory",
                expected=f"at most {there}, as stages.{place}.checkpoints={stage.checkpoints} keeps in its steps",
                got=evaluation.trajectory,
                fix=f"raise checkpoints in stages.{place}, or ask for fewer",
            )

    def _refuse_answers_trained_on(self, task: Task, where: str) -> None:
        if not isinstance(task, HeldOutAnswers):
            return
        asked, source = task.answers.held_out, task.answers.source_hash()
        least = min((one.held_out for one in self.answers if one.source_hash() == source), default=1.0)
        if asked > least:
            raise PlanError(
                "an arm would be asked about examples that it was fine-tuned on",
                where=where,
                expected=f"at most {least:g}, the share that its fine-tuning holds out",
                got=f"{asked:g}",
                fix="use the same answers in the stage and in the task",
            )

    def _refuse_beyond_reach(self, view: View, where: str) -> None:
        architecture = self.architecture
        reach, asked = architecture.reach(), architecture.context * view.multiple
        if view.multiple > 1 and reach is not None and asked > reach:
            raise PlanError(
                "an arm cannot be evaluated beyond its training context",
                where=where,
                expected=f"positions that reach {asked} tokens, {view.multiple} times the training context",
                got=f"position {getattr(architecture.position, 'kind', '')}, which reaches {reach}",
                fix=f"leave {view.multiple} out of contexts, or compare arms whose positions extrapolate",
            )

    def _refuse_missing_exit(self, view: View, where: str) -> None:
        architecture = self.architecture
        if view.exit is not None and view.exit > architecture.layers:
            raise PlanError(
                "an arm has fewer blocks than its evaluation asks for",
                where=f"{where}.exits",
                expected=f"exits from 1 to {architecture.layers}, its layers",
                got=view.exit,
                fix="ask for exits that every arm has",
            )
        if view.confidence is not None and architecture.embedding.reads_bytes:
            raise PlanError(
                "an arm has no probability of a token to be confident of",
                where=f"{where}.confidences",
                expected="an embedding with logits over the vocabulary",
                got=f"embedding {architecture.embedding.kind}, whose targets are bytes",
                fix="leave confidences out, or compare arms with logits; exits work for both",
            )

    def _refuse_missing_source(self, view: View, where: str) -> None:
        held_out = self.data.corpus if self.data.validation is None else self.data.validation
        if view.source is not None and view.source not in (names := parts_of(held_out)):
            raise PlanError(
                "an arm has no held-out documents of a source that its evaluation asks about",
                where=where,
                expected="sources among " + ", ".join(names) if names else "held-out documents of a Mixture",
                got=view.source,
            )

    def _pairing(self, baseline: Configuration) -> str:
        ordered = shared(self.data.order, baseline.data.order)
        if ordered == "tokens" and self.data.order.planned and self._budget != baseline._budget:
            ordered = "corpus"  # what is read when is planned over the budget
        if ordered in ("sources", "corpus"):
            return ordered
        if ordered == "text" or (self.pretraining.packing == "whole") != (baseline.pretraining.packing == "whole"):
            return "text"
        return "tokens" if self._reads() == baseline._reads() else "documents"

    @property
    def _budget(self) -> int:
        return self.pretraining.pace(self.architecture.context).tokens

    def _reads(self) -> tuple[Any, ...]:
        """Return what decides which tokens are read at an offset: the data, and the examples of later stages."""
        tuned = [stage for stage in self.training if isinstance(stage, FineTuning)]
        return self.data, *((digest(stage.answers), stage.packing) for stage in tuned)

    def paired_with(self, baseline: Variant, same_seeds: bool) -> dict[str, Any]:
        """Say how far a run of this variant shares its noise with the baseline's run of the same block.

        `pairing` is "tokens" where both read the same text at the same token offset, "documents" where only the order
        of documents is shared, "text" where not even that is, "sources" where it is shared within each source of a
        mixture, "corpus" where other documents of it may be read, "none" under other seeds. `coverage` is the share of
        parameters that start equal.
        """
        if not isinstance(baseline, Configuration):
            return {"pairing": "declared", "coverage": None}
        if not same_seeds:
            return {"pairing": "none", "coverage": {"total": 0.0, "without_embeddings": 0.0}}
        shared = coverage(baseline.architecture, self.architecture)
        same_initialisation = self.architecture.initialisation == baseline.architecture.initialisation
        return {
            "pairing": self._pairing(baseline),
            "coverage": {
                "total": shared.total if same_initialisation else 0.0,
                "without_embeddings": shared.without_embeddings if same_initialisation else 0.0,
            },
        }
