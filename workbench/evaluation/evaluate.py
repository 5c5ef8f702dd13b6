"""Ask a trained model every task of an evaluation, in every view, and keep what it answered item by item.

Every view of a metric has a name of its own (`bits_per_byte@2x`), so that nothing downstream can mix two of them.
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

from architectures.exits import AtExit, Confident
from workbench.data.prepared import Prepared
from workbench.errors import DataError
from workbench.evaluation import answered, bits, choices
from workbench.evaluation.scoring import LanguageModel, Progress, Score, evaluating, measure_sequences
from workbench.evaluation.tasks import BitsPerByte, Evaluation, Task, View
from workbench.records import scores_table

# Each module draws the items of its kind of task, says which sequences they are, and turns answers into their scores.
_TASKS: dict[str, ModuleType] = {"bits_per_byte": bits, "swapped_words": choices, "answers": answered}


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
    """Return the item scores of a model, one row per (task, metric, item), the view beside.

    Args:
        model: Any causal language model that returns nats; left in the mode in which it came. Views at earlier exits
            need a `Transformer`.
        prepared: The data whose held-out documents it is asked about.
        evaluation: The tasks.
        score_id: What identifies these scores.
        context: The training context: the longest sequence, in tokens, that passes through the model, except in the
            views that ask for multiples of it.
        device: Where the model lies.
        autocast: Precision under which it runs, such as `torch.autocast("cpu", torch.bfloat16)`; none is float32.
        progress: Told (sequences done, sequences in all) while a task runs in one view.

    Raises:
        DataError: if a task has no item in this corpus, or a score is not finite.
    """
    measure = partial(measure_sequences, batch=evaluation.batch, device=device, progress=progress)
    columns: dict[str, list[Any]] = {name: [] for name in ("task", "view", *Score._fields)}
    drawn = draw_items(prepared, evaluation, context)
    asked = [(task, view) for task in evaluation.tasks for view in task.views]
    with evaluating(model), autocast or contextlib.nullcontext():
        for task, view in asked:
            module, items = _TASKS[task.kind], _seen(task, drawn[task.kind], context * view.multiple)
            reader, measures = _read(model, view)
            answers = measure(reader, module.sequences(items), measures=measures)
            for score in module.score(items, answers):
                row = {"task": task.kind, "view": view.label(context), **score._asdict()}
                for name, value in {**row, "metric": score.metric + view.suffix}.items():
                    columns[name].append(value)
    return scores_table(score_id, columns)


def _seen(task: Task, items: list[Any], context: int) -> list[Any]:
    """Return the items as a model of that context sees them."""
    return bits.spread(task, items, context) if isinstance(task, BitsPerByte) else items


def _read(model: Any, view: View) -> tuple[LanguageModel, tuple[str, ...]]:
    """Return the model as a view reads it, and what can be measured there."""
    if view.exit is not None:
        return AtExit(model, view.exit), ("nats",)
    if view.confidence is not None:
        return Confident(model, view.confidence), ("nats", "layers")
    return model, ("nats",)


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
