"""Held-out documents, chosen by a hash of their text.

Promises that a document stays on its side of the split whatever is added to, removed from or reordered in the corpus.
"""

from __future__ import annotations

from workbench.data.corpora import Document


def is_held_out(document_hash: str, fraction: float) -> bool:
    """Say whether the document with this SHA-256 is held out: its hash, as a number in [0, 1), is below `fraction`."""
    return int(document_hash[:16], 16) / 2**64 < fraction


def split(documents: list[Document], fraction: float) -> tuple[list[Document], list[Document]]:
    """Return (training, held out) documents, each in the order given; about `fraction` of them are held out."""
    training = [document for document in documents if not is_held_out(document.hash, fraction)]
    held_out = [document for document in documents if is_held_out(document.hash, fraction)]
    return training, held_out
