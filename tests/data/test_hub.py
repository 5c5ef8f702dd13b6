"""Datasets of the hub: a folder in the hub's layout stands for one, read by the same library in the same way."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from workbench.data import hub
from workbench.data.corpora import Document, Hub, Mixture, Part, fingerprint, parts_of, read_documents
from workbench.data.ordering import Weighted
from workbench.data.prepared import Data, prepare
from workbench.data.presets import PRESETS, TINY_LLAMA, TINY_LLAMA_WEIGHTS, preset, told_corpus
from workbench.data.tokenizer import BytePairs
from workbench.errors import DataError
from workbench.identity import digest

pytest.importorskip("datasets")

CARD = """---
configs:
- config_name: stories
  default: true
  data_files:
  - split: train
    path: stories/train-*.parquet
  - split: validation
    path: stories/validation.parquet
- config_name: chats
  data_files: chats.parquet
---
# A tiny dataset
"""
STORIES = [f"Story {number}: the ship sailed over {number} seas." for number in range(12)]
CHATS = [
    {"conversations": [{"from": "system", "value": "Be kind."}, {"from": "human", "value": f"{number}+1?"},
                       {"from": "gpt", "value": str(number + 1)}], "meta": {"source": "a" if number % 2 else "b"}}
    for number in range(4)
]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    hub._commit.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two configurations and two splits, the training split in three files."""
    found = tmp_path / "tiny"
    (found / "stories").mkdir(parents=True)
    (found / "README.md").write_text(CARD)
    for number, texts in enumerate((STORIES[:5], STORIES[5:10], STORIES[10:])):
        table = pa.table({"text": texts, "title": [text.split(":")[0] for text in texts]})
        pq.write_table(table, found / "stories" / f"train-{number:05}-of-00003.parquet")
    pq.write_table(pa.table({"text": ["Held out."], "title": ["H"]}), found / "stories" / "validation.parquet")
    pq.write_table(pa.Table.from_pylist(CHATS), found / "chats.parquet")
    return found


def read(folder: Path, **fields: Any) -> list[Document]:
    return read_documents(Hub(name=str(folder), **fields), folder.parent / "cache")


def texts(folder: Path, **fields: Any) -> list[str]:
    return [document.text for document in read(folder, **fields)]


# --- what is read


def test_a_split_is_read_in_the_order_of_its_files(folder: Path) -> None:
    documents = read(folder)
    assert [document.text for document in documents] == STORIES
    assert [document.name for document in documents] == [str(number) for number in range(1, 13)]
    assert texts(folder, split="validation") == ["Held out."]


def test_conversations_are_written_turn_below_turn(folder: Path) -> None:
    found = texts(folder, configuration="chats", field="conversations")
    assert found[1] == "Be kind.\n\nUser: 1+1?\nAssistant: 2"
    assert len(found) == 4


def test_several_fields_become_one_text(folder: Path) -> None:
    assert texts(folder, template="{title} | {text}")[0] == f"Story 0 | {STORIES[0]}"
    with pytest.raises(ValidationError, match="field in braces"):
        Hub(name="a/b", template="{}")


def test_rows_of_one_origin_can_be_left_out_and_keep_the_names_of_others(folder: Path) -> None:
    found = read(folder, configuration="chats", field="conversations", leave_out=(("meta.source", "b"),))
    assert [document.name for document in found] == ["2", "4"]


def test_limits_take_the_first_documents(folder: Path) -> None:
    assert texts(folder, documents=7) == STORIES[:7]
    assert texts(folder, bytes=len(STORIES[0]) + 1) == STORIES[:2]


def test_a_dataset_is_prepared_and_mixed_like_any_corpus(folder: Path, tmp_path: Path) -> None:
    mixture = Mixture(
        sources=(
            Part(name="stories", corpus=Hub(name=str(folder))),
            Part(name="chats", corpus=Hub(name=str(folder), configuration="chats", field="conversations")),
        )
    )
    data = Data(corpus=mixture, tokenizer=BytePairs(vocabulary=300), held_out=0.3)
    prepared = prepare(data, tmp_path / "cache")
    assert prepared.sources == ("stories", "chats")
    assert prepared.facts.documents == 16


def test_a_limit_of_a_mixture_is_a_limit_of_the_download(folder: Path, tmp_path: Path) -> None:
    part = Part(name="stories", corpus=Hub(name=str(folder), bytes=10**6), documents=2)
    found = read_documents(Mixture(sources=(part,)), tmp_path / "cache")
    assert [document.text for document in found] == STORIES[:2]
    (shard,) = tmp_path.glob("cache/hub/*/*.parquet")
    assert pq.read_metadata(shard).num_rows == 2


# --- downloaded once, and on after an interruption


def test_what_was_downloaded_is_not_downloaded_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read(folder)
    monkeypatch.setattr(hub, "_rows", lambda hub: pytest.fail("downloaded again"))
    assert read(folder) == before


@pytest.mark.parametrize("broken_at", [1, 4, 5, 6, 11])
def test_an_interrupted_download_goes_on_at_its_last_whole_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, broken_at: int
) -> None:
    monkeypatch.setattr(hub, "SHARD_BYTES", 100)
    monkeypatch.setattr(hub, "_text", lambda *_: next(script))
    script = iter([*STORIES[:broken_at]])
    with pytest.raises(RuntimeError):  # the script ends inside a generator: as good as a power cut
        read(folder)
    monkeypatch.undo()
    real, seen = hub._text, []
    monkeypatch.setattr(hub, "_text", lambda *told: seen.append(told) or real(*told))
    assert texts(folder) == STORIES
    assert len(seen) == len(STORIES) - 3 * (broken_at // 3)


def test_the_pace_of_a_download_is_told(folder: Path) -> None:
    told: list[str] = []
    list(read_documents(Hub(name=str(folder)), folder.parent / "other", told.append))
    assert "downloaded 0.0 MB of" in told[-1]
    assert "a second" in told[-1]


# --- identity


def test_a_folder_is_known_by_its_files_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    assert fingerprint(Hub(name=str(folder))) == fingerprint(Hub(name=str(moved)))
    (moved / ".cache").mkdir()
    (moved / ".cache" / "lock").write_text("")
    assert fingerprint(Hub(name=str(folder))) == fingerprint(Hub(name=str(moved)))
    (moved / "README.md").write_text("another card")
    assert fingerprint(Hub(name=str(folder))) != fingerprint(Hub(name=str(moved)))


def test_what_is_taken_is_part_of_identity_and_a_commit_needs_no_network() -> None:
    base = Hub(name="a/b", revision="0" * 40)
    changes: list[dict[str, Any]] = [
        {"configuration": "c"}, {"split": "test"}, {"field": "t"}, {"documents": 3}, {"bytes": 3}, {"name": "a/c"},
        {"revision": "1" * 40}, {"template": "{a}"}, {"leave_out": (("a", "b"),)},
    ]  # fmt: skip
    prints = [fingerprint(base.model_copy(update=change)) for change in ({}, *changes)]
    assert len({*prints}) == len(prints)


def test_a_branch_stands_for_the_commit_it_points_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def snapshot(name: str, **told: Any) -> str:
        asked.append((name, told["revision"], told["allow_patterns"]))
        return str(tmp_path / "snapshots" / ("c" * 40))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert fingerprint(Hub(name="a/b")) == fingerprint(Hub(name="a/b", revision="c" * 40))
    assert asked == [("a/b", None, [".gitattributes"])]


# --- what is refused


def test_without_a_network_it_says_how_to_use_local_files(tmp_path: Path) -> None:
    program = (
        "from workbench.data.presets import preset\nfrom workbench.data.corpora import fingerprint\n"
        "from workbench.errors import DataError\n"
        "try: fingerprint(preset('tinystories'))\nexcept DataError as error: print(error)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    ).stdout
    assert "the hub cannot be reached" in told
    assert "roneneldan/TinyStories" in told
    assert "name the folder, or give files" in told


def test_a_missing_field_is_refused_with_those_there_are(folder: Path) -> None:
    with pytest.raises(DataError, match="a row has no text") as caught:
        read(folder, field="content")
    assert "'text', 'title'" in str(caught.value)
    assert "row 1" in str(caught.value)
    with pytest.raises(DataError, match="a row has no text") as caught:
        read(folder, configuration="chats", field="meta")
    assert "dict" in str(caught.value)


@pytest.mark.parametrize(("fields", "named"), [({"configuration": "poems"}, "poems"), ({"split": "test"}, "test")])
def test_a_missing_configuration_or_split_is_refused(folder: Path, fields: dict[str, str], named: str) -> None:
    with pytest.raises(DataError, match="a dataset cannot be opened") as caught:
        read(folder, **fields)
    assert named in str(caught.value.details["expected"])
    assert "stories" in str(caught.value) or "train" in str(caught.value)


def test_a_damaged_file_is_refused(folder: Path) -> None:
    path = folder / "stories" / "train-00001-of-00003.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"a dataset cannot be opened|broke off"):
        read(folder)


# --- by name


def test_presets_are_found_by_name_and_are_all_different() -> None:
    assert preset("fineweb_edu") is preset("fineweb-edu") is PRESETS["fineweb-edu"].corpus
    assert len({digest(one.corpus) for one in PRESETS.values()}) == len(PRESETS)
    with pytest.raises(DataError, match="no such preset") as caught:
        preset("tinystory")
    assert "tinystories" in str(caught.value)


def test_the_published_weights_are_those_of_the_published_mixture() -> None:
    data = Data(corpus=TINY_LLAMA, order=Weighted(weights=TINY_LLAMA_WEIGHTS))
    assert {*TINY_LLAMA_WEIGHTS} == {*parts_of(data.corpus)}
    assert sum(TINY_LLAMA_WEIGHTS.values()) == pytest.approx(1)


def test_a_word_of_the_command_line_names_a_corpus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told_corpus("hub:fineweb-edu") == preset("fineweb_edu")
    assert told_corpus("hub:owner/name:part") == Hub(name="owner/name", configuration="part")
    monkeypatch.chdir(folder.parent)
    assert told_corpus("hub:./tiny") == Hub(name=str(folder))
    assert told_corpus("tiny/some.jsonl").model_dump()["path"] == str(folder / "some.jsonl")
    assert told_corpus("sotu").kind == "sotu"
