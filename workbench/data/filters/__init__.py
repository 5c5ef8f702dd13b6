"""Filters: which training documents are kept, each a declaration that can be an arm of its own.

A filter sees the training documents, after the split and after they were cut to passages, and decides which to keep; it
changes none, and never sees what is held out, so that all arms are examined on the same text. A filter must beat
`RandomDrop` at the same share, or what helped was less text, not better text. A tokenizer learns from all training
documents, before any is cut or dropped, so that arms which differ in filters share it.

Planning needs none of the libraries here (extra `data`): they are imported when data are prepared.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from workbench.data.filters.chance import RandomDrop
from workbench.data.filters.compression import Compression
from workbench.data.filters.embeddings import Model2VecEmbedding, SentenceTransformerEmbedding, TfidfEmbedding
from workbench.data.filters.heuristics import Heuristics
from workbench.data.filters.near_duplicates import NearDuplicates
from workbench.data.filters.prototypes import Prototypes
from workbench.data.filters.quality import QualityClassifier
from workbench.data.filters.semdedup import SemDeDup

Filter = Annotated[
    Heuristics | Compression | NearDuplicates | SemDeDup | Prototypes | QualityClassifier | RandomDrop,
    Field(discriminator="kind"),
]

__all__ = [
    "Compression",
    "Filter",
    "Heuristics",
    "Model2VecEmbedding",
    "NearDuplicates",
    "Prototypes",
    "QualityClassifier",
    "RandomDrop",
    "SemDeDup",
    "SentenceTransformerEmbedding",
    "TfidfEmbedding",
]
