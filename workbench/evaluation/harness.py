"""Tasks of lm-evaluation-harness, item by item: the harness draws, words and judges; we answer and keep the rows.

Promises one score per document and metric, under the harness's own names, of the documents that the declaration and the
data determine; a document's name holds the harness's hash of it, so that two versions of a dataset are never paired.
Subtasks of a group are its clusters. What the harness aggregates otherwise than by a mean of numbers (F1, perplexity of
words) is left out, as it has no score per item. Refuses a task that is not there, data that cannot be reached, and a
metric that was declared and does not come.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from workbench.data.prepared import Prepared
from workbench.errors import DataError, MissingExtra, WorkbenchError
from workbench.evaluation import choosing
from workbench.evaluation.asking import Asked
from workbench.evaluation.scoring import Score
from workbench.evaluation.tasks import LmEval, View
from workbench.records import TRUNCATED
from workbench.seeds import seed_for

# The harness's own seeds, so that what a task draws for itself (the order of choices, the examples) is what others get.
PYTHON_SEED, NUMPY_SEED, EXAMPLES_SEED = 0, 1234, 1234


class Posed(NamedTuple):
    """A document of a task.

    Attributes:
        task: The harness's object.
        number: Of the document in its split.
        name: Number and hash; with the subtask before it where there are several.
        cluster: The subtask, or the name itself where there is only one.
    """

    task: Any
    number: int
    name: str
    cluster: str


def draw(task: LmEval, prepared: Prepared | None, context: int) -> list[Posed]:
    """Return the documents that a task asks about: all, or so many, drawn by a hash of each, in turn from subtasks.

    Raises:
        DataError: if the task or its data cannot be loaded.
        MissingExtra: if the harness is not installed.
    """
    subtasks = _load(task, task.source_hash())
    by_subtask = []
    for name, subtask in subtasks.items():
        several = len(subtasks) > 1
        posed = []
        for number, document in enumerate(subtask.eval_docs):
            told = f"{number:06d}-{_hash(document)[:12]}"
            told = f"{name}/{told}" if several else told
            posed.append(Posed(subtask, number, told, name if several else told))
        by_subtask.append(posed)
    if task.items is None:
        return [one for posed in by_subtask for one in posed]
    for posed in by_subtask:
        posed.sort(key=lambda one: seed_for(0, f"evaluation/lm_eval/{one.name}"))
    turns = [(turn, place) for place, posed in enumerate(by_subtask) for turn in range(len(posed))]
    chosen = sorted(turns)[: task.items]
    return sorted((by_subtask[place][turn] for turn, place in chosen), key=lambda one: one.name)


def ask(task: LmEval, items: Sequence[Posed], view: View, asked: Asked) -> list[Score]:
    """Ask a model about the documents.

    Raises:
        DataError: if a declared metric does not come.
        WorkbenchError: for a model that cannot be asked so.
    """
    from workbench.evaluation.adapter import Adapter

    adapter = Adapter(asked, greedy=_has_logits(asked))
    scores: list[Score] = []
    with quiet(), seeded():
        by_task: dict[int, list[Posed]] = {}
        for one in items:
            by_task.setdefault(id(one.task), []).append(one)
        for posed in by_task.values():
            posed.sort(key=lambda one: one.number)
            _refuse_without_logits(posed[0].task, asked)
        for posed in by_task.values():
            posed[0].task.build_all_requests(samples={one.number for one in posed})  # a set: it looks each up
        _answer([posed[0].task for posed in by_task.values()], adapter)
        for posed in by_task.values():
            scores += _scores(posed, adapter)
    missing = set(task.scored) - {score.metric for score in scores}
    if missing:
        raise DataError(
            "a task does not leave what was declared",
            where=f"evaluation.tasks.{task.label}.scored",
            expected=", ".join(sorted({score.metric for score in scores})) or "a score per item",
            got=", ".join(sorted(missing)),
        )
    return scores


def _answer(tasks: list[Any], adapter: Any) -> None:
    """Put every request of all subtasks to the model at once, so that their lengths sort well."""
    by_type: dict[str, list[Any]] = {}
    for task in tasks:
        for instance in task.instances:
            by_type.setdefault(instance.request_type, []).append(instance)
    for kind, instances in by_type.items():
        repeated = [instance for instance in instances for _ in range(instance.repeats or 1)]
        adapter.greedy = adapter.greedy and any(_needs_greedy(task) for task in tasks)
        for instance, answer in zip(repeated, getattr(adapter, kind)(repeated), strict=True):
            instance.resps.append(answer)


def _needs_greedy(task: Any) -> bool:
    """Whether it can matter to a task what greedy writing gives: not where choices are compared and nothing else."""
    compared = task.OUTPUT_TYPE == "multiple_choice" and task.config.process_results is None
    return not compared or "exact_match" in task._metric_fn_list


def _scores(posed: list[Posed], adapter: Any) -> Iterator[Score]:
    task = posed[0].task
    task.apply_filters()
    by_document: dict[int, list[Any]] = {}
    for instance in task.instances:
        by_document.setdefault(instance.doc_id, []).append(instance)
    for held in by_document.values():
        held.sort(key=lambda instance: instance.idx)
    filters = list(task.instances[0].filtered_resps)
    for place, one in enumerate(posed):
        requests = by_document[place]
        flags = TRUNCATED if (str(requests[0].task_name), place) in adapter.truncated else 0
        for number, name in enumerate(filters):
            results = [request.filtered_resps[name] for request in requests]
            found = task.process_results(requests[0].doc, results)
            values = {metric: _number(metric, value, task) for metric, value in found.items()}
            if number == 0:
                values["margin"] = _margin(task, requests)
            for metric, value in values.items():
                suffix = "" if name == "none" or len(filters) == 1 else f",{name}"
                if value is not None and math.isfinite(value[0]):
                    told = "log_likelihood" if (task.OUTPUT_TYPE, metric) == ("loglikelihood", "perplexity") else metric
                    yield Score(told + suffix, one.name, one.cluster, *value, flags=flags)


def _number(metric: str, value: Any, task: Any) -> tuple[float, float] | None:
    """Return value and weight of a score; None where it is none of one item."""
    if metric == "bits_per_byte" and isinstance(value, tuple) and value[1]:
        return -float(value[0]) / math.log(2) / value[1], float(value[1])
    if isinstance(value, bool | int | float | np.integer | np.floating):
        return float(value), 1.0
    return None


def _margin(task: Any, requests: list[Any]) -> tuple[float, float] | None:
    """Return by how many nats the true choice is likelier than the best other, where one of several is true."""
    if task.OUTPUT_TYPE != "multiple_choice" or getattr(task, "multiple_target", 0):
        return None
    document = requests[0].doc
    choices = task.doc_to_choice(document)
    truth = task.doc_to_text(document) if getattr(task, "multiple_input", 0) else task.doc_to_target(document)
    truth = choices.index(truth) if isinstance(truth, str) and truth in choices else truth
    held = [float(request.resps[0][0]) for request in requests[: len(choices)]]
    if not isinstance(truth, int) or not 0 <= truth < len(held) or len(held) < 2:
        return None
    return choosing.margin(held, (truth,)), 1.0


# --- loading


@lru_cache(maxsize=8)
def _load(task: LmEval, source: str) -> dict[str, Any]:
    """Return the harness's objects of a task, a group or a tag, by name."""
    found: dict[str, Any]
    with quiet(), seeded(), _explained(task):
        found = _manager(task).load([task.definition or task.task])["tasks"]
    for subtask in found.values():
        if task.shots is not None and subtask.get_config("num_fewshot") != 0:
            subtask.set_config(key="num_fewshot", value=task.shots)
        elif subtask.get_config("num_fewshot") is None:
            subtask.set_config(key="num_fewshot", value=0)
        if task.shots and subtask.get_config("num_fewshot") == 0:
            raise DataError(
                "a task shows no examples, by its own definition",
                where=f"evaluation.tasks.{task.label}",
                expected="0 shots",
                got=task.shots,
            )
        subtask.set_fewshot_seed(seed=EXAMPLES_SEED)
    return found


def _manager(task: LmEval) -> Any:
    """Return what knows the definitions: those of the user's folder, and the harness's own only where they are asked.

    Reading the harness's own 14 thousand takes seconds.
    """
    if task.definition is not None:
        return _managed(None, False)
    mine = _managed(task.include_path, False) if task.include_path else None
    return mine if mine is not None and task.task in mine.all_tasks else _managed(task.include_path, True)


@lru_cache(maxsize=4)
def _managed(include_path: str | None, include_defaults: bool) -> Any:
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "eval") from None
    return TaskManager(include_path=include_path, include_defaults=include_defaults)


@contextlib.contextmanager
def _explained(task: LmEval) -> Iterator[None]:
    """Tell a user's mistakes and an unreachable hub in words."""
    where = f"evaluation.tasks.{task.label}"
    try:
        yield
    except WorkbenchError:
        raise
    except KeyError as error:
        raise DataError(
            "lm-evaluation-harness has no such task",
            where=where,
            expected="a name that `lm-eval ls tasks` shows, a .yaml file, or one of a folder: include_path",
            got=str(error).strip("\"'")[:200],
        ) from None
    except Exception as error:  # whatever the data library or a task's own functions raise
        remote = any(word in f"{type(error).__name__} {error}" for word in ("Connection", "hub", "Hub", "Offline"))
        raise DataError(
            "the data of a task cannot be reached" if remote else "a task cannot be loaded",
            where=where,
            expected="data on the Hugging Face hub, in its cache, or in local files" if remote else None,
            got=f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no message'}",
            fix="copy the task's .yaml to a folder of yours, set dataset_path: json and dataset_kwargs: "
            "{data_files: {test: /path/to/items.jsonl}} in it, and name the file as the task or the folder as "
            "include_path; or use a built-in benchmark, which reads local files"
            if remote
            else None,
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the harness's progress bars and its notes about what it does away from ours; warnings are kept."""
    logger = logging.getLogger("lm_eval")
    before, level = io.StringIO(), logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(before):
            import datasets

            bars = datasets.utils.logging.is_progress_bar_enabled()
            datasets.disable_progress_bars()
            try:
                yield
            finally:
                if bars:
                    datasets.enable_progress_bars()
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "eval") from None
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Let what tasks draw from global generators be what the harness gives everybody, and leave no trace."""
    before, numpy_before = random.getstate(), np.random.get_state()  # noqa: NPY002 - the harness's tasks use it
    random.seed(PYTHON_SEED)
    np.random.seed(NUMPY_SEED)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)  # noqa: NPY002


def _hash(document: Any) -> str:
    """Return the harness's hash of a document (`doc_hash` in its sample logs)."""
    from lm_eval.utils import handle_non_serializable, hash_string

    told = json.dumps(document, indent=2, default=handle_non_serializable, ensure_ascii=False)
    return str(hash_string(told))


def _has_logits(asked: Asked) -> bool:
    head = getattr(asked.model, "head", None)
    return head is None or bool(head.has_logits)


def _refuse_without_logits(task: Any, asked: Asked) -> None:
    if not _has_logits(asked) and (_needs_greedy(task) and task.OUTPUT_TYPE != "loglikelihood_rolling"):
        raise WorkbenchError(
            "the model cannot be asked what it would write",
            where=str(task.config.task),
            expected="one with a probability for every token, such as embedding table",
            got="one over bytes",
            fix="choose tasks that compare choices",
        )
