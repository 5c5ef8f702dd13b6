"""The best weights of a run by a declared rule, beside those at its end.

Best is least in training loss, averaged over some points of the learning curve. No held-out text has a say, so that
what is chosen can be scored on all of it. The choice is a function of the run alone: an interrupted run keeps what an
uninterrupted one does, and what a rollback takes back is none of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from workbench.errors import StoreError
from workbench.identity import Spec, setting
from workbench.training.checkpoints import (
    Progress,
    best_stem,
    load_final,
    load_tensors,
    pack_weights,
    read_state,
    write_state,
)


class KeepBest(Spec):
    """Which weights of a run are its best: where the loss is least, the earliest of equals.

    The last of them are held in the memory of the host until a checkpoint is written.

    Attributes:
        points: Points of the learning curve over whose losses the mean is taken, that of the weights the last. The
            curve has about a hundred; each is the loss of one step.
        after: Share of the steps before which nothing is kept, as the loss falls then anyway.
    """

    points: int = setting(default=10, effect="training", ge=1)
    after: float = setting(default=0.5, effect="training", ge=0, lt=1)


class Keeper:
    """Keeps the best weights of one run as its rule says; without a rule it does nothing.

    Args:
        rule: Of the stage.
        folder: Of the run's checkpoints.
        model: As it stands.
        progress: Of the run; `bests` is kept up to date here.
        steps: Of the run.
    """

    def __init__(self, rule: KeepBest | None, folder: Path, model: nn.Module, progress: Progress, steps: int) -> None:
        self._rule, self._folder, self._model, self._progress, self._steps = rule, folder, model, progress, steps
        self._contents: dict[int, bytes] = {}  # not written yet, by step

    def look(self) -> None:
        """Keep the weights as they stand, at the last point of the curve, if they are the best so far."""
        rule, progress = self._rule, self._progress
        if rule is None or progress.step < rule.after * self._steps:
            return
        losses = [row["loss"] for row in progress.curve[-rule.points :]]
        loss = sum(losses) / len(losses)
        if progress.bests and loss >= progress.bests[-1]["loss"]:
            return
        # a spike may take the run back to its point, and what was best there is then the best again
        safe = [one for one in progress.bests if progress.point is not None and one["step"] <= progress.point]
        new = {"step": progress.step, "tokens": progress.curve[-1]["tokens"], "loss": loss}
        progress.bests = [*safe[-1:], new]
        if progress.step < self._steps:  # the end is kept anyway; of several devices all must ask for the content
            self._contents[progress.step] = pack_weights(self._model)
        self._contents = {one["step"]: self._contents[one["step"]] for one in self._pending()}

    def go_back(self) -> None:
        """Forget what a rollback took back."""
        progress = self._progress
        progress.bests = [one for one in progress.bests if one["step"] <= progress.step]

    def secure(self) -> None:
        """Write the best weights, without which a checkpoint is of no use.

        Raises:
            StoreError: if the disk refuses it.
        """
        for one in self._pending():
            write_state(best_stem(self._folder, one["step"]), self._contents[one["step"]], one)
        self._contents = {}

    def described(self) -> dict[str, Any] | None:
        """Return which weights are the best and by which rule, for the summary of the run; None without a rule."""
        if self._rule is None or not self._progress.bests:
            return None
        return {**self._progress.bests[-1], "rule": self._rule.model_dump()}

    def _pending(self) -> list[dict[str, Any]]:
        return [one for one in self._progress.bests if one["step"] in self._contents]


def load_best(folder: Path, model: nn.Module) -> dict[str, Any]:
    """Load the best weights of a run that has ended, and return which they are: step, tokens, loss, rule.

    Raises:
        StoreError: if the run kept none, or they are not those that were saved.
    """
    try:
        described: dict[str, Any] = json.loads((folder / "final.json").read_text())
    except FileNotFoundError:
        described = {}
    best = described.get("best")
    if best is None:
        raise StoreError(
            "the model kept no best weights", where=folder, fix="train it with keep_best=KeepBest() in its last stage"
        )
    if best["tokens"] == described["costs"]["tokens"]:
        load_final(folder, model)
        return dict(best)
    found = read_state(best_stem(folder, best["step"]))
    if found is None or found[0] != {name: best[name] for name in ("step", "tokens", "loss")}:
        raise StoreError(
            "the best weights are damaged", where=folder, fix="remove the folder of the model; it is trained again"
        )
    load_tensors(found[1], model)
    return dict(best)
