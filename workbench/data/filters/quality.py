"""A classifier of quality, trained on examples that the user calls good and bad.

Logistic regression on TF-IDF of words, or on an embedding. How well it tells one from the other is measured by
cross-validation and reported; whether what it likes makes better models is what an arm per threshold asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from pydantic import model_validator

from workbench.data.corpora import Document, Files, drop_duplicates, fingerprint, read_documents
from workbench.data.filters.decision import Decision, Rule, by_hash, decided, lowest, needed, one_thread, whole_seed
from workbench.data.filters.embeddings import Embedding, counting, weighting
from workbench.errors import DataError
from workbench.identity import digest, setting

LEAST = 5  # examples of each kind
FOLDS = 5
FEATURES = 2**18


class QualityClassifier(Rule):
    """Keep documents that look like the good examples.

    The score is the probability of being good, the two kinds counted as equally common. Without an embedding it depends
    on the document and the examples alone, not on what else is in the corpus.

    Attributes:
        good: A .txt, .jsonl or .parquet file (or folder) of good examples, read like a corpus. Its content is identity.
        bad: The same of bad ones.
        threshold: Keep documents with at least this probability.
        keep: Instead, keep this share of the documents, the most probable.
        embedding: What the classifier sees; TF-IDF of single words unless told.
        strength: Inverse strength of the L2 penalty.
    """

    kind: Literal["quality"] = "quality"
    good: str = setting(effect="efficiency", min_length=1)
    bad: str = setting(effect="efficiency", min_length=1)
    threshold: float | None = setting(default=None, gt=0, lt=1)
    keep: float | None = setting(default=None, gt=0, le=1)
    embedding: Embedding | None = setting(default=None)
    strength: float = setting(default=1.0, gt=0)

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.threshold is None) == (self.keep is None):
            raise ValueError("expected threshold, a probability, or keep, the share that is kept; one of the two")
        return self

    def source_hash(self) -> str:
        """Return a hash of both files of examples, which stands for them in identity.

        Raises:
            DataError: if one is missing or cannot be read.
        """
        return digest(fingerprint(Files(path=self.good)), fingerprint(Files(path=self.bad)))

    def decide(self, documents: Sequence[Document]) -> Decision:
        """Keep documents above the threshold, or the most probable share."""
        good, bad = self._examples()
        labels = np.array([1] * len(good) + [0] * len(bad))
        order = by_hash(documents)
        texts = [one.text for one in (*good, *bad)], [documents[place].text for place in order]
        score = np.empty(len(documents))
        with one_thread():
            seen, asked, model = self._seen(*texts)
            area = _cross_validated(model, seen, labels)
            score[order] = model.fit(seen, labels).predict_proba(asked)[:, 1]
        figures = {"auc": area, "good_examples": float(len(good)), "bad_examples": float(len(bad))}
        keep = score >= self.threshold if self.threshold is not None else lowest(-score, self.keep or 1.0, documents)
        return decided(keep, score, "looks like the bad examples", figures=figures)

    def _seen(self, examples: list[str], documents: list[str]) -> tuple[Any, Any, Any]:
        """Return what the classifier sees of examples and documents, and the classifier."""
        linear = needed("sklearn.linear_model", "scikit-learn")
        model = linear.LogisticRegression(C=self.strength, class_weight="balanced", max_iter=1000)
        if self.embedding is not None:
            vectors = self.embedding.embed([*examples, *documents])
            return vectors[: len(examples)], vectors[len(examples) :], model
        chain = needed("sklearn.pipeline", "scikit-learn").make_pipeline(weighting(), model)
        seen, asked = (counting(FEATURES).transform(texts) for texts in (examples, documents))
        known = np.unique(seen.indices)  # words that no example has say nothing
        return seen[:, known], asked[:, known], chain

    def _examples(self) -> tuple[list[Document], list[Document]]:
        good, bad = (drop_duplicates(read_documents(Files(path=path)))[0] for path in (self.good, self.bad))
        for examples, path in ((good, self.good), (bad, self.bad)):
            if len(examples) < LEAST:
                raise DataError(
                    "a classifier has too few examples",
                    where=path,
                    expected=f"at least {LEAST} documents",
                    got=len(examples),
                    fix="give more, or separate them: a line <|endoftext|> between documents of a text file",
                )
        if both := {one.hash for one in good} & {one.hash for one in bad}:
            named = next(one.name for one in good if one.hash in both)
            raise DataError(
                "an example is called good and bad",
                where=self.good,
                expected="different texts",
                got=f"document {named}",
            )
        return good, bad


def _cross_validated(model: Any, seen: Any, labels: np.ndarray) -> float:
    """Return the area under the receiver operating characteristic, each example judged by a model that never saw it."""
    selection, metrics = needed("sklearn.model_selection", "scikit-learn"), needed("sklearn.metrics", "scikit-learn")
    folds = selection.StratifiedKFold(FOLDS, shuffle=True, random_state=whole_seed(0, "quality"))
    judged = selection.cross_val_predict(model, seen, labels, cv=folds, method="predict_proba")[:, 1]
    return float(metrics.roc_auc_score(labels, judged))
