"""Evaluating one trained model outside a sweep: what is asked, what came of it, and results that others can read.

Promises item scores of the same tasks, under the same names, as a sweep leaves, one file for all models that are
evaluated into one folder, so that `workbench analyze` compares them item by item. A model evaluated again replaces what
it had of the same tasks. Refuses a task without what it needs, and results of another kind in the folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from workbench.data.benchmarks import Benchmark
from workbench.data.contamination import Text
from workbench.data.corpora import fingerprint, read_documents, stream_documents
from workbench.data.prepared import Facts, Prepared, TokenFile, prepare
from workbench.data.taught import taught
from workbench.data.text_files import Files
from workbench.errors import DataError, StatisticsError, WorkbenchError
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.searched import is_searched
from workbench.evaluation.tasks import BenchmarkItems, BitsPerByte, Evaluation, LmEval, SwappedWords, Task
from workbench.identity import SCHEMA, digest
from workbench.opening import Askable
from workbench.records import CONTAMINATED, TRUNCATED, together
from workbench.statistics.items import items_only
from workbench.statistics.pairing import ItemScores, run_means
from workbench.store import Store, write_durably
from workbench.training.numerics import keep_freed_memory

BENCHMARKS = get_args(Benchmark.model_fields["name"].annotation)
ON_TEXT = {"bits_per_byte": BitsPerByte, "swapped_words": SwappedWords}
EXPECTED = (
    f"BENCHMARK=PATH ({', '.join(BENCHMARKS)}), lm_eval:NAME, lm_eval:FILE.yaml, bits_per_byte, bits_per_byte=PATH, "
    "swapped_words"
)
TOLD = ("task", "metric", "value", "standard_error", "items", "clusters", "truncated", "contaminated")
# Told (number of the task, its label, sequences done, sequences in all).
Progress = Callable[[int, str, int, int], None]


@dataclass(frozen=True)
class Asking:
    """What a model is asked.

    Attributes:
        tasks: In the order given.
        text: The file of held-out text, where one was named.
        against: Text in which the tasks' items are searched for, beside what the model is known to be trained on.
    """

    tasks: tuple[Task, ...]
    text: str | None
    against: tuple[Files, ...] = ()


def read_tasks(
    texts: list[str],
    *,
    shots: int | None = None,
    items: int | None = None,
    protocol: str = "lm-eval",
    examples: list[str] | None = None,
    include_path: str | None = None,
    against: list[str] | None = None,
) -> Asking:
    """Read tasks as a user writes them.

    Args:
        texts: "blimp=FILE", "lm_eval:NAME", "lm_eval:FILE.yaml", "bits_per_byte", "bits_per_byte=FILE",
            "swapped_words"; several with a comma between them.
        shots: Examples before every question of the benchmarks that `examples` names, and of lm-eval's tasks.
        items: How many of each task, at most.
        protocol: By which benchmarks are asked.
        examples: "mmlu=FILE": from where examples are taken.
        include_path: A folder of further definitions for lm-eval's tasks.
        against: Files, folders or globs of text in which items are searched for.

    Raises:
        WorkbenchError: for what is no such text, with what would be.
    """
    pools = dict(_named(text, "--examples") for text in examples or ())
    tasks: list[Task] = []
    text = None
    for told in (one.strip() for joined in texts for one in joined.split(",") if one.strip()):
        name, _, path = told.partition("=")
        kind, _, harness = told.partition(":")
        if kind == "lm_eval" and harness:
            tasks.append(_checked(LmEval, told, task=harness, include_path=include_path, shots=shots, items=items))
        elif name in ON_TEXT:
            text = path or text
            counted = {"documents" if name == "bits_per_byte" else "items": items} if items is not None else {}
            tasks.append(_checked(ON_TEXT[name], told, **counted))
        elif name in BENCHMARKS and path:
            pool = pools.pop(name, None)
            benchmark = {"name": name, "path": path, "items": items, "examples": pool}
            shown = shots or 0 if pool is not None else 0
            tasks.append(_checked(BenchmarkItems, told, benchmark=benchmark, shots=shown, protocol=protocol))
        else:
            raise WorkbenchError("there is no such task", where="--tasks", expected=EXPECTED, got=told)
    _refuse_idle(tasks, shots, pools)
    searched = tuple(Files(path=path) for path in against or ())
    if searched and not any(map(is_searched, tasks)):
        raise WorkbenchError(
            "no task has items to search for",
            where="--against",
            expected="a benchmark, or a task of lm-eval, in --tasks",
            got=", ".join(task.label for task in tasks),
        )
    return Asking(_checked(Evaluation, "tasks", tasks=tuple(tasks)).tasks, text, searched)


def examine(
    askable: Askable, asking: Asking, store: Store, *, batch: int, device: str, progress: Progress | None = None
) -> pa.Table:
    """Ask a model and return its item scores; an evaluation of a model of this store is counted there.

    Args:
        askable: The model.
        asking: The tasks.
        store: The runtime folder.
        batch: Tokens in one forward pass.
        device: Where the model is put.
        progress: Told how far it is.

    Raises:
        DataError: for tasks without what they need, and for what cannot be read.
    """
    keep_freed_memory()
    prepared = _prepared(askable, asking, store)
    held_out = hashlib.sha256("".join(document.hash for document in prepared.held_out).encode()).hexdigest()
    further = [_searched(corpus) for corpus in asking.against]
    asked = Evaluation(tasks=asking.tasks), *(text.key for text in further)
    begins = askable.tokenizer.begin_of_text
    asked += () if begins is None else (f"begins from {begins}",)
    score_id = digest(SCHEMA, "evaluate", weights_hash(askable.weights), held_out, *asked)
    if any(map(is_searched, asking.tasks)):
        further += [taught(answers, prepared).searchable for answers in askable.answers]
    askable.model.to(device)
    tables = []
    for number, task in enumerate(asking.tasks):
        tables.append(
            evaluate(
                askable.model,
                prepared,
                Evaluation(tasks=(task,), batch=batch),
                score_id=score_id,
                context=askable.context,
                device=device,
                progress=None if progress is None else _following(progress, number, task.label),
                further=further,
            )
        )
    if store.model_folder(askable.weights.name).absolute() == askable.weights:
        told = {"tasks": [task.label for task in asking.tasks], "by": "workbench evaluate"}
        store.count_evaluation(askable.weights.name, score_id, told)
    return together(tables)


def summarise(scores: pa.Table) -> list[dict[str, Any]]:
    """Return a row per task and metric: `TOLD`.

    The standard error is over new items of the same kind, by clusters where items share one; None where it cannot be
    told from so few. It says nothing about how another training run would score.
    """
    found = []
    for (task, metric), rows in scores.to_pandas().groupby(["task", "metric"], observed=True, sort=False):
        names = rows["item"].astype(str).to_numpy(dtype=np.str_)
        values, weights, flags = (rows[name].to_numpy() for name in ("value", "weight", "flags"))
        clusters = np.unique(rows["cluster"].astype(str), return_inverse=True)[1]
        try:
            error = float(items_only(values, weights=weights, clusters=clusters).standard_error)
        except StatisticsError:
            error = None
        mean = float(run_means([ItemScores(str(task), names, values, weights)])[0])
        counts = (len(values), int(clusters.max()) + 1)
        flagged = (int((flags & TRUNCATED > 0).sum()), int((flags & CONTAMINATED > 0).sum()))
        found.append(dict(zip(TOLD, (str(task), str(metric), mean, error, *counts, *flagged), strict=True)))
    return found


def keep(folder: Path, askable: Askable, variant: str, scores: pa.Table, asking: Asking) -> list[str]:
    """Write the scores beside those of other models, and a summary; return the variants that the folder now holds.

    `scores.parquet` has a row per variant, seed, task, metric and item, as `workbench analyze` reads it.

    Raises:
        DataError: if the folder holds other files of these names.
    """
    path, summary = folder / "scores.parquet", folder / "summary.json"
    plain = pa.table({name: scores[name].cast(pa.string()) for name in ("score_id", "task", "view", "metric")})
    plain = plain.append_column("item", scores["item"].cast(pa.string()))
    plain = plain.append_column("cluster", scores["cluster"].cast(pa.string()))
    for name in ("value", "weight", "flags"):
        plain = plain.append_column(name, scores[name])
    size = len(plain)
    plain = plain.add_column(0, "variant", pa.array([variant] * size, pa.string()))
    plain = plain.add_column(1, "seed", pa.array([askable.seed] * size, pa.int64()))
    entry = {
        "variant": variant,
        "seed": askable.seed,
        "model": askable.told,
        "weights_sha256": weights_hash(askable.weights),
        "context": askable.context,
        "tasks": [task.model_dump(mode="json") for task in asking.tasks],
        "searched": [{"file": Path(one.path).name, "hash": fingerprint(one)} for one in asking.against],
        "scores": summarise(scores),
    }
    kept, entries = _earlier(path, summary, plain.schema, entry)
    whole = pa.concat_tables([*kept, plain])
    folder.mkdir(parents=True, exist_ok=True)
    sink = pa.BufferOutputStream()
    pq.write_table(whole, sink)
    write_durably(path, sink.getvalue().to_pybytes())
    write_durably(summary, json.dumps({"schema": SCHEMA, "models": [*entries, entry]}, indent=2).encode())
    return list(dict.fromkeys(whole["variant"].to_pylist()))


def weights_hash(folder: Path) -> str:
    """Return the SHA-256 over the weights in a folder, file by file; computed once while they stay as they are.

    Raises:
        DataError: if there are none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DataError("a folder holds no weights", where=folder, expected="*.safetensors")
    parts = [_file_hash(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files]
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


# --- reading what was asked for


def _named(text: str, where: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    if name not in BENCHMARKS or not path:
        raise WorkbenchError(
            "examples cannot be read", where=where, expected=f"BENCHMARK=PATH ({', '.join(BENCHMARKS)})", got=text
        )
    return name, path


def _checked(kind: Any, told: str, **fields: Any) -> Any:
    try:
        return kind(**fields)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise WorkbenchError(
            "a task cannot be asked so",
            where=f"--tasks {told}" + (f", {place}" if place else ""),
            got=re.sub("^Value error, ", "", problem["msg"]),
        ) from None


def _refuse_idle(tasks: list[Task], shots: int | None, pools: dict[str, str]) -> None:
    if not tasks:
        raise WorkbenchError("nothing is asked", where="--tasks", expected=EXPECTED)
    if pools:
        raise WorkbenchError(
            "examples are given for what is not asked",
            where="--examples",
            got=", ".join(pools),
            fix="add it to --tasks",
        )
    shown = any(isinstance(task, LmEval) or (isinstance(task, BenchmarkItems) and task.shots) for task in tasks)
    if shots and not shown:
        raise WorkbenchError(
            "no task shows examples",
            where="--few-shot",
            expected="--examples BENCHMARK=FILE, from which they are taken, or a task of lm-eval",
            got=shots,
        )


def _prepared(askable: Askable, asking: Asking, store: Store) -> Prepared:
    """Return the data that tasks are drawn from: what the model was trained on, or held-out text that was named."""
    text = any(isinstance(task, BitsPerByte | SwappedWords) for task in asking.tasks)
    if askable.data is not None:
        prepared = prepare(askable.data, store.cache)
    else:
        if text and asking.text is None:
            raise DataError(
                "there is no text to be held out for this model",
                where=askable.told,
                expected="a file of text that it was not trained on: bits_per_byte=FILE",
                got="a model whose training data are not known",
            )
        prepared = _untrained(askable)
    if text and asking.text is not None:
        prepared = replace(prepared, held_out=tuple(read_documents(Files(path=asking.text))))
    return prepared


def _untrained(askable: Askable) -> Prepared:
    """Return data without a training text, for a model of which none is known."""
    nothing = TokenFile(np.empty(0, np.uint32), np.zeros(1, np.int64), np.empty((0, 32), np.uint8))
    vocabulary = askable.tokenizer.vocabulary
    facts = Facts(
        documents=0, duplicates=0, held_out_documents=0, held_out_bytes=0, training_documents=0, training_bytes=0,
        training_tokens=0, vocabulary=vocabulary, learned_vocabulary=vocabulary,
    )  # fmt: skip
    return Prepared("", askable.tokenizer, nothing, (), facts)


def _searched(corpus: Files) -> Text:
    return Text(fingerprint(corpus), lambda: (document.text for document in stream_documents(corpus)))


def _following(progress: Progress, number: int, label: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(number, label, done, total)


# --- keeping what came of it


def _earlier(
    path: Path, summary: Path, schema: pa.Schema, entry: dict[str, Any]
) -> tuple[list[pa.Table], list[dict[str, Any]]]:
    """Return what the folder holds and this evaluation does not replace."""
    if not path.exists():
        return [], []
    try:
        held = pq.read_table(path)
        entries = json.loads(summary.read_bytes())["models"]
        if held.schema.remove_metadata() != schema.remove_metadata():
            raise ValueError(f"columns {', '.join(held.column_names)}")
        asked = {row["task"] for row in entry["scores"]}
        ours = (entry["variant"], entry["seed"])
        keys = zip(*(held[name].to_pylist() for name in ("variant", "seed", "task")), strict=True)
        kept = held.filter(pa.array([(name, seed) != ours or task not in asked for name, seed, task in keys]))
        for one in list(entries):
            if (one["variant"], one["seed"]) == ours:
                entries.remove(one)
                entry["scores"] = [*(row for row in one["scores"] if row["task"] not in asked), *entry["scores"]]
                _refuse_other_weights(path, one, entry)
        return [kept], entries
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowInvalid) as error:
        raise DataError(
            "the folder holds files that are no results of workbench evaluate",
            where=path,
            got=str(error).splitlines()[0],
            fix="name another folder: --out FOLDER",
        ) from None


def _refuse_other_weights(path: Path, one: dict[str, Any], entry: dict[str, Any]) -> None:
    if one["weights_sha256"] != entry["weights_sha256"]:
        raise DataError(
            "two models of one name",
            where=path,
            expected=f"the weights that '{one['variant']}', seed {one['seed']}, had before",
            got="others",
            fix="call it otherwise: --name NAME; or name another folder: --out FOLDER",
        )


@lru_cache(maxsize=64)
def _file_hash(path: str, modified: int, size: int) -> str:
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
