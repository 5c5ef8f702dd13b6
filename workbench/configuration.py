"""`Configuration`: everything that determines a model of ours and its scores, resolved.

Architecture, the stages of training, data and evaluation, each a frozen specification that says what it is by itself. A
pretraining shared by two arms has the same identity in both and is trained once; a new evaluation retrains nothing.
"""

from __future__ import annotations

from typing import Any, Self, cast

from pydantic import Field, model_validator

from architectures.accounting import coverage, flops_per_token, parameters
from architectures.architecture import Architecture
from workbench.data.prepared import Data
from workbench.errors import PlanError
from workbench.evaluation.tasks import Evaluation, View
from workbench.identity import SCHEMA, digest
from workbench.records import Seeds
from workbench.sweep import Variant
from workbench.training.objective import refuse_without_logits
from workbench.training.recipe import PostHoc, Pretraining, Stage, Training


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

    def model_id(self, fingerprint: str, seeds: Seeds) -> str:
        """Identify the model that is scored: the last of its lineage."""
        return self.lineage(fingerprint, seeds)[-1]

    def lineage(self, fingerprint: str, seeds: Seeds) -> tuple[str, ...]:
        """Identify the model after every stage: a chain over the stages, each hashed with what it starts from."""
        chain: list[str] = []
        for stage in self.stages:
            parent = chain[-1] if chain else None
            chain.append(digest(SCHEMA, parent, self.architecture, stage, self.data.identity(fingerprint), seeds))
        return tuple(chain)

    def trained_lineage(self, lineage: tuple[str, ...]) -> tuple[str, ...]:
        """Return the part of a lineage that is trained, and not only changed by a rule afterwards."""
        return lineage[: len(self.training)]

    def score_id(self, model_id: str) -> str:
        """Identify the scores of the final checkpoint of `model_id` under this evaluation."""
        return digest(SCHEMA, model_id, "final", self.evaluation)

    def size(self) -> dict[str, Any]:
        """Return parameters, training FLOPs per token (with the formula in words) and training tokens."""
        flops = flops_per_token(self.architecture)
        return {
            "parameters": parameters(self.architecture)["total"],
            "flops_per_token": flops.training,
            "flops_formula": flops.formula,
            "tokens": sum(stage.pace(self.architecture.context).tokens for stage in self.training),
        }

    def produces(self) -> tuple[str, ...]:
        """Name the metrics of its scores, each as "task/metric"."""
        return tuple(f"{task.kind}/{name}" for task in self.evaluation.tasks for name in task.produces)

    def refuse_unanswerable(self, where: str) -> None:
        """Refuse what its positions do not reach, exits it does not have, and what needs logits it does not have.

        Raises:
            PlanError: saying which, and what to do.
        """
        for place, stage in enumerate(self.training):
            refuse_without_logits([term.name for term in stage.terms()], self.architecture, f"{where}, stages.{place}")
        for task in self.evaluation.tasks:
            for view in task.views:
                self._refuse_beyond_reach(view, f"{where}, evaluation.tasks.{task.kind}.contexts")
                self._refuse_missing_exit(view, f"{where}, evaluation.tasks.{task.kind}")

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

    def paired_with(self, baseline: Variant, same_seeds: bool) -> dict[str, Any]:
        """Say how far a run of this variant shares its noise with the baseline's run of the same block.

        `pairing` is "tokens" where both read the same text at the same token offset, "documents" where only the order
        of documents is shared, "none" under other seeds. `coverage` is the share of parameters that start equal.
        """
        if not isinstance(baseline, Configuration):
            return {"pairing": "declared", "coverage": None}
        if not same_seeds:
            return {"pairing": "none", "coverage": {"total": 0.0, "without_embeddings": 0.0}}
        shared = coverage(baseline.architecture, self.architecture)
        same_initialisation = self.architecture.initialisation == baseline.architecture.initialisation
        return {
            "pairing": "tokens" if self.data == baseline.data else "documents",
            "coverage": {
                "total": shared.total if same_initialisation else 0.0,
                "without_embeddings": shared.without_embeddings if same_initialisation else 0.0,
            },
        }
