"""Datasets of the Hugging Face hub: streamed once into the cache as Parquet files, and read from there ever after.

Promises that a corpus is known by the commit of its dataset (of a folder on disk: by what its files hold) and by what
is taken from it, so that a plan needs no download; that an interrupted download goes on where its last whole file
ends; and that no code of a dataset is ever run. Refuses, saying what to do instead, a hub that cannot be reached and
fields that are not there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import field_validator

from workbench.data.building import Pace, Report, sole_builder
from workbench.data.documents import Document
from workbench.data.text_files import Source, hashes_of
from workbench.errors import DataError, MissingExtra, WorkbenchError
from workbench.identity import Spec, digest, setting
from workbench.store import write_durably

TAKING = 1  # raised when the same rows would give other documents
SHARD_BYTES = 64_000_000  # of text in one file of the cache: what an interruption can cost
COMMIT = re.compile(r"[0-9a-f]{40}")
LOCAL = "download it where there is a network and name the folder, or give files: --corpus PATH"


class Hub(Spec):
    """A dataset of the Hugging Face hub, or a folder on disk that is laid out like one.

    Attributes:
        name: As on the hub, "roneneldan/TinyStories"; or the path of a folder with its files.
        configuration: Which of its configurations, where it has several.
        split: Which of its splits.
        revision: Branch, tag or commit; None is the newest. Only a whole commit needs no network to be known.
        field: Where a row keeps its text: a string, or a conversation, which is a list of turns with "from" and
            "value" or "role" and "content", and is written turn below turn.
        template: How several fields become the text instead: "{instruction} {output}"; other braces are not allowed.
        leave_out: Rows whose field has this value are left out: ("meta.source", "GitHub"); a dot goes into a field.
        documents: Only so many documents, the first.
        bytes: Only the first documents of about so many UTF-8 bytes together.
    """

    kind: Literal["hub"] = "hub"
    name: str = setting(min_length=1)
    configuration: str | None = setting(None)
    split: str = setting("train", min_length=1)
    revision: str | None = setting(None)
    field: str = setting("text", min_length=1)
    template: str | None = setting(None)
    leave_out: tuple[tuple[str, str], ...] = setting(())
    documents: int | None = setting(None, ge=1)
    bytes: int | None = setting(None, ge=1)

    @field_validator("template")
    @classmethod
    def _names_a_field(cls, value: str | None) -> str | None:
        if value is not None and not re.search(r"{\w+}", value):
            raise ValueError(f"expected a field in braces, such as {{text}}, got {value!r}")
        return value

    @property
    def folder(self) -> Path | None:
        """The folder on disk it names; None where it is a dataset of the hub."""
        path = Path(self.name).expanduser()
        return path if path.is_dir() else None


def hub_fingerprint(hub: Hub) -> str:
    """Hash what identifies the documents: the dataset's commit, or the files of a folder, and what is taken of them.

    Raises:
        DataError: if the commit has to be asked for and the hub cannot be reached.
    """
    taken = [hub.configuration, hub.split, hub.field, hub.template, hub.leave_out, hub.documents, hub.bytes]
    if hub.folder is None:
        return digest(hub.kind, TAKING, hub.name, _commit(hub.name, hub.revision), taken)
    return digest(hub.kind, TAKING, hashes_of(_files(hub.folder)), taken)


def hub_documents(hub: Hub, cache: Path, report: Report) -> Iterator[Document]:
    """Yield the documents of a dataset, named by the number of their row, after downloading what is not there yet.

    Args:
        hub: The dataset.
        cache: Folder of caches.
        report: Told, in words, how the download gets on.

    Raises:
        DataError: if the dataset cannot be opened, or does not hold what is asked for.
        MissingExtra: if `datasets` is not installed.
    """
    folder = cache / "hub" / hub_fingerprint(hub)
    if not (folder / "whole.json").exists():
        with sole_builder(folder, report, "downloads this dataset"):
            if not (folder / "whole.json").exists():
                folder.mkdir(exist_ok=True)
                _download(hub, folder, report)
    for path in _shards(folder):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    yield Document(str(row["row"]), row["text"])


# --- which dataset


def _files(folder: Path) -> list[Source]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    named = [Source(path.relative_to(folder).as_posix(), path) for path in paths]
    return sorted((one for one in named if not re.search(r"(^|/)\.", one.name)), key=lambda source: source.name)


@lru_cache(maxsize=64)
def _commit(name: str, revision: str | None) -> str:
    """Return the commit that a revision stands for now; offline, the one it stood for when last asked."""
    if revision and COMMIT.fullmatch(revision):
        return revision
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError:
        raise MissingExtra("huggingface_hub", "data") from None
    try:
        # one small file, because what is then remembered on disk answers without a network, too
        found = snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=[".gitattributes"])
    except Exception as error:  # the library and what it calls raise a dozen kinds
        raise _unreachable(name, error) from None
    return Path(found).name


def _unreachable(name: str, error: Exception) -> DataError:
    kind, told = type(error).__name__, str(error).strip().splitlines()
    got = f"{kind}: {told[0]}" if told else kind
    if kind in ("RepositoryNotFoundError", "GatedRepoError", "RevisionNotFoundError", "HFValidationError"):
        expected = "the name of a dataset (and revision) that is open to you"
        fix = "check the name; where it asks for consent, accept it on its page and log in: hf auth login"
        return DataError("the hub has no such dataset for you", where=name, expected=expected, got=got, fix=fix)
    expected = "a network, or revision=COMMIT of a dataset that was downloaded before"
    return DataError("the hub cannot be reached", where=name, expected=expected, got=got, fix=LOCAL)


# --- download


def _download(hub: Hub, folder: Path, report: Report) -> None:
    rows = _rows(hub)
    shards, taken, size, number = _shards(folder), 0, 0, 0
    if shards:
        held = json.loads(pq.read_schema(shards[-1]).metadata[b"workbench"])
        taken, size, number = held["documents"], held["bytes"], held["row"]
        rows.load_state_dict(held["state"])
        report(f"the download of {hub.name} goes on after {taken:,} documents")
    pace = Pace(report, f"downloaded {{}} of {hub.name}", total=hub.bytes, done=size, unit="bytes")
    texts, numbers, waiting = list[str](), list[int](), 0
    for row in _each(hub, rows):
        number += 1
        if taken == hub.documents or (hub.bytes is not None and size >= hub.bytes):
            break
        text = None if _left_out(hub, row) else _text(hub, row, number)
        if text is None or not text.strip():
            continue
        texts.append(text)
        numbers.append(number)
        length = len(text.encode(errors="replace"))
        taken, size, waiting = taken + 1, size + length, waiting + length
        if waiting >= SHARD_BYTES:
            state = {"documents": taken, "bytes": size, "row": number, "state": rows.state_dict()}
            _write_shard(folder / f"{len(_shards(folder)):05}.parquet", numbers, texts, state)
            texts, numbers, waiting = [], [], 0
        pace.reached(size)
    if texts:
        state = {"documents": taken, "bytes": size, "row": number, "state": rows.state_dict()}
        _write_shard(folder / f"{len(_shards(folder)):05}.parquet", numbers, texts, state)
    pace.ended(size)
    whole = {"documents": taken, "bytes": size, "dataset": hub.model_dump(mode="json")}
    write_durably(folder / "whole.json", json.dumps(whole, indent=2).encode())


def _rows(hub: Hub) -> Any:
    try:
        import datasets
    except ModuleNotFoundError:
        raise MissingExtra("datasets", "data") from None
    where = hub.name if hub.folder is None else str(hub.folder)
    revision = {"revision": _commit(hub.name, hub.revision)} if hub.folder is None else {}
    try:
        return datasets.load_dataset(where, hub.configuration, split=hub.split, streaming=True, **revision)
    except (ConnectionError, TimeoutError) as error:
        raise _unreachable(hub.name, error) from None
    except Exception as error:  # the library raises nothing more precise
        if type(error).__name__ == "DatasetNotFoundError":
            raise _unreachable(hub.name, error) from None
        asked = f"configuration {hub.configuration or 'by default'}, split {hub.split}"
        got = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError("a dataset cannot be opened", where=hub.name, expected=asked, got=got) from None


def _each(hub: Hub, rows: Any) -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except WorkbenchError:
        raise
    except Exception as error:  # of the library, of what it reads files with, and of the network
        told = str(error).strip().splitlines()
        raise DataError(
            "the download of a dataset broke off",
            where=hub.name,
            got=f"{type(error).__name__}: {told[0]}" if told else type(error).__name__,
            fix="type the command again to go on; " + LOCAL,
        ) from None


def _write_shard(path: Path, numbers: list[int], texts: list[str], state: dict[str, Any]) -> None:
    try:
        table = pa.table({"row": pa.array(numbers, pa.int64()), "text": pa.array(texts, pa.large_string())})
    except UnicodeEncodeError as error:
        got = f"{error.object[error.start]!a}"
        raise DataError("a text is not valid Unicode", where=path, expected="paired surrogates", got=got) from None
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"workbench": json.dumps(state)}), sink, compression="zstd")
    write_durably(path, sink.getvalue().to_pybytes())


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.parquet"))


# --- one row


def _text(hub: Hub, row: dict[str, Any], number: int) -> str:
    if hub.template is not None:
        return re.sub(r"{(\w+)}", lambda found: _string(hub, row, found[1], number), hub.template)
    return _string(hub, row, hub.field, number)


def _string(hub: Hub, row: dict[str, Any], field: str, number: int) -> str:
    place = f"{hub.name}, row {number}"
    if field not in row:
        expected, got = f"the field '{field}'", ", ".join(map(repr, row)) or "no field"
        raise DataError("a row has no text", where=place, expected=expected, got=got)
    held = row[field]
    if isinstance(held, str):
        return held
    turns = [_turn(turn) for turn in held] if isinstance(held, list) else [None]
    if None in turns:
        raise DataError(
            "a row has no text",
            where=place,
            expected=f"a string in '{field}', or a list of turns with 'from' and 'value' or 'role' and 'content'",
            got=type(held).__name__ if not isinstance(held, list) else f"a list of {type(held[0]).__name__}",
        )
    return "\n".join(turn for turn in turns if turn)


def _turn(turn: Any) -> str | None:
    """Write one turn of a conversation as fine-tuning does by default; None where it is none."""
    if not isinstance(turn, dict):
        return None
    role, said = (turn.get("from"), turn.get("value")) if "value" in turn else (turn.get("role"), turn.get("content"))
    if not isinstance(role, str) or not isinstance(said, str):
        return None
    speaker = {"human": "User: ", "user": "User: ", "gpt": "Assistant: ", "assistant": "Assistant: ", "system": ""}
    return speaker.get(role, f"{role.capitalize()}: ") + said + ("\n" if role == "system" else "")


def _left_out(hub: Hub, row: dict[str, Any]) -> bool:
    for path, value in hub.leave_out:
        held: Any = row
        for name in path.split("."):
            held = held.get(name) if isinstance(held, dict) else None
        if held == value:
            return True
    return False
