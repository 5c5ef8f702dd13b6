"""Embeddings of documents for the filters that compare them: unit vectors, so that a product is a cosine.

The default needs no model: TF-IDF of words, reduced by a truncated singular value decomposition (latent semantic
analysis, Deerwester et al. 1990). Models of `sentence-transformers` and `model2vec` are read from local folders, whose
content is part of identity; nothing is ever downloaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from workbench.data.filters.decision import needed, one_thread, whole_seed
from workbench.errors import DataError
from workbench.identity import Spec, digest, setting


class TfidfEmbedding(Spec):
    """TF-IDF of words, hashed to a fixed number of features, then the largest singular directions of all documents.

    Sublinear counts, and idf over the documents that are embedded together: an embedding depends on all of them. A word
    is two or more letters or digits, in lower case.

    Attributes:
        width: Dimensions; fewer where there are fewer documents.
        features: Buckets that words are hashed into, which bounds memory: about 700 bytes each while a width of 128 is
            computed.
        seed: Of the randomised decomposition (Halko et al., arXiv:0909.4061).
    """

    kind: Literal["tfidf"] = "tfidf"
    width: int = setting(default=128, ge=1, le=4096)
    features: int = setting(default=65_536, ge=256, le=2**22)
    seed: int = setting(default=0)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32[texts, width], of unit length; zeros for a text without words.

        Raises:
            MissingExtra: if scikit-learn is not installed.
        """
        decomposition = needed("sklearn.decomposition", "scikit-learn")
        with one_thread():
            counts = counting(self.features).transform(texts)
            weighted = weighting().fit_transform(counts[:, np.unique(counts.indices)])  # empty buckets cost time only
            if not weighted.shape[1]:
                return np.zeros((len(texts), 1), dtype=np.float32)
            width, seed = min(self.width, *weighted.shape), whole_seed(self.seed, "tfidf")
            with np.errstate(divide="ignore", invalid="ignore"):  # it divides by a variance that equal texts have not
                return _unit(decomposition.TruncatedSVD(width, random_state=seed).fit_transform(weighted))


class SentenceTransformerEmbedding(Spec):
    """A model of `sentence-transformers` in a local folder.

    Attributes:
        path: The folder. Its content is identity, the place where it lies is not.
        batch: Texts embedded at once.
    """

    kind: Literal["sentence_transformer"] = "sentence_transformer"
    path: str = setting(effect="efficiency", min_length=1)
    batch: int = setting(default=32, effect="efficiency", ge=1)

    def source_hash(self) -> str:
        """Return a hash of the folder's files, which stands for it in identity."""
        return folder_hash(self.path)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32[texts, width], of unit length; what is longer than the model's context it cuts.

        Raises:
            DataError: if the folder holds no such model.
            MissingExtra: if sentence-transformers is not installed.
        """
        library = needed("sentence_transformers", "sentence-transformers")
        model = _load(lambda: library.SentenceTransformer(self.path, device="cpu", local_files_only=True), self.path)
        with one_thread():
            return _unit(model.encode(list(texts), batch_size=self.batch, show_progress_bar=False))


class Model2VecEmbedding(Spec):
    """A static model of `model2vec` in a local folder: a vector per token, averaged; hundreds of times as fast.

    Attributes:
        path: The folder. Its content is identity, the place where it lies is not.
    """

    kind: Literal["model2vec"] = "model2vec"
    path: str = setting(effect="efficiency", min_length=1)

    def source_hash(self) -> str:
        """Return a hash of the folder's files, which stands for it in identity."""
        return folder_hash(self.path)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32[texts, width], of unit length.

        Raises:
            DataError: if the folder holds no such model.
            MissingExtra: if model2vec is not installed.
        """
        library = needed("model2vec", "model2vec")
        model = _load(lambda: library.StaticModel.from_pretrained(self.path), self.path)
        with one_thread():
            return _unit(model.encode(list(texts), use_multiprocessing=False))


Embedding = Annotated[TfidfEmbedding | SentenceTransformerEmbedding | Model2VecEmbedding, Field(discriminator="kind")]


def counting(features: int) -> Any:
    """Return a vectoriser that counts hashed words: sparse float64[texts, features], the same whatever else it sees."""
    return needed("sklearn.feature_extraction.text", "scikit-learn").HashingVectorizer(
        n_features=features, alternate_sign=False, norm=None
    )


def weighting() -> Any:
    """Return what turns counts into TF-IDF, each document of unit length."""
    return needed("sklearn.feature_extraction.text", "scikit-learn").TfidfTransformer(sublinear_tf=True)


def folder_hash(path: str) -> str:
    """Hash the names and bytes of all files in a folder, read once per process while they stay as they are.

    Raises:
        DataError: if there is no such folder, or it cannot be read.
    """
    folder = Path(path).expanduser()
    try:
        files = sorted(found for found in folder.rglob("*") if found.is_file() and not found.name.startswith("."))
        if not files:
            raise DataError(
                "there is no embedding model",
                where=path,
                expected="a folder with a model in it, downloaded before",
                got="an empty folder" if folder.is_dir() else "no such folder",
            )
        states = [(found.relative_to(folder).as_posix(), found, found.stat()) for found in files]
        return digest([[name, _file_hash(found, state.st_size, state.st_mtime_ns)] for name, found, state in states])
    except OSError as error:
        got = error.strerror or str(error)
        raise DataError("an embedding model cannot be read", where=error.filename or path, got=got) from None


@lru_cache(maxsize=256)
def _file_hash(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _load(make: Any, path: str) -> Any:
    folder_hash(path)  # a name that is no folder would be looked for on a server
    try:
        return make()
    except Exception as error:  # the libraries raise whatever the parts they are made of raise
        got = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError("an embedding model cannot be loaded", where=path, got=got) from None


def _unit(vectors: Any) -> np.ndarray:
    held = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(held, axis=1, keepdims=True)
    return held / np.where(lengths > 0, lengths, 1)
