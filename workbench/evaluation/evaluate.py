"""Ask a trained model every task of an evaluation, in every view, and keep what it answered item by item.

Every view of a metric has a name of its own (`bits_per_byte@2x`), so that nothing downstream can mix two of them.
Promises that equal weights give equal bytes of scores on one machine, and the same items for every run. Refuses a task
that the corpus has no item for (`check`, before anything is trained) and scores that are not finite.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import pyarrow as pa
import torch

from workbench.data.contamination import Text
from workbench.data.prepared import Prepared
from workbench.errors import DataError
from workbench.evaluation import answered, benchmarks, bits, choices, harness, occupied
from workbench.evaluation.asking import Asked
from workbench.evaluation.scoring import LanguageModel, Progress, Score, evaluating
from workbench.evaluation.searched import contaminated
from workbench.evaluation.tasks import Evaluation
from workbench.records import CONTAMINATED, scores_table

# Each module draws the items of its kind of task, asks a model about them, and turns its answers into their scores.
_TASKS: dict[str, ModuleType] = {
    "bits_per_byte": bits,
    "swapped_words": choices,
    "answers": answered,
    "benchmark": benchmarks,
    "occupations": occupied,
    "lm_eval": harness,
}


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
    tokens: int | None = None,
    further: Sequence[Text] = (),
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
        tokens: Where the model is one on its way, after how many tokens; it is then asked in the first view of every
            task alone, and metrics say so (`bits_per_byte@tokens=102400`).
        further: Text beside the training documents in which items count as contaminated.

    Raises:
        DataError: if a task has no item in this corpus, or a score is not finite.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("task", "view", *Score._fields)}
    drawn = draw_items(prepared, evaluation, context)
    questions = [(task, view) for task in evaluation.tasks for view in task.views]
    if tokens is not None:
        questions = [(task, task.views[0]._replace(tokens=tokens)) for task in evaluation.tasks]
    asked = Asked(model, prepared.tokenizer, context, batch=evaluation.batch, device=device, progress=progress)
    with evaluating(model), autocast or contextlib.nullcontext():
        for task, view in questions:
            known = contaminated(task, drawn[task.label], prepared, further)
            for score in _TASKS[task.kind].ask(task, drawn[task.label], view, asked):
                row = {"task": task.label, "view": view.label(context), **score._asdict()}
                row["flags"] |= CONTAMINATED if score.item in known else 0
                for name, value in {**row, "metric": score.metric + view.suffix}.items():
                    columns[name].append(value)
    return scores_table(score_id, columns)


def draw_items(prepared: Prepared, evaluation: Evaluation, context: int) -> dict[str, list[Any]]:
    """Return the items of every task, by its label; called before training, it tells in time that a task has none.

    Raises:
        DataError: if the corpus has no item for a task.
    """
    drawn: dict[str, list[Any]] = {
        task.label: _TASKS[task.kind].draw(task, prepared, context) for task in evaluation.tasks
    }
    for label, items in drawn.items():
        if not items:
            raise DataError(
                "the corpus has no item for a task",
                where=f"evaluation.tasks.{label}",
                expected="at least one item in the held-out documents",
                got=f"none in {len(prepared.held_out)} documents",
                fix="raise data.held_out, give more text, or leave this task out",
            )
    return drawn
