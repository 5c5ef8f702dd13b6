"""Benchmarks: the same items from every public form of a file, stratified subsets, and clear refusals."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark_rows import ROWS, write
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from workbench.data.benchmarks import Benchmark, Item, _drawn, read_examples, read_items, repeated
from workbench.errors import DataError
from workbench.identity import digest

REAL = Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(not REAL.is_dir(), reason="needs the real benchmarks of ../shared/data")
NAMES = sorted(ROWS.keys() - {"truthfulqa"})


def read(folder: Path, name: str, rows: list[Any] | None = None) -> list[Item]:
    return read_items(Benchmark.model_validate({"name": name, "path": write(folder, name, rows)}))


@pytest.mark.parametrize("name", NAMES)
def test_every_schema_becomes_items_of_distinct_names(name: str, tmp_path: Path) -> None:
    items = read(tmp_path, name)
    assert len(items) == (2 if name == "winobias" else len(ROWS[name]))
    assert len({item.name for item in items}) == len(items)
    for item in items:
        assert item.cluster
        assert all(item.texts)
        assert bool(item.choices) != bool(item.answer)
        assert all(0 <= truth < len(item.choices) for truth in item.truths)


def test_an_item_says_what_its_row_says(tmp_path: Path) -> None:
    assert read(tmp_path, "blimp")[0][:5] == (
        "plural_sailors/0",
        "plural_sailors",
        "",
        ("The sailors sing.", "The sailors sings."),
        (0,),
    )
    assert [item.truths for item in read(tmp_path, "arc_easy")] == [(1,), (2,)]
    assert [item.truths for item in read(tmp_path, "winogrande")] == [(1,), (0,)]
    mast = read(tmp_path, "mmlu")[0]
    assert (mast.cluster, mast.truths) == ("sailing_boats", (2,))
    assert read(tmp_path, "truthfulqa_mc2")[0].truths == (0, 1)
    assert [(item.question, item.answer) for item in read(tmp_path, "lambada")][1] == (
        "She looked for the old lamp, and at last she found the",
        "lamp",
    )
    winograd = read(tmp_path, "winogrande")[0]
    assert winograd.texts[1] == "Ewa thanked Marta because Marta had mended the net."


def test_what_wikihow_left_in_hellaswag_is_removed(tmp_path: Path) -> None:
    first, second = read(tmp_path, "hellaswag")
    assert first.question == "A woman sits on the quay. She"
    assert first.prompt == "Mending a net: A woman sits on the quay. She"
    assert second.prompt == "Boats: How to paint a boat. Wait for dry weather. Paint on wet wood peels."
    assert second.choices[:2] == (" Look at the sky.", "Sink it first.")
    assert second.verbatim[1] == "[substeps] Look at the sky."


def test_a_pair_of_sentences_that_differ_in_more_than_pronouns_is_no_pair(tmp_path: Path) -> None:
    items = read(tmp_path, "winobias")
    assert [item.name for item in items] == ["dev/type1/0", "dev/type1/1"]
    assert {item.cluster for item in items} == {"cook/sailor"}
    declared = [{**row, "minimal_pair": row["line"] != 0} for row in ROWS["winobias"]]
    assert [item.name for item in read(tmp_path, "winobias", declared)] == ["dev/type1/1"]


def test_winobias_is_read_from_the_authors_own_files(tmp_path: Path) -> None:
    folder = tmp_path / "authors"
    folder.mkdir()
    for row in ROWS["winobias"]:
        marked = row["sentence"].replace("The sailor", "[The sailor]").replace(" he ", " [he] ")
        with open(folder / f"{row['condition']}_stereotyped_type{row['type']}.txt.{row['split']}", "a") as file:
            file.write(f"{row['line']} {marked} \n")
    items = read_items(Benchmark(name="winobias", path=str(folder)))
    expected = read(tmp_path / "rows", "winobias")
    assert [(item.name, item.choices) for item in items] == [(item.name, item.choices) for item in expected]
    assert {item.cluster for item in items} == {"sailor"}
    (folder / "notes.txt").write_text("no sentence")
    assert read_items(Benchmark(name="winobias", path=str(folder))) == items
    (folder / "notes.txt").rename(folder / "notes.txt.dev")
    with pytest.raises(DataError, match="a line is not of the schema"):
        read_items(Benchmark(name="winobias", path=str(folder)))


# --- the same items from other forms of the files


@pytest.mark.parametrize("name", ["arc_easy", "mmlu", "blimp"])
def test_json_lines_packed_or_not_json_and_parquet_give_the_same_items(name: str, tmp_path: Path) -> None:
    document = tmp_path / "rows.json"
    document.write_text(json.dumps(ROWS[name]))
    pq.write_table(pa.Table.from_pylist(ROWS[name]), tmp_path / "rows.parquet")
    paths = [
        write(tmp_path, name),
        write(tmp_path, name, file="packed.jsonl.gz"),
        str(document),
        str(tmp_path / "rows.parquet"),
    ]
    read = [read_items(Benchmark.model_validate({"name": name, "path": path})) for path in paths]
    assert read[0] == read[1] == read[2] == read[3]


def test_arc_is_read_as_its_authors_publish_it(tmp_path: Path) -> None:
    official = [
        {
            "id": row["id"],
            "question": {
                "stem": row["question"],
                "choices": [
                    {"text": text, "label": label}
                    for text, label in zip(row["choices"]["text"], row["choices"]["label"], strict=True)
                ],
            },
            "answerKey": row["answerKey"],
        }
        for row in ROWS["arc_easy"]
    ]
    assert read(tmp_path / "authors", "arc_easy", official) == read(tmp_path, "arc_easy")
    renamed = [{**row, "question_stem": row["question"]} for row in ROWS["arc_easy"]]
    assert read(tmp_path / "authors", "openbookqa", official) == read(tmp_path, "openbookqa", renamed)


def test_mmlu_is_read_from_one_csv_file_per_subject(tmp_path: Path) -> None:
    for subject in ("sailing_boats", "knots"):
        with open(tmp_path / f"{subject}_test.csv", "w", newline="") as file:
            rows = [row for row in ROWS["mmlu"] if row["subject"] == subject]
            csv.writer(file).writerows([row["question"], *row["choices"], "ABCD"[row["answer"]]] for row in rows)
    items = read_items(Benchmark(name="mmlu", path=str(tmp_path)))
    assert sorted(items) == sorted(read(tmp_path / "hub", "mmlu"))


def test_piqa_finds_labels_in_a_file_beside_its_rows_and_they_are_identity(tmp_path: Path) -> None:
    bare = [{field: value for field, value in row.items() if field != "label"} for row in ROWS["piqa"]]
    path = write(tmp_path, "piqa", bare, file="valid.jsonl")
    labels = tmp_path / "valid-labels.lst"
    labels.write_text("0\n1\n")
    benchmark = Benchmark(name="piqa", path=path)
    assert read_items(benchmark) == read(tmp_path / "hub", "piqa")
    before = benchmark.source_hash()
    labels.write_text("1\n1")  # of another length: the clock of files may not have ticked
    assert benchmark.source_hash() != before
    assert [item.truths for item in read_items(benchmark)] == [(1,), (1,)]
    labels.write_text("1\n")
    with pytest.raises(DataError, match="labels do not fit the rows"):
        read_items(benchmark)


def test_truthfulqa_is_read_from_the_authors_mapping_of_answers(tmp_path: Path) -> None:
    row = ROWS["truthfulqa"][0]
    mapped = {
        "question": row["question"],
        **{
            targets: dict(zip(row[targets]["choices"], row[targets]["labels"], strict=True))
            for targets in ("mc1_targets", "mc2_targets")
        },
    }
    assert read(tmp_path, "truthfulqa_mc2", [mapped]) == read(tmp_path / "hub", "truthfulqa_mc2")


# --- identity


def test_content_is_identity_and_the_place_is_not(tmp_path: Path) -> None:
    here = Benchmark(name="blimp", path=write(tmp_path, "blimp"))
    there = Benchmark(name="blimp", path=write(tmp_path / "elsewhere", "blimp", file="moved.jsonl.gz"))
    other = Benchmark(name="blimp", path=write(tmp_path, "blimp", ROWS["blimp"][:-1], file="other.jsonl"))
    assert digest(here) == digest(there)
    assert digest(here) != digest(other)
    shown = [Benchmark(name="mmlu", path=write(tmp_path, "mmlu"), examples=path) for path in (None, here.path)]
    assert digest(shown[0]) != digest(shown[1])


def test_examples_are_read_from_files_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path, "mmlu")
    benchmark = Benchmark(name="mmlu", path=path, examples=write(tmp_path, "mmlu", ROWS["mmlu"][:1], file="dev.jsonl"))
    assert [item.cluster for item in read_examples(benchmark)] == ["sailing_boats"]
    assert read_examples(Benchmark(name="mmlu", path=path)) == []
    with pytest.raises(ValidationError, match="no question before which"):
        Benchmark(name="blimp", path=path, examples=path)


# --- subsets


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.data())
def test_a_subset_takes_its_share_of_every_cluster_and_holds_every_smaller_one(sizes: list[int], data: Any) -> None:
    items = tuple(
        Item(f"{cluster}/{number}", f"cluster {cluster}", "", ("a", "b"), (0,))
        for cluster, size in enumerate(sizes)
        for number in range(size)
    )
    count = data.draw(st.integers(1, len(items)))
    drawn = _drawn(items, "blimp", count)
    assert len(drawn) == count
    assert [item for item in items if item in set(drawn)] == drawn
    assert set(_drawn(items, "blimp", max(1, count // 2))) <= set(drawn)
    taken = Counter(item.cluster for item in drawn)
    share = count / len(items)
    for cluster, size in enumerate(sizes):
        assert abs(taken[f"cluster {cluster}"] - share * size) <= 1 + len(sizes) / 2 / len(items) * size + 1e-9


def test_a_subset_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    forward = Benchmark(name="blimp", path=write(tmp_path, "blimp"), items=3)
    backward = Benchmark(name="blimp", path=write(tmp_path, "blimp", ROWS["blimp"][::-1], file="b.jsonl"), items=3)
    assert sorted(read_items(forward)) == sorted(read_items(backward))


# --- refusals


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS["blimp"][0]) + "\n\n" + '{"sentence_good": "The sea", \n')
    with pytest.raises(DataError, match="not valid JSON") as raised:
        read_items(Benchmark(name="blimp", path=str(path)))
    assert f"{path}:3" in str(raised.value)


def change(name: str, row: int = 0, **fields: Any) -> list[Any]:
    rows = json.loads(json.dumps(ROWS[name]))
    rows[row] = {field: value for field, value in {**rows[row], **fields}.items() if value is not ...}
    return rows


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("blimp", ROWS["arc_easy"], "'sentence_good'\n  got:      id, question, choices, answerKey"),
        ("blimp", [["The sea", "is calm"]], "a row is not an object"),
        ("arc_easy", change("arc_easy", answerKey="E"), "expected: A, B, C\n  got:      E"),
        ("arc_easy", change("arc_easy", choices={"text": [], "label": []}), "got:      an empty list"),
        ("arc_easy", change("arc_easy", choices={"text": ["a", "b"], "label": ["A"]}), "labels do not fit the choices"),
        ("arc_easy", change("arc_easy", choices={"text": ["a", " "], "label": ["A", "B"]}), "a choice is empty"),
        ("arc_easy", change("arc_easy", id="Invented_2"), "two items of a benchmark have the same name"),
        ("hellaswag", change("hellaswag", label=""), "labels of this split are not public"),
        ("hellaswag", change("hellaswag", label="4"), "expected: a number from 0 to 3"),
        ("hellaswag", change("hellaswag", activity_label=...), "expected: the field 'activity_label'"),
        ("winogrande", change("winogrande", sentence="There is no gap."), "a sentence has no gap"),
        ("winogrande", change("winogrande", answer=""), "expected: a number from 1 to 2"),
        ("mmlu", change("mmlu", choices=["a", "b", "c"]), "an item has not four choices"),
        ("truthfulqa_mc1", change("truthfulqa", mc1_targets={"choices": ["a"], "labels": [0]}), "exactly one true"),
        ("truthfulqa_mc2", change("truthfulqa", mc2_targets={"choices": ["a"], "labels": [1]}), "one that is not"),
        ("piqa", change("piqa", sol2=""), "the field 'sol2' is empty"),
        ("arc_easy", change("arc_easy", choices={"text": ["a"], "label": ["B"]}), "there is nothing to choose"),
        ("gsm8k", change("gsm8k", answer="twelve"), "an answer has no final number"),
        ("lambada", change("lambada", text="rope"), "a passage has no last word"),
        ("winobias", ROWS["winobias"][:3], "a sentence has no other half"),
        ("winobias", change("winobias", condition="none"), "expected: pro or anti"),
        ("blimp", [], "a benchmark is empty"),
    ],
)  # fmt: skip
def test_rows_that_are_not_of_the_schema_are_refused(name: str, rows: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        read(tmp_path, name, rows)
    assert message in str(raised.value)
    assert str(tmp_path / "rows.jsonl") in str(raised.value)


def test_equal_items_are_kept_numbered_and_counted(tmp_path: Path) -> None:
    items = read(tmp_path, "mmlu", [*ROWS["mmlu"], ROWS["mmlu"][0]])
    assert items[3].name == f"{items[0].name} (2)"
    assert (repeated(items), repeated(items[:3])) == (1, 0)


def test_files_that_are_not_there_or_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no such files"):
        read_items(Benchmark(name="blimp", path=str(tmp_path / "nothing.jsonl")))
    (tmp_path / "rows.xlsx").touch()
    with pytest.raises(DataError, match="this kind of file cannot be read"):
        read_items(Benchmark(name="blimp", path=str(tmp_path / "rows.xlsx")))
    (tmp_path / "broken.jsonl.gz").write_bytes(b"not packed")
    with pytest.raises(DataError, match="a file cannot be read"):
        read_items(Benchmark(name="blimp", path=str(tmp_path / "broken.jsonl.gz")))


@real
@pytest.mark.parametrize(
    ("name", "file", "count", "copies"),
    [
        ("arc_easy", "arc_easy_test", 2376, 0),
        ("winogrande", "winogrande_dev", 1267, 0),
        pytest.param("mmlu", "mmlu_test", 14042, 27, marks=pytest.mark.slow),
        ("truthfulqa_mc2", "truthfulqa", 817, 0),
        ("gsm8k", "gsm8k_test", 1319, 0),
        ("winobias", "winobias", 1564, 3),
    ],
)
def test_the_published_files_are_read(name: str, file: str, count: int, copies: int) -> None:
    items = read_items(Benchmark.model_validate({"name": name, "path": str(REAL / f"{file}.jsonl.gz")}))
    assert (len(items), repeated(items)) == (count, copies)


@real
@pytest.mark.slow
def test_a_subset_of_blimp_takes_as_many_of_every_paradigm() -> None:
    items = read_items(Benchmark(name="blimp", path=str(REAL / "blimp.jsonl.gz"), items=2000))
    counts = Counter(item.cluster for item in items)
    assert len(counts) == 67
    assert set(counts.values()) <= {29, 30, 31}
