"""Passages: documents cut between paragraphs, or lines where a paragraph is long.

Promises that the passages of a document, one after the other, are its text, so that nothing is lost by cutting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from workbench.data.corpora import Document, packed


def cut(documents: Iterable[Document], size: int) -> Iterator[Document]:
    """Cut documents to passages of about `size` UTF-8 bytes, named after their document and their place in it.

    A document that is no longer than that stays as it is. Passages of white space only are left out.
    """
    for document in documents:
        texts = list(packed(document.text, size))
        if len(texts) == 1:
            yield document
            continue
        for number, text in enumerate(texts, start=1):
            if text.strip():
                yield Document(f"{document.name}/{number}", text, document.source)
