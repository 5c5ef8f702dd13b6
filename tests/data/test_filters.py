"""Filters: what each keeps, against a naive computation of the same, and what they promise together."""

from __future__ import annotations

import hashlib
import lzma
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filtered_texts import MANY, PLAIN, documents, examples, passage
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from workbench.data.corpora import Document
from workbench.data.filters import (
    Compression,
    Heuristics,
    NearDuplicates,
    Prototypes,
    QualityClassifier,
    RandomDrop,
    SemDeDup,
    TfidfEmbedding,
)
from workbench.data.filters.decision import Rule
from workbench.errors import MissingExtra
from workbench.identity import canonical, digest


def kept(rule: Rule, given_: Sequence[Document]) -> list[str]:
    return [one.name for one, keep in zip(given_, rule.decide(given_).keep, strict=True) if keep]


# --- what all promise

EVERY: dict[str, Callable[[Path], Rule]] = {
    "heuristics": lambda folder: Heuristics(commonest=(0.08, 0.18, 0.16)),
    "bounds": lambda folder: Compression(low=0.345, high=0.365),
    "middle": lambda folder: Compression(compressor="lzma", middle=0.5),
    "near duplicates": lambda folder: NearDuplicates(threshold=0.3, sequence=1),
    "semdedup": lambda folder: SemDeDup(epsilon=0.07, clusters=4),
    "semdedup, share": lambda folder: SemDeDup(keep=0.6, clusters=4),
    "prototypes": lambda folder: Prototypes(keep=0.4, clusters=5),
    "quality": lambda folder: examples(folder, threshold=0.5),
    "quality, share": lambda folder: examples(folder, keep=0.5, embedding=TfidfEmbedding(width=8)),
    "random": lambda folder: RandomDrop(keep=0.5),
}
BY_ITSELF = ("heuristics", "bounds", "quality", "random")  # a document's fate is its own, whatever else there is


@pytest.mark.parametrize("name", EVERY)
def test_a_filter_drops_some_gives_reasons_and_decides_the_same_twice(name: str, tmp_path: Path) -> None:
    rule = EVERY[name](tmp_path)
    first, again = rule.decide(MANY), rule.decide(MANY)
    assert 0 < first.keep.sum() < len(MANY)
    assert first.keep.dtype == bool
    assert len(first.score) == len(first.reasons) == len(MANY)
    assert [not reasons for reasons in first.reasons] == first.keep.tolist()
    np.testing.assert_array_equal(first.score, again.score)
    np.testing.assert_array_equal(first.keep, again.keep)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "near duplicates"])
def test_the_order_of_documents_changes_nothing(name: str, tmp_path: Path) -> None:
    rule = EVERY[name](tmp_path)
    assert set(kept(rule, MANY)) == set(kept(rule, MANY[::-1]))


@pytest.mark.parametrize("name", BY_ITSELF)
def test_what_judges_a_document_by_itself_does_not_mind_its_company(name: str, tmp_path: Path) -> None:
    rule = EVERY[name](tmp_path)
    alone = rule.decide(MANY[:50])
    np.testing.assert_array_equal(rule.decide(MANY).keep[:50], alone.keep)


@pytest.mark.parametrize("name", EVERY)
def test_a_filter_is_identified_by_every_field_and_by_no_path(name: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    here, there = EVERY[name](tmp_path), EVERY[name](tmp_path / "elsewhere")
    assert digest(here) == digest(there)
    assert str(tmp_path) not in str(canonical(here))
    assert type(here).model_validate_json(here.model_dump_json()) == here


def test_planning_with_filters_imports_none_of_their_libraries() -> None:
    code = (
        "import sys\n"
        "from workbench.data.filters import *\n"
        "from workbench.data.prepared import Data\n"
        "Data(filters=(SemDeDup(epsilon=0.1), NearDuplicates(), Compression(middle=0.5))).identity('corpus')\n"
        "print([name for name in ('sklearn', 'datasketch', 'scipy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(MissingExtra, match="'data'"):
        NearDuplicates().decide(MANY[:3])


def test_clusters_do_not_depend_on_how_many_threads_there_are() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    rule = SemDeDup(epsilon=0.07, clusters=4)
    with threadpoolctl.threadpool_limits(limits=2):
        two = rule.decide(MANY).score
    with threadpoolctl.threadpool_limits(limits=1):
        np.testing.assert_array_equal(rule.decide(MANY).score, two)


# --- rules of thumb

BROKEN = {
    "least_words": "The end of it, to be sure.",
    "most_words": PLAIN,
    "shortest_mean": " ".join(["be to of a b c d e f g"] * 1) + " " + " ".join("hijklmnopqrstuvwxyz" * 3),
    "longest_mean": "of and " + " ".join(f"counterrevolutionary{place:x}" for place in range(60)),
    "symbols": PLAIN + " # # # # # # # # # # #",
    "bullets": "\n".join(f"- {sentence}" for sentence in PLAIN.split(". ")),
    "ellipses": "\n".join(f"{sentence}…" for sentence in PLAIN.split(". ")),
    "alphabetic": PLAIN + " " + " ".join(str(place * place) for place in range(40)),
    "stop_words": " ".join(f"word{place} other{place}" for place in range(40)),
    "closed_lines": "\n".join(PLAIN.rstrip(".").split()),
    "repeated_lines": PLAIN + "\n" + "\n".join(["a b"] * 6),
    "repeated_line_characters": PLAIN + "\n" + PLAIN,
    "commonest": PLAIN + " " + " ".join(["very, very"] * 20),
    "repeated": PLAIN + " " + PLAIN.replace("wife", "spouse"),
}
TOLD = {"most_words": {"most_words": 60}, "closed_lines": {"closed_lines": 0.5}}


@pytest.mark.parametrize("rule", BROKEN)
def test_every_rule_of_thumb_drops_what_breaks_it_and_can_be_off(rule: str) -> None:
    given_ = documents([PLAIN, BROKEN[rule]])
    decision = Heuristics(**TOLD.get(rule, {})).decide(given_)
    assert rule in decision.reasons[1]
    assert decision.keep[0] or rule == "most_words"
    off = Heuristics(**{**TOLD.get(rule, {}), rule: None}).decide(given_)
    assert off.reasons[1] == tuple(one for one in decision.reasons[1] if one != rule)
    assert off.score[1] == decision.score[1] - 1


def naive_shares(text: str, size: int) -> tuple[float, float]:
    """Return the shares of characters in the commonest sequence of words, and in those that occur more than once."""
    words = text.split()
    sequences = [tuple(words[place : place + size]) for place in range(len(words) - size + 1)]
    characters = sum(map(len, words))
    counts = {one: sequences.count(one) for one in sequences}
    most = max(counts.values(), default=0)
    commonest = max((sum(map(len, one)) * most for one in counts if counts[one] == most), default=0)
    covered = {place + step for place, one in enumerate(sequences) if counts[one] > 1 for step in range(size)}
    return commonest / characters if most > 1 else 0.0, sum(len(words[place]) for place in covered) / characters


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["a", "bb", "ccc", "the"]), min_size=1, max_size=40), st.integers(2, 10))
def test_repeated_sequences_are_counted_as_a_loop_counts_them(words: list[str], size: int) -> None:
    from workbench.data.filters.heuristics import _Measured

    measured = _Measured(" ".join(words))
    commonest, repeated = naive_shares(measured.text, size)
    assert (measured.commonest(size), measured.repeated(size)) == pytest.approx((commonest, repeated))


# --- compression


def test_compression_keeps_between_bounds_and_says_which_was_broken() -> None:
    noise = "".join(chr(33 + byte % 90) for byte in hashlib.shake_256(b"noise").digest(400))
    given_ = documents(["ab" * 400, PLAIN, noise])
    decision = Compression(low=0.2, high=0.8).decide(given_)
    ratios = [len(zlib.compress(one.text.encode(), 9)) / len(one.text.encode()) for one in given_]
    assert decision.score.tolist() == ratios
    assert decision.reasons == (("ratio below low",), (), ("ratio above high",))


def test_compression_keeps_the_share_nearest_to_the_median() -> None:
    decision = Compression(compressor="lzma", middle=0.25).decide(MANY)
    distance = np.abs(decision.score - np.median(decision.score))
    assert decision.keep.sum() == 30
    assert distance[decision.keep].max() <= distance[~decision.keep].min()


def test_lzma_ratios_are_those_of_the_library() -> None:
    score = Compression(compressor="lzma", high=2).decide(MANY[:3]).score
    sized = [
        lzma.compress(one.text.encode(), format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2}])
        for one in MANY[:3]
    ]
    assert score == pytest.approx(
        [len(raw) / len(one.text) for raw, one in zip(sized, MANY[:3], strict=True)], abs=0.01
    )


# --- chance


def test_a_larger_share_kept_by_chance_holds_the_smaller_one() -> None:
    some = documents([str(number) for number in range(2000)])
    few, more = (set(kept(RandomDrop(keep=share), some)) for share in (0.3, 0.6))
    assert few < more
    assert 0.26 < len(few) / 2000 < 0.34
    assert set(kept(RandomDrop(keep=0.3, seed=1), some)) != few


# --- near duplicates


def edited(text: str, every: int) -> str:
    words = text.split()
    return " ".join("changed" if place % every == every - 1 else word for place, word in enumerate(words))


def naive_groups(given_: Sequence[Document], threshold: float, size: int) -> list[int]:
    """Return the first document of everyone's group, comparing all pairs of real sets."""
    sets = []
    for one in given_:
        words = re.findall(r"\w+", one.text.lower())
        sets.append({tuple(words[place : place + size]) for place in range(max(len(words) - size + 1, 1))})
    first = list(range(len(sets)))
    for later in range(len(sets)):
        for earlier in range(later):
            if len(sets[later] & sets[earlier]) / len(sets[later] | sets[earlier]) >= threshold:
                one, other = first[later], first[earlier]
                first = [min(one, other) if held in (one, other) else held for held in first]
    return first


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_near_duplicates_are_the_groups_that_comparing_all_pairs_gives(threshold: float) -> None:
    texts = [passage(number, words=150, width=40) for number in range(40)]
    texts += [edited(texts[place], 60 + place) for place in range(15)] + [edited(texts[3], 12), texts[5].upper()]
    texts += ["too short", "Too  short!", "日本語", ""]
    given_ = documents(texts)
    decision = NearDuplicates(threshold=threshold).decide(given_)
    first = naive_groups(given_, threshold, 5)
    assert len(set(first)) < len(first) - 4
    assert decision.keep.tolist() == [one == place for place, one in enumerate(first)]
    assert decision.beside is not None
    assert decision.beside.tolist() == [-1 if one == place else one for place, one in enumerate(first)]
    assert np.isnan(decision.score[decision.keep]).all()
    assert (decision.score[~decision.keep] > 0.3).all()


def test_a_chain_of_near_duplicates_keeps_its_first() -> None:
    words = [f"word{place}" for place in range(120)]
    chain = [" ".join(words[start : start + 60]) for start in (0, 10, 20, 30, 40)]
    decision = NearDuplicates(threshold=0.6).decide(documents(chain))
    assert decision.keep.tolist() == [True, False, False, False, False]
    assert decision.score[4] < 0.6 < decision.score[1]


def test_text_without_spaces_is_compared_by_characters() -> None:
    text = "私は昨日とても大きな船で海を渡って遠い島に行きました。"
    given_ = documents([text, text.replace("大きな", "小さな"), "別の文章です。これは関係ありません。"])
    assert NearDuplicates(threshold=0.5, sequence=2, unit="characters").decide(given_).keep.tolist() == [
        True,
        False,
        True,
    ]
    assert NearDuplicates(threshold=0.5).decide(given_).keep.all()


@pytest.mark.parametrize(("threshold", "permutations"), [(0.3, 128), (0.8, 128), (0.8, 32), (0.99, 256), (1.0, 64)])
def test_signatures_are_cut_so_that_pairs_at_the_threshold_are_found(threshold: float, permutations: int) -> None:
    bands, rows = NearDuplicates(threshold=threshold, permutations=permutations).bands()
    assert bands * rows <= permutations
    assert 1 - (1 - threshold**rows) ** bands >= 0.995


@pytest.mark.parametrize(
    ("rule", "fields", "message"),
    [
        (Compression, {}, "expected bounds"),
        (Compression, {"low": 0.2, "middle": 0.5}, "expected bounds"),
        (Compression, {"low": 0.6, "high": 0.5}, "low below high"),
        (SemDeDup, {}, "expected epsilon"),
        (SemDeDup, {"epsilon": 0.1, "keep": 0.5}, "expected epsilon"),
        (QualityClassifier, {"good": "g", "bad": "b"}, "expected threshold"),
        (RandomDrop, {"keep": 0}, "greater than 0"),
        (NearDuplicates, {"threshold": 1.2}, "less than or equal to 1"),
        (Heuristics, {"least_word": 3}, "Extra inputs"),
    ],
)
def test_a_filter_that_says_nothing_or_two_things_is_refused(rule: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        rule(**fields)
