"""Filters that compare documents by what they are about, and by examples: against naive computations of the same."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filtered_texts import MANY, PLAIN, documents, examples, passage

from workbench.data.filters import (
    Model2VecEmbedding,
    Prototypes,
    QualityClassifier,
    SemDeDup,
    SentenceTransformerEmbedding,
    TfidfEmbedding,
)
from workbench.errors import DataError, MissingExtra
from workbench.identity import digest

# --- embeddings and clusters


def test_tfidf_is_the_projection_that_a_full_decomposition_gives() -> None:
    texts = [one.text for one in MANY[:60]]
    names = sorted({word for text in texts for word in re.findall(r"\b\w\w+\b", text.lower())})
    counts = np.array([[re.findall(r"\b\w\w+\b", text.lower()).count(name) for name in names] for text in texts], float)
    idf = np.log((1 + len(texts)) / (1 + (counts > 0).sum(0))) + 1
    weighted = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0) * idf
    weighted /= np.linalg.norm(weighted, axis=1, keepdims=True)
    left, values, _ = np.linalg.svd(weighted)
    expected = left[:, :20] * values[:20]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = TfidfEmbedding(width=20, features=2**20).embed(texts)
    assert found.dtype == np.float32
    # the randomised decomposition is close, not equal: n_iter=5 power iterations
    assert np.abs(found @ found.T - expected @ expected.T).max() < 0.1
    assert np.corrcoef((found @ found.T).ravel(), (expected @ expected.T).ravel())[0, 1] > 0.995


def test_text_without_words_embeds_to_nothing() -> None:
    found = TfidfEmbedding(width=4).embed(["the ship sails", "a b c !", "the moon rises", "ships and moons"])
    assert not found[1].any()
    assert np.linalg.norm(found, axis=1)[[0, 2, 3]] == pytest.approx([1, 1, 1])


def test_semdedup_drops_what_the_authors_loop_drops() -> None:
    rule = SemDeDup(epsilon=0.07, clusters=6)
    found, decision = rule.cluster(MANY), rule.decide(MANY)
    dropped = set()
    for cluster in range(6):
        members = sorted(
            np.flatnonzero(found.nearest == cluster).tolist(), key=lambda row: (found.cosine[row], row)
        )  # far from the centroid first
        for later, row in enumerate(members):
            if any(float(found.vectors[row] @ found.vectors[before]) > 0.93 for before in members[:later]):
                dropped.add(int(found.order[row]))
    assert 5 < len(dropped) < 110
    assert set(np.flatnonzero(~decision.keep).tolist()) == dropped
    assert decision.beside is not None
    assert (decision.beside[~decision.keep] >= 0).all()


OWN_WORDS = [" ".join(f"word{number}x{place}" for place in range(30)) for number in range(12)]


def test_semdedup_of_copies_keeps_one_of_each() -> None:
    copies = [f"{own} {word}" for own in OWN_WORDS for word in ("yes", "no", "maybe", "so")]
    decision = SemDeDup(epsilon=0.1, clusters=1).decide(documents(copies))
    assert decision.keep.sum() == 12
    assert len({place // 4 for place in np.flatnonzero(decision.keep)}) == 12


def test_semdedup_keeps_the_share_asked_for() -> None:
    decision = SemDeDup(keep=0.75, clusters=4).decide(MANY)
    assert decision.keep.sum() == 90
    assert np.nanmax(decision.score[decision.keep]) <= np.nanmin(decision.score[~decision.keep])


def test_every_document_goes_to_the_prototype_nearest_to_it() -> None:
    from workbench.data.filters.clusters import prototypes

    rule = Prototypes(keep=0.5, clusters=7)
    found = rule.cluster(MANY)
    centres = prototypes(found.vectors, 7, 0)
    cosines = np.array([[float(row @ centre) for centre in centres] for row in found.vectors])
    np.testing.assert_array_equal(found.nearest, cosines.argmax(1))
    np.testing.assert_allclose(found.cosine, cosines.max(1), atol=1e-6)
    for cluster in range(7):  # a prototype is the mean of what is near it: k-means has converged
        mean = found.vectors[found.nearest == cluster].mean(0)
        assert float(mean @ centres[cluster]) / np.linalg.norm(mean) > 0.99


def test_prototypes_keep_the_hard_or_the_easy_end() -> None:
    hard, easy = (Prototypes(keep=0.25, clusters=5, which=which).decide(MANY) for which in ("hard", "easy"))
    assert hard.keep.sum() == easy.keep.sum() == 30
    assert not (hard.keep & easy.keep).any()
    assert hard.score[hard.keep].min() >= hard.score[~hard.keep].max()
    assert easy.score[easy.keep].max() <= easy.score[~easy.keep].min()


def test_fewer_documents_than_clusters_are_no_trouble() -> None:
    assert SemDeDup(epsilon=0.1, clusters=50).decide(documents([PLAIN, passage(1)])).keep.all()
    assert Prototypes(keep=1, clusters=50).decide(documents([PLAIN])).keep.all()
    assert SemDeDup(epsilon=0.1, clusters=50).decide(documents([PLAIN, PLAIN, PLAIN])).keep.sum() == 1


# --- embedding models from a folder


class FakeModel:
    """Embeds a text as its length and its number of spaces: enough to see that it was asked."""

    def __init__(self, path: str, **told: Any) -> None:
        assert (Path(path) / "model.safetensors").exists()

    from_pretrained = classmethod(lambda cls, path: cls(path))

    def encode(self, texts: list[str], **told: Any) -> np.ndarray:
        return np.array([[len(text), text.count(" ")] for text in texts], dtype=np.float32)


@pytest.mark.parametrize(
    ("embedding", "module", "name"),
    [
        (SentenceTransformerEmbedding, "sentence_transformers", "SentenceTransformer"),
        (Model2VecEmbedding, "model2vec", "StaticModel"),
    ],
)
def test_a_model_in_a_folder_embeds_and_its_content_is_identity(
    embedding: Any, module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**{name: FakeModel}))
    for folder, content in (("one", b"1"), ("same", b"1"), ("other", b"2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.safetensors").write_bytes(content)
    one, same, other = (embedding(path=str(tmp_path / folder)) for folder in ("one", "same", "other"))
    np.testing.assert_allclose(one.embed(["abc", "a b c"]), [[1, 0], [5 / 29**0.5, 2 / 29**0.5]], atol=1e-6)
    assert digest(Prototypes(keep=0.5, embedding=one)) == digest(Prototypes(keep=0.5, embedding=same))
    assert digest(one) != digest(other)
    with pytest.raises(DataError, match="no embedding model"):
        digest(embedding(path=str(tmp_path / "nowhere")))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra):
        one.embed(["abc"])


# --- quality


def test_the_classifier_is_the_textbook_one_and_tells_its_examples_apart(tmp_path: Path) -> None:
    text, pipeline = pytest.importorskip("sklearn.feature_extraction.text"), pytest.importorskip("sklearn.pipeline")
    linear = pytest.importorskip("sklearn.linear_model")
    decision = examples(tmp_path, threshold=0.5).decide(MANY)
    good, bad = ([passage(number) for number in range(200, 248) if number % 4 % 2 == odd] for odd in (0, 1))
    model = pipeline.make_pipeline(
        text.TfidfVectorizer(sublinear_tf=True), linear.LogisticRegression(class_weight="balanced")
    )
    model.fit(good + bad, [1] * len(good) + [0] * len(bad))
    np.testing.assert_allclose(decision.score, model.predict_proba([one.text for one in MANY])[:, 1], atol=1e-4)
    assert decision.figures["auc"] > 0.95
    assert decision.keep.tolist() == (decision.score >= 0.5).tolist()
    assert np.mean(decision.keep == (np.arange(len(MANY)) % 4 % 2 == 0)) > 0.95


def test_examples_that_do_not_differ_give_an_area_near_a_half(tmp_path: Path) -> None:
    for name, numbers in (("good", range(300, 340)), ("bad", range(340, 380))):
        texts = [passage(4 * number) for number in numbers]
        (tmp_path / f"{name}.txt").write_text("\n<|endoftext|>\n".join(texts))
    rule = QualityClassifier(good=str(tmp_path / "good.txt"), bad=str(tmp_path / "bad.txt"), keep=0.5)
    assert 0.3 < rule.decide(MANY[:4]).figures["auc"] < 0.7


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ([0, 1, 2, 3], range(10, 20), "too few examples"),
        (range(8), range(7, 15), "called good and bad"),
    ],
)
def test_examples_that_teach_nothing_are_refused(
    good: Sequence[int], bad: Sequence[int], message: str, tmp_path: Path
) -> None:
    for name, numbers in (("good", good), ("bad", bad)):
        (tmp_path / f"{name}.txt").write_text("\n<|endoftext|>\n".join(map(passage, numbers)))
    rule = QualityClassifier(good=str(tmp_path / "good.txt"), bad=str(tmp_path / "bad.txt"), keep=0.5)
    with pytest.raises(DataError, match=message):
        rule.decide(MANY[:4])


def test_another_set_of_examples_is_another_filter(tmp_path: Path) -> None:
    rule = examples(tmp_path, keep=0.5)
    before = digest(rule)
    (tmp_path / "bad.txt").write_text("\n<|endoftext|>\n".join(map(passage, range(9))))
    assert digest(rule) != before
    (tmp_path / "bad.txt").unlink()
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "bad.txt"))):
        digest(rule)
