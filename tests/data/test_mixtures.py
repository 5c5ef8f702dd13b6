"""Mixtures: several corpora as one, every document marked with its source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from workbench.data.corpora import Files, Mixture, Part, fingerprint, parts_of, read_documents
from workbench.data.prepared import Data, Prepared, prepare
from workbench.data.splits import is_held_out
from workbench.data.tokenizer import BytePairs
from workbench.identity import digest


def written(folder: Path, name: str, texts: list[str]) -> Files:
    path = folder / f"{name}.txt"
    path.write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")
    return Files(path=str(path))


@pytest.fixture
def mixture(tmp_path: Path) -> Mixture:
    tales = [f"Tale {number}: once upon a time a fox met {number} geese." for number in range(30)]
    code = [f"def f{number}(x): return x + {number}" for number in range(20)]
    both = ["This text stands in both."]
    sources = (("tales", tales + both), ("code", code[:5] + both + code[5:]))
    return Mixture(sources=tuple(Part(name=name, corpus=written(tmp_path, name, texts)) for name, texts in sources))


@pytest.fixture
def prepared(mixture: Mixture, tmp_path: Path) -> Prepared:
    return prepare(Data(corpus=mixture, tokenizer=BytePairs(vocabulary=300), held_out=0.25), tmp_path / "cache")


def test_documents_carry_the_name_of_their_source(mixture: Mixture) -> None:
    documents = read_documents(mixture)
    assert [document.name for document in documents[:2]] == ["tales/1", "tales/2"]
    assert documents[-1].name == "code/21"
    assert {document.source for document in documents} == {"tales", "code"} == set(parts_of(mixture))
    assert all(document.name.startswith(document.source + "/") for document in documents)


def test_a_text_of_two_sources_belongs_to_the_first(prepared: Prepared, mixture: Mixture) -> None:
    assert prepared.facts.duplicates == 1
    (first, second) = [one for one in read_documents(mixture) if "in both" in one.text]
    assert (first.source, second.source) == ("tales", "code")
    names = {document.name for document in prepared.held_out}
    assert second.name not in names
    trained = [row.tobytes().hex() for row in prepared.train.hashes]
    assert trained.count(first.hash) + (first.name in names) == 1


def test_every_trained_document_knows_its_source(prepared: Prepared, mixture: Mixture) -> None:
    of = {document.hash: document.source for document in reversed(read_documents(mixture))}
    train = prepared.train
    assert train.sources is not None
    assert train.sources.dtype == np.uint8
    found = [prepared.sources[number] for number in train.sources]
    assert found == [of[row.tobytes().hex()] for row in train.hashes]
    for document in prepared.held_out:
        assert document.source == of[document.hash]
        assert is_held_out(document.hash, 0.25)


def test_the_facts_of_sources_add_up(prepared: Prepared) -> None:
    facts = prepared.facts
    assert [source.name for source in facts.sources] == ["tales", "code"]
    for name in ("training_documents", "training_bytes", "training_tokens", "held_out_documents", "held_out_bytes"):
        assert sum(getattr(source, name) for source in facts.sources) == getattr(facts, name) > 0
    assert prepared.train.sources is not None
    lengths = np.diff(prepared.train.offsets)
    assert facts.sources[1].training_tokens == lengths[prepared.train.sources == 1].sum()


def test_a_corpus_without_parts_has_no_sources(data: Data, tmp_path: Path) -> None:
    prepared = prepare(data, tmp_path / "cache")
    assert (prepared.sources, prepared.train.sources, prepared.facts.sources) == ((), None, ())


def test_a_document_is_on_the_same_side_alone_and_in_a_mixture(prepared: Prepared, mixture: Mixture) -> None:
    for part in mixture.sources:
        alone = {one.hash for one in read_documents(part.corpus) if is_held_out(one.hash, 0.25)}
        assert {one.hash for one in prepared.held_out if one.source == part.name} <= alone


def test_a_limit_takes_the_first_documents(mixture: Mixture) -> None:
    tales, code = mixture.sources
    whole = read_documents(mixture)
    few = Mixture(sources=(Part(name="tales", corpus=tales.corpus, documents=3), code))
    assert read_documents(few) == whole[:3] + whole[31:]
    short = Mixture(sources=(Part(name="tales", corpus=tales.corpus, bytes=100),))
    assert read_documents(short) == whole[:3]
    assert sum(len(document.text.encode()) for document in whole[:2]) < 100


def test_a_mixture_is_known_by_its_parts(mixture: Mixture, tmp_path: Path) -> None:
    tales, code = mixture.sources
    others = [
        Mixture(sources=(code, tales)),
        Mixture(sources=(tales,)),
        Mixture(sources=(Part(name="stories", corpus=tales.corpus), code)),
        Mixture(sources=(Part(name="tales", corpus=tales.corpus, documents=3), code)),
    ]
    prints = {digest(Data(corpus=one).identity(fingerprint(one))) for one in (mixture, *others)}
    assert len(prints) == 5


@pytest.mark.parametrize("name", ["", "a/b", "with space", "x@y"])
def test_a_source_needs_a_name_that_metrics_can_carry(name: str, mixture: Mixture) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        Part(name=name, corpus=mixture.sources[0].corpus)


def test_two_sources_of_one_name_are_refused(mixture: Mixture) -> None:
    with pytest.raises(ValidationError, match="'tales' twice"):
        Mixture(sources=(mixture.sources[0], mixture.sources[0]))
