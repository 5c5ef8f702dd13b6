"""Ask a trained model every task of an evaluation, and keep what it answered item by item.

Promises that equal weights give equal bytes of scores on one machine, and the same items for every run. Refuses a task
that the corpus has no item for (`check`, before anything is trained) and scores that are not finite.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from functools import partial
from types import ModuleType
from typing import Any

import pyarrow as pa
import torch

from workbench.data.prepared import Prepared
from workbench.errors import DataError
from workbench.evaluation import bits, choices
from workbench.evaluation.scoring import LanguageModel, Progress, Score, evaluating, score_sequences
from workbench.evaluation.tasks import Evaluation
from workbench.records import scores_table

# Each module draws the items of its kind of task, and turns token costs into their scores.
_TASKS: dict[str, ModuleType] = {"bits_per_byte": bits, "swapped_words": choices}


def evaluate(
    model: LanguageModel,
    prepared: Prepared,
    evaluation: Evaluation,
    *,
    score_id: str,
    context: int,
    device: torch.device | str = "cpu",
    autocast: AbstractContextManager[Any] | None = None,
    progress: Progress | None = None,
) -> pa.Table:
    """Return the item scores of a model, one row per (task, metric, item), in the view `context=<context>`.

    Args:
        model: Any causal language model that returns nats; left in the mode in which it came.
        prepared: The data whose held-out documents it is asked about.
        evaluation: The tasks.
        score_id: What identifies these scores.
        context: The longest sequence, in tokens, that passes through the model.
        device: Where the model lies.
        autocast: Precision under which it runs, such as `torch.autocast("cpu", torch.bfloat16)`; none is float32.
        progress: Told (sequences done, sequences in all) while a task runs.

    Raises:
        DataError: if a task has no item in this corpus, or a score is not finite.
    """
    nats = partial(score_sequences, model, batch=evaluation.batch, device=device, progress=progress)
    columns: dict[str, list[Any]] = {"task": [], **{name: [] for name in Score._fields}}
    with evaluating(model), autocast or contextlib.nullcontext():
        for kind, items in draw_items(prepared, evaluation, context).items():
            for score in _TASKS[kind].score(items, nats):
                columns["task"].append(kind)
                for name, value in score._asdict().items():
                    columns[name].append(value)
    return scores_table(score_id, {**columns, "view": [f"context={context}"] * len(columns["task"])})


def draw_items(prepared: Prepared, evaluation: Evaluation, context: int) -> dict[str, list[Any]]:
    """Return the items of every task; called before training, it tells in time that a task has none.

    Raises:
        DataError: if the corpus has no item for a task.
    """
    drawn: dict[str, list[Any]] = {
        task.kind: _TASKS[task.kind].draw(task, prepared, context) for task in evaluation.tasks
    }
    for kind, items in drawn.items():
        if not items:
            raise DataError(
                "the corpus has no item for a task",
                where=f"evaluation.tasks.{kind}",
                expected="at least one item in the held-out documents",
                got=f"none in {len(prepared.held_out)} documents",
                fix="raise data.held_out, give more text, or leave this task out",
            )
    return drawn
