"""Which weights of a trained model are scored: those its evaluation asks about, one after the other.

Promises that every one of them is scored as the last is, with the stages after training applied.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import nn

from workbench.configuration import Configuration
from workbench.errors import StoreError
from workbench.training.checkpoints import kept, load_final, load_kept
from workbench.training.keeping import load_best


def visit(configuration: Configuration, folder: Path, model: nn.Module) -> Iterator[int | None]:
    """Put the weights that are scored into a model, in turn; yield after how many tokens they stood, None at the last.

    Args:
        configuration: Of the model.
        folder: Of its last stage of training, which has ended.
        model: As it was trained; changed.

    Raises:
        StoreError: if weights are missing or damaged.
    """
    held = {one.tokens: one for one in kept(folder)} if configuration.trajectory else {}
    for tokens in configuration.trajectory:
        if tokens not in held:
            raise StoreError(
                "weights kept on the way are gone",
                where=folder,
                expected=f"those after {tokens:,} tokens",
                got=", ".join(f"{one:,}" for one in held) or "none",
                fix="remove the folder; the model is trained again",
            )
        load_kept(held[tokens], model)
        _finish(configuration, model)
        yield tokens
    load_scored(configuration, folder, model, trained=not configuration.trajectory)
    _finish(configuration, model)
    yield None


def load_scored(configuration: Configuration, folder: Path, model: nn.Module, *, trained: bool = False) -> None:
    """Put the weights that a model is scored by into it, before any stage after training.

    Args:
        configuration: Of the model.
        folder: Of its last stage of training, which has ended.
        model: Of that architecture; changed.
        trained: Whether it holds the weights at the end of training already.

    Raises:
        StoreError: if weights are missing or damaged.
    """
    if configuration.evaluation.checkpoint == "best":
        load_best(folder, model)
    elif not trained:
        load_final(folder, model)


def _finish(configuration: Configuration, model: nn.Module) -> None:
    for stage in configuration.after:
        stage.apply(model)
