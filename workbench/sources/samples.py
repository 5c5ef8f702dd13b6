"""Sample logs of lm-evaluation-harness (`--log_samples`): one row per run, task, metric and item.

Promises that items are paired by task and document number, with the harness's own hash of the document proving that it
is the same one in every run. Reads a folder per run, DIR/VARIANT/[SEED/][MODEL/]samples_TASK_DATE.jsonl. Refuses two
logs of one task in one run, a document scored twice, and a number that means two documents.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from workbench.errors import DataError
from workbench.sources.table import Table

FILE = re.compile(r"samples_(?P<task>.+)_\d{4}-\d\d-\d\dT[\d.\-]+\.jsonl")
SEED = re.compile(r"(?:seed|s)?[-_=]?(\d+)", re.IGNORECASE)
# Everything else in a line that is a number is a score, where the line does not name its metrics itself.
NO_SCORES = {"doc_id", "doc_hash", "prompt_hash", "target_hash", "target", "filter", "metrics", "doc", "arguments"}


class _Log(NamedTuple):
    """One file: the scores of one run on one task."""

    path: Path
    variant: str
    seed: str
    task: str


def holds_samples(folder: Path) -> bool:
    """Whether a folder holds sample logs, at any depth."""
    return any(FILE.fullmatch(path.name) for path in folder.rglob("samples_*.jsonl"))


def read_samples(folder: Path, mapping: Mapping[str, str] | None = None) -> Table:
    """Read every log below a folder.

    Args:
        folder: Holds a folder per run.
        mapping: Which level below it names what: {"variant": "1", "seed": "2"}, the default where level 2 looks like a
            seed ("1", "seed1", "s1").

    Raises:
        DataError: for a line that is no JSON of the harness, two logs of one task in a run, or a document that differs
            between runs.
    """
    logs = _find(folder, mapping or {})
    columns: dict[str, list[Any]] = {name: [] for name in ("variant", "seed", "task", "metric", "item", "value")}
    places: list[tuple[Path, int]] = []
    hashes: dict[tuple[str, int], tuple[str, Path]] = {}
    digest = hashlib.sha256()
    for log in logs:
        for line, metric, item, value in _read(log, hashes, digest):
            for name, held in zip(columns, (log.variant, log.seed, log.task, metric, item, value), strict=True):
                columns[name].append(held)
            places.append((log.path, line))
    if len({log.seed for log in logs}) == 1 and not logs[0].seed:
        del columns["seed"]
    notes = (
        () if all(told for told, _ in hashes.values()) else ("logs without doc_hash: items are paired by number only",)
    )
    arrays = {name: pa.array(held, pa.float64() if name == "value" else pa.string()) for name, held in columns.items()}
    return Table(
        str(folder), digest.hexdigest(), arrays, "line", lambda row: f"{places[row][1]} of {places[row][0].name}",
        notes=notes,
    )  # fmt: skip


def _find(folder: Path, mapping: Mapping[str, str]) -> list[_Log]:
    levels = {name: _level(name, text) for name, text in mapping.items()}
    logs: dict[tuple[str, str, str], _Log] = {}
    for path in sorted(folder.rglob("samples_*.jsonl")):
        found = FILE.fullmatch(path.name)
        if found is None:
            continue
        parts = path.relative_to(folder).parts[:-1]
        variant = _part(path, parts, levels.get("variant", 1), "variant")
        seed = ""
        if "seed" in levels:
            seed = _part(path, parts, levels["seed"], "seed")
        elif len(parts) > 1 and SEED.fullmatch(parts[1]):
            seed = parts[1]
        plain = SEED.fullmatch(seed)
        log = _Log(path, variant, plain[1] if plain else seed, found["task"])
        other = logs.setdefault((log.variant, log.seed, log.task), log)
        if other is not log:
            raise DataError(
                "two logs of one task in one run",
                where=f"{other.path} and {path}",
                expected="a folder per run: DIR/VARIANT/SEED/",
                got=f"variant {log.variant}" + (f", seed {log.seed}" if log.seed else "") + f", task {log.task} twice",
                fix="keep one of them, or say which folder level names the seed: --map seed=2",
            )
    return list(logs.values())


def _level(name: str, text: str) -> int:
    if name not in ("variant", "seed") or not text.isdecimal() or int(text) < 1:
        raise DataError(
            "--map cannot be read for a folder of logs",
            expected="which folder level names variant and seed: --map variant=1,seed=2",
            got=f"{name}={text}",
        )
    return int(text)


def _part(path: Path, parts: tuple[str, ...], level: int, what: str) -> str:
    if len(parts) < level:
        raise DataError(
            f"a log lies in no folder that names its {what}",
            where=path,
            expected="DIR/VARIANT/SEED/samples_TASK_DATE.jsonl",
            got=f"{len(parts)} folders below DIR",
        )
    return parts[level - 1]


def _read(
    log: _Log, hashes: dict[tuple[str, int], tuple[str, Path]], digest: Any
) -> Iterator[tuple[int, str, str, float]]:
    """Yield (line, metric, item, value) of every score that is a number."""
    seen: set[tuple[int, str]] = set()
    with log.path.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            digest.update(raw)
            if not raw.strip():
                continue
            where = f"{log.path}, line {number}"
            sample = _parse(raw, where)
            document, filtered = int(sample["doc_id"]), str(sample.get("filter", "none"))
            if (document, filtered) in seen:
                raise DataError("a document is scored twice", where=where, got=f"doc_id {document}, filter {filtered}")
            seen.add((document, filtered))
            told = str(sample.get("doc_hash", ""))
            known, first = hashes.setdefault((log.task, document), (told, log.path))
            if known != told:
                raise DataError(
                    "one number means two documents",
                    where=where,
                    expected=f"doc_id {document} of {log.task} as in {first}: doc_hash {known[:12]}…",
                    got=f"doc_hash {told[:12]}…",
                    fix="evaluate every run on the same version of the task",
                )
            for metric, value in _scores(sample).items():
                name = metric if filtered == "none" else f"{metric},{filtered}"
                yield number, name, f"{document:06d}", value


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        sample = json.loads(raw)
        if isinstance(sample, dict) and isinstance(sample.get("doc_id"), int):
            return sample
    except ValueError:
        pass
    raise DataError(
        "not a line of an lm-eval sample log",
        where=where,
        expected='JSON with "doc_id" and a score per metric',
        got=raw[:60].decode("utf-8", "replace").strip(),
    )


def _scores(sample: dict[str, Any]) -> dict[str, float]:
    names = sample.get("metrics") or [name for name in sample if name not in NO_SCORES]
    return {
        name: float(sample[name]) for name in names if isinstance(sample.get(name), int | float)
    }  # perplexities come as pairs of numbers and are no score of an item
